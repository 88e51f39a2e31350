"""Deployments: replicas of one kind, or prefill and decode replicas apart, that together serve a load.

Chosen from the points of a search: each point is a replica at the highest load that its own times hold for, so as many
replicas as the load needs run at that or less.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.chip import Array
from ultratwin.hardware.system import System, per_rank
from ultratwin.mapping.serving import ServingPlan
from ultratwin.planning.front import pareto_front
from ultratwin.planning.serving_choice import predicted_s
from ultratwin.planning.serving_mix import Load, Speculation
from ultratwin.planning.serving_search import Axes, Plans, Points, search_plans, search_points, search_shares
from ultratwin.planning.slo import Slo, Slos
from ultratwin.timing.serving import ServingSetting
from ultratwin.workload.kv_cache import kv_bytes_per_token

AGGREGATED: Final = "aggregated"
DISAGGREGATED: Final = "disaggregated"
MODES: Final = (AGGREGATED, DISAGGREGATED)
OBJECTIVES: Final = ("cost", "chips", "energy")
_ROLE_FRONT: Final = 48
"""Replicas of each role that are combined with each other."""
_SPARE_FRAC: Final = 0.02
"""Load that is kept free, so that chance does not fill the last replica."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """Replicas of one kind. `name`: "serve", "prefill" or "decode"; `request_rate`: the most that one takes [1/s]."""

    name: str
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
    least 1; usd_per_s: NaN where no price is known
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
        several = len(self.roles) > 1
        return " + ".join(
            f"{each.replicas} x {each.plan.describe()}" + (f" {each.name}" if several else "") for each in self.roles
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What deployments are chosen by: the load, its rate (None: one replica's best), objectives, prices, chips."""

    load: Load
    speculation: Speculation
    slos: Slos
    request_rate: float | None
    burstiness: float
    usd_per_chip_s: float
    max_chips: int
    objective: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """Deployments as arrays [deployment]."""

    miss: Array
    chips: Array
    rented: Array
    rate: Array
    power: Array
    ttft: Array
    tpot: Array
    replicas: tuple[Array, ...]
    late: NDArray[np.bool_]
    """Whether another objective than TPOT is missed."""


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


def aggregated_deployments(
    setting: ServingSetting, system: System, points: Points, wanted: Wanted
) -> tuple[_Table, list[Points]]:
    """Every point as a deployment of as many replicas as the load needs."""
    state = points.state
    replicas = replicas_needed(state.request_rate, wanted.request_rate)
    chips = replicas * points.num_chips
    rate = state.request_rate * replicas if wanted.request_rate is None else np.full_like(chips, wanted.request_rate)
    predicted = {slo.name: predicted_s(state, slo, wanted.load, wanted.slos.attainment) for slo in wanted.slos.each}
    miss = _missed(predicted, wanted, state.ttft_s)
    return _Table(
        miss=np.maximum(miss, chips / wanted.max_chips), chips=chips,
        rented=rented_chips(system, points.num_chips, replicas), rate=rate, power=state.power_w * replicas,
        ttft=state.ttft_s, tpot=state.tpot_s, replicas=(replicas,), late=_late(predicted, wanted, state.ttft_s),
    ), [points]  # fmt: skip


def replicas_needed(rate: Array, wanted: float | None) -> Array:
    """Replicas for a load when each takes so many requests per second, a little kept free; 1 where no load is given."""
    if wanted is None:
        return np.ones_like(rate)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.maximum(np.ceil(wanted * (1.0 + _SPARE_FRAC) / np.maximum(rate, 1e-300)), 1.0))


def rented_chips(system: System, chips: Array, replicas: Array) -> Array:
    """Chips of the whole nodes that replicas of so many chips lie on; none crosses a node that it fits into."""
    node = float(min(system.pool.chips_per_node, system.unit_chips))
    per_node = np.maximum(np.floor(node / chips), 1.0)
    small = np.ceil(replicas / per_node) * node
    large = replicas * np.ceil(chips / node) * node
    return np.where(chips <= node, small, large)


def _missed(predicted: dict[str, Array], wanted: Wanted, ttft: Array) -> Array:
    worst: Array = np.where(np.isfinite(ttft), 1.0, np.inf)
    for slo in wanted.slos.each:
        worst = np.maximum(worst, predicted[slo.name] / slo.limit_s)
    return worst


