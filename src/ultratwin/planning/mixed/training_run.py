"""A run on several kinds of chips: days, energy, money and CO2, each with the range of what it rests on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ultratwin.catalogue import loader
from ultratwin.catalogue.facts import Fact
from ultratwin.hardware.chip import Array, Number
from ultratwin.hardware.mix import OWN, Join, PoolShare, joins_of
from ultratwin.hardware.system import System
from ultratwin.planning.evaluate import model_flop_per_step
from ultratwin.planning.mixed.training_search import PURE, MixedCandidate, MixedSetting, mixed_times, side_chips
from ultratwin.planning.mixed.training_step import MixedTimes, as_one_pool, side_parts
from ultratwin.planning.run import (
    Run,
    chip_price,
    headline_flop_per_s,
    power_w_per_chip,
    run_costs,
    sampled_setting,
    training_run,
)
from ultratwin.planning.uncertainty import Sampler, range_of


class SharedSampler(Sampler):
    """A sampler that draws a fact once: pools that share one share its samples."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self._known: dict[tuple[str, Fact], Array | float] = {}

    def fact(self, name: str, facts: Mapping[str, Fact], key: str) -> Array | float:
        """As `Sampler.fact`; facts of one name differ where each chip has its own."""
        known = name, facts[key]
        if known not in self._known:
            self._known[known] = super().fact(name, facts, key)
        return self._known[known]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Whose grid counts, and prices of one's own [USD per chip and second]: by system, or for all."""

    region: str = "world"
    prices_usd_per_chip_s: Mapping[str, float] = dataclasses.field(default_factory=dict)
    price_usd_per_chip_s: float | None = None

    def own_price(self, system: System) -> float | None:
        """The user's price of a system; None without one."""
        return self.prices_usd_per_chip_s.get(system.id, self.price_usd_per_chip_s)

    def rate_usd_per_chip_s(self, system: System) -> tuple[float, str]:
        """USD per chip and second, NaN where unknown, and which offer it is."""
        return chip_price(system.id, self.own_price(system))


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedRun:
    """A whole run, and what each pool that takes part does in a step.

    parts: seconds by cause of each side, in the order of the plan's sides; they sum to the step's
    """

    run: Run
    parts: tuple[dict[str, float], ...]
    chips: tuple[int, ...]


def rejoined(join: Join, systems: Sequence[System]) -> Join:
    """A join with the rates that these systems' pools have, which may be samples."""
    if join.fabric == OWN or len(systems) < 2:
        return join
    return joins_of(systems, (join.fabric,))[0]


def sampled_mix(setting: MixedSetting, shares: Sequence[PoolShare], sampler: Sampler) -> MixedSetting:
    """The setting with every ranged rate of chips, links and join drawn."""
    sides = tuple(
        sampled_setting(side, share.system, sampler) for side, share in zip(setting.sides, shares, strict=True)
    )
    drawn = [
        dataclasses.replace(share.system, pools=(side.pool,)) for side, share in zip(sides, shares, strict=True)
    ]  # fmt: skip
    return dataclasses.replace(setting, sides=sides, join=rejoined(setting.join, drawn))


def mixed_run(
    setting: MixedSetting, shares: Sequence[PoolShare], chosen: MixedCandidate, site: Site, *, tokens: float,
    seed: int = 0,
) -> MixedRun:  # fmt: skip
    """A run of so many tokens under one layout, without failures.

    Args: setting, shares: the pools; chosen: the layout; site: grid and prices; tokens: of the whole run
    Returns: expected values and ranges, as `planning.run.training_run` has them
    """
    if chosen.way == PURE:
        return _pure_run(setting, shares, chosen, site, tokens=tokens, seed=seed)
    sampler = SharedSampler(seed)
    sampled = sampled_mix(setting, shares, sampler)
    times = mixed_times(sampled, chosen.way, chosen.order, chosen.plan)
    sides = setting.in_order(chosen.order)
    error = sampler.error_factor(
        "the twin's own error (scoreboard)", max(float(side.profile.step_spread_frac) for side in sides)
    )
    step = np.ravel(times.total_s) * error
    tokens_per_step, chips = step_tokens(chosen), _chips(setting, chosen)
    num_steps = math.ceil(tokens / tokens_per_step)
    duration = step * num_steps
    spread = sampler.spread(duration)  # before what follows draws facts that time does not depend on
    power = _power_w(sampled, shares, chosen, times, chips, sampler)
    regional = loader.entry("regions", site.region).figures
    energy = power * sampler.fact(f"PUE ({site.region})", regional, "pue") * duration
    costs, notes = mixed_costs([shares[at] for at in chosen.order], chips, duration, site, sampler)
    peak = sum(
        count * float(np.ravel(headline_flop_per_s(side.pool, side.recipe.gemm))[0])
        for count, side in zip(chips, sides, strict=True)
    )
    run = Run(
        step_s=range_of(step),
        tokens_per_s=range_of(tokens_per_step / step),
        num_steps=num_steps,
        duration_s=range_of(duration),
        chip_hours=range_of(duration * sum(chips) / 3600),
        mfu=range_of(step_flop(setting, chosen) / (step * peak)),
        power_w=range_of(power),
        energy_j=range_of(energy),
        carbon_kg=range_of(
            energy * sampler.fact(f"carbon of the grid ({site.region})", regional, "carbon_kg_per_j")
        ),
        cost_usd={offer: range_of(cost) for offer, cost in costs.items()},
        cost_notes=notes,
        spread=spread,
        parts={},
    )  # fmt: skip
    return MixedRun(run=run, parts=step_seconds(setting, chosen), chips=tuple(round(each) for each in chips))


