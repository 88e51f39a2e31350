"""Time of a matrix product on a chip of many equal cores (SM, CU, TensorCore).

Notation: m, n, k the sizes; P peak [flop/s]; B memory bandwidth [byte/s]; p cores; b bytes per element of A and B.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.hardware.chip import DTYPE_BYTES, Chip, Number
from ultratwin.timing.kernels.constants import GemmConstants

# output tiles that libraries choose from; three are enough: more of them change no fit by 1 % (tools/fit_kernels.py)
_TILES: Final = ((16, 64), (64, 128), (128, 256))
_MIN_SPLIT_K: Final = 256.0
_CACHED: Final = 16_384
_OUT_BYTES: Final = 2.0
_SUM_BYTES: Final = 8.0
"""An fp32 sum is read and written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What the formulas need of a chip, for one number format."""

    flop_per_s: Number
    memory_bytes_per_s: Number
    num_cores: float
    l2_bytes: float
    element_bytes: float

    @staticmethod
    def of(chip: Chip, dtype: str) -> Rates:
        """The rates of a chip at a number format."""
        return Rates(
            flop_per_s=chip.matmul_flop_per_s(dtype),
            memory_bytes_per_s=chip.memory_bytes_per_s,
            num_cores=chip.num_cores,
            l2_bytes=max(chip.l2_bytes, 1.0),
            element_bytes=DTYPE_BYTES[dtype],
        )


def gemm_seconds(
    c: GemmConstants, rates: Rates, m: Number, n: Number, k: Number, *, groups: Number = 1, accumulate: bool = False
) -> Number:
    """Time of `groups` products C[m, n] = A[m, k] B[k, n] in one launch.

    Equation:
        t = launch_s + (tc or tm, whichever is longer, rounded) + tq
        tc = min over tiles (a, d) of  w (z + ramp_k) 2 (a d + tile_edge (a + d) + tile_floor) p / (P compute_frac)
        u = ceil(m/a) ceil(n/d) groups / p waves;  w = max(u, 1), its fraction rounded up by wave_share
        z = max(k min(u, 1), min(k, 256)): k, or a slice of it where the tiles don't fill the cores
        tc is lengthened by 1 + throttle_frac f / (f + throttle_s), f = FLOP / P (power limit under long load)
        tm = bytes / (B memory_frac) r, times fill_frac p / (tiles of 64 x 128 x 512) where that is above 1;
        r goes from 1/l2_speedup to 1 as the bytes go from none to l2_share of the second-level cache
        tq = pass_s + bytes / (B pass_frac): quantising A first, for libraries that do it inside the call
    Args:
        c: constants, rates: of the chip and format, m n k groups: sizes [candidate]
        accumulate: C is fp32 and added to
    Returns: seconds [s]; tc is never below FLOP / P
    Source: tile and wave quantisation: Nvidia, Matrix Multiplication Background User's Guide; the constants are fitted
    """
    shape = np.broadcast(m, n, k, groups)
    if shape.ndim > 1 and shape.size > _CACHED:
        # one operator at a time: its candidates stay in the cache, which is several times faster than all at once
        stacked = np.broadcast_arrays(m, n, k, groups)
        rows = zip(*stacked, strict=True)
        return np.stack([gemm_seconds(c, rates, *row, groups=count, accumulate=accumulate) for *row, count in rows])
    moved = groups * (
        rates.element_bytes * (np.multiply(m, k) + np.multiply(n, k))
        + (_SUM_BYTES if accumulate else _OUT_BYTES) * np.multiply(m, n)
    )
    compute = _compute_seconds(c, rates, m, n, k, groups)
    memory = _memory_seconds(c, rates, moved, np.ceil(np.divide(n, 64)) * np.ceil(np.divide(m, 128)) * groups, k)
    seconds = c.launch_s + both(compute, memory, c.rounding) * (c.accumulate_ratio if accumulate else 1.0)
    if c.pass_frac > 0:
        read_write = np.multiply(m, k) * groups * (_OUT_BYTES + rates.element_bytes)
        seconds = seconds + c.pass_s + read_write / (rates.memory_bytes_per_s * c.pass_frac)
    return seconds


def _compute_seconds(c: GemmConstants, rates: Rates, m: Number, n: Number, k: Number, groups: Number) -> Number:
    """tc: the best tile, then the power limit."""
    cores = rates.num_cores
    best: Number = np.inf
    shortest = np.minimum(k, _MIN_SPLIT_K)
    for a, d in _TILES:
        waves = np.ceil(np.divide(m, a)) * np.ceil(np.divide(n, d)) * (groups / cores)
        # a grid that doesn't fill the cores is split along k, down to slices of _MIN_SPLIT_K
        depth = np.maximum(np.minimum(waves, 1.0) * k, shortest) + c.ramp_k
        waves = np.maximum(waves, 1.0)
        waves = waves + c.wave_share * (np.ceil(waves) - waves)
        best = np.minimum(best, waves * depth * (a * d + c.tile_edge * (a + d) + c.tile_floor))
    flop = 2.0 * np.multiply(m, n) * k * groups
    busy = flop / rates.flop_per_s
    seconds: Number = best * ((2 * cores) / (rates.flop_per_s * c.compute_frac))
    return seconds * (1 + c.throttle_frac * busy / (busy + c.throttle_s))


def _memory_seconds(c: GemmConstants, rates: Rates, moved: Number, pieces: Number, k: Number) -> Number:
    """tm: bytes over bandwidth, slower where there are too few pieces of work to keep all of memory busy."""
    pace = rates.memory_bytes_per_s * c.memory_frac
    filled = pieces * np.maximum(1.0, np.divide(k, 512.0))
    idle = np.maximum(1.0, c.fill_frac * rates.num_cores / filled)
    seconds: Number = moved / pace * l2_factor(moved, rates.l2_bytes, c.l2_speedup, c.l2_share) * idle
    return seconds


def both(first: Number, second: Number, rounding: float) -> Number:
    """Two limits that overlap: the longer one, rounded where they are close; from their maximum (0) to their sum (1).

    Equation:  (x + y + sqrt((x - y)^2 + 4 r^2 x y)) / 2
    Example:
        >>> float(both(3.0, 4.0, 0.0)), float(both(3.0, 4.0, 1.0))
        (4.0, 7.0)
    """
    gap = np.subtract(first, second)
    joined: Number = 0.5 * (first + second + np.sqrt(gap * gap + (4.0 * rounding * rounding) * first * second))
    return joined


def l2_factor(moved_bytes: Number, l2_bytes: float, speedup: float, share: float) -> Number:
    """Time of a pass relative to memory: 1/speedup for what stays in the cache, 1 from `share` of its size on."""
    factor: Number = 1 / speedup + (1 - 1 / speedup) * np.minimum(1.0, moved_bytes / (l2_bytes * share))
    return factor
