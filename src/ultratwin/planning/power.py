"""What a chip with its share of host and network draws, by what a step's seconds go to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ultratwin.catalogue import loader
from ultratwin.hardware.chip import Number
from ultratwin.hardware.system import Pool

_ACTIVITY: Final = {
    "linear layers": "linear_frac",
    "recomputation": "linear_frac",
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


def cause_power_w(pool: Pool, activity: Mapping[str, Number] | None = None) -> dict[str, Number]:
    """Watts per chip, with its share of host and network, while a step's seconds go to each cause.

    Equation: W = a TDP + host + network
    Args:
        pool: gives the chip's power limit TDP and what lies beside it; rates may be arrays
        activity: a, share of the limit by kind of work; the catalogue's expected values where left out
    Source: catalogue/data/power/activity.toml
    """
    if activity is None:
        activity = {name: fact.si for name, fact in loader.entry("power", "activity").figures.items()}
    beside = pool.host_power_w + pool.network_power_w
    return {cause: activity[kind] * pool.chip.tdp_w + beside for cause, kind in _ACTIVITY.items()}