def _pure_run(
    setting: MixedSetting, shares: Sequence[PoolShare], chosen: MixedCandidate, site: Site, *, tokens: float, seed: int
) -> MixedRun:  # fmt: skip
    """The run of one kind alone: what `train` answers about it."""
    (at,) = chosen.order
    system = shares[at].system
    run = training_run(
        setting.sides[at], system, chosen.plan.sides[0], tokens=tokens, region=site.region,
        price_usd_per_chip_s=site.own_price(system), seed=seed,
    )  # fmt: skip
    chips = tuple(round(each) for each in _chips(setting, chosen))
    return MixedRun(run=run, parts=step_seconds(setting, chosen), chips=chips)


def step_seconds(setting: MixedSetting, chosen: MixedCandidate) -> tuple[dict[str, float], ...]:
    """Seconds of a step by cause of each side, expected values."""
    times = mixed_times(setting, chosen.way, chosen.order, chosen.plan)
    return tuple({name: float(np.ravel(value)[0]) for name, value in side_parts(each).items()} for each in times.sides)


def step_tokens(chosen: MixedCandidate) -> float:
    """Tokens of a step: those of the global batch, which groups of replicas share."""
    return float(chosen.batch) * float(chosen.plan.sides[0].seq_length)


def step_flop(setting: MixedSetting, chosen: MixedCandidate) -> float:
    """FLOP that the model needs for a step."""
    whole = dataclasses.replace(chosen.plan.sides[0], global_batch_size=chosen.batch)
    return float(np.ravel(model_flop_per_step(setting.sides[0].model, whole))[0])


def _chips(setting: MixedSetting, chosen: MixedCandidate) -> list[float]:
    found = side_chips(setting, chosen.way, chosen.order, chosen.plan)
    return [float(np.ravel(each)[0]) for each in found]


def _power_w(
    sampled: MixedSetting, shares: Sequence[PoolShare], chosen: MixedCandidate, times: MixedTimes,
    chips: Sequence[float], sampler: Sampler,
) -> Number:  # fmt: skip
    total: Number = 0.0
    for at, count, side in zip(chosen.order, chips, times.sides, strict=True):
        total = total + count * power_w_per_chip(
            sampled.sides[at].pool, shares[at].system, as_one_pool(side), sampler
        )  # fmt: skip
    return total


def mixed_costs(
    shares: Sequence[PoolShare], chips: Sequence[float], duration_s: Number, site: Site, sampler: Sampler
) -> tuple[dict[str, Number], dict[str, str]]:
    """Money of a run by offer: of every offer that all pools have; else of the first one of each.

    Returns: nothing where a pool has no price
    """
    each = [
        run_costs(share.system, count, duration_s, site.own_price(share.system), sampler)
        for share, count in zip(shares, chips, strict=True)
    ]
    common = [offer for offer in each[0][0] if all(offer in costs for costs, _ in each)]
    if common:
        totals = {offer: sum((costs[offer] for costs, _ in each), start=np.zeros(1)) for offer in common}
        named = zip(shares, each, strict=True)
        notes = dict.fromkeys(common, "")
        for share, (_, said) in named:
            for offer in common:
                notes[offer] += ("; " if notes[offer] else "") + f"{share.system.id}: {said[offer]}"
        return {offer: np.broadcast_to(total, np.shape(duration_s)) for offer, total in totals.items()}, notes
    if not all(costs for costs, _ in each):
        return {}, {}
    first = [next(iter(costs)) for costs, _ in each]
    name = " + ".join(dict.fromkeys(first))
    note = "; ".join(
        f"{share.system.id}: {offer}, {said[offer]}"
        for share, offer, (_, said) in zip(shares, first, each, strict=True)
    )
    total = sum((costs[offer] for offer, (costs, _) in zip(first, each, strict=True)), start=np.zeros(1))
    return {name: np.broadcast_to(total, np.shape(duration_s))}, {name: note}
