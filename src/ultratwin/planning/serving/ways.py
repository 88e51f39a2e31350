"""Ways to deploy, as tables: replicas of one kind, or of several roles, that together serve a load.

Replicas of a deployment may lie on one system or on several that are joined (mixed_search): the same functions combine
them. Array-first: a row is a deployment.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.chip import Array
from ultratwin.hardware.mix import Join
from ultratwin.hardware.system import System
from ultratwin.planning.serving.choice import objective_misses, predicted_s
from ultratwin.planning.serving.loads import whole_replicas
from ultratwin.planning.serving.mix import Load, Speculation
from ultratwin.planning.serving.search import Plans, Points, role_front, search_points
from ultratwin.planning.serving.slo import Slo, Slos
from ultratwin.planning.serving.transfer import engine_hand_over_s, hand_over_s, queued_s
from ultratwin.timing.serving import ServingSetting

AGGREGATED: Final = "aggregated"
DISAGGREGATED: Final = "disaggregated"
ROUTED: Final = "routed"
ATTENTION_EXPERTS: Final = "attention-experts"
TARGET_DRAFT: Final = "target-draft"
MODES: Final = (AGGREGATED, DISAGGREGATED)
ROLES: Final = {
    AGGREGATED: ("serve",),
    DISAGGREGATED: ("prefill", "decode"),
    ROUTED: ("serve", "serve"),
    ATTENTION_EXPERTS: ("attention", "experts"),
    TARGET_DRAFT: ("target", "draft"),
}
"""What replicas do in each way to deploy; the last three are for systems that are joined."""
SPARE_FRAC: Final = 0.02
"""Load that is kept free, so that chance does not fill the last replica."""


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
class Candidates:
    """Replicas of one role on one system, [point]: what deployments are combined of.

    usd_per_chip_s: NaN where unknown; max_chips: that the system has for all its roles
    """

    system: System
    points: Points
    usd_per_chip_s: float
    max_chips: int

    def some(self, at: NDArray[np.int64]) -> Candidates:
        """Some of them, in that order."""
        return dataclasses.replace(self, points=self.points.some(at))


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Deployments as arrays [deployment]: `replicas` of each role; `objectives`: what each is compared with [s]."""

    miss: Array
    chips: Array
    rented: Array
    usd: Array
    rate: Array
    power: Array
    ttft: Array
    tpot: Array
    replicas: tuple[Array, ...]
    late: NDArray[np.bool_]
    """Whether another objective than TPOT is missed."""
    objectives: tuple[Array, ...]
    moved: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """Deployments of one mode, and the candidates that each of their roles is of."""

    mode: str
    table: Table
    sides: tuple[Candidates, ...]


def aggregated_deployments(served: Candidates, wanted: Wanted) -> Ways:
    """Every point as a deployment of as many replicas as the load needs."""
    state = served.points.state
    replicas = replicas_needed(state.request_rate, wanted.request_rate)
    rate = state.request_rate * replicas if wanted.request_rate is None else _all(wanted.request_rate, replicas)
    predicted = [predicted_s(state, slo, wanted.load, wanted.slos.attainment) for slo in wanted.slos.each]
    table = deployment_table((served,), (replicas,), wanted, predicted, rate=rate, ttft=state.ttft_s, tpot=state.tpot_s)
    return Ways(mode=AGGREGATED, table=table, sides=(served,))


def _all(value: float, like: Array) -> Array:
    return np.full(np.shape(like), value)


