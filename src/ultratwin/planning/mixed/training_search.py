"""The best layouts of a job on two kinds of chips, beside the best of each kind alone."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.chip import Number
from ultratwin.hardware.mix import OWN, Join
from ultratwin.hardware.system import per_rank
from ultratwin.mapping.feasible import memory_fits, shape_reasons
from ultratwin.mapping.plan import IntLike, Plan
from ultratwin.mapping.schedules import SCHEDULE_NAMES
from ultratwin.planning.evaluate import Setting, plan_memory
from ultratwin.planning.mixed.training_candidates import (
    CHUNKS,
    grouped_batch,
    stage_rows,
    staged_batches,
    tensor_batches,
)
from ultratwin.planning.mixed.training_stages import STAGE_SCHEDULES, stage_count, staged_times
from ultratwin.planning.mixed.training_step import (
    GROUPS,
    STAGES,
    TENSOR,
    MixedPlan,
    MixedTimes,
    as_one_pool,
    grouped_times,
    tensor_times,
    whole_groups,
)
from ultratwin.planning.power.chip import step_energy_j
from ultratwin.planning.search import Found, search
from ultratwin.timing.step import step_times

PURE: Final = "one kind"
KEPT: Final = 48
"""Layouts of each kind alone that replicas of both kinds are paired from."""
ROUNDS: Final = 8
"""Batches of each schedule and order, at most: they come with the fastest first."""
_FEW: Final = 10
_SLOWER: Final = 1.5
"""Where energy is to be least, plans so much slower than those that are kept are looked at too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedCandidate:
    """One layout of a job: which way it is divided, and what it takes.

    order: which pools its sides are, in the order of `plan.sides`; batch: sequences of a step
    energy_j: of a step, all chips that take part, with their share of host and network
    """

    way: str
    order: tuple[int, ...]
    plan: MixedPlan
    batch: int
    step_s: float
    energy_j: float
    memory_bytes: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedFound:
    """What a search over mixes found.

    best: of each way to divide the job, best first; pure: the search of each pool alone
    why: what keeps a way from running, in a line; num_plans: mixed plans evaluated; num_feasible: that can run
    """

    best: Mapping[str, tuple[MixedCandidate, ...]]
    pure: tuple[Found, ...]
    why: Mapping[str, str]
    num_plans: int
    num_feasible: int

    def all(self) -> list[MixedCandidate]:
        """Every candidate that was kept."""
        return [each for found in self.best.values() for each in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedSetting:
    """What is the same for all candidates: each kind with its ranks, and their join."""

    sides: tuple[Setting, ...]
    ranks: tuple[int, ...]
    join: Join

    def in_order(self, order: Sequence[int]) -> tuple[Setting, ...]:
        """The kinds in the order of a plan's sides."""
        return tuple(self.sides[at] for at in order)


def together(setting: MixedSetting) -> tuple[Setting, ...]:
    """The kinds as they stand when they work together: in a scale-up domain that they share each has its part of it.

    Every domain then holds both, in proportion to their chips. Shares of one system are placed as one pool of them is.
    """
    join = setting.join
    if join.kind == "scale-out" or join.fabric == OWN:
        return setting.sides
    chips = [ranks // side.pool.ranks_per_chip for side, ranks in zip(setting.sides, setting.ranks, strict=True)]
    found = []
    for side, own in zip(setting.sides, chips, strict=True):
        size = max(min(join.domain_chips * own // sum(chips), side.pool.domain.size), 1)
        domain = dataclasses.replace(side.pool.domain, size=size)
        found.append(dataclasses.replace(side, pool=dataclasses.replace(side.pool, domain=domain)))
    return tuple(found)


def mixed_times(setting: MixedSetting, way: str, order: Sequence[int], plan: MixedPlan) -> MixedTimes:
    """Seconds and memory of plans that divide a job in one way, [candidate]."""
    sides = tuple((setting.sides if way == PURE else together(setting))[at] for at in order)
    if way == STAGES:
        return staged_times(sides, setting.join, plan)
    if way == GROUPS:
        return grouped_times(sides, setting.join, plan)
    if way == TENSOR:
        return tensor_times(sides, setting.join, plan.sides[0])
    (only,) = sides
    times = step_times(only.model, only.pool, plan.sides[0], only.recipe, only.profile)
    memory = plan_memory(only.model, only.recipe, only.profile, plan.sides[0])
    return MixedTimes(total_s=times.total_s, sides=(times,), memory_bytes=(memory.total_bytes,))


def side_chips(setting: MixedSetting, way: str, order: Sequence[int], plan: MixedPlan) -> list[Number]:
    """Chips of each side that take part, in the order of the plan's sides."""
    ranks = [side.num_ranks for side in plan.sides]
    if way == TENSOR:
        ranks = [ranks[0] // len(order)] * len(order)
    return [count / setting.sides[at].pool.ranks_per_chip for at, count in zip(order, ranks, strict=True)]


def mixed_energy_j(setting: MixedSetting, way: str, order: Sequence[int], plan: MixedPlan, times: MixedTimes) -> Number:
    """Energy of a step, all chips with their share of host and network, before PUE, [candidate]."""
    total: Number = 0.0
    chips = side_chips(setting, way, order, plan)
    for at, count, side in zip(order, chips, times.sides, strict=True):
        total = total + count * step_energy_j(as_one_pool(side), setting.sides[at].pool)
    return total


class _Best:
    """The best few candidates of one way."""

    def __init__(self, setting: MixedSetting, objective: str, batch: int) -> None:
        self._setting, self._batch = setting, batch
        self._saving = objective in ("energy", "carbon")
        self.found: list[MixedCandidate] = []
        self.num_plans = self.num_feasible = 0

    @property
    def limit_s(self) -> float:
        """Step time above which nothing is looked for: that of the worst plan that is kept."""
        if len(self.found) < _FEW:
            return np.inf
        return max(each.step_s for each in self.found) * (_SLOWER if self._saving else 1.0)

    def add(self, way: str, order: tuple[int, ...], plan: MixedPlan) -> None:
        """Evaluates plans [1, candidate] and keeps the best of them."""
        times = mixed_times(self._setting, way, order, plan)
        shape = np.shape(times.total_s)
        good = self._feasible(way, order, plan, times, shape)
        self.num_plans += good.size
        self.num_feasible += int(np.count_nonzero(good))
        if not good.any():
            return
        energy = np.broadcast_to(mixed_energy_j(self._setting, way, order, plan, times), shape)
        goal = np.where(good, energy if self._saving else times.total_s, np.inf).ravel()
        few = np.argsort(goal, kind="stable")[:_FEW]
        for at in few[np.isfinite(goal[few])]:
            where = np.unravel_index(at, shape)
            self.found.append(
                MixedCandidate(
                    way=way, order=order, plan=plan_at(plan, int(at), shape), batch=self._batch,
                    step_s=float(np.asarray(times.total_s)[where]), energy_j=float(energy[where]),
                    memory_bytes=tuple(float(np.broadcast_to(each, shape)[where]) for each in times.memory_bytes),
                )
            )  # fmt: skip
        self._trim()

    def _feasible(
        self, way: str, order: tuple[int, ...], plan: MixedPlan, times: MixedTimes, shape: tuple[int, ...]
    ) -> NDArray[np.bool_]:
        sides = self._setting.in_order(order)
        good = np.ones(shape, dtype=bool)
        for setting, memory in zip(sides, times.memory_bytes, strict=True):
            good &= np.broadcast_to(memory_fits(memory, per_rank(setting.pool)), shape)
        for setting, whole in zip(sides, wholes(way, plan), strict=False):
            good &= np.broadcast_to(shape_reasons(setting.model, whole, float_of(whole.num_ranks)) == 0, shape)
        if way == GROUPS:
            good &= np.broadcast_to(replicated_alike(plan), shape)
        return good

    def _trim(self) -> None:
        unique = {(each.step_s, each.energy_j, str(each.plan)): each for each in self.found}
        ranked = sorted(
            unique.values(), key=lambda each: (each.energy_j if self._saving else each.step_s, each.memory_bytes)
        )
        self.found = ranked[:_FEW]


def float_of(count: IntLike) -> Number:
    """A count as the number that formulas take."""
    return np.asarray(count, dtype=np.float64)


def plan_at(plan: MixedPlan, index: int, shape: tuple[int, ...]) -> MixedPlan:
    """One candidate of plans, counted along a flattened shape, as plain ints."""

    def one(value: object) -> int:
        return int(np.broadcast_to(np.asarray(value), shape).ravel()[index])

    return MixedPlan(
        sides=tuple(
            Plan(**{each.name: one(getattr(side, each.name)) for each in dataclasses.fields(side)})
            for side in plan.sides
        ),
        layers=tuple(one(each) for each in plan.layers),
    )


def wholes(way: str, plan: MixedPlan) -> tuple[Plan, ...]:
    """Each side's layout as the whole job would be on its kind: what its sizes must divide."""
    if way == STAGES:
        return tuple(dataclasses.replace(side, pipeline_parallel_size=stage_count(plan)) for side in plan.sides)
    return whole_groups(plan) if way == GROUPS else plan.sides


def replicated_alike(plan: MixedPlan) -> NDArray[np.bool_]:
    """Whether experts have as many copies for each copy of the rest on every side, so that shards are equal."""
    share = [
        np.asarray(side.tensor_parallel_size)
        / (np.asarray(side.expert_parallel_size) * side.expert_tensor_parallel_size)
        for side in plan.sides
    ]
    copies = sum(np.asarray(side.data_shard_size) for side in plan.sides)
    whole = [copies % np.asarray(side.context_parallel_size) == 0 for side in plan.sides]
    return np.asarray((share[0] == share[-1]) & whole[0] & whole[-1])


def mixed_search(
    setting: MixedSetting, fixed: Mapping[str, int], *, layers: tuple[int, ...] = (), objective: str = "time"
) -> MixedFound:
    """The best layouts of a job on two kinds, in every way to divide it, and on each kind alone.

    Args:
        setting: the kinds, their ranks, their join
        fixed: axes that are given, by their name in Plan, on both kinds; batch and sequence length always are
        layers: that each kind's stages hold, where that is given: the stages are then what is divided
        objective: what is to be least: "time", or "energy" (cost and carbon follow them)
    Returns: the best of each way; the pure layouts are among them, so that none beats the best
    """
    pure = tuple(
        search(side, ranks, fixed, keep=KEPT, objective=objective)
        for side, ranks in zip(setting.sides, setting.ranks, strict=True)
    )
    best = {PURE: _pure(setting, pure)}
    why: dict[str, str] = {}
    counts = [0, 0]
    ways: list[tuple[str, Callable[[_Best], str]]] = [
        (STAGES, lambda kept: _try_stages(kept, setting, fixed, layers)),
        (GROUPS, lambda kept: _try_groups(kept, setting, fixed, pure)),
        (TENSOR, lambda kept: _try_tensor(kept, setting, fixed)),
    ]
    for way, tried in ways[: (0 if len(setting.sides) == 1 else 1 if layers else 3)]:
        kept = _Best(setting, objective, fixed["global_batch_size"])
        reason = tried(kept)
        best[way] = tuple(kept.found)
        counts = [counts[0] + kept.num_plans, counts[1] + kept.num_feasible]
        if not kept.found:
            why[way] = reason or "no layout of it fits into the memory of both kinds"
    return MixedFound(best=best, pure=pure, why=why, num_plans=counts[0], num_feasible=counts[1])


def _pure(setting: MixedSetting, pure: Sequence[Found]) -> tuple[MixedCandidate, ...]:
    found = [
        MixedCandidate(
            way=PURE, order=(at,), plan=MixedPlan(sides=(each.plan,), layers=(setting.sides[at].model.num_layers,)),
            batch=int(each.plan.global_batch_size), step_s=each.step_s,
            energy_j=each.energy_j * setting.ranks[at] / setting.sides[at].pool.ranks_per_chip,
            memory_bytes=(each.memory_bytes,),
        )
        for at, result in enumerate(pure)
        for each in result.best[:1]
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda each: each.step_s))


def _variants(setting: MixedSetting, fixed: Mapping[str, int]) -> list[tuple[int, int]]:
    """Schedules that the frameworks of both kinds have, with the model chunks that each is tried with."""
    names = [
        name
        for name in setting.sides[0].profile.schedules
        if name in STAGE_SCHEDULES and all(name in side.profile.schedules for side in setting.sides)
    ]
    if "schedule" in fixed:
        names = [SCHEDULE_NAMES[fixed["schedule"]]]
        names = [name for name in names if name in STAGE_SCHEDULES]
    found = []
    for name in names:
        chunks: Sequence[int] = CHUNKS if name == "interleaved" else (1,)
        if "virtual_pipeline_size" in fixed:
            asked = fixed["virtual_pipeline_size"]
            chunks = [asked] if (asked > 1) == (name == "interleaved") else []
        found += [(SCHEDULE_NAMES.index(name), each) for each in chunks]
    return found


def _try_stages(kept: _Best, setting: MixedSetting, fixed: Mapping[str, int], layers: tuple[int, ...]) -> str:
    asked = fixed.get("pipeline_parallel_size")
    if asked is not None and asked < len(setting.sides):
        return f"a pipeline of {asked} stage leaves a pool without layers"
    shared = together(setting)
    rows = [stage_rows(side, ranks, fixed) for side, ranks in zip(shared, setting.ranks, strict=True)]
    if any(each is None for each in rows):
        return "no sizes divide the ranks of each kind and the global batch"
    variants = _variants(setting, fixed)
    if not variants:
        return f"the frameworks share no schedule of {', '.join(STAGE_SCHEDULES)}"
    paired = False
    for (schedule, chunks), order in itertools.product(variants, itertools.permutations(range(len(rows)))):
        sides, ready = [shared[at] for at in order], [rows[at] for at in order]
        batches = staged_batches(
            sides, [each for each in ready if each is not None], fixed, schedule, chunks,
            wanted=layers[order[0]] if layers else None, most_s=lambda: kept.limit_s,
        )  # fmt: skip
        for plan in itertools.islice(batches, ROUNDS):
            paired = True
            kept.add(STAGES, order, plan)
    return "" if paired else "no layouts of both kinds take equally many sequences at once, and fit"


def _try_groups(kept: _Best, setting: MixedSetting, fixed: Mapping[str, int], pure: Sequence[Found]) -> str:
    speeds = [1.0 / found.step_s[0] if found.step_s else 1.0 for found in pure]
    lists, shared = [], together(setting)
    for side, ranks, found, speed in zip(shared, setting.ranks, pure, speeds, strict=True):
        share = fixed["global_batch_size"] * speed / sum(speeds)
        own = {**fixed, "global_batch_size": divisible_batch(share, ranks)}
        both = (*found.plans, *search(side, ranks, own, keep=KEPT).plans)
        lists.append(list({dataclasses.replace(plan, global_batch_size=1): plan for plan in both}.values()))
    if not all(lists):
        return "a replica of the whole model does not fit into each pool alone"
    order = tuple(range(len(lists)))
    kept.add(GROUPS, order, grouped_batch(shared, lists, fixed["global_batch_size"]))
    return ""


def divisible_batch(sequences: float, ranks: int) -> int:
    """A batch close to so many sequences that every factor of the ranks divides: their odd part times a power of two.

    Example:
        >>> divisible_batch(1900.0, 5184)
        2592
    """
    odd = ranks // (ranks & -ranks)
    return int(odd * 2 ** max(round(float(np.log2(max(sequences / odd, 1.0)))), 0))


def _try_tensor(kept: _Best, setting: MixedSetting, fixed: Mapping[str, int]) -> str:
    each_chips = min(
        ranks // side.pool.ranks_per_chip for side, ranks in zip(setting.sides, setting.ranks, strict=True)
    )
    if len({side.pool.ranks_per_chip for side in setting.sides}) > 1:
        return "chips of both kinds hold different numbers of ranks"
    ranks = len(setting.sides) * each_chips * setting.sides[0].pool.ranks_per_chip
    order = tuple(range(len(setting.sides)))
    layers = setting.sides[0].model.num_layers
    for plan in tensor_batches(setting.sides, ranks, fixed):
        kept.add(TENSOR, order, MixedPlan(sides=(plan,), layers=(layers,)))
    return "" if kept.num_plans else "no tensor-parallel size divides both the model and the ranks of both kinds"
