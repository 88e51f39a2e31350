"""The question that `serve` asks about two pools: so many units of each, one role on each, under a load.

Every plan of one role with every plan of the other is a row of one table; the best for users is kept.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.chip import Array
from ultratwin.hardware.mix import Join, Mix, PoolShare, join_pools, joins_of
from ultratwin.mapping.plan import Rejected
from ultratwin.planning.front import pareto_front
from ultratwin.planning.mixed.plan import format_notes
from ultratwin.planning.mixed.search import (
    PoolSide,
    draft_apart,
    experts_apart,
    pool_side,
    routed_table,
    split_between,
    split_table,
)
from ultratwin.planning.serving.deployment import Deployment, deployment_of
from ultratwin.planning.serving.mix import BatchLimits, Load
from ultratwin.planning.serving.nodes import Served
from ultratwin.planning.serving.plan import PlanServingQuestion, offered_load, offered_price, search_setup
from ultratwin.planning.serving.point import open_load
from ultratwin.planning.serving.question import ServingQuestion
from ultratwin.planning.serving.ranges import ServingRanges, serving_ranges
from ultratwin.planning.serving.search import search_points
from ultratwin.planning.serving.steady_state import SteadyState
from ultratwin.planning.serving.transfer import KvWire, kv_wire, reaches
from ultratwin.planning.serving.ways import (
    ATTENTION_EXPERTS,
    DISAGGREGATED,
    ROLES,
    ROUTED,
    TARGET_DRAFT,
    Candidates,
    Wanted,
    Ways,
    every_pair,
    handed_over,
    role_loads,
)
from ultratwin.workload.load import load_model
from ultratwin.workload.model import Model

FIXED_MODES: Final = (DISAGGREGATED, ROUTED, ATTENTION_EXPERTS, TARGET_DRAFT)
_KEPT: Final = 400
"""Replicas of each role that are combined with each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedServingQuestion:
    """What is asked. `serving`: what is equal for both pools; `pools`: in the order of ROLES[mode].

    precisions, kv_cache_dtypes: of each pool; fabrics: that may join them, all if empty
    transfer_dtype: what keys and values travel as, the smaller of both formats if empty
    prices_usd_per_chip_s: the user's own, by system
    """

    serving: ServingQuestion
    mode: str
    pools: tuple[PoolShare, PoolShare]
    precisions: tuple[str, str]
    kv_cache_dtypes: tuple[str, str]
    fabrics: tuple[str, ...] = ()
    transfer_dtype: str = ""
    prices_usd_per_chip_s: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleAnswer:
    """One pool: its replicas' steady state, the most requests that all of them serve [1/s], and its ranges."""

    share: PoolShare
    served: Served
    limits: BatchLimits
    state: SteadyState
    sustainable_rate: float
    ranges: ServingRanges | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedIteration:
    """An iteration on both pools: on the first, on the second and between them, of the batch and of half of it [s]."""

    sequences: float
    seconds: float
    whole_s: tuple[float, ...]
    half_s: tuple[float, ...]

    @property
    def alternates(self) -> bool:
        """Whether two half batches take turns; else the whole batch is on one side after the other."""
        return self.seconds < sum(self.whole_s) * (1 - 1e-12)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedServingAnswer:
    """The answer. `deployment` is None where nothing can run (`rejected` says why).

    join: what prompts' keys and values, or tokens, go over; wire: formats of keys and values, None in other modes
    shared: an iteration that both pools share, None in other modes
    """

    question: MixedServingQuestion
    model: Model
    load: Load
    mix: Mix
    join: Join
    deployment: Deployment | None
    roles: tuple[RoleAnswer, ...]
    wire: KvWire | None
    shared: SharedIteration | None
    rejected: Rejected | None
    notes: tuple[str, ...]
    num_deployments: int

    @property
    def sustainable_rate(self) -> float:
        """The most requests per second that the mix serves: of both behind a router together, else of the weaker."""
        rates = [each.sustainable_rate for each in self.roles]
        if self.deployment is None or not rates:
            return math.nan
        return sum(rates) if self.deployment.mode == ROUTED else min(rates)


