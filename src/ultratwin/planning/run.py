"""From a step to a run: days, chip-hours, energy, money and CO2, each with the range of what it rests on."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.catalogue import loader
from ultratwin.catalogue.facts import Fact
from ultratwin.catalogue.schema import PriceEntry
from ultratwin.hardware.chip import Chip, Number
from ultratwin.hardware.system import Pool, System, per_rank
from ultratwin.mapping.plan import Plan
from ultratwin.planning.checks import OFFERS
from ultratwin.planning.evaluate import Setting, model_flop_per_step
from ultratwin.planning.power.chip import activity_facts, step_energy_j
from ultratwin.planning.uncertainty import Range, Sampler, range_of
from ultratwin.timing.step import StepTimes, step_times

SECONDS_PER_DAY: Final = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A whole training run without failures. Money is by offer (on demand, ...), empty if no price is public."""

    step_s: Range
    tokens_per_s: Range
    num_steps: int
    duration_s: Range
    chip_hours: Range
    mfu: Range
    power_w: Range
    energy_j: Range
    carbon_kg: Range
    cost_usd: dict[str, Range]
    cost_notes: dict[str, str]
    spread: tuple[tuple[str, float], ...]
    parts: dict[str, float]

    @property
    def days(self) -> Range:
        """Days of the run."""
        whole = self.duration_s
        low, expected, high = (each / SECONDS_PER_DAY for each in (whole.low, whole.expected, whole.high))
        return Range(low=low, expected=expected, high=high)


def sampled_setting(setting: Setting, system: System, sampler: Sampler) -> Setting:
    """The setting with every ranged rate of chip and links drawn.

    A profile's constants are not drawn: its own 90 % interval on measured rows holds what they leave open.
    """
    pool, facts = setting.pool, system.facts
    chip = pool.chip

    def draw(key: str, default: Number) -> Number:
        if key not in facts or facts[key].si != default:  # a value that the user set has no range
            return default
        return sampler.fact(f"{system.id} {key}", facts, key)

    chip_facts = chip.facts
    bandwidth = (
        sampler.fact(f"{chip.id} memory_bytes_per_s", chip_facts, "memory_bytes_per_s")
        if "memory_bytes_per_s" in chip_facts
        else chip.memory_bytes_per_s
    )
    peaks = {dtype: _drawn_peak(chip, dtype, sampler) for dtype in chip.peak_flop_per_s}
    chip = dataclasses.replace(chip, memory_bytes_per_s=bandwidth, peak_flop_per_s=peaks)
    domain = dataclasses.replace(
        pool.domain,
        bytes_per_s=draw("scale_up_bytes_per_s", pool.domain.bytes_per_s),
        latency_s=draw("scale_up_latency_s", pool.domain.latency_s),
    )
    fabric = dataclasses.replace(
        pool.fabric,
        bytes_per_s=draw("scale_out_bytes_per_s", pool.fabric.bytes_per_s),
        latency_s=draw("scale_out_latency_s", pool.fabric.latency_s),
    )
    return dataclasses.replace(setting, pool=dataclasses.replace(pool, chip=chip, domain=domain, fabric=fabric))