def _late(predicted: dict[str, Array], wanted: Wanted, ttft: Array) -> NDArray[np.bool_]:
    """Which deployments miss an objective other than TPOT."""
    late: NDArray[np.bool_] = ~np.isfinite(ttft)
    for slo in wanted.slos.each:
        if slo.metric in ("ttft", "e2el"):
            late = late | (predicted[slo.name] > slo.limit_s)
    return late


def transfer_s(setting: ServingSetting, load: Load, ranks: Array, chips: Array) -> Array:
    """Seconds that the keys and values of a prompt take from a prefill replica to a decode replica.

    Equation: t = latency + bytes per token x prompt / (ranks x bandwidth of one)
    Args: ranks: of the smaller of both; chips: of both together, which decide whether a scale-up domain holds them
    """
    pool = per_rank(setting.pool)
    size = kv_bytes_per_token(setting.model, setting.formats.kv_bytes) * np.asarray(load.prompt_tokens)
    inside = chips <= setting.pool.domain.size
    speed = np.where(inside, np.asarray(pool.domain.bytes_per_s), np.asarray(pool.fabric.bytes_per_s))
    speed = np.where(speed > 0, speed, np.maximum(np.asarray(pool.domain.bytes_per_s), 1.0))
    latency = np.where(inside, np.asarray(pool.domain.latency_s), np.asarray(pool.fabric.latency_s))
    return np.asarray(latency + size / (ranks * speed))


def role_loads(load: Load) -> tuple[Load, Load]:
    """What prefill and decode replicas each see of a request: the prompt and one token; the rest."""
    prefill = Load(prompt_tokens=load.prompt_tokens, output_tokens=1.0, cached_frac=load.cached_frac)
    decode = Load(
        prompt_tokens=load.prompt_tokens, output_tokens=load.output_tokens, cached_frac=1.0, context=load.decode_context
    )
    return prefill, decode


def disaggregated_deployments(
    setting: ServingSetting, system: System, plans: Plans, wanted: Wanted
) -> tuple[_Table, list[Points]]:
    """Prefill and decode replicas apart: the best of each kind, combined in every pair, in the ratio that matches."""
    first, second = role_loads(wanted.load)
    sides = [
        search_points(
            setting, plans, each, wanted.speculation, burstiness=wanted.burstiness, total_rate=wanted.request_rate
        )
        for each in (first, second)
    ]
    chosen = [_role_front(sides[0], sides[0].state.ttft_s), _role_front(sides[1], sides[1].state.tpot_s)]
    left, right = (np.repeat(chosen[0], len(chosen[1])), np.tile(chosen[1], len(chosen[0])))
    prefill, decode = (_taken(sides[0], left), _taken(sides[1], right))
    replicas = [replicas_needed(each.state.request_rate, wanted.request_rate) for each in (prefill, decode)]
    if wanted.request_rate is None:
        # so many of each that both serve the same rate: the smaller number is one
        share = prefill.state.request_rate / decode.state.request_rate
        replicas = [np.maximum(np.round(1.0 / share), 1.0), np.maximum(np.round(share), 1.0)]
    chips = replicas[0] * prefill.num_chips + replicas[1] * decode.num_chips
    served = np.minimum(prefill.state.request_rate * replicas[0], decode.state.request_rate * replicas[1])
    rate = served if wanted.request_rate is None else np.full_like(chips, wanted.request_rate)
    moved = transfer_s(setting, wanted.load, np.minimum(prefill.num_chips, decode.num_chips), chips)
    predicted = {slo.name: _both_s(prefill, decode, slo, wanted, moved) for slo in wanted.slos.each}
    miss = _missed(predicted, wanted, prefill.state.ttft_s + decode.state.ttft_s)
    return _Table(
        miss=np.maximum(miss, chips / wanted.max_chips), chips=chips,
        rented=rented_chips(system, prefill.num_chips, replicas[0])
        + rented_chips(system, decode.num_chips, replicas[1]),
        rate=rate, power=prefill.state.power_w * replicas[0] + decode.state.power_w * replicas[1],
        ttft=prefill.state.ttft_s + moved, tpot=decode.state.tpot_s, replicas=(replicas[0], replicas[1]),
        late=_late(predicted, wanted, prefill.state.ttft_s),
    ), [prefill, decode]  # fmt: skip


