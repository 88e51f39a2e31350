"""Memory of one rank: weights, gradients, optimizer state, activations in flight, buffers, what the runtime takes."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.mapping.plan import RECOMPUTE, Plan
from ultratwin.mapping.profile import Profile
from ultratwin.mapping.recipe import Recipe
from ultratwin.mapping.schedules import SCHEDULES, by_schedule
from ultratwin.mapping.sharding import Shard, Stages, Weights, shard
from ultratwin.workload.tables import OperatorTables


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of the fullest rank, [candidate].

    `stages` holds bytes by purpose of the first, the fullest middle and the last stage. `allocated_bytes` is what
    tensors take at the peak; `total_bytes` adds fragmentation and the runtime's own.
    """

    stages: tuple[dict[str, Number], ...]
    allocated_bytes: Number
    total_bytes: Number
    allocator_frac: Number
    context_bytes: Number

    @property
    def parts(self) -> dict[str, Number]:
        """Bytes by purpose of whichever stage holds most, per candidate; they sum to `total_bytes`."""
        parts = functools.reduce(_fullest, self.stages)
        fragmentation = self.allocated_bytes * self.allocator_frac
        return parts | {"fragmentation": fragmentation, "runtime": self.context_bytes + 0.0 * fragmentation}


def step_memory(
    tables: OperatorTables, plan: Plan, recipe: Recipe, profile: Profile, stages: Stages, held: Weights
) -> Memory:
    """Peak memory of a training step on the fullest rank: of the first, the fullest middle, or the last stage.

    Equation:  M = (P w + P g / s_g + P o / s_o + A + T)(1 + f) + c
    Symbols: P weights of the stage, w g o bytes of weight, gradient, optimizer state, s ZeRO's shards of each, A saved
        activations of the micro-batches in flight, T the largest temporary, f fragmentation, c runtime
    Args: tables, stages, held: what lies on the stage; plan: [candidate]; profile: bytes and overheads
    Returns: bytes by purpose [candidate]
    Source: Rajbhandari et al. 2019 (arXiv 1910.02054) for ZeRO; Korthikanti et al. 2022 (arXiv 2205.05198) 4
    """
    situation = Situation(
        tables=tables, plan=plan, recipe=recipe, profile=profile, held=held,
        sizes=shard(plan, tables.vocab_size, profile.vocab_multiple),
    )  # fmt: skip
    pipeline = np.asarray(plan.pipeline_parallel_size)
    micro_batches, chunks = np.asarray(plan.num_micro_batches, dtype=np.float64), np.asarray(plan.virtual_pipeline_size)

    def in_flight(stage: Number) -> Number:
        return by_schedule(plan.schedule, "micro_batches_in_flight", stage, pipeline, micro_batches, chunks)

    alone = pipeline == 1
    first = stage_parts(
        situation, stages.first, np.where(alone, 1.0, in_flight(0)), 1.0, np.where(alone, 1.0, 0.0)
    )  # fmt: skip
    # of the stages in the middle the second has most in flight; a pipeline of two has none
    middle = stage_parts(situation, np.where(pipeline > 2, stages.most, 0), in_flight(1), 0.0, 0.0)
    last = stage_parts(
        situation, stages.last, np.where(alone, 1.0, in_flight(pipeline - 1)), np.where(alone, 1.0, 0.0), 1.0
    )  # fmt: skip
    stages_of = (first, middle, last)
    allocated = functools.reduce(np.maximum, (sum(parts.values()) for parts in stages_of))
    return Memory(
        stages=stages_of,
        allocated_bytes=allocated,
        total_bytes=allocated * (1.0 + profile.allocator_frac) + profile.context_bytes,
        allocator_frac=profile.allocator_frac,
        context_bytes=profile.context_bytes,
    )


def _fullest(one: dict[str, Number], other: dict[str, Number]) -> dict[str, Number]:
    """The parts of whichever stage holds more, per candidate."""
    more = np.asarray(sum(other.values())) > np.asarray(sum(one.values()))
    return {name: np.where(more, other[name], one[name]) for name in one}


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What all stages of a plan share."""

    tables: OperatorTables
    plan: Plan
    recipe: Recipe
    profile: Profile
    held: Weights
    sizes: Shard


def stage_parts(
    case: Situation, layers: Number, in_flight: Number, with_embedding: Number, with_head: Number
) -> dict[str, Number]:
    """Bytes of one stage by purpose: so many layers, micro-batches in flight, and the embedding or head with them."""
    plan, profile, held = case.plan, case.profile, case.held
    # tied weights are held on both end stages of a pipeline
    head = np.where(np.asarray(plan.pipeline_parallel_size) == 1, held.head, np.maximum(held.head, held.embedding))
    dense = layers * held.layer_dense + with_embedding * held.embedding + with_head * head
    expert = layers * held.layer_expert
    zero, ways = np.asarray(plan.zero_stage), np.maximum(plan.zero_shard_size, 1)
    in_experts = np.asarray(plan.expert_parallel_size) * plan.expert_tensor_parallel_size
    expert_ways = np.maximum(np.asarray(plan.tensor_parallel_size) * plan.data_shard_size // in_experts, 1)

    def kept(element_bytes: Number, sharded_from: int) -> Number:
        split = zero >= sharded_from
        return element_bytes * (dense / np.where(split, ways, 1) + expert / np.where(split, expert_ways, 1))

    gradient = profile.fp16_gradient_bytes if case.recipe.high == "fp16" else profile.gradient_bytes
    copies = np.where(np.asarray(plan.data_shard_size) > 1, profile.bucket_copy_bytes, 0.0)
    gathered = np.where(zero >= 3, 2 * (held.layer_dense + held.layer_expert) * profile.parameter_bytes, 0.0)
    per_layer, working = activation_bytes(case.tables, plan, case.sizes, profile)
    logits = with_head * case.sizes.tokens * case.sizes.vocabulary * profile.logits_bytes
    # a schedule that feeds the pipeline from both ends (DualPipe) holds two copies of a stage
    twice = np.array([schedule.weight_copies for schedule in SCHEDULES])[np.asarray(plan.schedule)]
    return {
        "weights": kept(profile.parameter_bytes, 3) * twice,
        "gradients": kept(gradient, 2) * twice,
        "gradient buckets": copies * (dense + expert),
        "optimizer state": kept(profile.optimizer_bytes, 1),
        "activations": per_layer * layers * in_flight,
        "temporary buffers": np.maximum(logits, np.maximum(working, gathered)),
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
    selective_drops, rest = selective_drops * profile.activation_factor, rest * profile.activation_factor
    layer_input = 2.0 * tables.hidden_size * sizes.sequence_tokens
    everything = rest + selective_drops
    return (
        np.where(full, layer_input, np.where(selective, rest, everything)),
        np.where(full, everything, np.where(selective, selective_drops, 0.0)),
    )