def answer_mixed_serving(question: MixedServingQuestion) -> MixedServingAnswer:
    """Answers a question about two pools.

    Raises: ScenarioError, CatalogueError, ModelError for bad input; what can't run is a value in the answer
    """
    asked = question.serving
    model = asked.model if isinstance(asked.model, Model) else load_model(asked.model)
    asked = dataclasses.replace(asked, model=model)
    question = dataclasses.replace(question, serving=asked)
    load, rate = offered_load(asked)
    mix = join_pools(question.pools, question.fabrics)
    joins = joins_of([each.system for each in question.pools], question.fabrics)
    sides, wanted = _sides(question, load, rate)
    settings = [each.setting for each in sides]
    wire = None
    if question.mode == DISAGGREGATED:
        wire = kv_wire(model, settings[0].formats, settings[1].formats, load.prompt_tokens, question.transfer_dtype)
    base = MixedServingAnswer(
        question=question, model=model, load=load, mix=mix, join=mix.join, deployment=None, roles=(), wire=wire,
        shared=None,
        rejected=_missing(question, sides), notes=tuple(format_notes(settings)), num_deployments=0,
    )  # fmt: skip
    ways = None if base.rejected else fixed_ways(question.mode, sides, joins, wanted, question.transfer_dtype)
    if ways is None or not np.isfinite(ways.table.ttft).any():
        return dataclasses.replace(base, rejected=base.rejected or _refused(question, wanted))
    looked = len(ways.table.miss)
    ways = exact(ways, best_row(ways, wanted), joins, wanted, question.transfer_dtype)
    found = _whole_pools(deployment_of(ways, wanted, 0), sides)
    pair = np.array([float(sum(each.chips for each in found.roles))])
    used = next((e for e in joins if reaches(e, joins, pair, np.array([float(found.chips)]))[0]), mix.join)
    roles = tuple(
        _role_answer(question, share, side, found, index)
        for index, (share, side) in enumerate(zip(question.pools, ways.sides, strict=True))
    )
    return dataclasses.replace(
        base, deployment=found, roles=roles, join=used, num_deployments=looked, shared=_shared(question, ways, joins),
        mix=dataclasses.replace(mix, join=used),
    )  # fmt: skip


def _whole_pools(option: Deployment, sides: Sequence[PoolSide]) -> Deployment:
    """The deployment with all units paid for, whether their chips serve or not."""
    return dataclasses.replace(
        option, rented_chips=sum(each.max_chips for each in sides),
        usd_per_s=sum(each.max_chips * each.usd_per_chip_s for each in sides),
    )  # fmt: skip


def _shared(question: MixedServingQuestion, ways: Ways, joins: tuple[Join, ...]) -> SharedIteration | None:
    """An iteration that decodes all running sequences of a replica that is on both pools."""
    if question.mode not in (ATTENTION_EXPERTS, TARGET_DRAFT):
        return None
    own, other = (each.points for each in ways.sides)
    plan, _ = own.one_plan(0)
    there, _ = other.one_plan(0)
    load = offered_load(question.serving)[0]
    split = split_between(question.mode, other.setting, there, joins, (own.num_chips, other.num_chips))
    served = Served(setting=own.setting, load=load, speculation=question.serving.speculation, split=split)
    none, running, one = np.zeros((1, 1)), own.state.decoding.reshape(1, 1), np.ones(1)
    whole, half = (split.sides(served, plan, none, share * running, one) for share in (1.0, 0.5))
    seconds, _ = split.nodes(served, plan, none, running, one)
    return SharedIteration(
        sequences=float(running[0, 0]), seconds=float(seconds[0, 0]),
        whole_s=tuple(float(each[0, 0]) for each in (whole.own_s, whole.other_s, whole.between_s)),
        half_s=tuple(float(each[0, 0]) for each in (half.own_s, half.other_s, half.between_s)),
    )  # fmt: skip


def _sides(question: MixedServingQuestion, load: Load, rate: float | None) -> tuple[tuple[PoolSide, PoolSide], Wanted]:
    sides = []
    for share, precision, kv in zip(question.pools, question.precisions, question.kv_cache_dtypes, strict=True):
        own = PlanServingQuestion(
            serving=dataclasses.replace(question.serving, kv_cache_dtype=kv), systems=(share.system,),
            max_chips=share.chips, prices_usd_per_chip_s=question.prices_usd_per_chip_s,
        )  # fmt: skip
        setting, axes, wanted = search_setup(own, share.system, precision, load, rate)
        price = offered_price(own, share.system)[0]
        sides.append(pool_side(setting, share.system, axes, wanted, usd_per_chip_s=price, max_chips=share.chips))
    total = sum(each.chips for each in question.pools)
    return (sides[0], sides[1]), dataclasses.replace(wanted, max_chips=total)


