"""How sure a serving answer is: its figures with every uncertain fact drawn from its range.

The mix of an iteration is kept; its seconds and joules are computed again for every sample. A service whose iterations
all take f times as long under a rate r is one of today's iterations under the rate f r, each time f times as long: so
open loads are looked up at f r.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ultratwin.catalogue import loader
from ultratwin.hardware.chip import Array
from ultratwin.hardware.system import System
from ultratwin.mapping.serving import ServingPlan
from ultratwin.planning.run import sampled_setting
from ultratwin.planning.serving.mix import NODES, BatchLimits
from ultratwin.planning.serving.money import serving_prices
from ultratwin.planning.serving.nodes import Served, iteration_nodes
from ultratwin.planning.serving.point import open_load
from ultratwin.planning.serving.steady_state import SteadyState
from ultratwin.planning.uncertainty import NUM_SAMPLES, Range, Sampler, range_of
from ultratwin.timing.serving import ServingSetting

if TYPE_CHECKING:
    from ultratwin.planning.serving.question import ServingQuestion

OWN_ERROR = "the twin's own error (scoreboard)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingRanges:
    """Low, expected and high of what the closed form says; of one replica where a rate is per replica.

    energy_j_per_token: per output token, PUE included; cost_usd_per_mtoken: per million output tokens, by offer
    factor: how much longer an iteration takes, per sample, for scaling a simulation; spread: facts behind TPOT's range
    """

    ttft_s: Range
    tpot_s: Range
    e2e_s: Range
    request_rate: Range
    output_tokens_per_s: Range
    power_w: Range
    energy_j_per_token: Range
    cost_usd_per_mtoken: dict[str, Range]
    factor: Range
    spread: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSamples:
    """What `ServingRanges` has, for every sample of the uncertain facts: [1 + sample], the first one expected."""

    ttft_s: Array
    tpot_s: Array
    e2e_s: Array
    request_rate: Array
    output_tokens_per_s: Array
    power_w: Array | float
    energy_j_per_token: Array
    cost_usd_per_mtoken: dict[str, Array]
    factor: Array
    spread: tuple[tuple[str, float], ...]


def serving_ranges(
    question: ServingQuestion, served: Served, system: System, plan: ServingPlan, limits: BatchLimits,
    point: SteadyState,
) -> ServingRanges:  # fmt: skip
    """Ranges of a replica's steady state."""
    found = serving_samples(question, served, system, plan, limits, point, Sampler(question.seed))
    return ServingRanges(
        **{name: _range(getattr(found, name)) for name in ("ttft_s", "tpot_s", "e2e_s", "request_rate")},
        output_tokens_per_s=_range(found.output_tokens_per_s),
        power_w=range_of(found.power_w),
        energy_j_per_token=_range(found.energy_j_per_token),
        cost_usd_per_mtoken={offer: _range(cost) for offer, cost in found.cost_usd_per_mtoken.items()},
        factor=range_of(found.factor),
        spread=found.spread,
    )


def serving_samples(
    question: ServingQuestion, served: Served, system: System, plan: ServingPlan, limits: BatchLimits,
    point: SteadyState, sampler: Sampler,
) -> ServingSamples:  # fmt: skip
    """A replica's steady state with every uncertain fact as a sampler draws it: NUM_SAMPLES of them."""
    pool = sampled_setting(cast("Any", served.setting), system, sampler).pool
    setting = ServingSetting(
        model=served.setting.model, pool=pool, formats=served.setting.formats, engine=served.setting.engine
    )
    engine = served.setting.engine
    error = sampler.error_factor(OWN_ERROR, float(engine.spread_frac))
    cycle, first = _factors(Served(setting=setting, load=served.load, speculation=served.speculation), plan, point)
    cycle, first = cycle * error, first * error
    # first tokens are off by more, in the same direction
    further = error ** (math.log1p(engine.ttft_spread_frac) / math.log1p(engine.spread_frac) - 1.0)
    is_open = bool(np.isfinite(point.sustainable_rate[0]))
    one = _scaled(served, plan, limits, point, cycle, first, question.demand.burstiness if is_open else None)
    spread = sampler.spread(one["tpot_s"] if np.ptp(one["tpot_s"]) > 0 else one["ttft_s"])
    output = float(np.ravel(served.load.output_tokens)[0])
    one["ttft_s"] = one["ttft_s"] * further
    one["e2e_s"] = one["ttft_s"] + one["tpot_s"] * (output - 1.0)
    tokens = one["request_rate"] * output
    power = _drawn_power(served, system, point, sampler)
    regional = loader.entry("regions", question.region).figures
    energy = power * sampler.fact(f"PUE ({question.region})", regional, "pue") / tokens
    chips = float(plan.num_ranks) / pool.ranks_per_chip
    return ServingSamples(
        **one, output_tokens_per_s=tokens, power_w=power, energy_j_per_token=np.asarray(energy),
        cost_usd_per_mtoken=_costs(question, system, chips, tokens, sampler), factor=cycle, spread=spread,
    )  # fmt: skip


