"""One training step: layers to stages, stages to a pipeline, pipelines to a step. Seconds by cause, [candidate]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.hardware.system import Pool, per_rank
from ultratwin.mapping.plan import RECOMPUTE, Plan
from ultratwin.mapping.profile import Profile
from ultratwin.mapping.recipe import Recipe
from ultratwin.mapping.schedules import StageTimes, by_schedule
from ultratwin.mapping.sharding import Stages, Weights, cost_balanced_stages, uniform_stages, weights
from ultratwin.timing.communication import (
    DataCommunication,
    LayerCommunication,
    data_communication,
    dense_share,
    groups,
    layer_communication,
    pipeline_time_s,
    wires_of,
)
from ultratwin.timing.compute import ComputeTimes, compute_times
from ultratwin.timing.kernels import kernel_model
from ultratwin.timing.kernels.model import KernelModel
from ultratwin.workload.model import Model
from ultratwin.workload.tables import OperatorTables, operator_tables


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """Seconds of a step by cause, each [candidate]; they sum to `total_s`.

    `parts` maps a cause to its seconds on the slowest stage's critical path, in the order they are reported.
    """

    total_s: Number
    parts: dict[str, Number]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """Mean seconds of one layer and micro-batch: what computes, and what shows of communication and host."""

    linear: Number
    attention: Number
    vector: Number
    recompute: Number
    tensor: Number
    context: Number
    expert: Number
    shard: Number
    host: Number
    forward: Number
    weight: Number

    @property
    def total(self) -> Number:
        return (
            self.linear + self.attention + self.vector + self.recompute
            + self.tensor + self.context + self.expert + self.shard + self.host
        )  # fmt: skip


def exposed_time_s(communication_s: Number, compute_s: Number, overlap_frac: Number) -> Number:
    """What shows of a communication that partly runs under compute.

    Equation:  t = c - f min(c, w)
    Args:
        communication_s: c [s]
        compute_s: w, compute that it could hide under [s]
        overlap_frac: f, share of it that the framework starts early enough [1]
    Example:
        >>> float(exposed_time_s(3.0, 2.0, 0.5))
        2.0
    """
    return communication_s - overlap_frac * np.minimum(communication_s, compute_s)


def pool_kernels(pool: Pool) -> KernelModel:
    """Kernel model of one rank of a pool."""
    kernels = kernel_model(pool.chip)
    return kernels if pool.ranks_per_chip == 1 else kernels.on_cores(pool.chip.num_cores / pool.ranks_per_chip)


def plan_stages(model: Model, tables: OperatorTables, profile: Profile, plan: Plan) -> Stages:
    """Layers on pipeline stages, split as the framework splits them."""
    if profile.stage_split == "cost":
        table = tables.weights
        layer = float(((table.tensor + table.expert)[: len(tables.layer_share)] * tables.layer_share).sum())
        return cost_balanced_stages(model.num_layers, plan, layer, model.hidden_size * model.vocab_size)
    return uniform_stages(model.num_layers, plan)


def step_times(model: Model, pool: Pool, plan: Plan, recipe: Recipe, profile: Profile) -> StepTimes:
    """Time of one optimizer step on the slowest pipeline stage.

    Equation:  T = m t_max + bubble + exposed(gradients, parameters) + optimizer + host
    Args:
        model: what is trained
        pool: chips and links; rates may be arrays [candidate]
        plan: sizes of the parallel axes [candidate]
        recipe: number formats
        profile: the framework's constants
    Returns: seconds by cause [candidate]
    Source: docs/explanation/training-step.md derives every term
    """
    plan = plan.as_arrays()
    kernels, ranks = pool_kernels(pool), per_rank(pool)
    wires, placed = wires_of(ranks), groups(plan, ranks.domain.size)
    tables = operator_tables(model)
    stages = plan_stages(model, tables, profile, plan)
    held = weights(tables, plan, profile.vocab_multiple)
    compute = compute_times(tables, kernels, plan, recipe, profile)
    said = layer_communication(model, tables, plan, recipe, profile, wires, placed)
    data = data_communication(plan, held, stages, recipe, profile, wires, placed)
    layer = _layer_times(tables, compute, said, data, plan, profile)
    hop = pipeline_time_s(model, plan, recipe, wires, placed) * profile.collective_factor
    return _assemble(model, tables, compute, layer, stages, hop, held, data, kernels, plan, profile)


def _layer_times(
    tables: OperatorTables,
    compute: ComputeTimes,
    said: LayerCommunication,
    data: DataCommunication,
    plan: Plan,
    profile: Profile,
) -> _Layer:
    kinds, share = slice(0, tables.num_owners - 2), tables.layer_share

    def mean(times: Number) -> Number:
        return np.asarray((np.asarray(times)[kinds] * share).sum(axis=0))

    full = np.asarray(plan.recompute) == RECOMPUTE.index("full")
    selective = np.asarray(plan.recompute) == RECOMPUTE.index("selective")
    gemm_forward, attention_forward = mean(compute.gemm_forward), mean(compute.attention_forward)
    vector_forward, backward = mean(compute.vector_forward), mean(compute.backward)
    forward = gemm_forward + attention_forward + vector_forward
    again = np.where(full, forward, np.where(selective, attention_forward, 0.0))
    factor = profile.collective_factor
    tensor = factor * (
        exposed_time_s(said.tensor_forward, gemm_forward, profile.tensor_overlap_frac) * np.where(full, 2.0, 1.0)
        + exposed_time_s(said.tensor_backward, mean(compute.gemm_backward), profile.tensor_overlap_frac)
    )
    context = exposed_time_s(
        factor * said.context_forward, attention_forward, profile.context_overlap_frac
    ) + exposed_time_s(factor * said.context_backward, mean(compute.attention_backward), profile.context_overlap_frac)
    expert_forward = factor * (said.expert_forward * share).sum(axis=0) * profile.expert_imbalance
    expert = exposed_time_s(expert_forward, forward, profile.expert_overlap_frac) * np.where(full, 2.0, 1.0)
    expert = expert + exposed_time_s(
        factor * (said.expert_backward * share).sum(axis=0) * profile.expert_imbalance,
        backward,
        profile.expert_overlap_frac,
    )
    gather, scatter = factor * data.layer_gather, factor * data.layer_scatter
    sharded = exposed_time_s(gather, forward, profile.shard_overlap_frac) + exposed_time_s(
        gather + scatter, backward + again, profile.shard_overlap_frac
    )
    device = forward + backward + again + tensor + context + expert + sharded
    host = profile.host_forward_s * np.where(full, 2.0, 1.0) + profile.host_backward_s
    host = host + profile.host_expert_s * (1.0 - dense_share(tables))
    host = host + np.where(np.asarray(plan.tensor_parallel_size) > 1, profile.host_tensor_s, 0.0)
    return _Layer(
        linear=gemm_forward + mean(compute.gemm_backward),
        attention=attention_forward + mean(compute.attention_backward),
        vector=vector_forward + mean(compute.vector_backward),
        recompute=again,
        tensor=tensor,
        context=context,
        expert=expert,
        shard=sharded,
        host=np.maximum(host - device, 0.0),
        forward=forward,
        weight=mean(compute.weight),
    )


def _assemble(
    model: Model,
    tables: OperatorTables,
    compute: ComputeTimes,
    layer: _Layer,
    stages: Stages,
    hop: Number,
    held: Weights,
    data: DataCommunication,
    kernels: KernelModel,
    plan: Plan,
    profile: Profile,
) -> StepTimes:
    pipeline, chunks = np.asarray(plan.pipeline_parallel_size), np.asarray(plan.virtual_pipeline_size)
    embedding = compute.forward[-2] + compute.backward[-2]
    # each multi-token-prediction module is one more layer with a head of its own, beside the main head
    extra = tables.num_mtp_modules
    head = (compute.forward[-1] + compute.backward[-1]) * (1 + extra) + extra * layer.total
    slowest = np.maximum(
        np.where(pipeline > 2, stages.most * layer.total, 0.0),
        np.maximum(
            stages.first * layer.total + embedding + np.where(pipeline == 1, head, 0.0),
            np.where(pipeline > 1, stages.last * layer.total + head, 0.0),
        ),
    )
    mean = (stages.layers * layer.total + embedding + head) / pipeline
    hops = np.where(pipeline > 1, 2.0 * chunks * exposed_time_s(hop, layer.total, profile.pipeline_overlap_frac), 0.0)
    micro_batches = np.asarray(plan.num_micro_batches, dtype=np.float64)
    micro_batch_host = profile.host_micro_batch_s * chunks
    fixed = hops + micro_batch_host
    timing = StageTimes(
        slowest_s=slowest + fixed,
        mean_s=mean + fixed,
        forward_s=(mean + fixed) / 3,
        weight_s=layer.weight * stages.layers / pipeline,
    )
    bubble = by_schedule(plan.schedule, "bubble_time_s", timing, pipeline, micro_batches, chunks)
    window = stages.first * layer.total / 1.5
    grads = exposed_time_s(profile.collective_factor * data.gradients, window, profile.data_overlap_frac)
    params = exposed_time_s(profile.collective_factor * data.parameters, window / 2, profile.data_overlap_frac)
    layers = micro_batches * stages.most
    parts: dict[str, Number] = {
        "linear layers": layers * layer.linear,
        "attention": layers * layer.attention,
        "norms, activations, casts": layers * layer.vector,
        "recomputation": layers * layer.recompute,
        "embedding, head, uneven stages": micro_batches * (slowest - stages.most * layer.total),
        "tensor-parallel communication": layers * layer.tensor,
        "context-parallel communication": layers * layer.context,
        "expert-parallel communication": layers * layer.expert,
        "weight sharding communication": layers * layer.shard + profile.collective_factor * data.replicas,
        "host launches": layers * layer.host + micro_batches * micro_batch_host,
        "pipeline hand-over": micro_batches * hops,
        "pipeline bubble": bubble,
        "gradient synchronisation": grads + params,
        "optimizer": _optimizer_time_s(held, stages, kernels, plan, profile),
        "host, per step": profile.host_step_s + 0.0 * bubble,
    }
    total = sum(parts.values())
    doublings = np.log2(np.maximum(np.asarray(plan.num_ranks) / 8.0, 1.0))
    parts["stragglers"] = total * profile.straggler_frac * doublings
    return StepTimes(total_s=total + parts["stragglers"], parts=parts)


def _optimizer_time_s(held: Weights, stages: Stages, kernels: KernelModel, plan: Plan, profile: Profile) -> Number:
    """Update of the weights that this rank owns: reads gradients and state, writes state and weights.

    Expert weights are sharded over expert-data ranks, others over data x context ranks.
    """
    zero = np.asarray(plan.zero_stage)
    dense = stages.first * held.layer_dense + held.embedding
    expert = stages.first * held.layer_expert
    ways = np.asarray(plan.expert_parallel_size) * plan.expert_tensor_parallel_size
    expert_data = np.maximum(np.asarray(plan.tensor_parallel_size) * plan.data_shard_size // ways, 1)
    owned = np.where(zero > 0, dense / np.maximum(plan.zero_shard_size, 1) + expert / expert_data, dense + expert)
    return kernels.memory_bound_time_s(owned * profile.optimizer_traffic_bytes, kind="elementwise", num_kernels=10)