def _missing(question: MixedServingQuestion, sides: Sequence[PoolSide]) -> Rejected | None:
    """Why a role finds no plan; parts of a model that are elsewhere are looked at with the other side."""
    if question.mode in (ATTENTION_EXPERTS,):
        return None
    names = ROLES[question.mode][: 1 if question.mode == TARGET_DRAFT else 2]
    for name, side in zip(names, sides, strict=False):
        if not len(side.plans.num_ranks):
            reason = next(iter(side.plans.rejected), "no size of a replica fits")
            return Rejected(reason=f"{name} on {side.system.id}: {reason}")
    return None


def _refused(question: MixedServingQuestion, wanted: Wanted) -> Rejected:
    if question.mode in (ATTENTION_EXPERTS, TARGET_DRAFT) and wanted.request_rate is None:
        return Rejected(reason="nothing of both sides fits, or no domain of their fabric holds them")
    asked = f"{wanted.request_rate:g} requests a second" if wanted.request_rate is not None else "any load"
    return Rejected(reason=f"no plan of both pools serves {asked}")


def fixed_ways(
    mode: str, sides: tuple[PoolSide, PoolSide], joins: tuple[Join, ...], wanted: Wanted, transfer_dtype: str = ""
) -> Ways | None:
    """Every plan of both roles on as many replicas as the pools hold, [deployment]; None where nothing serves."""
    if mode == DISAGGREGATED:
        loads, names = role_loads(wanted.load), ("ttft_s", "tpot_s")
        kept = [
            _able(side, load, wanted, name, wanted.request_rate)
            for side, load, name in zip(sides, loads, names, strict=True)
        ]
        pair = every_pair(*kept)
        counts = [replicas_of(each) for each in pair]
        rate = np.minimum(*(count * e.points.state.request_rate for count, e in zip(counts, pair, strict=True)))
        if wanted.request_rate is not None:
            rate = np.full_like(rate, wanted.request_rate)
        return handed_over(pair, counts, joins, wanted, rate, transfer_dtype)
    if mode == ROUTED:
        most = [_most_rate(side, wanted) for side in sides]
        shares = [None if wanted.request_rate is None else wanted.request_rate * m / sum(most) for m in most]
        pair = every_pair(*(_able(s, wanted.load, wanted, "e2e_s", r) for s, r in zip(sides, shares, strict=True)))
        counts = [replicas_of(each) for each in pair]
        return Ways(mode=mode, table=routed_table(pair, (counts[0], counts[1]), wanted), sides=pair)
    made = experts_apart if mode == ATTENTION_EXPERTS else draft_apart
    ways = made(sides[0], sides[1], joins, wanted)
    return None if ways is None else _fixed_split(ways, wanted)


def replicas_of(side: Candidates) -> Array:
    """Replicas that a pool holds, [point]."""
    return np.floor(side.max_chips / side.points.num_chips)


def _points(side: PoolSide, load: Load, wanted: Wanted) -> Candidates:
    return side.candidates(
        search_points(
            side.setting, side.plans, load, wanted.speculation, burstiness=wanted.burstiness,
            total_rate=wanted.request_rate,
        )
    )  # fmt: skip


def _most_rate(side: PoolSide, wanted: Wanted) -> float:
    served = _points(side, wanted.load, wanted)
    return float(np.max(replicas_of(served) * served.points.state.request_rate, initial=1e-300))


def _able(side: PoolSide, load: Load, wanted: Wanted, name: str, rate: float | None) -> Candidates:
    """Replicas of which the pool holds enough for a rate: of each plan at the least load that is enough, the fastest.

    Without a rate: those that none beats in time and in what all of them serve.
    """
    served = _points(side, load, wanted)
    time, serves = getattr(served.points.state, name), replicas_of(served) * served.points.state.request_rate
    alive = (serves > 0) & np.isfinite(time)
    if rate is not None:
        alive &= serves >= rate
    at: NDArray[np.int64] = np.flatnonzero(alive)
    if rate is not None:
        _, first = np.unique(served.points.plan_index[at], return_index=True)  # loads ascend along the points
        at = at[first]
        at = at[np.argsort(time[at], kind="stable")[:_KEPT]]
    else:
        at = at[pareto_front(np.stack([time[at], 1.0 / serves[at]]))]
    return served.some(at)