def _factors(served: Served, plan: ServingPlan, point: SteadyState) -> tuple[Array, Array]:
    """Seconds of a cycle, and of a new prompt's iterations, over their expected ones: [1 + sample]."""
    mix, wide = point.mix, (1, NUM_SAMPLES + 1)
    chunk = np.broadcast_to(np.ravel(mix.chunk)[0], wide[1:])
    seconds = []
    for node in range(len(NODES)):
        apart = served.setting.engine.policy != "mixed" and node > 0
        decoding = np.broadcast_to(0.0 if apart else np.ravel(mix.decoding)[0], wide)
        found, _ = iteration_nodes(served, plan, np.broadcast_to(np.ravel(mix.load[node])[0], wide), decoding, chunk)
        seconds.append(np.ravel(found))
    weight = mix.weight.reshape(len(NODES), -1)[:, 0]
    cycle = sum(share * each for share, each in zip(weight, seconds, strict=True))
    # host time is no figure of the chip, so it does not move
    total = float(np.ravel(point.iteration_s)[0]) * weight.sum()
    return _relative(np.asarray(cycle), total), _relative(seconds[3], float(np.ravel(point.own_s)[0]))


def _relative(seconds: Array, whole: float) -> Array:
    """Of a whole, of which only the device's seconds move: by what factor it moves, [1 + sample]."""
    expected = seconds[0]
    share = min(expected / whole, 1.0) if np.isfinite(whole) and whole > 0 else 1.0
    moved: Array = 1.0 + share * (seconds / expected - 1.0)
    return moved


def _scaled(
    served: Served, plan: ServingPlan, limits: BatchLimits, point: SteadyState, cycle: Array, first: Array,
    burstiness: float | None,
) -> dict[str, Array]:  # fmt: skip
    """TTFT, TPOT, E2E and rate of every sample."""
    output = float(np.ravel(served.load.output_tokens)[0])
    own = float(np.ravel(point.own_s)[0])
    if burstiness is None:
        wait, tpot = float(point.wait_s[0]) * cycle, float(point.tpot_s[0]) * cycle
        rate = float(point.request_rate[0]) / cycle
    else:
        offered = float(point.request_rate[0])
        if not np.isfinite(point.ttft_s[0]):
            offered *= 1.0 + 1e-9
        state = open_load(served, plan, limits, offered * np.broadcast_to(cycle, np.shape(cycle) or (1,)), burstiness)
        wait, tpot = state.wait_s * cycle, state.tpot_s * cycle
        rate, own = state.request_rate / cycle, float("nan")
        ttft = wait + state.own_s * first
        return {"ttft_s": ttft, "tpot_s": tpot, "e2e_s": ttft + tpot * (output - 1), "request_rate": rate}
    ttft = wait + own * first
    return {"ttft_s": ttft, "tpot_s": tpot, "e2e_s": ttft + tpot * (output - 1), "request_rate": rate}


def _drawn_power(served: Served, system: System, point: SteadyState, sampler: Sampler) -> Array | float:
    """Watts of the replica with the chips' limit and what beside them draws as sampled."""
    chip = system.pool.chip
    watts: Array | float = float(np.ravel(point.power_w)[0])
    if "tdp_w" in chip.facts and chip.facts["tdp_w"].si > 0:
        watts = watts * np.asarray(sampler.fact(f"{chip.id} tdp_w", chip.facts, "tdp_w")) / chip.facts["tdp_w"].si
    activity = loader.entry("power", "activity").figures
    share = sampler.fact("power while busy: memory_frac", activity, "memory_frac")
    return watts * np.asarray(share) / activity["memory_frac"].si


def _costs(
    question: ServingQuestion, system: System, chips: float, tokens: Array, sampler: Sampler
) -> dict[str, Array]:
    prices = serving_prices(system.id, question.price_usd_per_chip_s)
    found = {}
    for offer, price in prices.usd_per_chip_s.items():
        drawn: Array | float = price
        if offer in prices.facts:
            drawn = sampler.fact(f"{system.id} price {offer}", prices.facts, offer) / np.asarray(prices.facts_chips)
        found[offer] = np.asarray(chips * np.asarray(drawn) / tokens * 1e6)
    return found


def _range(values: Array | float) -> Range:
    """As `range_of`; infinite samples stay at its ends."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 0 or values.size == 1:
        return range_of(float(values.ravel()[0]))
    finite = np.where(np.isfinite(values), values, np.finfo(np.float64).max)
    found = range_of(finite)
    most = np.finfo(np.float64).max / 2
    return Range(
        low=found.low if found.low < most else np.inf, expected=float(values[0]),
        high=found.high if found.high < most else np.inf,
    )  # fmt: skip
