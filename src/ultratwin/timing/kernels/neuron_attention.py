"""Attention on NeuronCores: cycles of each engine for one tile of scores, and how many tiles there are.

A tile is 128 queries x 512 keys: scores on the tensor engine, their maximum on the vector engine, exp on the scalar
engine, a transpose of the probabilities on the tensor engine, and their product with the values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.timing.kernels.neuron_core import NeuronCore


@dataclass(frozen=True, slots=True, kw_only=True)
class TileCycles:
    """Cycles that a tile keeps the tensor, scalar and vector engine busy, each in its own clock."""

    tensor: Number
    scalar: Number
    vector: Number

    def seconds(self, core: NeuronCore, tensor_scale: Number, vector_scale: Number) -> Number:
        """Time of a tile in a full pipeline: the slowest engine [s]."""
        others = np.maximum(self.scalar / core.scalar_clock_hz, self.vector / core.vector_clock_hz) / vector_scale
        return np.maximum(self.tensor / (core.tensor_clock_hz * tensor_scale), others)


def forward_cycles(core: NeuronCore, head_dim: Number, head_dim_v: Number) -> TileCycles:
    """One tile of softmax(Q K^T) V.

    Equation:  PE  = 512 ceil(d/128) + 512 + 4 max(d_v, 64)        scores, transpose, values
               ACT = 512 + s                                       exp with its row sum
               DVE = (512 + s) + (512/e + s) + (2 d_v + s)         maximum, copy of the transpose, rescaled output
    Args:
        core: s = static cycles of a dependent instruction, e = 16-bit elements per cycle and lane
        head_dim, head_dim_v: d, d_v [1]
    Source: nki_isa (cycles per instruction), nki_v2, nki_v3
    """
    n, s = core.moving_columns, core.instruction_cycles
    tensor = (
        n * np.ceil(head_dim / core.array_edge)
        + n
        + n / core.array_edge * np.maximum(head_dim_v, core.issue_floor_cycles)
    )
    vector = n + n / core.bf16_elements_per_cycle + 2.0 * head_dim_v + 3.0 * s
    return TileCycles(tensor=tensor, scalar=n + s, vector=vector)


def backward_cycles(core: NeuronCore, head_dim: Number, head_dim_v: Number) -> TileCycles:
    """One tile of the gradient of attention, scores recomputed, gradients of keys and values summed in PSUM.

    Equation:  PE  = 512 (ceil(d/128) + ceil(d_v/128)) + 512 + 2 x 128 + 4 (2 max(d, 64) + max(d_v, 64))
                     S and dP; transposes of dS, Q and dO; dQ, dK and dV
               ACT = 512 + s                                                       exp
               DVE = 2 (512/e + s) + (512 + s) + ((d + d_v)/e + 2 s) + (d + s)
                     copies of dP and of dS^T; dS = P (dP - D); copies of Q^T and dO^T; sum of dQ
    Args: as for forward_cycles
    Source: operations of flash_attn_bwd (aws-neuron/nki-samples, reference/attention.py); costs from nki_isa, nki_v3
    """
    n, s, edge, floor = core.moving_columns, core.instruction_cycles, core.array_edge, core.issue_floor_cycles
    gradients = n / edge * (2.0 * np.maximum(head_dim, floor) + np.maximum(head_dim_v, floor))
    tensor = n * (np.ceil(head_dim / edge) + np.ceil(head_dim_v / edge) + 1.0) + 2.0 * edge + gradients
    copies = (2.0 * n + head_dim + head_dim_v) / core.bf16_elements_per_cycle
    return TileCycles(tensor=tensor, scalar=n + s, vector=copies + n + head_dim + 6.0 * s)


def num_tiles(core: NeuronCore, seq_q: Number, seq_kv: Number, causal: bool, window: Number | None) -> Number:
    """Tiles of one head that hold a visible score; the queries are the last `seq_q` of the keys.

    Equation:  ceil(q/128) x keys/512; keys = whole tiles, or with a mask the mean that a query tile sees + half a tile
    Example:
        >>> from ultratwin.timing.kernels.neuron_core import neuron_core
        >>> float(num_tiles(neuron_core("trainium3"), 4096.0, 4096.0, False, None))
        256.0
    """
    edge, columns = core.array_edge, core.moving_columns
    whole = np.ceil(seq_kv / columns) * columns
    seen = np.maximum(seq_kv - 0.5 * np.minimum(seq_q, seq_kv), 0.0) if causal else seq_kv
    if window is not None:
        seen = np.minimum(seen, window)
    keys = np.minimum(whole, seen + 0.5 * columns) if causal or window is not None else whole
    return np.ceil(seq_q / edge) * keys / columns


def decode_cycles(core: NeuronCore, rows: Number, seq_kv: Number, head_dim: Number, head_dim_v: Number) -> TileCycles:
    """All keys of one key-value head for the few queries that share it: keys stay in the array, queries stream.

    Equation:  PE  = ceil(kv/128) (ceil(d/128) max(64, g) + ceil(g/128) max(64, d_v))
               ACT = ceil(kv/128) g;  DVE = 3 x that   (elements over 128 lanes: maximum, scale, copy)
    Args:
        rows: g, query heads per key-value head times queries [1]
        seq_kv, head_dim, head_dim_v: kv, d, d_v [1]
    Source: nki_v2, nki_isa
    """
    edge, floor = core.array_edge, core.issue_floor_cycles
    tiles = np.ceil(seq_kv / edge)
    scores = np.ceil(head_dim / edge) * np.maximum(rows, floor)
    values = np.ceil(rows / edge) * np.maximum(head_dim_v, floor)
    return TileCycles(tensor=tiles * (scores + values), scalar=tiles * rows, vector=3.0 * tiles * rows)