def deployment_table(
    sides: Sequence[Candidates], replicas: Sequence[Array], wanted: Wanted, predicted: Sequence[Array], *, rate: Array,
    ttft: Array, tpot: Array, moved: Array | None = None,
) -> Table:  # fmt: skip
    """What deployments of some replicas of each role take and how they keep their objectives, [deployment].

    Args:
        predicted: what each objective is compared with [s]; rate: that is served [1/s]
        ttft, tpot: means; moved: seconds between prefill and decode replicas, the engine's own among them
    """
    chips, rented, usd, power = (np.zeros(np.shape(rate)) for _ in range(4))
    by_system: dict[str, tuple[Array, int]] = {}
    for side, count in zip(sides, replicas, strict=True):
        own = count * side.points.num_chips
        whole = rented_chips(side.system, side.points.num_chips, count)
        chips, rented, usd = chips + own, rented + whole, usd + whole * side.usd_per_chip_s
        power = power + side.points.state.power_w * count
        before, most = by_system.get(side.system.id, (np.zeros(()), side.max_chips))
        by_system[side.system.id] = (before + own, most)
    over = np.maximum.reduce([chips / wanted.max_chips, *(taken / most for taken, most in by_system.values())])
    return Table(
        miss=np.maximum(_missed(predicted, wanted, ttft), over), chips=chips, rented=rented, usd=usd, rate=rate,
        power=power, ttft=ttft, tpot=tpot, replicas=tuple(replicas), late=_late(predicted, wanted, ttft),
        objectives=tuple(predicted), moved=np.zeros_like(rate) if moved is None else moved,
    )  # fmt: skip


def replicas_needed(rate: Array, wanted: float | None) -> Array:
    """Replicas for a load when each takes so many requests per second, a little kept free; 1 where no load is given."""
    if wanted is None:
        return np.ones_like(rate)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.maximum(np.ceil(wanted * (1.0 + SPARE_FRAC) / np.maximum(rate, 1e-300)), 1.0))


def rented_chips(system: System, chips: Array, replicas: Array) -> Array:
    """Chips of the whole nodes that replicas of so many chips lie on; none crosses a node that it fits into."""
    node = float(min(system.pool.chips_per_node, system.unit_chips))
    per_node = np.maximum(np.floor(node / chips), 1.0)
    small = np.ceil(replicas / per_node) * node
    large = replicas * np.ceil(chips / node) * node
    return np.where(chips <= node, small, large)


def _missed(predicted: Sequence[Array], wanted: Wanted, ttft: Array) -> Array:
    worst: Array = np.where(np.isfinite(ttft), 1.0, np.inf)
    for slo, value in zip(wanted.slos.each, predicted, strict=True):
        worst = np.maximum(worst, value / slo.limit_s)
    return worst


def _late(predicted: Sequence[Array], wanted: Wanted, ttft: Array) -> NDArray[np.bool_]:
    """Which deployments miss an objective other than TPOT."""
    late: NDArray[np.bool_] = ~np.isfinite(ttft)
    for slo, value in zip(wanted.slos.each, predicted, strict=True):
        if slo.metric in ("ttft", "e2el"):
            late = late | (value > slo.limit_s)
    return late


def role_loads(load: Load) -> tuple[Load, Load]:
    """What prefill and decode replicas each see of a request: the prompt and one token; the rest."""
    prefill = Load(prompt_tokens=load.prompt_tokens, output_tokens=1.0, cached_frac=load.cached_frac)
    decode = Load(
        prompt_tokens=load.prompt_tokens, output_tokens=load.output_tokens, cached_frac=1.0, context=load.decode_context
    )
    return prefill, decode


def role_candidates(served: Candidates, wanted: Wanted) -> tuple[Candidates, Candidates]:
    """Prefill and decode replicas of the plans of some candidates: of each the ones that are worth combining."""
    found = []
    asked = (("ttft_s", ("ttft", "e2el")), ("tpot_s", ("tpot", "itl")))
    for load, (name, metrics) in zip(role_loads(wanted.load), asked, strict=True):
        points = search_points(
            served.points.setting, served.points.plans, load, wanted.speculation, burstiness=wanted.burstiness,
            total_rate=wanted.request_rate,
        )  # fmt: skip
        side = at_whole_replicas(dataclasses.replace(served, points=points), wanted)
        state, slos = side.points.state, tuple(each for each in wanted.slos.each if each.metric in metrics)
        miss = objective_misses(state, dataclasses.replace(wanted.slos, each=slos), load)
        found.append(side.some(role_front(side.points, getattr(state, name), miss)))
    return found[0], found[1]