def _both_s(prefill: Points, decode: Points, slo: Slo, wanted: Wanted, moved: Array) -> Array:
    share = wanted.slos.attainment
    if slo.metric in ("tpot", "itl"):
        return predicted_s(decode.state, slo, wanted.load, share)
    first = predicted_s(prefill.state, dataclasses.replace(slo, metric="ttft"), wanted.load, share) + moved
    if slo.metric == "ttft":
        return first
    later = max(float(np.ravel(wanted.load.output_tokens)[0]) - 1.0, 0.0)
    return first + later * predicted_s(decode.state, dataclasses.replace(slo, metric="tpot"), wanted.load, share)


def _role_front(points: Points, time_s: Array) -> NDArray[np.int64]:
    """Replicas of a role that none beats in both its time and its requests per chip, evenly thinned out."""
    front = pareto_front(np.stack([time_s, points.num_chips / np.maximum(points.state.request_rate, 1e-300)]))
    if len(front) > _ROLE_FRONT:
        front = front[np.unique(np.linspace(0, len(front) - 1, _ROLE_FRONT).round().astype(np.int64))]
    return front


def _taken(points: Points, at: NDArray[np.int64]) -> Points:
    """Some of the points, in that order."""
    state = points.state

    def some(value: Array) -> Array:
        value = np.asarray(value)
        return value[..., at] if value.ndim and value.shape[-1] == points.num_points else value

    mix = dataclasses.replace(
        state.mix, **{each.name: some(getattr(state.mix, each.name)) for each in dataclasses.fields(state.mix)}
    )
    fields = {each.name: some(getattr(state, each.name)) for each in dataclasses.fields(state) if each.name != "mix"}
    return dataclasses.replace(
        points, state=dataclasses.replace(state, **fields, mix=mix), plan_index=points.plan_index[at],
        num_chips=points.num_chips[at],
    )  # fmt: skip


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
    found: list[tuple[str, _Table, list[Points]]] = []
    count = 0
    if AGGREGATED in modes:
        points = search_points(
            setting, plans, wanted.load, wanted.speculation, burstiness=wanted.burstiness,
            total_rate=wanted.request_rate,
        )  # fmt: skip
        count += points.num_points
        found.append((AGGREGATED, *aggregated_deployments(setting, system, points, wanted)))
    if DISAGGREGATED in modes and float(np.ravel(wanted.load.output_tokens)[0]) > 1:
        table, sides = disaggregated_deployments(setting, system, plans, wanted)
        count += 2 * points_of(plans) + len(table.miss)
        if len(table.miss):
            found.append((DISAGGREGATED, table, sides))
    return _summary(setting, system, wanted, found, dataclasses.replace(empty, num_points=count))


def points_of(plans: Plans) -> int:
    """Steady states that a search of some plans computes."""
    return len(plans.num_ranks) * len(search_shares(len(plans.num_ranks)))


def _summary(
    setting: ServingSetting, system: System, wanted: Wanted, found: list[tuple[str, _Table, list[Points]]],
    empty: Deployed,
) -> Deployed:  # fmt: skip
    best: dict[str, Deployment] = {}
    nearest: Deployment | None = None
    front: list[Deployment] = []
    for mode, table, sides in found:

        def one(at: int, mode: str = mode, table: _Table = table, sides: list[Points] = sides) -> Deployment:
            return _deployment(setting, system, wanted, mode, table, sides, at)

        for goal in OBJECTIVES:
            at = _best(table, wanted, goal)
            if at is not None:
                option = one(at)
                known = best.get(goal)
                if known is None or _key(option, goal) < _key(known, goal):
                    best[goal] = option
        if np.isfinite(table.miss).any():
            within = np.where(table.miss <= 1.05 * table.miss.min(), table.chips, np.inf)
            close = one(int(np.lexsort((table.miss, within))[0]))
            nearest = close if nearest is None or close.miss < nearest.miss else nearest
        front += [one(int(at)) for at in _front(table)]
    return dataclasses.replace(
        empty,
        best=best,
        nearest=nearest,
        front=tuple(front),
        by_attainment=_by_attainment(setting, system, wanted, found),
    )


def _key(option: Deployment, goal: str) -> tuple[float, float, float]:
    return option.value(goal), float(option.chips), option.tpot_s


