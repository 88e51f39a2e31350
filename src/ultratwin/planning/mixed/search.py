"""Every way to serve a load on systems that are joined: which role where, and how many replicas of each.

A pure deployment is the special case of one system, made by the same functions: so the best mix is never worse than the
best pure system. Array-first: replicas of each role are thinned to those worth combining, and all their pairs are rows
of one table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.chip import Array
from ultratwin.hardware.mix import Join
from ultratwin.hardware.system import System, per_rank
from ultratwin.mapping.serving import RUNTIME_BYTES, ServingPlan, weight_bytes
from ultratwin.planning.front import pareto_front, thinned
from ultratwin.planning.mixed.split import DraftApart, ExpertsApart, TwoSided, without_experts
from ultratwin.planning.serving.choice import objective_misses, predicted_s
from ultratwin.planning.serving.nodes import Served
from ultratwin.planning.serving.point import open_states
from ultratwin.planning.serving.search import (
    Axes,
    Plans,
    Points,
    num_experts,
    replica_sizes,
    search_plans,
    search_shares,
    sizes_at,
    some_plans,
)
from ultratwin.planning.serving.steady_state import SteadyState
from ultratwin.planning.serving.ways import (
    AGGREGATED,
    ATTENTION_EXPERTS,
    DISAGGREGATED,
    ROUTED,
    SPARE_FRAC,
    TARGET_DRAFT,
    Candidates,
    Table,
    Wanted,
    Ways,
    aggregated_deployments,
    at_whole_replicas,
    deployment_table,
    disaggregated_deployments,
    every_pair,
    replicas_needed,
    role_candidates,
    served_candidates,
    several_tokens,
)
from ultratwin.timing.serving import ServingSetting

MIXED_MODES: Final = (AGGREGATED, DISAGGREGATED, ROUTED, ATTENTION_EXPERTS, TARGET_DRAFT)
_ROUTED_FRONT: Final = 16
_ROUTED_COUNTS: Final = 24
"""Replicas of each kind that are put behind one router, and numbers of the first kind that are tried."""
MOST_REPLICA_RANKS: Final = 144
"""Largest side of a shared iteration that is searched, where the chips allow it."""
_SPLIT_RATIO: Final = 16.0
"""Chips of one side over the other's, at most, where an iteration is shared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSide:
    """One system in one format with the plans that its replicas may have, and what a chip of it costs."""

    setting: ServingSetting
    system: System
    axes: Axes
    plans: Plans
    usd_per_chip_s: float
    max_chips: int

    def wanted(self, wanted: Wanted) -> Wanted:
        """What is wanted, at this system's price and size."""
        return dataclasses.replace(wanted, usd_per_chip_s=self.usd_per_chip_s, max_chips=self.max_chips)

    def candidates(self, points: Points) -> Candidates:
        """Points as candidates of a role."""
        return Candidates(
            system=self.system, points=points, usd_per_chip_s=self.usd_per_chip_s, max_chips=self.max_chips
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What a search found: ways to deploy, all of them; steady states and rows that were computed."""

    ways: tuple[Ways, ...]
    num_points: int
    num_deployments: int


def pool_side(
    setting: ServingSetting, system: System, axes: Axes, wanted: Wanted, *, usd_per_chip_s: float, max_chips: int
) -> PoolSide:
    """A system in one format with every plan that can run."""
    return PoolSide(
        setting=setting, system=system, axes=axes, plans=search_plans(setting, axes, wanted.load),
        usd_per_chip_s=usd_per_chip_s, max_chips=max_chips,
    )  # fmt: skip


def mixed_ways(
    sides: Sequence[PoolSide], joins: Mapping[tuple[str, str], tuple[Join, ...]], wanted: Wanted,
    modes: Sequence[str], transfer_dtype: str = "",
) -> Looked:  # fmt: skip
    """All deployments on systems that are joined, pure ones among them.

    Args:
        sides: systems in formats; one system in several formats may be several of them
        joins: between systems by their ids, those of a system with itself too; absent where nothing joins them
        wanted: load, objectives; modes: of MIXED_MODES
    """
    found: list[Ways] = []
    sides = [each for each in sides if len(each.plans.num_ranks)]
    served = [served_candidates(each.setting, each.system, each.plans, each.wanted(wanted)) for each in sides]
    num_points = sum(each.points.num_points for each in served)
    roles = [role_candidates(each, wanted) for each in served] if DISAGGREGATED in modes else []
    whole = [at_whole_replicas(each, wanted) for each in served]
    if AGGREGATED in modes:
        found += [aggregated_deployments(each, wanted) for each in whole]
    if DISAGGREGATED in modes and several_tokens(wanted.load):
        num_points += 2 * num_points
        for prefill, _ in roles:
            for _, decode in roles:
                if between := joins.get((prefill.system.id, decode.system.id)):
                    pair = every_pair(prefill, decode)
                    found.append(disaggregated_deployments(*pair, between, wanted, transfer_dtype))
    if ROUTED in modes:
        # a router gives each kind any part of the load: every load counts, beside those of whole replicas of one kind
        for several in (served, whole) if wanted.request_rate is not None else (served,):
            kept = [each.some(_routed_front(each, wanted)) for each in several]
            for at, first in enumerate(kept):
                found += [routed_deployments(first, other, wanted) for other in kept[at + 1 :]]
    for mode, made in ((ATTENTION_EXPERTS, experts_apart), (TARGET_DRAFT, draft_apart)):
        if mode not in modes:
            continue
        for own in sides:
            for other in sides:
                between = joins.get((own.system.id, other.system.id))
                ways = made(own, other, between, wanted) if between else None
                if ways is not None:
                    found.append(ways)
                    num_points += ways.sides[0].points.num_points
    found = [each for each in found if len(each.table.miss)]
    return Looked(ways=tuple(found), num_points=num_points, num_deployments=sum(len(e.table.miss) for e in found))


def _routed_front(served: Candidates, wanted: Wanted) -> NDArray[np.int64]:
    """Replicas that none beats in how they keep the objectives, chips per request, and size."""
    points = served.points
    miss = np.maximum(objective_misses(points.state, wanted.slos, wanted.load), 1.0)
    per_request = points.num_chips / np.maximum(points.state.request_rate, 1e-300)
    front = pareto_front(np.stack([miss, per_request, points.num_chips]))
    return thinned(front, _ROUTED_FRONT)


def routed_deployments(first: Candidates, second: Candidates, wanted: Wanted) -> Ways:
    """Replicas of two kinds that do everything, behind one router that gives each what it can take.

    So many of the first kind, and of the second what the rest of the load needs; both keep the objectives.
    """
    one, two = every_pair(first, second)
    most = replicas_needed(one.points.state.request_rate, wanted.request_rate)
    steps = np.unique(np.geomspace(1e-3, 1.0, _ROUTED_COUNTS)) if wanted.request_rate is not None else np.ones(1)
    at = np.tile(np.arange(len(most)), len(steps))
    one, two = one.some(at), two.some(at)
    count = np.maximum(np.floor(most * steps[:, None]), 1.0).ravel()
    others = np.ones(len(at))
    if wanted.request_rate is not None:
        asked = wanted.request_rate * (1.0 + SPARE_FRAC)
        left = asked - count * one.points.state.request_rate
        others = np.maximum(np.ceil(left / np.maximum(two.points.state.request_rate, 1e-300)), 1.0)
    return Ways(mode=ROUTED, table=routed_table((one, two), (count, others), wanted), sides=(one, two))


def routed_table(sides: tuple[Candidates, Candidates], replicas: tuple[Array, Array], wanted: Wanted) -> Table:
    """Rows of so many replicas of each kind; what users feel is the worse kind, means are over all requests."""
    states = [each.points.state for each in sides]
    taken = [count * each.request_rate for count, each in zip(replicas, states, strict=True)]
    total = taken[0] + taken[1]
    rate = total if wanted.request_rate is None else np.full(len(total), wanted.request_rate)
    with np.errstate(invalid="ignore"):
        ttft, tpot = (
            (taken[0] * getattr(states[0], name) + taken[1] * getattr(states[1], name)) / total
            for name in ("ttft_s", "tpot_s")
        )
    predicted = [
        np.maximum(*(predicted_s(each, slo, wanted.load, wanted.slos.attainment) for each in states))
        for slo in wanted.slos.each
    ]
    return deployment_table(sides, replicas, wanted, predicted, rate=rate, ttft=ttft, tpot=tpot)


def experts_apart(own: PoolSide, other: PoolSide, joins: tuple[Join, ...], wanted: Wanted) -> Ways | None:
    """Attention on one system, routed experts on the other; None where the model has none, or nothing fits."""
    model = own.setting.model
    if num_experts(model) <= 1:
        return None
    attention = dataclasses.replace(own.setting, model=without_experts(model))
    fixed = {**own.axes.fixed, "pipeline_parallel_size": 1, "expert_parallel_size": 1}
    budget = own.axes.max_num_batched_tokens or int(own.setting.engine.max_num_batched_tokens)
    axes = dataclasses.replace(
        own.axes, sizes=_wide_sizes(own), groups=True, fixed=fixed, max_num_batched_tokens=budget
    )  # fmt: skip
    plans = _each_group_an_engine(search_plans(attention, axes, wanted.load))
    ranks = expert_ranks(other)
    if not len(plans.num_ranks) or not len(ranks):
        return None
    there = ServingPlan(attention_data_parallel_size=ranks, expert_parallel_size=np.minimum(ranks, num_experts(model)))
    return _split_ways(ATTENTION_EXPERTS, (own, other), (attention, plans, there), joins, wanted)


def _each_group_an_engine(plans: Plans) -> Plans:
    """The plans with an engine's limits in every attention group: only experts see the tokens of all of them."""
    groups, limits = np.asarray(plans.plan.attention_data_parallel_size), plans.limits
    return dataclasses.replace(
        plans, limits=dataclasses.replace(
            limits, max_num_seqs=np.asarray(limits.max_num_seqs) * groups,
            max_num_batched_tokens=np.asarray(limits.max_num_batched_tokens) * groups,
        ),
    )  # fmt: skip


def _wide_sizes(side: PoolSide) -> tuple[int, ...]:
    """Ranks of one side of a shared iteration: its groups need no domain, as they talk to the other side only."""
    return replica_sizes(side.setting.pool, min(side.max_chips * side.setting.pool.ranks_per_chip, MOST_REPLICA_RANKS))


def expert_ranks(side: PoolSide) -> NDArray[np.int64]:
    """Numbers of ranks that all routed experts fit on, spread evenly."""
    model, formats, pool = side.setting.model, side.setting.formats, per_rank(side.setting.pool)
    sizes = np.array(_wide_sizes(side), dtype=np.int64)
    sizes = sizes[(num_experts(model) % sizes == 0) | (sizes % num_experts(model) == 0)]
    plan = ServingPlan(attention_data_parallel_size=sizes)
    held = weight_bytes(model, formats, plan) - weight_bytes(without_experts(model), formats, plan) + RUNTIME_BYTES
    used = side.axes.memory_utilization_frac or float(side.setting.engine.memory_utilization_frac)
    return np.asarray(sizes[np.asarray(held) <= used * np.asarray(pool.chip.memory_bytes)], dtype=np.int64)


def draft_apart(own: PoolSide, other: PoolSide, joins: tuple[Join, ...], wanted: Wanted) -> Ways | None:
    """The target on one system, its draft head on the other; None where nothing is drafted."""
    if not wanted.speculation.num_tokens:
        return None
    plans = own.plans
    budget = own.axes.max_num_batched_tokens or int(own.setting.engine.max_num_batched_tokens)
    whole = np.asarray(plans.plan.pipeline_parallel_size) == 1
    plans = some_plans(plans, np.flatnonzero(whole & (np.asarray(plans.limits.max_num_batched_tokens) == budget)))
    largest = min(8, max(other.axes.sizes))
    there = ServingPlan(tensor_parallel_size=np.array([size for size in (1, 2, 4, 8) if size <= largest]))
    if not len(plans.num_ranks):
        return None
    return _split_ways(TARGET_DRAFT, (own, other), (own.setting, plans, there), joins, wanted)


def _split_ways(
    mode: str, sides: tuple[PoolSide, PoolSide], shared: tuple[ServingSetting, Plans, ServingPlan],
    joins: tuple[Join, ...], wanted: Wanted,
) -> Ways | None:  # fmt: skip
    """Replicas whose iterations are on both systems: each plan of the first side with each of the second."""
    setting, plans, there = shared
    own, other = sides
    own_chips = plans.num_ranks / own.setting.pool.ranks_per_chip
    other_chips = np.asarray(there.num_ranks) / other.setting.pool.ranks_per_chip
    first = np.repeat(np.arange(len(own_chips)), len(other_chips))
    second = np.tile(np.arange(len(other_chips)), len(own_chips))
    ratio = own_chips[first] / other_chips[second]
    kept = (ratio <= _SPLIT_RATIO) & (ratio >= 1.0 / _SPLIT_RATIO)
    first, second = first[kept], second[kept]
    chips = own_chips[first], other_chips[second]
    split = split_between(mode, other.setting, sizes_at(there, second), joins, chips)
    # nothing reaches some pairs: a domain that both kinds share is smaller than they are
    kept = np.isfinite(split.message_s(np.ones(len(first))))
    if not kept.any():
        return None
    at = np.flatnonzero(kept)
    split = split.some(at)
    chosen = some_plans(plans, first[at])
    served = Served(setting=setting, load=wanted.load, speculation=wanted.speculation, split=split)
    shares = search_shares(len(at))
    state = open_states(served, chosen.plan, chosen.limits, shares, wanted.burstiness, wanted.request_rate)
    views = (
        _view(setting, chosen, state, chips[0][at], len(shares)),
        _view(
            other.setting, dataclasses.replace(chosen, plan=split.plan),
            dataclasses.replace(state, power_w=np.zeros_like(state.power_w)), chips[1][at], len(shares),
        ),
    )  # fmt: skip
    return split_deployments(mode, (own.candidates(views[0]), other.candidates(views[1])), wanted)


def split_between(
    mode: str, setting: ServingSetting, plan: ServingPlan, joins: tuple[Join, ...], chips: tuple[Array, Array]
) -> TwoSided:
    """The other side of iterations that two systems share; `chips`: of a replica on either, [candidate]."""
    kind = ExpertsApart if mode == ATTENTION_EXPERTS else DraftApart
    return kind(
        setting=setting, plan=plan, joins=joins, links=np.minimum(*chips), pair_chips=np.asarray(chips[0] + chips[1])
    )


def _view(setting: ServingSetting, plans: Plans, state: SteadyState, chips: Array, num_shares: int) -> Points:
    """One side of replicas that are on two: its plan and chips. Power of both is counted with the first."""
    count = len(chips)
    return Points(
        setting=setting, plans=plans, state=state, plan_index=np.tile(np.arange(count), num_shares),
        num_chips=np.tile(chips, num_shares),
    )  # fmt: skip


def split_deployments(mode: str, sides: tuple[Candidates, Candidates], wanted: Wanted) -> Ways:
    """As many replicas on both systems as the load needs."""
    replicas = replicas_needed(sides[0].points.state.request_rate, wanted.request_rate)
    return Ways(mode=mode, table=split_table(sides, replicas, wanted), sides=sides)


def split_table(sides: tuple[Candidates, Candidates], replicas: Array, wanted: Wanted) -> Table:
    """Rows of so many replicas that are on both systems."""
    state = sides[0].points.state
    rate = state.request_rate * replicas
    if wanted.request_rate is not None:
        rate = np.full(np.shape(replicas), wanted.request_rate)
    predicted = [predicted_s(state, slo, wanted.load, wanted.slos.attainment) for slo in wanted.slos.each]
    return deployment_table(
        sides, (replicas, replicas), wanted, predicted, rate=rate, ttft=state.ttft_s, tpot=state.tpot_s
    )
