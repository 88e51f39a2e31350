"""What the chips of a serving replica draw, by what an iteration's seconds go to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from ultratwin.catalogue import loader
from ultratwin.hardware.chip import Array, Number
from ultratwin.hardware.system import Pool
from ultratwin.mapping.serving import ServingPlan

ACTIVITY: Final = {
    "linear layers": "linear_frac",
    "experts": "linear_frac",
    "norms, activations, rotary": "memory_frac",
    "tensor-parallel communication": "communication_frac",
    "expert-parallel communication": "communication_frac",
    "pipeline hand-over": "communication_frac",
    "attention, decoding": "memory_frac",
    "attention, prompts": "attention_frac",
    "output head": "memory_frac",
    "draft": "memory_frac",
    "host": "idle_frac",
}
"""Cause of an iteration's seconds -> figure of catalogue/data/power/activity.toml."""
_BUSY_TOKENS: Final = 512.0
"""Tokens from which on products are limited by the matrix engine rather than by reading weights."""


def replica_power_w(pool: Pool, plan: ServingPlan) -> dict[str, Number]:
    """Watts of all chips of a replica, with their share of host and network, by kind of work.

    Equation: W = chips (a TDP + host + network), a from catalogue/data/power/activity.toml
    Returns: [candidate], by kind
    """
    chips = np.asarray(plan.num_ranks, dtype=np.float64) / pool.ranks_per_chip
    beside = pool.host_power_w + pool.network_power_w
    activity = {name: fact.si for name, fact in loader.entry("power", "activity").figures.items()}
    return {kind: chips * (share * pool.chip.tdp_w + beside) for kind, share in activity.items()}


def iteration_joules(parts: Mapping[str, Array], watts: Mapping[str, Number], tokens: Array) -> Array:
    """Joules of an iteration from its seconds by cause; products draw less while they wait for weights.

    Args:
        parts: seconds, [node, candidate]; watts: as of `replica_power_w`
        tokens: computed in the iteration, [node, candidate]
    """
    busy = np.minimum(tokens / _BUSY_TOKENS, 1.0)
    joules: Array = np.zeros(())
    for cause, seconds in parts.items():
        kind = ACTIVITY[cause]
        power = watts[kind]
        if kind == "linear_frac":
            power = watts["memory_frac"] * (1.0 - busy) + power * busy
        joules = joules + seconds * power
    return joules
