"""What a chip with its share of host and network draws, by what a step's seconds go to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from ultratwin.catalogue import loader
from ultratwin.catalogue.facts import Fact
from ultratwin.catalogue.schema import PowerEntry
from ultratwin.hardware.chip import Number
from ultratwin.hardware.system import Pool
from ultratwin.timing.step import StepTimes

_ACTIVITY: Final = {
    "linear layers": "linear_free_frac",
    "recomputation": "linear_free_frac",
    "embedding, head, uneven stages": "linear_frac",
    "attention": "attention_frac",
    "norms, activations, casts": "memory_frac",
    "optimizer": "memory_frac",
    "tensor-parallel communication": "communication_frac",
    "context-parallel communication": "communication_frac",
    "expert-parallel communication": "communication_frac",
    "weight sharding communication": "communication_frac",
    "pipeline hand-over": "communication_frac",
    "gradient synchronisation": "communication_frac",
    "pipeline bubble": "idle_frac",
    "host launches": "idle_frac",
    "host, per step": "idle_frac",
    "stragglers": "idle_frac",
}
"""Cause of a step's seconds -> figure of catalogue/data/power/activity.toml."""


def activity_files(chip_id: str) -> dict[str, dict[str, Fact]]:
    """Shares of the power limit by kind of work, by the file that each comes from.

    Measured on the chip or its like where they are, else on other chips.
    """
    own = {}
    for name in loader.ids("power"):
        entry = loader.entry("power", name)
        if isinstance(entry, PowerEntry) and chip_id in entry.chips:
            own[name] = dict(entry.figures)
    taken = {key for figures in own.values() for key in figures}
    usual = loader.entry("power", "activity").figures
    return {"activity": {key: fact for key, fact in usual.items() if key not in taken}, **own}


def activity_facts(chip_id: str) -> dict[str, Fact]:
    """Shares of the power limit by kind of work, of one chip."""
    return {key: fact for figures in activity_files(chip_id).values() for key, fact in sorted(figures.items())}


def activity_of(chip_id: str) -> dict[str, Number]:
    """Expected values of `activity_facts`."""
    return {key: fact.si for key, fact in activity_facts(chip_id).items()}


def supply_figures() -> dict[str, float]:
    """Expected values between the chip's limit and the wall."""
    return {key: fact.si for key, fact in loader.entry("power", "supply").figures.items()}


def cause_power_w(pool: Pool, activity: Mapping[str, Number] | None = None) -> dict[str, Number]:
    """Watts per chip, with its share of host and network, while a step's seconds go to each cause.

    Equation: W = a TDP + host + network
    Args:
        pool: gives the chip's power limit TDP and what lies beside it; rates may be arrays
        activity: a, share of the limit by kind of work; the catalogue's expected values where left out
    Returns: by cause; products of layers above the limit, which holds for a layer as a whole (`step_energy_j`)
    Source: catalogue/data/power/activity.toml
    """
    activity = activity_of(pool.chip.id) if activity is None else activity
    beside = pool.host_power_w + pool.network_power_w
    return {cause: activity[kind] * pool.chip.tdp_w + beside for cause, kind in _ACTIVITY.items()}


def limit_power_w(pool: Pool, activity: Mapping[str, Number] | None = None) -> Number:
    """Watts per chip that nothing exceeds over milliseconds, with its share of host and network."""
    activity = activity_of(pool.chip.id) if activity is None else activity
    return activity["limit_frac"] * pool.chip.tdp_w + pool.host_power_w + pool.network_power_w


def step_energy_j(times: StepTimes, pool: Pool, activity: Mapping[str, Number] | None = None) -> Number:
    """Energy of one step of one chip, with its share of host and network [candidate].

    Equation: E = m min(sum_c W_c t_c, W_max t) + sum_o W_o t_o
    Symbols: m layers; c causes within a layer, o causes once a step; W watts, t seconds
    Args: times: of a step; pool, activity: as of `cause_power_w`
    Returns: joules
    Source: docs/explanation/power.md
    """
    return times.weighted_s(cause_power_w(pool, activity), limit_power_w(pool, activity))


def idle_power_w(pool: Pool) -> float:
    """Watts of a chip that holds a job and does nothing, with its share of host and network.

    Equation: W = a_idle TDP + h host + network
    Source: catalogue/data/power; h from the least that measured nodes draw
    """
    activity, supply = activity_of(pool.chip.id), supply_figures()
    found = activity["idle_frac"] * pool.chip.tdp_w + supply["host_idle_frac"] * pool.host_power_w
    return float(np.ravel(found + pool.network_power_w)[0])
