"""Deployments: replicas of one kind, or prefill and decode replicas apart, that together serve a load.

Chosen from the points of a search: each point is a replica at the highest load that its own times hold for, so as many
replicas as the load needs run at that or less. Replicas of a deployment may lie on one system or on several that are
joined (mixed_search): the same functions combine them (serving_ways).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.mix import own_joins
from ultratwin.hardware.system import System
from ultratwin.mapping.serving import ServingPlan
from ultratwin.planning.front import pareto_front, thinned
from ultratwin.planning.serving.choice import objective_misses
from ultratwin.planning.serving.search import (
    Axes,
    Plans,
    hundredths,
    role_front,
    search_plans,
    search_shares,
    some_plans,
)
from ultratwin.planning.serving.ways import (
    AGGREGATED,
    DISAGGREGATED,
    ROLES,
    Candidates,
    Table,
    Wanted,
    Ways,
    aggregated_deployments,
    at_whole_replicas,
    disaggregated_deployments,
    every_pair,
    role_candidates,
    served_candidates,
    several_tokens,
)
from ultratwin.timing.serving import ServingSetting

OBJECTIVES: Final = ("cost", "chips", "energy")
SHOWN_FRONT: Final = 24
"""Points of a front at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """Replicas of one kind. `name`: of ROLES; `request_rate`: of one, a little more than its even share where a load is
    given [1/s]."""

    name: str
    system_id: str
    precision: str
    plan: ServingPlan
    max_num_seqs: int
    max_num_batched_tokens: int
    replicas: int
    chips: int
    request_rate: float
    running: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One way to serve a load, by its closed form.

    chips: that serve; rented_chips: of whole nodes; request_rate: that is served [1/s]
    ttft_s, tpot_s: means; objectives: what each objective is compared with [s]; miss: worst of value over limit, at
    least 1; usd_per_s: NaN where no price is known; transfer_s: from prefill to decode replica, the engine's part too
    system_id, precision: several, joined by " + ", where replicas lie on several
    """

    system_id: str
    precision: str
    mode: str
    roles: tuple[Role, ...]
    chips: int
    rented_chips: int
    request_rate: float
    output_tokens_per_s: float
    ttft_s: float
    tpot_s: float
    objectives: tuple[tuple[str, float], ...]
    miss: float
    power_w: float
    usd_per_s: float
    transfer_s: float = 0.0

    @property
    def tokens_per_s_per_chip(self) -> float:
        """Output tokens per second over the chips that serve."""
        return self.output_tokens_per_s / self.chips

    @property
    def tokens_per_s_per_user(self) -> float:
        """How fast an answer is written."""
        return 1.0 / self.tpot_s if self.tpot_s > 0 else math.inf

    @property
    def usd_per_mtoken(self) -> float:
        """USD per million output tokens."""
        return self.usd_per_s / self.output_tokens_per_s * 1e6

    @property
    def energy_j_per_token(self) -> float:
        """Joules per output token, before PUE."""
        return self.power_w / self.output_tokens_per_s

    @property
    def meets(self) -> bool:
        """Whether it keeps all objectives."""
        return self.miss <= 1.0

    def value(self, objective: str) -> float:
        """What an objective of the search makes least; infinite where unknown."""
        found = {"cost": self.usd_per_s, "chips": float(self.chips), "energy": self.power_w}[objective]
        return math.inf if math.isnan(found) else found

    def describe(self) -> str:
        """Replicas and their layouts in a few letters."""
        several, mixed = len(self.roles) > 1, len({each.system_id for each in self.roles}) > 1
        return " + ".join(
            f"{each.replicas} x {each.plan.describe()}"
            + (f" {each.name}" if several else "")
            + (f" on {each.system_id}" if mixed else "")
            for each in self.roles
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """Deployments of one system and format: the best that keeps the objectives by each goal, the nearest, the front."""

    best: dict[str, Deployment]
    nearest: Deployment | None
    front: tuple[Deployment, ...]
    by_attainment: tuple[tuple[float, Deployment | None], ...]
    num_points: int
    num_candidates: int
    rejected: dict[str, int]


def deployments(
    setting: ServingSetting, system: System, axes: Axes, wanted: Wanted, modes: tuple[str, ...]
) -> Deployed:
    """All deployments of a model on a system in one format; the best of them, the nearest, the front.

    Args:
        setting: model, pool, formats, engine; system: whose nodes are rented; axes: what is free
        wanted: load, objectives, prices; modes: of MODES
    """
    plans = search_plans(setting, axes, wanted.load)
    empty = Deployed(best={}, nearest=None, front=(), by_attainment=(), num_points=0,
                     num_candidates=plans.num_candidates, rejected=plans.rejected)  # fmt: skip
    if not len(plans.num_ranks):
        return empty
    found, count = _ways(setting, system, plans, wanted, modes)
    thin = plans_worth_combining(setting, plans, found, wanted)
    if len(search_shares(len(thin.num_ranks))) > len(search_shares(len(plans.num_ranks))):
        again, more = _ways(setting, system, thin, wanted, modes)
        found, count = found + again, count + more
    return _summary(wanted, found, dataclasses.replace(empty, num_points=count))


def _ways(
    setting: ServingSetting, system: System, plans: Plans, wanted: Wanted, modes: tuple[str, ...]
) -> tuple[list[Ways], int]:
    """Deployments of some plans in each mode; how many states and pairs were computed."""
    apart = DISAGGREGATED in modes and several_tokens(wanted.load)
    if not (apart or AGGREGATED in modes):
        return [], 0
    found: list[Ways] = []
    served = served_candidates(setting, system, plans, wanted)
    count = 0
    if AGGREGATED in modes:
        count += served.points.num_points
        found.append(aggregated_deployments(at_whole_replicas(served, wanted), wanted))
    if apart:
        pair = every_pair(*role_candidates(served, wanted))
        ways = disaggregated_deployments(*pair, own_joins(system, 2), wanted)
        count += 2 * points_of(plans) + len(ways.table.miss)
        found += [ways] if len(ways.table.miss) else []
    return found, count


def plans_worth_combining(setting: ServingSetting, plans: Plans, found: Sequence[Ways], wanted: Wanted) -> Plans:
    """Plans that some front of a search holds, or one of its best deployments: those to look at under more loads."""
    kept: list[NDArray[np.int64]] = []
    for ways in found:
        for points in (each.points for each in ways.sides if each.points.setting is setting):
            if ways.mode != AGGREGATED:  # thinned already
                kept.append(points.plan_index)
                continue
            miss = objective_misses(points.state, wanted.slos, wanted.load)
            for time in (points.state.ttft_s, points.state.tpot_s):
                kept.append(points.plan_index[role_front(points, time, miss)])
            for goal in OBJECTIVES:
                best = best_of(ways.table, wanted, goal)
                kept += [] if best is None else [points.plan_index[best : best + 1]]
    return some_plans(plans, np.unique(np.concatenate(kept))) if kept else plans


def points_of(plans: Plans) -> int:
    """Steady states that a search of some plans computes."""
    return len(plans.num_ranks) * len(search_shares(len(plans.num_ranks)))


def _summary(wanted: Wanted, found: Sequence[Ways], empty: Deployed) -> Deployed:
    best: dict[str, Deployment] = {}
    nearest: Deployment | None = None
    front: list[Deployment] = []
    for ways in found:
        for goal in OBJECTIVES:
            at = best_of(ways.table, wanted, goal)
            if at is not None:
                option = deployment_of(ways, wanted, at)
                known = best.get(goal)
                if known is None or _key(option, goal) < _key(known, goal):
                    best[goal] = option
        close = nearest_of(ways, wanted)
        if close is not None:
            nearest = close if nearest is None or close.miss < nearest.miss else nearest
        front += [deployment_of(ways, wanted, int(at)) for at in _front(ways.table)]
    return dataclasses.replace(
        empty, best=best, nearest=nearest, front=tuple(front), by_attainment=_by_attainment(wanted, found)
    )


def nearest_of(ways: Ways, wanted: Wanted) -> Deployment | None:
    """Of what misses the objectives hardly more than the best does, the one with the fewest chips."""
    table = ways.table
    if not np.isfinite(table.miss).any():
        return None
    within = np.where(table.miss <= 1.05 * table.miss.min(), table.chips, np.inf)
    return deployment_of(ways, wanted, int(np.lexsort((table.miss, within))[0]))


def _key(option: Deployment, goal: str) -> tuple[float, float, float]:
    return option.value(goal), float(option.chips), option.tpot_s


def best_of(table: Table, wanted: Wanted, goal: str) -> int | None:
    """The deployment that keeps all objectives and is least in the goal; per request served where no load is given."""
    amount = {"cost": table.usd, "chips": table.chips, "energy": table.power}[goal]
    if goal == "cost" and np.isnan(amount).any():
        amount = table.rented
    per = amount / np.maximum(table.rate, 1e-300) if wanted.request_rate is None else amount
    per = np.where(table.miss <= 1.0, per, np.inf)
    at = int(np.lexsort((table.tpot, table.chips, per))[0])
    return at if np.isfinite(per[at]) else None


def _front(table: Table) -> NDArray[np.int64]:
    """Deployments that none beats in tokens/s/chip and tokens/s/user, of those whose first tokens are not late."""
    alive = np.isfinite(table.ttft) & np.isfinite(table.miss) & ~table.late
    slow = np.where(alive, hundredths(table.tpot), np.inf)
    found = pareto_front(np.stack([slow, table.chips / np.maximum(table.rate, 1e-300)]))
    return thinned(found, SHOWN_FRONT)


def _by_attainment(wanted: Wanted, found: Sequence[Ways]) -> tuple[tuple[float, Deployment | None], ...]:
    """The fewest chips if half, nine tenths or all but one in a hundred of the requests must keep the objectives."""
    alike = [each for each in found if each.mode == AGGREGATED]
    rows: list[tuple[float, Deployment | None]] = []
    for share in (0.5, 0.9, 0.99) if wanted.slos.per_request and alike else ():
        asked = dataclasses.replace(wanted, slos=dataclasses.replace(wanted.slos, attainment=share))
        best: Deployment | None = None
        for ways in alike:
            again = aggregated_deployments(ways.sides[0], asked)
            at = best_of(again.table, asked, "chips")
            if at is not None:
                option = deployment_of(again, asked, at)
                best = option if best is None or _key(option, "chips") < _key(best, "chips") else best
        rows.append((share, best))
    return tuple(rows)


def deployment_of(ways: Ways, wanted: Wanted, at: int) -> Deployment:
    """One row of a table as a value."""
    table = ways.table
    roles = tuple(
        _role(name, side, int(count[at]), at)
        for name, side, count in zip(ROLES[ways.mode], ways.sides, table.replicas, strict=True)
    )
    rate = float(table.rate[at])
    values = tuple((str(slo), float(value[at])) for slo, value in zip(wanted.slos.each, table.objectives, strict=True))
    return Deployment(
        system_id=" + ".join(dict.fromkeys(role.system_id for role in roles)),
        precision=" + ".join(dict.fromkeys(role.precision for role in roles)), mode=ways.mode, roles=roles,
        chips=int(table.chips[at]), rented_chips=int(table.rented[at]), request_rate=rate,
        output_tokens_per_s=rate * float(np.ravel(wanted.load.output_tokens)[0]), ttft_s=float(table.ttft[at]),
        tpot_s=float(table.tpot[at]), objectives=values, miss=float(table.miss[at]), power_w=float(table.power[at]),
        usd_per_s=float(table.usd[at]), transfer_s=float(table.moved[at]),
    )  # fmt: skip


def _role(name: str, side: Candidates, replicas: int, at: int) -> Role:
    points = side.points
    plan, limits = points.one_plan(at)
    return Role(
        name=name,
        system_id=side.system.id,
        precision=points.setting.formats.name,
        plan=plan,
        max_num_seqs=int(limits.max_num_seqs),
        max_num_batched_tokens=int(limits.max_num_batched_tokens),
        replicas=replicas,
        chips=int(points.num_chips[at]),
        request_rate=float(points.state.request_rate[at]),
        running=float(points.state.running[at]),
    )
