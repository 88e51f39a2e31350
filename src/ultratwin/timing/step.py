"""One training step: layers to stages, stages to a pipeline, pipelines to a step. Seconds by cause, [candidate]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.hardware.system import Pool, per_rank
from ultratwin.mapping.plan import Plan
from ultratwin.mapping.profile import Profile
from ultratwin.mapping.recipe import Recipe
from ultratwin.mapping.schedules import SCHEDULES, StageTimes, by_schedule
from ultratwin.mapping.sharding import Stages, Weights, cost_balanced_stages, uniform_stages, weights
from ultratwin.timing.communication import (
    DataCommunication,
    Groups,
    Wires,
    data_communication,
    dense_share,
    pipeline_time_s,
    wires_of,
)
from ultratwin.timing.kernels.model import KernelModel
from ultratwin.timing.layer import Layer, LayerTimes, exposed_time_s, layer_times, pool_kernels, shown_layer
from ultratwin.workload.model import Model
from ultratwin.workload.tables import OperatorTables, operator_tables

CAUSES: Final = (
    "linear layers", "attention", "norms, activations, casts", "recomputation", "embedding, head, uneven stages",
    "tensor-parallel communication", "context-parallel communication", "expert-parallel communication",
    "weight sharding communication", "host launches", "pipeline hand-over", "pipeline bubble",
    "gradient synchronisation", "optimizer", "host, per step", "stragglers",
)  # fmt: skip
"""What a step's seconds go to, in the order of reports."""
_OF_LAYER: Final = {
    "linear layers": "linear",
    "attention": "attention",
    "norms, activations, casts": "vector",
    "recomputation": "recompute",
    "tensor-parallel communication": "tensor",
    "context-parallel communication": "context",
    "expert-parallel communication": "expert",
    "weight sharding communication": "shard",
    "host launches": "host",
}
_OF_MICRO_BATCH: Final = ("embedding, head, uneven stages", "host launches", "pipeline hand-over")
"""What is in `StepTimes.once` and yet comes with every micro-batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """Seconds of a step on the slowest stage's critical path, each [candidate].

    `layer` happens `num_layers` times, what is in `once` once a step; both by cause. `stages`: layers of each pipeline
    stage; `timing`: one micro-batch on the slowest and the mean stage; `hop_s`: what shows of its hand-overs.
    """

    total_s: Number
    layer: Layer
    num_layers: Number
    once: dict[str, Number]
    stages: Stages
    timing: StageTimes
    hop_s: Number

    @property
    def parts(self) -> dict[str, Number]:
        """Seconds of each of CAUSES; they sum to `total_s`."""
        return {
            cause: self.once.get(cause, 0.0)
            + (self.num_layers * getattr(self.layer, _OF_LAYER[cause]) if cause in _OF_LAYER else 0.0)
            for cause in CAUSES
        }

    def weighted_s(self, weight: Mapping[str, Number], most: Number = np.inf) -> Number:
        """Sum over causes of weight x seconds: energy, say, where a weight is the power that a cause draws.

        most: no micro-batch weighs more than that per second, as a chip's power limit holds over milliseconds.
        """
        layer: Number = sum(weight[cause] * getattr(self.layer, name) for cause, name in _OF_LAYER.items())
        repeated: Number = sum(weight[cause] * self.once[cause] for cause in _OF_MICRO_BATCH)
        once: Number = sum(weight[cause] * self.once[cause] for cause in self.once if cause not in _OF_MICRO_BATCH)
        seconds = self.num_layers * self.layer.total + sum(self.once[cause] for cause in _OF_MICRO_BATCH)
        return np.minimum(self.num_layers * layer + repeated, most * seconds) + once


def plan_stages(model: Model, tables: OperatorTables, profile: Profile, plan: Plan) -> Stages:
    """Layers on pipeline stages, split as the framework splits them."""
    if profile.stage_split == "cost":
        table = tables.weights
        layer = float(((table.tensor + table.expert)[: len(tables.layer_share)] * tables.layer_share).sum())
        return cost_balanced_stages(model.num_layers, plan, layer, model.hidden_size * model.vocab_size)
    return uniform_stages(model.num_layers, plan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beyond:
    """What of a step is not as on its pool alone, [candidate]; None is the pool's own.

    replicas: the wires that gradients and shards of weights go over, and where their groups lie
    stages: how layers lie on pipeline stages; hop_s: the least that handing a micro-batch on takes
    """

    replicas: tuple[Wires, Groups] | None = None
    stages: Stages | None = None
    hop_s: Number | None = None


ALONE: Final = Beyond()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepParts:
    """What a step is assembled of but for its schedule, each [candidate]: plan, layers, weights and seconds.

    `times` before anything is hidden, `layer` as it shows; `hop_s` and `hops_s` the same of handing a micro-batch on;
    `fixed_s`: what a micro-batch has on every stage beside its layers.
    """

    plan: Plan
    stages: Stages
    held: Weights
    times: LayerTimes
    layer: Layer
    data: DataCommunication
    hop_s: Number
    hops_s: Number
    fixed_s: Number
    optimizer_s: Number


def step_parts(
    model: Model, pool: Pool, plan: Plan, recipe: Recipe, profile: Profile, beyond: Beyond = ALONE
) -> StepParts:
    """The parts of a step; arguments as of `step_times`."""
    plan = plan.as_arrays()
    tables, ranks = operator_tables(model), per_rank(pool)
    wires, placed = wires_of(ranks), Groups(plan=plan, domain_size=ranks.domain.size)
    stages = plan_stages(model, tables, profile, plan) if beyond.stages is None else beyond.stages
    held = weights(tables, plan, profile.vocab_multiple)
    times = layer_times(model, pool, plan, recipe, profile)
    data = data_communication(plan, held, stages, recipe, profile, *(beyond.replicas or (wires, placed)))
    layer = shown_layer(times, data, plan, profile, dense_share(tables))
    hop = pipeline_time_s(model, plan, recipe, wires, placed)
    hop = profile.collective_factor * (hop if beyond.hop_s is None else np.maximum(hop, beyond.hop_s))
    hops = hops_s(hop, layer, plan, profile)
    return StepParts(
        plan=plan, stages=stages, held=held, times=times, layer=layer, data=data, hop_s=hop, hops_s=hops,
        fixed_s=hops + profile.host_micro_batch_s * np.asarray(plan.virtual_pipeline_size),
        optimizer_s=optimizer_time_s(held, stages, pool_kernels(pool), plan, profile),
    )  # fmt: skip


def step_times(
    model: Model, pool: Pool, plan: Plan, recipe: Recipe, profile: Profile, beyond: Beyond = ALONE
) -> StepTimes:
    """Time of one optimizer step on the slowest pipeline stage.

    Equation:  T = (m (t_max + hop) + bubble + exposed(gradients, parameters) + optimizer + host)(1 + stragglers)
    Args:
        model: what is trained
        pool: chips and links; rates may be arrays [candidate]
        plan: sizes of the parallel axes [candidate], or a grid of several axes that broadcast
        recipe: number formats
        profile: the framework's constants
        beyond: what is not as on the pool alone
    Returns: seconds by cause [candidate]
    Source: docs/explanation/training-step.md derives every term
    """
    parts = step_parts(model, pool, plan, recipe, profile, beyond)
    return assembled_times(parts, stage_times(parts, operator_tables(model).num_mtp_modules), profile)


def hops_s(hop: Number, layer: Layer, plan: Plan, profile: Profile) -> Number:
    """What shows of handing one micro-batch on: forward and back, once for each model chunk."""
    shown = exposed_time_s(hop, layer.total, profile.pipeline_overlap_frac)
    return (
        np.where(np.asarray(plan.pipeline_parallel_size) > 1, 2.0 * np.asarray(plan.virtual_pipeline_size), 0.0) * shown
    )


def stage_times(parts: StepParts, num_mtp_modules: int) -> StageTimes:
    """One micro-batch on the slowest and on the mean stage; embedding and head lie on the first and the last one."""
    plan, stages, layer, times, fixed = parts.plan, parts.stages, parts.layer, parts.times, parts.fixed_s
    pipeline = np.asarray(plan.pipeline_parallel_size)
    # each multi-token-prediction module is one more layer with a head of its own, beside the main head
    head = times.head * (1 + num_mtp_modules) + num_mtp_modules * layer.total
    on_first = times.embedding + np.where(pipeline == 1, head, 0.0)
    first = stages.first * layer.total + on_first
    last = np.where(pipeline > 1, stages.last * layer.total + head, 0.0)
    mirrored = np.array([schedule.mirrored for schedule in SCHEDULES])[np.asarray(plan.schedule)] & (pipeline > 1)
    ends = np.where(mirrored, (first + last) / 2, np.maximum(first, last))
    slowest = np.maximum(np.where(pipeline > 2, stages.most, 0) * layer.total, ends)
    mean = (stages.layers * layer.total + times.embedding + head) / pipeline
    return StageTimes(
        slowest_s=slowest + fixed,
        mean_s=mean + fixed,
        forward_s=(mean + fixed) / 3,
        weight_s=layer.weight * stages.layers / pipeline,
    )


def assembled_times(parts: StepParts, timing: StageTimes, profile: Profile) -> StepTimes:
    """A step of its parts under its schedule: micro-batches, bubble, and what comes once."""
    plan, stages, layer, data = parts.plan, parts.stages, parts.layer, parts.data
    chunks = np.asarray(plan.virtual_pipeline_size)
    micro_batches = np.asarray(plan.num_micro_batches, dtype=np.float64)
    bubble = by_schedule(
        plan.schedule, "bubble_time_s", timing, np.asarray(plan.pipeline_parallel_size), micro_batches, chunks
    )
    window = stages.first * layer.total / 1.5
    factor, hidden = profile.collective_factor, profile.data_overlap_frac
    synchronised = exposed_time_s(factor * data.gradients, window, hidden) + exposed_time_s(
        factor * data.parameters, window / 2, hidden
    )
    replicas = factor * data.replicas
    running = micro_batches * timing.slowest_s + bubble
    before = running + synchronised + (replicas + parts.optimizer_s + profile.host_step_s)
    late = profile.straggler_frac * np.log2(np.maximum(np.asarray(plan.num_ranks) / 8.0, 1.0))
    once: dict[str, Number] = {
        "embedding, head, uneven stages": micro_batches
        * (timing.slowest_s - parts.fixed_s - stages.most * layer.total),
        "weight sharding communication": replicas,
        "host launches": micro_batches * (profile.host_micro_batch_s * chunks),
        "pipeline hand-over": micro_batches * parts.hops_s,
        "pipeline bubble": bubble,
        "gradient synchronisation": synchronised,
        "optimizer": parts.optimizer_s,
        "host, per step": profile.host_step_s,
        "stragglers": before * late,
    }
    return StepTimes(
        total_s=before * (1.0 + late),
        layer=layer,
        num_layers=micro_batches * stages.most,
        once=once,
        stages=stages,
        timing=timing,
        hop_s=parts.hops_s,
    )


def optimizer_time_s(held: Weights, stages: Stages, kernels: KernelModel, plan: Plan, profile: Profile) -> Number:
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