def _best(table: _Table, wanted: Wanted, goal: str) -> int | None:
    """The deployment that keeps all objectives and is least in the goal; per request served where no load is given."""
    amount = {"cost": table.rented * wanted.usd_per_chip_s, "chips": table.chips, "energy": table.power}[goal]
    if goal == "cost" and not wanted.usd_per_chip_s >= 0:
        amount = table.rented
    per = amount / np.maximum(table.rate, 1e-300) if wanted.request_rate is None else amount
    per = np.where(table.miss <= 1.0, per, np.inf)
    at = int(np.lexsort((table.tpot, table.chips, per))[0])
    return at if np.isfinite(per[at]) else None


def _front(table: _Table) -> NDArray[np.int64]:
    """Deployments that none beats in tokens/s/chip and tokens/s/user, of those whose first tokens are not late."""
    alive = np.isfinite(table.ttft) & np.isfinite(table.miss) & ~table.late
    # what differs by less than a hundredth is the same
    slow = np.where(alive, np.round(np.log(np.maximum(table.tpot, 1e-9)), 2), np.inf)
    found = pareto_front(np.stack([slow, table.chips / np.maximum(table.rate, 1e-300)]))
    most = 24
    if len(found) > most:
        found = found[np.unique(np.linspace(0, len(found) - 1, most).round().astype(np.int64))]
    return found


def _by_attainment(
    setting: ServingSetting, system: System, wanted: Wanted, found: list[tuple[str, _Table, list[Points]]]
) -> tuple[tuple[float, Deployment | None], ...]:
    """The fewest chips if half, nine tenths or all but one in a hundred of the requests must keep the objectives."""
    rows: list[tuple[float, Deployment | None]] = []
    for share in (0.5, 0.9, 0.99):
        asked = dataclasses.replace(wanted, slos=dataclasses.replace(wanted.slos, attainment=share))
        best: Deployment | None = None
        for mode, _, sides in found:
            if mode != AGGREGATED or not wanted.slos.per_request:
                continue
            again, _ = aggregated_deployments(setting, system, sides[0], asked)
            at = _best(again, asked, "chips")
            if at is not None:
                option = _deployment(setting, system, asked, mode, again, sides, at)
                best = option if best is None or _key(option, "chips") < _key(best, "chips") else best
        if wanted.slos.per_request and any(mode == AGGREGATED for mode, *_ in found):
            rows.append((share, best))
    return tuple(rows)


def _deployment(
    setting: ServingSetting, system: System, wanted: Wanted, mode: str, table: _Table, sides: list[Points], at: int
) -> Deployment:
    names = ("serve",) if mode == AGGREGATED else ("prefill", "decode")
    roles = tuple(
        _role(name, side, int(count[at]), at) for name, side, count in zip(names, sides, table.replicas, strict=True)
    )
    rate = float(table.rate[at])
    moved = 0.0
    if mode == DISAGGREGATED:
        least = np.minimum(sides[0].num_chips[at : at + 1], sides[1].num_chips[at : at + 1])
        moved = float(transfer_s(setting, wanted.load, least, table.chips[at : at + 1])[0])
    one = [_taken(side, np.array([at])) for side in sides]
    values = tuple(
        (
            str(slo),
            float(
                (
                    predicted_s(one[0].state, slo, wanted.load, wanted.slos.attainment)
                    if mode == AGGREGATED
                    else _both_s(one[0], one[1], slo, wanted, np.array([moved]))
                )[0]
            ),
        )
        for slo in wanted.slos.each
    )
    return Deployment(
        system_id=system.id, precision=setting.formats.name, mode=mode, roles=roles, chips=int(table.chips[at]),
        rented_chips=int(table.rented[at]), request_rate=rate,
        output_tokens_per_s=rate * float(np.ravel(wanted.load.output_tokens)[0]), ttft_s=float(table.ttft[at]),
        tpot_s=float(table.tpot[at]), objectives=values, miss=float(table.miss[at]), power_w=float(table.power[at]),
        usd_per_s=float(table.rented[at]) * wanted.usd_per_chip_s,
    )  # fmt: skip


def _role(name: str, side: Points, replicas: int, at: int) -> Role:
    index = int(side.plan_index[at])
    limits = side.plans.limits
    return Role(
        name=name,
        plan=side.plans.plan.at(index),
        max_num_seqs=int(np.ravel(limits.max_num_seqs)[0]),
        max_num_batched_tokens=int(np.asarray(limits.max_num_batched_tokens)[index]),
        replicas=replicas,
        chips=int(side.num_chips[at]),
        request_rate=float(side.state.request_rate[at]),
        running=float(side.state.running[at]),
    )
