"""A training step on several kinds of chips, composed of what each kind does: seconds and memory, [candidate].

Every side is evaluated as the whole job would be on its kind, by the functions that evaluate one pool. What the sides
do together takes as long as the slower one needs, and goes over their join. Sides of the same kind therefore give what
one pool of them gives.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.hardware.mix import OWN, Join
from ultratwin.hardware.system import Pool, per_rank
from ultratwin.mapping.plan import IntLike, Plan
from ultratwin.planning.evaluate import Setting, plan_memory
from ultratwin.timing.communication import Groups, wires_of
from ultratwin.timing.step import Beyond, StepTimes, step_times

WAITING: Final = "waiting for the other kind"
"""What a side's step has beside the causes of a step on one pool."""
STAGES: Final = "stages"
GROUPS: Final = "groups"
TENSOR: Final = "tensor"
WAYS: Final = (STAGES, GROUPS, TENSOR)
"""Ways to divide a job: stages of one pipeline, groups of replicas, or the matrices of each layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPlan:
    """Layouts of one job on several kinds, each number an int or an array [candidate].

    sides: each kind's own layout: its ranks, its pipeline stages, its replicas, and the sequences of a global batch
        that pass through it; in the order of the pipeline where stages are what is divided
    layers: that each side holds; all of them where each side has the whole model
    """

    sides: tuple[Plan, ...]
    layers: tuple[IntLike, ...]

    @property
    def num_ranks(self) -> IntLike:
        """Ranks of all sides."""
        return functools.reduce(np.add, (np.asarray(side.num_ranks) for side in self.sides))


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedTimes:
    """Seconds of a step and what they go to on each side, in the order of the plan's sides, [candidate].

    The seconds of a side's causes (`side_parts`) sum to `total_s`: it waits for the others. `memory_bytes`: of each
    side's fullest rank.
    """

    total_s: Number
    sides: tuple[StepTimes, ...]
    memory_bytes: tuple[Number, ...]


def side_parts(times: StepTimes) -> dict[str, Number]:
    """Seconds of one side by cause, what it waits for the others among them."""
    return {**times.parts, WAITING: times.once.get(WAITING, 0.0)}


def as_one_pool(times: StepTimes) -> StepTimes:
    """A side's times in the causes of one pool: what it waits for the others is a pipeline bubble, and draws as little.

    `parts` then sum to `total_s`.
    """
    once = {name: seconds for name, seconds in times.once.items() if name != WAITING}
    once["pipeline bubble"] = once["pipeline bubble"] + times.once.get(WAITING, 0.0)
    return dataclasses.replace(times, once=once)


def joined_pool(pool: Pool, join: Join) -> Pool:
    """A pool as a group of ranks sees it that reaches into other kinds: no link is faster than the join.

    A scale-up domain is then that of both kinds. The same pool where its own links are no faster.
    """
    way = pool.fabric if join.kind == "scale-out" else pool.domain
    size = pool.domain.size if join.kind == "scale-out" else join.domain_chips
    slower = np.any(np.asarray(way.bytes_per_s) > join.bytes_per_s) or np.any(
        np.asarray(way.latency_s) < join.latency_s
    )
    if not slower and size == pool.domain.size:
        return pool
    speed, latency = np.minimum(way.bytes_per_s, join.bytes_per_s), np.maximum(way.latency_s, join.latency_s)
    if join.kind == "scale-out":
        fabric = dataclasses.replace(pool.fabric, bytes_per_s=speed, latency_s=latency)
        return dataclasses.replace(pool, fabric=fabric)
    domain = dataclasses.replace(pool.domain, size=size, bytes_per_s=speed, latency_s=latency)
    return dataclasses.replace(pool, domain=domain)


def largest(values: Sequence[Number]) -> Number:
    """The largest over sides, [candidate]."""
    return functools.reduce(np.maximum, values)


def straggling(sides: Sequence[Setting], num_ranks: IntLike) -> Number:
    """Share of a step lost to the slowest of all ranks, by the framework that loses most; as timing/step.py has it."""
    frac = largest([setting.profile.straggler_frac for setting in sides])
    return frac * np.log2(np.maximum(np.asarray(num_ranks) / 8.0, 1.0))


def after_the_batch_s(times: StepTimes) -> Number:
    """What follows a side's last micro-batch but for gradients: weights and shards, optimizer, host."""
    return times.once["weight sharding communication"] + times.once["optimizer"] + times.once["host, per step"]


def ended(times: StepTimes, own_s: Number, end_s: Number, late: Number) -> StepTimes:
    """A side that is done after `own_s` and waits until all are, at `end_s`.

    One that needs longer has done the rest of it in its pipeline bubble, which is shorter by so much.
    """
    waits = end_s - np.asarray(own_s)
    once = {
        **times.once,
        "pipeline bubble": times.once["pipeline bubble"] + np.minimum(waits, 0.0),
        WAITING: np.maximum(waits, 0.0),
        "stragglers": end_s * late,
    }
    return dataclasses.replace(times, total_s=end_s * (1.0 + late), once=once)


