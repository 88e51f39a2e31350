"""What a layout of `ultratwin diffuse` costs: frames per second, watts, joules, dollars, with their ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.catalogue import loader
from ultratwin.hardware.chip import Number
from ultratwin.hardware.system import System
from ultratwin.planning.power.chip import activity_facts
from ultratwin.planning.serving.money import serving_prices
from ultratwin.planning.uncertainty import Range, Sampler, range_of
from ultratwin.timing.diffusion import VideoSetting

OWN_ERROR: Final = "the twin's own error (assumed, as of an engine that nobody measured)"
_ACTIVITY: Final = {
    "linear layers": "linear_frac",
    "self-attention": "attention_frac",
    "attention to the text": "attention_frac",
    "norms, activations, rotary": "memory_frac",
}
"""Cause of a step's seconds -> figure of catalogue/data/power; what is not here communicates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Low, expected and high. Energy and carbon with PUE; money by offer, empty if no price is public.

    `shown_s`: until a clip, or a chunk of it, is made. `spread`: the facts that its range comes from.
    """

    step_s: Range
    shown_s: Range
    frames_per_s: Range
    power_w: Range
    energy_j_per_frame: Range
    carbon_kg_per_frame: Range
    cost_usd_per_frame: dict[str, Range]
    cost_notes: dict[str, str]
    spread: tuple[tuple[str, float], ...]


def drawn_outcome(
    parts: Mapping[str, Number], setting: VideoSetting, system: System, sampler: Sampler, *, chips: float, passes: int,
    shown_frames: int, region: str, price_usd_per_chip_s: float | None,
) -> Outcome:  # fmt: skip
    """What drawn seconds of a step's causes come to.

    Equation: frames/s = F / (n t); W = chips (sum of a TDP t_c / t + host + network); J = W PUE / (frames/s)
    Symbols: F frames shown at once after n steps of t seconds, t_c of a cause, a the share of the limit that it draws
    Args:
        parts: seconds by cause [1 + sample], the first expected; setting, system: what computes
        sampler: draws what is left; chips, passes, shown_frames: of one video; region, price: where, and for how much
    """
    step = np.asarray(sum(parts.values()), dtype=np.float64)
    error = sampler.error_factor(OWN_ERROR, float(setting.engine.spread_frac))
    slow = step * error
    spread = sampler.spread(slow)
    frames = shown_frames / (passes * slow)
    chip, pool = system.pool.chip, system.pool
    activity = {
        name: sampler.fact(f"power while busy: {name}", facts, name)
        for facts in [activity_facts(chip.id)]
        for name in ("linear_frac", "attention_frac", "memory_frac", "communication_frac")
    }
    tdp = sampler.fact(f"{chip.id} tdp_w", chip.facts, "tdp_w") if "tdp_w" in chip.facts else chip.tdp_w
    busy = sum(activity[_ACTIVITY.get(cause, "communication_frac")] * seconds for cause, seconds in parts.items())
    power = chips * (np.asarray(busy) / step * tdp + pool.host_power_w + pool.network_power_w)
    regional = loader.entry("regions", region).figures
    energy = power * sampler.fact(f"PUE ({region})", regional, "pue") / frames
    carbon = energy * sampler.fact(f"carbon of the grid ({region})", regional, "carbon_kg_per_j")
    prices = serving_prices(system.id, price_usd_per_chip_s)
    costs = {}
    for offer, price in prices.usd_per_chip_s.items():
        drawn: Number = price
        if offer in prices.facts:
            drawn = sampler.fact(f"{system.id} price {offer}", prices.facts, offer) / np.asarray(prices.facts_chips)
        costs[offer] = range_of(chips * drawn / frames)
    return Outcome(
        step_s=range_of(slow), shown_s=range_of(passes * slow), frames_per_s=range_of(frames),
        power_w=range_of(power), energy_j_per_frame=range_of(energy), carbon_kg_per_frame=range_of(carbon),
        cost_usd_per_frame=costs, cost_notes=prices.notes, spread=spread,
    )  # fmt: skip