def _fixed_split(ways: Ways, wanted: Wanted) -> Ways | None:
    counts = np.minimum(*(replicas_of(each) for each in ways.sides))
    able = (counts >= 1) & np.isfinite(ways.table.ttft)
    if wanted.request_rate is not None:
        able &= counts * ways.sides[0].points.state.request_rate >= wanted.request_rate
    at = np.flatnonzero(able)
    if not len(at):
        return None
    sides = (ways.sides[0].some(at), ways.sides[1].some(at))
    return Ways(mode=ways.mode, table=split_table(sides, counts[at], wanted), sides=sides)


def best_row(ways: Ways, wanted: Wanted) -> int:
    """The row that users feel least: of those that keep the objectives; without a rate, the one that serves most."""
    table = ways.table
    later = max(float(np.ravel(wanted.load.output_tokens)[0]) - 1.0, 0.0)
    felt = table.ttft + table.tpot * later
    keys = (felt, table.miss) if wanted.request_rate is not None else (felt, -table.rate, table.miss)
    return int(np.lexsort(keys)[0])


def exact(ways: Ways, at: int, joins: tuple[Join, ...], wanted: Wanted, transfer_dtype: str) -> Ways:
    """One row alone, its replicas under the very load that they get (a search looks at loads a little above)."""
    row = np.array([at])
    sides = (ways.sides[0].some(row), ways.sides[1].some(row))
    counts = [count[row] for count in ways.table.replicas]
    if ways.mode not in (DISAGGREGATED, ROUTED):
        return Ways(mode=ways.mode, table=split_table(sides, counts[0], wanted), sides=sides)
    if wanted.request_rate is not None:
        taken = [float(n[0] * each.points.state.request_rate[0]) for n, each in zip(counts, sides, strict=True)]
        parts = [each / sum(taken) if ways.mode == ROUTED else 1.0 for each in taken]
        loads = [role_load(ways.mode, index, wanted.load) for index in (0, 1)]
        sides = (
            _under(sides[0], loads[0], parts[0] * wanted.request_rate, counts[0], wanted),
            _under(sides[1], loads[1], parts[1] * wanted.request_rate, counts[1], wanted),
        )
    if ways.mode == ROUTED:
        return Ways(mode=ROUTED, table=routed_table(sides, (counts[0], counts[1]), wanted), sides=sides)
    return handed_over(sides, counts, joins, wanted, ways.table.rate[row], transfer_dtype)


def _under(side: Candidates, load: Load, rate: float, count: Array, wanted: Wanted) -> Candidates:
    """A candidate under its share of a rate, dealt to so many replicas in turn."""
    plan, limits = side.points.one_plan(0)
    served = Served(setting=side.points.setting, load=load, speculation=wanted.speculation)
    state = open_load(served, plan, limits, rate / count, wanted.burstiness * count)
    return dataclasses.replace(side, points=dataclasses.replace(side.points, state=state))


def _role_answer(
    question: MixedServingQuestion, share: PoolShare, side: Candidates, found: Deployment, index: int
) -> RoleAnswer:
    role, state = found.roles[index], side.points.state
    plan, limits = side.points.one_plan(0)
    load = role_load(question.mode, index, offered_load(question.serving)[0])
    asked = question.serving
    served = Served(setting=side.points.setting, load=load, speculation=asked.speculation)
    ranges = None
    if question.mode in (DISAGGREGATED, ROUTED):
        demand = dataclasses.replace(asked.demand, burstiness=asked.demand.burstiness * role.replicas)
        dealt = dataclasses.replace(asked, demand=demand)
        with np.errstate(invalid="ignore"):  # samples that are flooded take without end
            ranges = serving_ranges(dealt, served, share.system, plan, limits, state)
    return RoleAnswer(
        share=share, served=served, limits=limits, state=state, ranges=ranges,
        sustainable_rate=float(state.sustainable_rate[0]) * role.replicas,
    )  # fmt: skip


def role_load(mode: str, index: int, load: Load) -> Load:
    """What one role sees of a request."""
    return role_loads(load)[index] if mode == DISAGGREGATED else load
