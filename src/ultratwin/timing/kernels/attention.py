"""Time of attention: many queries per sequence (prefill, training) and one (decode).

Notation: b sequences, hq query and hk key heads, sq queries, sk keys, d and e head width of keys and of values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.timing.kernels.constants import AttentionConstants, DecodeConstants
from ultratwin.timing.kernels.gemm import Rates, both, l2_factor

_KEY_TILE: Final = 128.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """Sizes of one attention call, numbers or arrays [candidate]. `kv_width`: stored numbers per token and key head."""

    batch: Number
    seq_q: Number
    seq_kv: Number
    heads_q: Number
    heads_kv: Number
    head_dim: Number
    head_dim_v: Number
    kv_width: Number
    causal: bool = True
    window: Number | None = None


def visible_keys(s: AttentionShape) -> tuple[Number, Number]:
    """Keys that a query sees, on average and at most. Queries are the last ones of the keys."""
    most = s.seq_kv if s.window is None else np.minimum(s.seq_kv, s.window)
    if not s.causal:
        return most, most
    # query i sees its own and all earlier keys; a window cuts the triangle's tail
    first = np.maximum(np.subtract(s.seq_kv, s.seq_q) + 1.0, 1.0)
    short = np.clip(np.subtract(most, first), 0.0, s.seq_q)
    return most - short * (short + 1.0) / (2.0 * s.seq_q), most


def attention_flop(s: AttentionShape) -> Number:
    """Operations of the forward pass on the visible keys: 2 b hq sq v (d + e)."""
    mean, _ = visible_keys(s)
    flop: Number = 2.0 * np.multiply(s.batch, s.heads_q) * s.seq_q * mean * np.add(s.head_dim, s.head_dim_v)
    return flop


def attention_seconds(c: AttentionConstants, rates: Rates, s: AttentionShape, kv_bytes: float) -> Number:
    """Time of attention over many queries, forward or backward as the constants say.

    Equation:
        t = launch_s + (tc or tm, whichever is longer, rounded)
        tc = w (v + ramp_keys) 2 q (d + e + softmax_dim) flop_ratio p / (P compute_frac)
        u = b hq ceil(sq/q) / p waves of tiles of q = query_tile queries; v: mean of the visible keys, plus half a tile
        w = wave_share ceil(u) + (1 - wave_share) max(u, 1); a lone tile takes as long as the most keys that one sees
        tm = (q, k, v, o + (score_bytes + mask_bytes if causal) b hq sq sk) flop_ratio / (B memory_frac)
    Args:
        c: constants, rates: of the chip and format, s: sizes, kv_bytes: bytes per stored number
    Returns: seconds [s]; tc is never below FLOP / P
    Source: the constants are fitted; softmax_dim: exponentials cost as much as that many columns of a product
    """
    mean, most = visible_keys(s)
    computed = mean + c.masked_frac * (s.seq_kv - mean) if c.masked_frac > 1e-3 else mean
    half_tile = np.minimum(_KEY_TILE / 2, most)
    tiles = np.multiply(s.batch, s.heads_q) * np.ceil(np.divide(s.seq_q, c.query_tile))
    u = tiles / rates.num_cores
    waves = c.wave_share * np.ceil(u) + (1 - c.wave_share) * np.maximum(u, 1.0)
    depth = np.maximum(waves * (computed + half_tile + c.ramp_keys), most + c.ramp_keys)
    width = np.add(s.head_dim, s.head_dim_v) + c.softmax_dim
    compute = (
        depth * width * (2.0 * c.query_tile * c.flop_ratio * rates.num_cores) / (rates.flop_per_s * c.compute_frac)
    )
    queries = np.multiply(s.batch, s.seq_q) * s.heads_q
    moved = rates.element_bytes * queries * np.add(s.head_dim, s.head_dim_v)
    moved = moved + kv_bytes * np.multiply(s.batch, s.seq_kv) * s.heads_kv * s.kv_width
    moved = (moved + (c.score_bytes + (c.mask_bytes if s.causal else 0.0)) * queries * s.seq_kv) * c.flop_ratio
    memory = moved / (rates.memory_bytes_per_s * c.memory_frac)
    seconds: Number = c.launch_s + both(compute, memory, c.rounding)
    return seconds


def backward_of(c: AttentionConstants, share: float) -> AttentionConstants:
    """A backward kernel guessed from its forward one: 2.5 times the products, at `share` of the efficiency.

    Backward recomputes Q K^T and makes four more products of the same size: 5 against 2.
    """
    return msgspec.structs.replace(c, phase="backward", compute_frac=c.compute_frac * share, flop_ratio=2.5)


def decode_seconds(c: DecodeConstants, rates: Rates, s: AttentionShape, kv_bytes: float) -> Number:
    """Time of attention of one (or a few) new tokens per sequence over stored keys and values.

    Equation:
        t = launch_s + b sequence_s + (tc or tm, whichever is longer, rounded)
        tm = b hk v kv_width bytes / (B memory_frac) r max(1, fill_frac p / (b hk max(1, v/split_keys)))
        tc = 2 b hk ceil(sq hq/hk / row_tile) row_tile v (d + e + softmax_dim) / (P compute_frac)
    Args:
        c: constants, rates: of the chip and format, s: sizes, kv_bytes: bytes per stored number
    Returns: seconds [s]; tm is never below the stored bytes over B unless they fit the second-level cache
    """
    keys = s.seq_kv if s.window is None else np.minimum(s.seq_kv, s.window)
    pairs = np.multiply(s.batch, s.heads_kv)
    moved = kv_bytes * pairs * keys * s.kv_width
    memory = (
        moved / (rates.memory_bytes_per_s * c.memory_frac) * l2_factor(moved, rates.l2_bytes, c.l2_speedup, c.l2_share)
    )
    pieces = pairs * np.maximum(1.0, np.divide(keys, c.split_keys))
    idle = np.maximum(1.0, c.fill_frac * rates.num_cores / pieces)
    rows = np.multiply(s.seq_q, s.heads_q) / s.heads_kv
    rows = np.ceil(rows / c.row_tile) * c.row_tile
    width = np.add(s.head_dim, s.head_dim_v) + c.softmax_dim
    compute = 2.0 * pairs * rows * keys * width / (rates.flop_per_s * c.compute_frac)
    seconds: Number = c.launch_s + np.multiply(s.batch, c.sequence_s) + both(compute * idle, memory * idle, c.rounding)
    return seconds
