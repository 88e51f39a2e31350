"""How one replica of a served model is split over ranks, and what a rank then holds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.hardware.chip import Array, Chip, Number
from ultratwin.mapping.engine import Engine
from ultratwin.mapping.plan import IntLike
from ultratwin.mapping.serving_formats import ServingFormats
from ultratwin.workload.kv_cache import kv_bytes_per_rank, windowed
from ultratwin.workload.model import Model
from ultratwin.workload.tables import operator_tables

RUNTIME_BYTES: Final = 1.5e9
"""What driver, communication buffers and captured graphs take of a rank's memory, beside tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingPlan:
    """Sizes of one replica; each an int, or an array [candidate].

    Attention is split over `tensor_parallel_size` ranks; each of `attention_data_parallel_size` such groups serves its
    own share of the sequences. Experts lie on the ranks of both: `expert_parallel_size` ways, what is left splits each
    expert's matrices.
    """

    tensor_parallel_size: IntLike = 1
    pipeline_parallel_size: IntLike = 1
    attention_data_parallel_size: IntLike = 1
    expert_parallel_size: IntLike = 1

    @property
    def stage_ranks(self) -> IntLike:
        """Ranks of one pipeline stage."""
        return self.tensor_parallel_size * self.attention_data_parallel_size

    @property
    def num_ranks(self) -> IntLike:
        """Ranks of a replica."""
        return self.stage_ranks * self.pipeline_parallel_size

    @property
    def expert_tensor_size(self) -> IntLike:
        """Ranks that share one expert's matrices."""
        return np.maximum(np.asarray(self.stage_ranks) // self.expert_parallel_size, 1)

    def at(self, index: int) -> ServingPlan:
        """One candidate of arrays of plans, as plain ints."""
        sizes = {each.name: np.atleast_1d(getattr(self, each.name)) for each in dataclasses.fields(self)}
        return ServingPlan(**{name: int(size[index if len(size) > 1 else 0]) for name, size in sizes.items()})

    def describe(self) -> str:
        """The plan in a few letters, defaults left out."""
        parts = [
            ("TP", self.tensor_parallel_size, 0),
            ("PP", self.pipeline_parallel_size, 1),
            ("DPA", self.attention_data_parallel_size, 1),
            ("EP", self.expert_parallel_size, 1),
        ]
        return " ".join(f"{name}{value}" for name, value, default in parts if value != default)


def weight_bytes(model: Model, formats: ServingFormats, plan: ServingPlan) -> Number:
    """Bytes of weights on the fullest rank.

    Equation: (tensor / t + expert / (t a) + replicated) layers / p + embedding or head / t
    Symbols: t tensor, a attention-data, p pipeline ranks. Embedding and head keep 16 bits.
    """
    tables = operator_tables(model)
    table, share, kinds = tables.weights, tables.layer_share, slice(0, tables.num_owners - 2)
    tensor = np.asarray(plan.tensor_parallel_size, dtype=np.float64)

    def mean(elements: Array) -> float:
        return float((elements[kinds] * share).sum()) * model.num_layers

    dense = mean(table.tensor) / tensor * formats.weight_bytes + mean(table.replicated) * formats.high_bytes
    experts = mean(table.expert) / np.asarray(plan.stage_ranks) * formats.expert_bytes
    both_ends = model.vocab_size * model.hidden_size * formats.high_bytes / tensor
    ends = both_ends * np.where(
        (np.asarray(plan.pipeline_parallel_size) == 1) & (not model.tie_word_embeddings), 2.0, 1.0
    )
    total: Number = (dense + experts) / plan.pipeline_parallel_size + ends
    return total


def kv_rank_bytes(model: Model, formats: ServingFormats, plan: ServingPlan, context: Number) -> Number:
    """Bytes of keys, values and states that one sequence of so many tokens keeps on a rank."""
    stages = np.asarray(plan.pipeline_parallel_size, dtype=np.float64)
    full, windows, states = kv_bytes_per_rank(model, formats.kv_bytes, plan.tensor_parallel_size)
    kept: Number = full * context + states
    whole = sum(window * per_token for window, per_token in windowed(model, formats.kv_bytes))
    if whole:
        part = sum(np.minimum(context, w) * per_token for w, per_token in windowed(model, formats.kv_bytes)) / whole
        kept = kept + windows * part
    return kept / stages


def kv_capacity_tokens(
    model: Model, chip: Chip, formats: ServingFormats, plan: ServingPlan, engine: Engine, *,
    max_num_batched_tokens: Number = 8192.0, memory_utilization_frac: float | None = None,
    typical_context: float = 4096.0,
) -> Number:  # fmt: skip
    """Tokens whose keys and values fit into one attention group of a replica (all stages hold their layers' part).

    Equation: (u M - weights - activations - runtime) / bytes per token
    Args:
        chip: of one rank; max_num_batched_tokens: sizes the activations of a pass
        memory_utilization_frac: u; the engine's own where left out
        typical_context: over which windows and states are spread
    Returns: tokens, 0 where the weights don't fit
    Source: vLLM profiles a pass of max_num_batched_tokens and gives the rest of u M to blocks
    """
    used = engine.memory_utilization_frac if memory_utilization_frac is None else memory_utilization_frac
    free = used * np.asarray(chip.memory_bytes) - weight_bytes(model, formats, plan) - RUNTIME_BYTES
    free = free - activation_bytes(model, formats, plan, max_num_batched_tokens)
    per_token = kv_rank_bytes(model, formats, plan, typical_context) / typical_context
    return np.maximum(np.floor(free / per_token), 0.0)


def activation_bytes(model: Model, formats: ServingFormats, plan: ServingPlan, tokens: Number) -> Number:
    """Largest activations of a pass over so many tokens: residual, block input and output, widest intermediate.

    Equation: n (3 h + 2 f / t) 2, f the widest matrix output of a layer
    """
    tables = operator_tables(model)
    widest = float(np.max(np.where(tables.gemms.is_vocabulary > 0, 0.0, tables.gemms.n)))
    per_rank = widest / np.asarray(plan.tensor_parallel_size, dtype=np.float64)
    return np.asarray(tokens) * (3.0 * model.hidden_size + 2.0 * per_rank) * formats.high_bytes
