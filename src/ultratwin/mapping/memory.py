"""Memory of one rank: weights, gradients, optimizer state, activations in flight, buffers, what the runtime takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.mapping.plan import RECOMPUTE, Plan
from ultratwin.mapping.profile import Profile
from ultratwin.mapping.schedules import by_schedule
from ultratwin.mapping.sharding import Shard, Stages, Weights, shard
from ultratwin.workload.tables import OperatorTables


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of the fullest rank by purpose, each [candidate]. `parts` sum to `total_bytes`.

    `allocated_bytes` is what tensors take at the peak; `total_bytes` adds fragmentation and the runtime's own.
    """

    allocated_bytes: Number
    total_bytes: Number
    parts: dict[str, Number]


def step_memory(tables: OperatorTables, plan: Plan, profile: Profile, stages: Stages, held: Weights) -> Memory:
    """Peak memory of a training step on the fullest rank: the first pipeline stage, or the last with its logits.

    Equation:  M = (P w + P g / s_g + P o / s_o + A + T)(1 + f) + c
    Symbols: P weights of the stage, w g o bytes of weight, gradient, optimizer state, s ZeRO's shards of each, A saved
        activations of the micro-batches in flight, T the largest temporary, f fragmentation, c runtime
    Args: tables, stages, held: what lies on the stage; plan: [candidate]; profile: bytes and overheads
    Returns: bytes by purpose [candidate]
    Source: Rajbhandari et al. 2019 (arXiv 1910.02054) for ZeRO; Korthikanti et al. 2022 (arXiv 2205.05198) 4
    """
    sizes = shard(plan, tables.vocab_size, profile.vocab_multiple)
    first = _stage_parts(tables, plan, profile, sizes, stages.first, stages, held, is_first=True)
    last = _stage_parts(tables, plan, profile, sizes, stages.last, stages, held, is_first=False)
    fullest_is_last = np.asarray(sum(last.values())) > np.asarray(sum(first.values()))
    parts: dict[str, Number] = {name: np.where(fullest_is_last, last[name], first[name]) for name in first}
    allocated = sum(parts.values())
    parts["fragmentation"] = allocated * profile.allocator_frac
    parts["runtime"] = profile.context_bytes + 0.0 * allocated
    return Memory(allocated_bytes=allocated, total_bytes=sum(parts.values()), parts=parts)


def _stage_parts(
    tables: OperatorTables,
    plan: Plan,
    profile: Profile,
    sizes: Shard,
    layers: Number,
    stages: Stages,
    held: Weights,
    *,
    is_first: bool,
) -> dict[str, Number]:
    only = np.asarray(plan.pipeline_parallel_size) == 1
    with_embedding = 1.0 if is_first else np.where(only, 1.0, 0.0)
    with_head = np.where(only, 1.0, 0.0) if is_first else 1.0
    # tied weights are still held on both end stages of a pipeline
    head = np.where(only, held.head, np.maximum(held.head, held.embedding))
    dense = layers * held.layer_dense + with_embedding * held.embedding + with_head * head
    expert = layers * held.layer_expert
    zero, ways = np.asarray(plan.zero_stage), np.maximum(plan.zero_shard_size, 1)
    in_experts = np.asarray(plan.expert_parallel_size) * plan.expert_tensor_parallel_size
    expert_ways = np.maximum(np.asarray(plan.tensor_parallel_size) * plan.data_shard_size // in_experts, 1)

    def kept(element_bytes: Number, sharded_from: int) -> Number:
        split = zero >= sharded_from
        return element_bytes * (dense / np.where(split, ways, 1) + expert / np.where(split, expert_ways, 1))

    in_flight = np.where(
        only,
        1.0,
        by_schedule(
            plan.schedule, "micro_batches_in_flight",
            np.asarray(plan.pipeline_parallel_size), np.asarray(plan.num_micro_batches, dtype=np.float64),
            np.asarray(plan.virtual_pipeline_size),
        ) if is_first else 1.0,
    )  # fmt: skip
    gathered = np.where(zero >= 3, 2 * (held.layer_dense + held.layer_expert) * profile.parameter_bytes, 0.0)
    per_layer, working = activation_bytes(tables, plan, sizes, profile)
    logits = with_head * sizes.tokens * sizes.vocabulary * profile.logits_bytes
    return {
        "weights": kept(profile.parameter_bytes, 3),
        "gradients": kept(profile.gradient_bytes, 2),
        "optimizer state": kept(profile.optimizer_bytes, 1),
        "activations": per_layer * layers * in_flight,
        "temporary buffers": np.maximum(logits, np.maximum(working, gathered)) + 0.0 * dense,
    }


def activation_bytes(tables: OperatorTables, plan: Plan, sizes: Shard, profile: Profile) -> tuple[Number, Number]:
    """Bytes that one layer saves for one micro-batch, and what its recomputation holds meanwhile, [candidate].

    Under full recomputation a layer keeps its input; all of one layer's activations live while it is redone. Attention
    that is not fused keeps softmax, dropout output and mask of its scores too: 5 byte each (Korthikanti et al. 4.1).
    """
    kinds, share = slice(0, tables.num_owners - 2), tables.layer_share
    per_token = {
        "tensor": sizes.tokens / sizes.tensor,
        "sequence": sizes.sequence_tokens,
        "expert": sizes.routed_tokens / sizes.expert_tensor,
        "none": sizes.sequence_tokens,
    }
    selective_drops: Number = 0.0
    rest: Number = 0.0
    for (dropped_by, split), table in tables.saved.bytes_per_token.items():
        size = float((table[kinds] * share).sum()) * per_token[split]
        if dropped_by == "selective":
            selective_drops = selective_drops + size
        else:
            rest = rest + size
    if profile.attention == "unfused":
        heads = sum(core.num_heads * float(share[owner, 0]) for owner, core in tables.cores)
        selective_drops = selective_drops + 5.0 * heads * np.asarray(plan.seq_length) * sizes.tokens / sizes.tensor
    full = np.asarray(plan.recompute) == RECOMPUTE.index("full")
    selective = np.asarray(plan.recompute) == RECOMPUTE.index("selective")
    layer_input = 2.0 * tables.hidden_size * sizes.sequence_tokens
    everything = rest + selective_drops
    return (
        np.where(full, layer_input, np.where(selective, rest, everything)),
        np.where(full, everything, np.where(selective, selective_drops, 0.0)),
    )