def _drawn_peak(chip: Chip, dtype: str, sampler: Sampler) -> Number:
    """A format's matrix rate, drawn where its fact has a range (announced chips, estimated clocks)."""
    for key in (f"array_{dtype}_flop_per_s", f"{dtype}_flop_per_s"):
        if key in chip.facts and chip.facts[key].si == chip.peak_flop_per_s[dtype]:
            return sampler.fact(f"{chip.id} {key}", chip.facts, key)
    return chip.peak_flop_per_s[dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """A run for every sample of its uncertain facts: each [1 + sample], the first one expected, or a plain number.

    `spread`: facts that the range of the duration comes from.
    """

    step_s: Number
    num_steps: int
    duration_s: Number
    power_w: Number
    energy_j: Number
    carbon_kg: Number
    cost_usd: dict[str, Number]
    cost_notes: dict[str, str]
    spread: tuple[tuple[str, float], ...]
    parts: dict[str, Number]


def run_outcomes(
    setting: Setting, system: System, plan: Plan, sampler: Sampler, *, tokens: float, region: str = "world",
    price_usd_per_chip_s: Number | None = None,
) -> Outcomes:  # fmt: skip
    """A run of so many tokens under one plan, with every uncertain fact as a sampler draws it.

    Args: as of `training_run`; sampler: what each fact's values are
    Returns: the run of every sample
    """
    sampled = sampled_setting(setting, system, sampler)
    times = step_times(sampled.model, sampled.pool, plan, sampled.recipe, sampled.profile)
    error = sampler.error_factor("the twin's own error (scoreboard)", float(setting.profile.step_spread_frac))
    step = np.ravel(times.total_s) * error
    num_steps = int(np.ceil(tokens / (float(plan.global_batch_size) * float(plan.seq_length))))
    duration = step * num_steps
    spread = sampler.spread(duration)  # before what follows draws facts that time does not depend on
    chips = float(plan.num_ranks) / setting.pool.ranks_per_chip
    power = chips * power_w_per_chip(sampled.pool, system, times, sampler)
    regional = loader.entry("regions", region).figures
    pue = sampler.fact(f"PUE ({region})", regional, "pue")
    energy = power * pue * duration
    carbon = energy * sampler.fact(f"carbon of the grid ({region})", regional, "carbon_kg_per_j")
    costs, notes = run_costs(system, chips, duration, price_usd_per_chip_s, sampler)
    return Outcomes(
        step_s=step,
        num_steps=num_steps,
        duration_s=duration,
        power_w=power,
        energy_j=energy,
        carbon_kg=carbon,
        cost_usd=costs,
        cost_notes=notes,
        spread=spread,
        parts=times.parts,
    )


def training_run(
    setting: Setting, system: System, plan: Plan, *, tokens: float, region: str = "world",
    price_usd_per_chip_s: float | None = None, seed: int = 0,
) -> Run:  # fmt: skip
    """A run of so many tokens under one plan.

    Args:
        setting: model, pool, formats, framework; system: for prices and the ranges of its figures
        plan: one plan
        tokens: of the whole run
        region: whose grid and PUE; price_usd_per_chip_s: the user's own price
        seed: of the samples that ranges are drawn from
    Returns: the run, expected values and ranges
    """
    out = run_outcomes(
        setting, system, plan, Sampler(seed), tokens=tokens, region=region, price_usd_per_chip_s=price_usd_per_chip_s
    )
    chips = float(plan.num_ranks) / setting.pool.ranks_per_chip
    flop = float(np.ravel(model_flop_per_step(setting.model, plan))[0])
    peak = chips * float(np.ravel(headline_flop_per_s(setting.pool, setting.recipe.gemm))[0])
    return Run(
        step_s=range_of(out.step_s),
        tokens_per_s=range_of(float(plan.global_batch_size) * float(plan.seq_length) / out.step_s),
        num_steps=out.num_steps,
        duration_s=range_of(out.duration_s),
        chip_hours=range_of(out.duration_s * chips / 3600),
        mfu=range_of(flop / (out.step_s * peak)),
        power_w=range_of(out.power_w),
        energy_j=range_of(out.energy_j),
        carbon_kg=range_of(out.carbon_kg),
        cost_usd={offer: range_of(cost) for offer, cost in out.cost_usd.items()},
        cost_notes=out.cost_notes,
        spread=out.spread,
        parts={name: float(np.ravel(value)[0]) for name, value in out.parts.items()},
    )


def headline_flop_per_s(pool: Pool, dtype: str) -> Number:
    """The dense peak that a vendor prints for a format, per chip: what MFU is against."""
    fact = pool.chip.facts.get(f"{dtype}_flop_per_s")
    return fact.si if fact is not None else pool.chip.matmul_flop_per_s(dtype)


def power_w_per_chip(pool: Pool, system: System, times: StepTimes, sampler: Sampler) -> Number:
    """Mean power of a chip with its share of host and network: its limit times what each part of a step draws."""
    activity = {
        name: sampler.fact(f"power while busy: {name}", facts, name)
        for facts in [activity_facts(pool.chip.id)]
        for name in facts
    }
    chip = pool.chip
    tdp = sampler.fact(f"{chip.id} tdp_w", chip.facts, "tdp_w") if "tdp_w" in chip.facts else chip.tdp_w

    def beside(key: str, default: Number) -> Number:
        return sampler.fact(f"{system.id} {key}", system.facts, key) if key in system.facts else default

    drawing = dataclasses.replace(
        pool,
        chip=dataclasses.replace(chip, tdp_w=tdp),
        host_power_w=beside("host_power_w", pool.host_power_w),
        network_power_w=beside("network_power_w", pool.network_power_w),
    )
    return step_energy_j(times, drawing, activity) / times.total_s


def price_figures(system_id: str) -> tuple[dict[str, Fact], float]:
    """Public prices of a system by offer, and how many chips they are for; empty if there are none."""
    for name in loader.ids("prices"):
        found = loader.entry("prices", name)
        if isinstance(found, PriceEntry) and found.system == system_id:
            offers: dict[str, Fact] = {offer: found.figures[offer] for offer in OFFERS if offer in found.figures}
            return offers, found.figures["num_chips"].si
    return {}, 1.0


def chip_price(system_id: str, own_usd_per_chip_s: float | None, offer: str = "") -> tuple[float, str]:
    """USD per chip and second, NaN where unknown, and which offer it is: your own, `offer`, or the first known."""
    if own_usd_per_chip_s is not None:
        return own_usd_per_chip_s, "your price"
    offers, per_unit = price_figures(system_id)
    name = offer or next(iter(offers), "")
    return (offers[name].si / per_unit, name) if name in offers else (math.nan, "")


def run_costs(
    system: System, chips: float, duration_s: Number, price_usd_per_chip_s: Number | None, sampler: Sampler
) -> tuple[dict[str, Number], dict[str, str]]:
    if price_usd_per_chip_s is not None:
        return {"your price": chips * price_usd_per_chip_s * duration_s}, {"your price": "as given"}
    offers, per_unit = price_figures(system.id)
    costs = {
        offer: chips / per_unit * sampler.fact(f"{system.id} price {offer}", offers, offer) * duration_s
        for offer in offers
    }
    return costs, {offer: f"{fact.value:g} {fact.unit}, {fact.note or fact.source}" for offer, fact in offers.items()}


__all__ = [
    "OFFERS",
    "Outcomes",
    "Run",
    "chip_price",
    "headline_flop_per_s",
    "per_rank",
    "price_figures",
    "run_outcomes",
    "training_run",
]