def at_whole_replicas(side: Candidates, wanted: Wanted) -> Candidates:
    """The plans of a search at the loads that whole numbers of replicas get; as they are where no rate is given."""
    if wanted.request_rate is None:
        return side
    points = whole_replicas(side.points, wanted.request_rate * (1.0 + SPARE_FRAC))
    return dataclasses.replace(side, points=points)


def every_pair(first: Candidates, second: Candidates) -> tuple[Candidates, Candidates]:
    """Each of the first with each of the second, [pair]."""
    counts = first.points.num_points, second.points.num_points
    return first.some(np.repeat(np.arange(counts[0]), counts[1])), second.some(np.tile(np.arange(counts[1]), counts[0]))


def disaggregated_deployments(
    prefill: Candidates, decode: Candidates, joins: Sequence[Join], wanted: Wanted, transfer_dtype: str = ""
) -> Ways:
    """Prefill and decode replicas apart, [pair]: candidate by candidate, in the ratio that matches."""
    sides = (prefill, decode)
    rates = [each.points.state.request_rate for each in sides]
    replicas = [replicas_needed(each, wanted.request_rate) for each in rates]
    if wanted.request_rate is None:
        # so many of each that both serve the same rate: the smaller number is one
        share = rates[0] / rates[1]
        replicas = [np.maximum(np.round(1.0 / share), 1.0), np.maximum(np.round(share), 1.0)]
    served = np.minimum(rates[0] * replicas[0], rates[1] * replicas[1])
    rate = served if wanted.request_rate is None else _all(wanted.request_rate, served)
    return handed_over(sides, replicas, joins, wanted, rate, transfer_dtype)


def handed_over(
    sides: tuple[Candidates, Candidates], replicas: Sequence[Array], joins: Sequence[Join], wanted: Wanted, rate: Array,
    transfer_dtype: str = "",
) -> Ways:  # fmt: skip
    """Deployments of so many prefill and decode replicas that serve a rate, [pair]."""
    prefill, decode = (each.points for each in sides)
    total = replicas[0] * prefill.num_chips + replicas[1] * decode.num_chips
    moved = hand_over_s(
        (prefill.setting, decode.setting), wanted.load, (prefill.num_chips, decode.num_chips), total, joins,
        transfer_dtype,
    )  # fmt: skip
    moved = queued_s(moved, [rate / each for each in replicas]) + engine_hand_over_s((prefill.setting, decode.setting))
    predicted = [_both_s(prefill, decode, slo, wanted, moved) for slo in wanted.slos.each]
    # decode replicas that are flooded make requests endless too
    ttft = np.where(np.isfinite(decode.state.ttft_s), prefill.state.ttft_s + moved, np.inf)
    table = deployment_table(sides, replicas, wanted, predicted, rate=rate, ttft=ttft, tpot=decode.state.tpot_s,
                             moved=moved)  # fmt: skip
    return Ways(mode=DISAGGREGATED, table=table, sides=sides)


def _both_s(prefill: Points, decode: Points, slo: Slo, wanted: Wanted, moved: Array) -> Array:
    share = wanted.slos.attainment
    if slo.metric in ("tpot", "itl"):
        return predicted_s(decode.state, slo, wanted.load, share)
    first = predicted_s(prefill.state, dataclasses.replace(slo, metric="ttft"), wanted.load, share) + moved
    if slo.metric == "ttft":
        return first
    later = max(float(np.ravel(wanted.load.output_tokens)[0]) - 1.0, 0.0)
    return first + later * predicted_s(decode.state, dataclasses.replace(slo, metric="tpot"), wanted.load, share)


def served_candidates(setting: ServingSetting, system: System, plans: Plans, wanted: Wanted) -> Candidates:
    """Replicas that do everything, at every load that is looked at."""
    points = search_points(
        setting, plans, wanted.load, wanted.speculation, burstiness=wanted.burstiness, total_rate=wanted.request_rate
    )
    return Candidates(system=system, points=points, usd_per_chip_s=wanted.usd_per_chip_s, max_chips=wanted.max_chips)


def several_tokens(load: Load) -> bool:
    """Whether answers have tokens to decode."""
    return float(np.ravel(load.output_tokens)[0]) > 1