def whole_groups(plan: MixedPlan) -> tuple[Plan, ...]:
    """Each side's layout with the replicas of all sides, as if they were of its kind, [candidate].

    Equation: D_i = sum_j d_j c_j / c_i
    Symbols: d data, c context parallelism of a side: gradients are summed and states sharded over all of them
    """
    copies = functools.reduce(np.add, (np.asarray(side.data_shard_size) for side in plan.sides))
    found = []
    for side in plan.sides:
        data = np.maximum(copies // np.asarray(side.context_parallel_size), 1)
        batch = np.asarray(side.num_micro_batches) * side.micro_batch_size * data
        found.append(dataclasses.replace(side, data_parallel_size=data, global_batch_size=batch).as_arrays())
    return tuple(found)


def grouped_times(sides: Sequence[Setting], join: Join, plan: MixedPlan) -> MixedTimes:
    """A step of replicas on several kinds, each kind with its own layout and its share of the micro-batches.

    Equation:  T = (max_i(m_i t_i + bubble_i) + max_i sync_i + max_i rest_i)(1 + stragglers)
    Symbols: m_i micro-batches of a side, t_i its slowest stage; sync_i its gradients, summed over the replicas of all
        sides over the join; rest_i optimizer and host
    Args: sides: in the order of plan.sides; join: between them; plan: layouts [candidate]
    Returns: seconds and bytes [candidate]
    Source: docs/explanation/mixed-training.md; each term is that of timing/step.py
    """
    whole = whole_groups(plan)
    done = [_grouped_side(*each) for each in zip(sides, [join] * len(sides), plan.sides, whole, strict=True)]
    sync = [each.once["gradient synchronisation"] for each in done]
    rest = [after_the_batch_s(each) for each in done]
    own = [np.asarray(each.total_s - each.once["stragglers"]) for each in done]
    running = [before - one - other for before, one, other in zip(own, sync, rest, strict=True)]
    end = largest(running) + largest(sync) + largest(rest)
    late = straggling(sides, plan.num_ranks)
    return MixedTimes(
        total_s=end * (1.0 + late),
        sides=tuple(ended(each, before, end, late) for each, before in zip(done, own, strict=True)),
        memory_bytes=tuple(
            plan_memory(setting.model, setting.recipe, setting.profile, each).total_bytes
            for setting, each in zip(sides, whole, strict=True)
        ),
    )


def _grouped_side(setting: Setting, join: Join, side: Plan, whole: Plan) -> StepTimes:
    """One side's step: layers on its own links, gradients and shards over the join too, as they reach other kinds."""
    joined = per_rank(joined_pool(setting.pool, join))
    apart = Groups(plan=whole, domain_size=replica_domain(joined.domain.size, join, side))
    beyond = Beyond(replicas=(wires_of(joined), apart))
    return step_times(setting.model, setting.pool, whole, setting.recipe, setting.profile, beyond)


def replica_domain(domain_size: Number, join: Join, side: Plan) -> Number:
    """Ranks of a domain that replicas of all kinds can share: on a network between kinds no more than a side's own.

    Shares of one system are placed as one pool of them is.
    """
    if join.kind == "scale-up" or join.fabric == OWN:
        return domain_size
    own = np.asarray(side.tensor_parallel_size) * side.data_shard_size
    return np.minimum(domain_size, np.asarray(own, dtype=np.float64))


def tensor_pool(pool: Pool, join: Join, share: int) -> Pool:
    """A kind's pool as tensor-parallel groups see it of whose ranks so many are of each kind.

    Over a network a group's ranks are in as many domains as there are kinds; in one domain they stay together.
    """
    joined = joined_pool(pool, join)
    if join.kind == "scale-up":
        return joined
    size = max(min(share // pool.ranks_per_chip, pool.domain.size), 1)
    return dataclasses.replace(joined, domain=dataclasses.replace(joined.domain, size=size))


def tensor_times(sides: Sequence[Setting], join: Join, plan: Plan) -> MixedTimes:
    """A step whose tensor-parallel groups have equal parts of their ranks on every kind.

    Every matrix is cut into equal parts, and every layer is summed over the join: the slower chip and the slower link
    set the pace.
    Equation:  T = max_i T_i, T_i the step if all ranks were of kind i, with no link faster than the join
    Args: sides: kinds; join: between them; plan: the layout of all ranks together, [candidate] of one tensor size
    Returns: seconds and bytes [candidate]
    """
    plan = plan.as_arrays()
    share = int(np.max(plan.tensor_parallel_size)) // len(sides)
    done = [
        step_times(
            setting.model, tensor_pool(setting.pool, join, share), plan, setting.recipe, setting.profile
        )
        for setting in sides
    ]  # fmt: skip
    own = [np.asarray(each.total_s - each.once["stragglers"]) for each in done]
    end, late = largest(own), straggling(sides, plan.num_ranks)
    return MixedTimes(
        total_s=end * (1.0 + late),
        sides=tuple(ended(each, before, end, late) for each, before in zip(done, own, strict=True)),
        memory_bytes=tuple(
            plan_memory(setting.model, setting.recipe, setting.profile, plan).total_bytes for setting in sides
        ),
    )
