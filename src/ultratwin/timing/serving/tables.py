"""The time of an iteration as tables over batch sizes and contexts, for event loops that ask it a million times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.catalogue import loader
from ultratwin.hardware.chip import Array, Number
from ultratwin.mapping.serving import ServingPlan
from ultratwin.timing.serving.iteration import (
    ServingSetting,
    decode_attention_s,
    eager_s,
    head_s,
    host_s,
    prefill_attention_s,
    token_parts,
)

_ACTIVITY: Final = {
    "linear layers": "linear_frac",
    "experts": "linear_frac",
    "norms, activations, rotary": "memory_frac",
    "tensor-parallel communication": "communication_frac",
    "expert-parallel communication": "communication_frac",
    "pipeline hand-over": "communication_frac",
}
_BUSY_TOKENS: Final = 512.0
"""Tokens from which on products are limited by the matrix engine rather than by reading weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationTables:
    """Seconds and joules of a replica's iterations (docstring of `iteration_tables`); joules are of all its chips."""

    token_s: Array
    sample_s: Array
    decode_knots: Array
    decode_attention_s: Array
    chunk_knots: Array
    context_knots: Array
    prefill_attention_s: Array
    host_s: Array
    draft_s: Array
    overlaps_host: bool
    request_s: float
    token_j: Array
    sample_j: Array
    decode_attention_j: Array
    prefill_attention_j: Array
    idle_w: float
    entry_s: float = 0.0
    eager_s: float = 0.0
    captured_tokens: int = 0
    decode_tokens_per_sequence: float = 1.0
    accepted_tokens: float = 1.0

    def iteration_s(
        self, tokens: int, samples: int, decoding: int, context: float, chunks: Array | None = None
    ) -> float:
        """One iteration, as an event loop computes it: `chunks` [2, chunk] are prompt tokens and their contexts."""
        device = self.token_s[tokens] + self.sample_s[samples]
        if decoding:
            device += np.interp(context, self.decode_knots, self.decode_attention_s[decoding])
        for chunk, before in () if chunks is None else np.asarray(chunks).T:
            device += bilinear(self.chunk_knots, self.context_knots, self.prefill_attention_s, chunk, before)
        host = self.host_s[samples]
        launch = self.eager_s if chunks is not None and tokens > self.captured_tokens else 0.0
        return float(max(device, host + launch) if self.overlaps_host else max(device, launch) + host)


def bilinear(rows: Array, columns: Array, table: Array, row: float, column: float) -> float:
    """A table between its knots; its ends outside them."""
    i = int(np.clip(np.searchsorted(rows, row, side="right") - 1, 0, len(rows) - 2))
    j = int(np.clip(np.searchsorted(columns, column, side="right") - 1, 0, len(columns) - 2))
    u = float(np.clip((row - rows[i]) / (rows[i + 1] - rows[i]), 0.0, 1.0))
    v = float(np.clip((column - columns[j]) / (columns[j + 1] - columns[j]), 0.0, 1.0))
    upper = table[i, j] * (1 - v) + table[i, j + 1] * v
    lower = table[i + 1, j] * (1 - v) + table[i + 1, j + 1] * v
    return float(upper * (1 - u) + lower * u)


