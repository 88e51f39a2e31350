"""One layer and one micro-batch: what its operators take, what of its communication shows. Seconds, [candidate]."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.hardware.system import Pool, per_rank
from ultratwin.mapping.plan import RECOMPUTE, Plan
from ultratwin.mapping.profile import Profile
from ultratwin.mapping.recipe import Recipe
from ultratwin.timing.communication import DataCommunication, Groups, layer_communication, wires_of
from ultratwin.timing.compute import compute_times
from ultratwin.timing.kernels import kernel_model
from ultratwin.timing.kernels.model import KernelModel
from ultratwin.workload.model import Model
from ultratwin.workload.tables import operator_tables

LAYER_AXES: Final = (
    "tensor_parallel_size", "context_parallel_size", "expert_parallel_size", "expert_tensor_parallel_size",
    "micro_batch_size", "seq_length", "sequence_parallel",
)  # fmt: skip
"""Sizes that a layer's operators depend on: plans that differ in others share their times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTimes:
    """Mean seconds of a layer's operators for one micro-batch, nothing hidden, repeated or waited for.

    `weight_backward`: the part of `linear_backward` that computes weight gradients. `embedding`, `head`: forward and
    backward of what lies beside the layers.
    """

    linear_forward: Number
    linear_backward: Number
    weight_backward: Number
    attention_forward: Number
    attention_backward: Number
    vector_forward: Number
    vector_backward: Number
    tensor_forward: Number
    tensor_backward: Number
    context_forward: Number
    context_backward: Number
    expert_forward: Number
    expert_backward: Number
    embedding: Number
    head: Number


def layer_times(model: Model, pool: Pool, plan: Plan, recipe: Recipe, profile: Profile) -> LayerTimes:
    """Times of one layer's operators under plans of one axis [candidate], or of a grid of several.

    In a grid the layers that are alike are timed once; rates of the pool must then be numbers.
    """
    if len(plan.shape) <= 1:
        return _timed(model, pool, plan, recipe, profile)
    few, where = plan.distinct(LAYER_AXES)
    found = _timed(model, pool, few, recipe, profile)
    count = few.shape
    return LayerTimes(
        **{
            each.name: np.broadcast_to(getattr(found, each.name), count)[where]
            for each in dataclasses.fields(LayerTimes)
        }
    )


def _timed(model: Model, pool: Pool, plan: Plan, recipe: Recipe, profile: Profile) -> LayerTimes:
    ranks, tables = per_rank(pool), operator_tables(model)
    compute = compute_times(tables, pool_kernels(pool), plan, recipe, profile)
    placed = Groups(plan=plan, domain_size=ranks.domain.size)
    said = layer_communication(model, tables, plan, recipe, profile, wires_of(ranks), placed)
    kinds, share = slice(0, tables.num_owners - 2), tables.layer_share

    def mean(times: Number) -> Number:
        return np.asarray((np.asarray(times)[kinds] * share).sum(axis=0))

    both = compute.forward[-2:] + compute.backward[-2:]
    return LayerTimes(
        linear_forward=mean(compute.gemm_forward),
        linear_backward=mean(compute.gemm_backward),
        weight_backward=mean(compute.weight),
        attention_forward=mean(compute.attention_forward),
        attention_backward=mean(compute.attention_backward),
        vector_forward=mean(compute.vector_forward),
        vector_backward=mean(compute.vector_backward),
        tensor_forward=said.tensor_forward,
        tensor_backward=said.tensor_backward,
        context_forward=said.context_forward,
        context_backward=said.context_backward,
        expert_forward=(said.expert_forward * share).sum(axis=0) * profile.expert_imbalance,
        expert_backward=(said.expert_backward * share).sum(axis=0) * profile.expert_imbalance,
        embedding=both[0],
        head=both[1],
    )


def pool_kernels(pool: Pool) -> KernelModel:
    """Kernel model of one rank of a pool."""
    kernels = kernel_model(pool.chip)
    return kernels if pool.ranks_per_chip == 1 else kernels.on_cores(pool.chip.num_cores / pool.ranks_per_chip)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Mean seconds that one layer takes for one micro-batch, by cause; `total` is their sum.

    `tensor`, `context`, `expert`, `shard`: what shows of each communication; `host`: the device waiting for launches.
    `weight`: the part of `linear` that computes weight gradients.
    """

    linear: Number
    attention: Number
    vector: Number
    recompute: Number
    tensor: Number
    context: Number
    expert: Number
    shard: Number
    host: Number
    total: Number
    weight: Number


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


def shown_layer(times: LayerTimes, data: DataCommunication, plan: Plan, profile: Profile, plain_share: float) -> Layer:
    """A layer as the framework runs it: communication partly hidden, activations recomputed, the host launching.

    Args:
        times: of its operators; data: gathers and reductions of sharded weights
        plan: recomputation, tensor parallelism; profile: how much is hidden, host times
        plain_share: share of the layers that hold no experts
    """
    full = np.asarray(plan.recompute) == RECOMPUTE.index("full")
    selective = np.asarray(plan.recompute) == RECOMPUTE.index("selective")
    factor, once_more = profile.collective_factor, np.where(full, 2.0, 1.0)
    forward = times.linear_forward + times.attention_forward + times.vector_forward
    backward = times.linear_backward + times.attention_backward + times.vector_backward
    again = np.where(full, forward, np.where(selective, times.attention_forward, 0.0))
    tensor = factor * (
        exposed_time_s(times.tensor_forward, times.linear_forward, profile.tensor_overlap_frac) * once_more
        + exposed_time_s(times.tensor_backward, times.linear_backward, profile.tensor_overlap_frac)
    )
    hidden = profile.context_overlap_frac
    context = exposed_time_s(factor * times.context_forward, times.attention_forward, hidden) + exposed_time_s(
        factor * times.context_backward, times.attention_backward, hidden
    )
    hidden = profile.expert_overlap_frac
    expert = exposed_time_s(factor * times.expert_forward, forward, hidden) * once_more + exposed_time_s(
        factor * times.expert_backward, backward, hidden
    )
    gather, scatter = factor * data.layer_gather, factor * data.layer_scatter
    hidden = profile.shard_overlap_frac
    shard = exposed_time_s(gather, forward, hidden) + exposed_time_s(gather + scatter, backward + again, hidden)
    device = forward + backward + again + tensor + context + expert + shard
    host = profile.host_forward_s * once_more + profile.host_backward_s
    host = host + profile.host_expert_s * (1.0 - plain_share)
    host = host + np.where(np.asarray(plan.tensor_parallel_size) > 1, profile.host_tensor_s, 0.0)
    waiting = np.maximum(host - device, 0.0)
    return Layer(
        linear=times.linear_forward + times.linear_backward,
        attention=times.attention_forward + times.attention_backward,
        vector=times.vector_forward + times.vector_backward,
        recompute=again,
        tensor=tensor,
        context=context,
        expert=expert,
        shard=shard,
        host=waiting,
        total=device + waiting,
        weight=times.weight_backward,
    )
