"""Time of a fused expert layer: choose rows, up (and gate) product, activation, down product, add up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.timing.kernels.constants import MoeConstants
from ultratwin.timing.kernels.gemm import Rates, both


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeShape:
    """Sizes of one expert layer on one chip, numbers or arrays [candidate]."""

    tokens: Number
    hidden: Number
    intermediate: Number
    top_k: Number
    experts: Number
    local_experts: Number
    routing_skew: Number = 0.0
    matrices: float = 3.0


def moe_seconds(c: MoeConstants, rates: Rates, s: MoeShape, weight_bytes: float) -> Number:
    """Time of a fused expert layer whose tokens spread over all experts, on the chip that holds `local_experts`.

    Equation:
        t = launch_s + tokens token_s + (tc or tm, whichever is longer, rounded)
        mean = tokens top_k local/experts;  rows = mean (1 + (imbalance - 1) skew)
        active = experts with work: min(local, mean) if balanced, else local (1 - exp(-mean/local active_ratio))
        tc = 2 matrices hidden intermediate (rows + active row_tile) / (P compute_frac)
        tm = (active matrices hidden intermediate bytes + row_passes rows hidden 2) / (B memory_frac) max(1, fill)
        fill = fill_frac p / (active intermediate/128)
    Args:
        c: constants, rates: of the chip and format, s: sizes, weight_bytes: bytes per weight
    Returns: seconds [s]
    Source: the constants are fitted; `active` is the expectation for independent choices
    """
    mean_rows = np.multiply(s.tokens, s.top_k) * np.divide(s.local_experts, s.experts)
    most_rows = np.maximum(np.multiply(s.tokens, np.minimum(s.top_k, s.local_experts)), mean_rows)
    rows = np.minimum(mean_rows * (1.0 + (c.imbalance - 1.0) * s.routing_skew), most_rows)
    balanced = np.minimum(s.local_experts, mean_rows)
    spread = s.local_experts * -np.expm1(-mean_rows / s.local_experts * c.active_ratio)
    active = np.where(np.equal(s.routing_skew, 0.0), balanced, np.minimum(spread, mean_rows))
    active = np.maximum(active, np.minimum(mean_rows, 1.0))
    weights = s.matrices * np.multiply(s.hidden, s.intermediate)
    compute = 2.0 * weights * (rows + active * c.row_tile) / (rates.flop_per_s * c.compute_frac)
    moved = active * weights * weight_bytes + c.row_passes * rows * s.hidden * 2.0
    memory = moved / (rates.memory_bytes_per_s * c.memory_frac)
    memory = memory * np.maximum(1.0, c.fill_frac * rates.num_cores * 128.0 / (active * s.intermediate))
    seconds: Number = c.launch_s + np.multiply(s.tokens, c.token_s) + both(compute, memory, c.rounding)
    return seconds