def iteration_tables(
    setting: ServingSetting, plan: ServingPlan, *, max_num_seqs: int, max_num_batched_tokens: int, max_context: int
) -> IterationTables:
    """Tables of one plan.

    Args:
        setting, plan: what serves; sizes are plain ints
        max_num_seqs, max_num_batched_tokens: largest batch [S], largest iteration [T]
        max_context: longest sequence
    Returns:
        token_s[T+1]: what depends on the tokens of an iteration; sample_s[S+1]: head by sequences that sample;
        decode_attention_s[S+1, K]: of b sequences with mean context decode_knots[K], linear between;
        prefill_attention_s[C, D]: of a chunk of chunk_knots[C] tokens after context_knots[D], bilinear between;
        host_s[S+1]: host by running sequences; the iteration is their sum, or the longer of device and host if
        `overlaps_host`; the same in joules, and `idle_w`
    """
    most_tokens = max(max_num_batched_tokens, max_num_seqs)
    by_cause = _interpolated(setting, plan, most_tokens)
    sequences = np.arange(max_num_seqs + 1, dtype=np.float64)
    knots = _knots(1.0, float(max_context), 28)
    decode = decode_attention_s(setting, plan, np.repeat(sequences, len(knots)), np.tile(knots, len(sequences)))
    decode = np.asarray(decode).reshape(len(sequences), len(knots))
    chunks, contexts = (
        _knots(1.0, float(most_tokens), 20),
        np.concatenate([[0.0], _knots(128.0, float(max_context), 14)]),
    )
    prefill = prefill_attention_s(setting, plan, np.repeat(chunks, len(contexts)), np.tile(contexts, len(chunks)))
    prefill = np.asarray(prefill).reshape(len(chunks), len(contexts))
    sample = np.broadcast_to(np.asarray(head_s(setting, plan, sequences), dtype=np.float64), sequences.shape)
    power = _Power.of(setting, plan)
    return IterationTables(
        token_s=np.asarray(sum(by_cause.values())),
        sample_s=sample,
        decode_knots=knots,
        decode_attention_s=decode,
        chunk_knots=chunks,
        context_knots=contexts,
        prefill_attention_s=prefill,
        host_s=np.asarray(host_s(setting.engine, plan, sequences)),
        draft_s=np.zeros(max_num_seqs + 1),
        overlaps_host=setting.engine.overlaps_host,
        request_s=float(setting.engine.request_s),
        entry_s=float(setting.engine.entry_s),
        eager_s=eager_s(setting),
        captured_tokens=int(setting.engine.captured_tokens),
        token_j=power.of_tokens(by_cause),
        sample_j=sample * power.watts("memory_frac"),
        decode_attention_j=decode * power.watts("memory_frac"),
        prefill_attention_j=prefill * power.watts("attention_frac"),
        idle_w=power.watts("idle_frac"),
    )


def _interpolated(setting: ServingSetting, plan: ServingPlan, most: int) -> dict[str, Array]:
    """Seconds by cause for 0 to `most` tokens: each size up to 512, above that 256 sizes and lines between them."""
    every = np.arange(most + 1, dtype=np.float64)
    sizes = every if most <= 768 else np.unique(np.concatenate([every[:513], np.round(np.geomspace(512, most, 256))]))
    parts = token_parts(setting, plan, sizes)
    return {name: np.interp(every, sizes, np.broadcast_to(value, sizes.shape)) for name, value in parts.items()}


def _knots(low: float, high: float, count: int) -> Array:
    """Sizes from low to high, each about as much longer than the one before."""
    return np.unique(np.round(np.geomspace(low, max(high, low + 1.0), count)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Power:
    """What a replica's chips draw: limit by kind of work, and hosts and network beside it."""

    tdp_w: float
    beside_w: float
    activity: dict[str, float]

    @staticmethod
    def of(setting: ServingSetting, plan: ServingPlan) -> _Power:
        pool = setting.pool
        chips = float(np.ravel(plan.num_ranks)[0]) / pool.ranks_per_chip
        beside: Number = np.ravel(pool.host_power_w + pool.network_power_w)[0]
        return _Power(
            tdp_w=chips * float(np.ravel(pool.chip.tdp_w)[0]),
            beside_w=chips * float(beside),
            activity={name: fact.si for name, fact in loader.entry("power", "activity").figures.items()},
        )

    def watts(self, kind: str) -> float:
        return self.activity[kind] * self.tdp_w + self.beside_w

    def of_tokens(self, by_cause: dict[str, Array]) -> Array:
        """Joules of an iteration's token part: products draw less while they wait for weights."""
        joules: Array = np.zeros(())
        for cause, seconds in by_cause.items():
            kind = _ACTIVITY[cause]
            watts: Number = self.watts(kind)
            if kind == "linear_frac":
                busy = np.minimum(np.arange(len(seconds)) / _BUSY_TOKENS, 1.0)
                watts = self.watts("memory_frac") * (1 - busy) + watts * busy
            joules = joules + seconds * watts
        return joules
