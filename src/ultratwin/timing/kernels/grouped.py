"""Time of a fused expert layer: choose rows, up (and gate) product, activation, down product, add up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.timing.kernels.constants import MoeConstants
from ultratwin.timing.kernels.gemm import Rates, both

_ROW_TILES: Final = (16, 64, 128)


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
    """Time of a fused expert layer whose tokens spread over all experts, on the chip with most work.

    Equation:
        t = launch_s + tokens token_s + (tc or tm, whichever is longer, rounded)
        rows = tokens top_k local/experts (experts/local)^(imbalance skew)
        active = experts with work: min(local, rows) if balanced, else local (1 - exp(-rows/local active_ratio))
        tc = 2 matrices hidden intermediate active min over a of (ceil(rows/active/a) (a + row_tile)) / (P compute_frac)
        tm = (active matrices hidden intermediate bytes + row_passes rows hidden 2) / (B memory_frac) max(1, fill)
        fill = fill_frac p / (active intermediate/128)
    Args:
        c: constants, rates: of the chip and format, s: sizes, weight_bytes: bytes per weight
    Returns: seconds [s]
    Source: the constants are fitted; `active` is the expectation for independent choices
    """
    rows, active = _rows(c, s)
    weights = s.matrices * np.multiply(s.hidden, s.intermediate)
    compute = 2.0 * weights * _padded_rows(c, s, rows, active) / (rates.flop_per_s * c.compute_frac)
    moved = active * weights * weight_bytes + c.row_passes * rows * s.hidden * 2.0
    memory = moved / (rates.memory_bytes_per_s * c.memory_frac)
    memory = memory * np.maximum(1.0, c.fill_frac * rates.num_cores * 128.0 / (active * s.intermediate))
    seconds: Number = c.launch_s + np.multiply(s.tokens, c.token_s) + both(compute, memory, c.rounding)
    return seconds


def _rows(c: MoeConstants, s: MoeShape) -> tuple[Number, Number]:
    """Rows on the chip with most of them, and its experts that have any."""
    spread_over = np.divide(s.experts, s.local_experts)
    mean = np.multiply(s.tokens, s.top_k) / spread_over
    most = np.maximum(np.multiply(s.tokens, np.minimum(s.top_k, s.local_experts)), mean)
    rows = np.minimum(mean * spread_over ** np.multiply(c.imbalance, s.routing_skew), most)
    chosen = s.local_experts * -np.expm1(-rows / s.local_experts * c.active_ratio)
    active = np.where(np.equal(s.routing_skew, 0.0), np.minimum(s.local_experts, rows), np.minimum(chosen, rows))
    return rows, np.maximum(active, np.minimum(rows, 1.0))


def _padded_rows(c: MoeConstants, s: MoeShape, rows: Number, active: Number) -> Number:
    """Rows with those that fill up the last tile of each expert, and what a tile costs besides its rows."""
    each = rows / active
    best: Number = np.inf
    for tile in _ROW_TILES:
        even = np.ceil(each / tile)
        # uneven experts are half a tile off on average
        tiles = np.where(np.equal(s.routing_skew, 0.0), even, np.maximum(each / tile + 0.5, 1.0))
        best = np.minimum(best, tiles * (tile + c.row_tile))
    padded: Number = active * best
    return padded
