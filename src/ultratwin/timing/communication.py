"""Communication of a training step: what each parallel axis sends, how long it takes, how much of it shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ultratwin.hardware.chip import DTYPE_BYTES, Array, Number
from ultratwin.hardware.system import Pool
from ultratwin.mapping.plan import IntLike, Plan
from ultratwin.mapping.profile import Profile
from ultratwin.mapping.recipe import Recipe
from ultratwin.mapping.sharding import GroupShape, Shard, Stages, Weights, group_shape, shard
from ultratwin.timing.collectives import Network, collective_profile, collective_time_s
from ultratwin.timing.collectives.shape import torus_axes
from ultratwin.workload.model import Model
from ultratwin.workload.tables import OperatorTables


@dataclass(frozen=True, slots=True, kw_only=True)
class Wires:
    """The network that a pool's ranks see, and how collectives on it are timed."""

    network: Network
    step_delay_s: Number

    def time_s(self, operation: str, size_bytes: Number, group: GroupShape, calls: Number = 1.0) -> Number:
        """Seconds of a collective of a group, every other group of the layout busy alike, [candidate].

        `calls`: in how many buckets the message goes; the library pipelines them, so only a step's delay is paid again.
        """
        time = collective_time_s(
            operation, size_bytes, self.network, ranks_per_domain=group.ranks_per_domain, num_domains=group.num_domains
        )
        if not np.any(self.step_delay_s):
            return time
        return time + np.where(np.asarray(group.num_ranks) > 1.0, calls * group.num_ranks * self.step_delay_s, 0.0)


def wires_of(pool: Pool) -> Wires:
    """The network of a pool, whose rates are per rank."""
    profile = collective_profile(pool.domain.link or "generic", pool.fabric.link)
    return Wires(
        network=Network(
            scale_up_bytes_per_s=pool.domain.bytes_per_s,
            scale_up_latency_s=pool.domain.latency_s,
            domain_size=pool.domain.size,
            topology=pool.domain.topology,
            scale_out_bytes_per_s=pool.fabric.bytes_per_s,
            scale_out_latency_s=pool.fabric.latency_s,
            profile=profile,
            in_network_reduction="switch" in profile.scale_up.pipes and pool.domain.topology == "switch",
            axes=torus_axes(pool.domain),
        ),
        step_delay_s=pool.fabric.step_delay_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """The groups of ranks of a plan on a pool's domains, [candidate].

    Tensor ranks are neighbours, then come context, data and pipeline. Experts are laid over tensor x context x data
    ranks, expert-tensor ranks innermost.
    """

    plan: Plan
    domain_size: Number

    def _shape(self, size: IntLike | Number, stride: IntLike | Number) -> GroupShape:
        return group_shape(np.asarray(size), np.asarray(stride), self.domain_size)

    @property
    def tensor(self) -> GroupShape:
        return self._shape(self.plan.tensor_parallel_size, 1)

    @property
    def context(self) -> GroupShape:
        return self._shape(self.plan.context_parallel_size, self.plan.tensor_parallel_size)

    @property
    def expert(self) -> GroupShape:
        return self._shape(self.plan.expert_parallel_size, self.plan.expert_tensor_parallel_size)

    @property
    def expert_tensor(self) -> GroupShape:
        return self._shape(self.plan.expert_tensor_parallel_size, 1)

    @property
    def data(self) -> GroupShape:
        """Ranks that hold the same dense weights."""
        return self._shape(self.plan.data_shard_size, self.plan.tensor_parallel_size)

    @property
    def shard(self) -> GroupShape:
        """Ranks that ZeRO shards over."""
        return self._shape(self.plan.zero_shard_size, self.plan.tensor_parallel_size)

    @property
    def replica(self) -> GroupShape:
        """Ranks that hold the same shard (HSDP)."""
        shards = np.maximum(self.plan.zero_shard_size, 1)
        stride = np.asarray(self.plan.tensor_parallel_size) * self.plan.zero_shard_size
        return self._shape(self.plan.data_shard_size // shards, stride)

    @property
    def expert_data(self) -> GroupShape:
        """Ranks that hold the same experts."""
        ways = np.asarray(self.plan.expert_tensor_parallel_size) * self.plan.expert_parallel_size
        return self._shape(np.maximum(self._inner // ways, 1), ways)

    @property
    def pipeline(self) -> GroupShape:
        return self._shape(self.plan.pipeline_parallel_size, self._inner)

    @property
    def _inner(self) -> IntLike:
        """Ranks of one pipeline stage."""
        return self.plan.tensor_parallel_size * self.plan.context_parallel_size * self.plan.data_parallel_size


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCommunication:
    """Seconds of communication of one layer and micro-batch, none of it hidden: [candidate], experts [kind, candidate].

    `tensor_backward` is without what recomputation repeats.
    """

    tensor_forward: Number
    tensor_backward: Number
    context_forward: Number
    context_backward: Number
    expert_forward: Array
    expert_backward: Array


def layer_communication(
    model: Model,
    tables: OperatorTables,
    plan: Plan,
    recipe: Recipe,
    profile: Profile,
    wires: Wires,
    placed: Groups,
) -> LayerCommunication:
    """What the ranks of one stage say to each other in one layer.

    Tensor: each of attention and feed-forward all-reduces its output (b s h), or, under sequence parallelism, gathers
    its input and reduce-scatters its output; backward does the same, and gathers the inputs again for the weight
    gradients. Expert layers move their tokens by all-to-all instead, unless experts are split by tensors too.
    Context: keys and values go round a ring, their gradients with them backward.
    Source: Korthikanti et al. 2022 (arXiv 2205.05198); Megatron-LM's context_parallel and MoE guides for the rest
    """
    sizes = shard(plan)
    width = DTYPE_BYTES[recipe.high]
    hidden = sizes.tokens * model.hidden_size * width
    sequence = np.asarray(plan.sequence_parallel) > 0
    gather, scatter = (wires.time_s(op, hidden, placed.tensor) for op in ("all_gather", "reduce_scatter"))
    reduce = wires.time_s("all_reduce", hidden, placed.tensor)
    block_forward = np.where(sequence, gather + scatter, reduce)
    block_backward = np.where(sequence, 2 * gather + scatter, reduce)
    plain_layers = dense_share(tables)
    # an expert layer whose experts are not split by tensors has the attention block's communication only
    blocks = 1 + np.where(np.asarray(plan.expert_tensor_parallel_size) >= sizes.tensor, 1.0, plain_layers)
    context_forward, context_backward = _context_times(model, tables, sizes, recipe, wires, placed)
    expert_forward, expert_backward = _expert_times(model, tables, sizes, recipe, profile, wires, placed)
    return LayerCommunication(
        tensor_forward=blocks * block_forward,
        tensor_backward=blocks * block_backward,
        context_forward=context_forward,
        context_backward=context_backward,
        expert_forward=expert_forward,
        expert_backward=expert_backward,
    )


def dense_share(tables: OperatorTables) -> float:
    """Share of the layers whose feed-forward part is not a mixture of experts."""
    return float(sum(share for share, moe in zip(tables.layer_share[:, 0], tables.moe, strict=True) if moe is None))


def _context_times(
    model: Model, tables: OperatorTables, sizes: Shard, recipe: Recipe, wires: Wires, placed: Groups
) -> tuple[Number, Number]:
    """(CP - 1) exchanges of a chunk of keys and values; backward sends their gradients too."""
    core = tables.cores[0][1]
    per_token = core.num_kv_heads * (core.head_dim + core.head_dim_v) * DTYPE_BYTES[recipe.high]
    chunk = sizes.tokens * per_token / sizes.tensor
    steps = placed.context.num_ranks - 1
    one = wires.time_s("send_recv", chunk, _pair(placed.context))
    return steps * one, 2 * steps * one


def _pair(group: GroupShape) -> GroupShape:
    """The slowest neighbours of a ring: two ranks in one domain, or in two if the ring leaves it."""
    crosses = np.asarray(group.num_domains) > 1
    alone = np.asarray(group.num_ranks) <= 1
    return GroupShape(ranks_per_domain=np.where(alone | crosses, 1, 2), num_domains=np.where(crosses & ~alone, 2, 1))


def _expert_times(
    model: Model,
    tables: OperatorTables,
    sizes: Shard,
    recipe: Recipe,
    profile: Profile,
    wires: Wires,
    placed: Groups,
) -> tuple[Array, Array]:
    """Dispatch and combine, forward and backward alike, of each layer kind, [kind, candidate] twice."""
    times = []
    for moe in tables.moe:
        if moe is None:
            times.append(np.zeros(1))
            continue
        token_bytes = sizes.routed_tokens / sizes.expert_tensor * model.hidden_size * DTYPE_BYTES[recipe.high]
        exchange = _exchange_time_s(token_bytes, moe.experts_per_token, wires, placed.expert, profile)
        within = token_bytes * moe.experts_per_token * sizes.expert_tensor
        shared = wires.time_s("all_gather", within, placed.expert_tensor) + wires.time_s(
            "reduce_scatter", within, placed.expert_tensor
        )
        times.append(np.atleast_1d(2 * exchange + shared))
    stacked = np.stack(np.broadcast_arrays(*times))
    return stacked, stacked


def _exchange_time_s(token_bytes: Number, top_k: int, wires: Wires, group: GroupShape, profile: Profile) -> Number:
    """One all-to-all of tokens to their experts.

    Plainly, every rank sends each token top-k times, to wherever its experts are. A dispatcher that deduplicates sends
    a token once to each domain that has any of its experts and copies it there (DeepEP, HybridEP):
        domains reached by a token = N (1 - (1 - 1/N)^k), between domains over the same-numbered rank, then inside
    """
    copies = token_bytes * top_k
    plain = wires.time_s("all_to_all", copies, group)
    if profile.expert_dispatch != "deduplicated":
        return plain
    domains = np.maximum(np.asarray(group.num_domains, dtype=np.float64), 1.0)
    reached = domains * (1.0 - (1.0 - 1.0 / domains) ** top_k)
    across = wires.time_s("all_to_all", token_bytes * reached, GroupShape(ranks_per_domain=1.0, num_domains=domains))
    inside = wires.time_s("all_to_all", copies, GroupShape(ranks_per_domain=group.ranks_per_domain, num_domains=1.0))
    return np.where(domains > 1.0, np.minimum(np.maximum(across, inside), plain), plain)


def pipeline_time_s(model: Model, plan: Plan, recipe: Recipe, wires: Wires, placed: Groups) -> Number:
    """Handing one micro-batch's activations to the next stage, one way [s].

    Under sequence parallelism each tensor rank sends its part; else all of it.
    """
    sizes = shard(plan)
    size = sizes.sequence_tokens * model.hidden_size * DTYPE_BYTES[recipe.high]
    return np.where(
        np.asarray(plan.pipeline_parallel_size) > 1, wires.time_s("send_recv", size, _pair(placed.pipeline)), 0.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCommunication:
    """Seconds that gradients and weights travel in a step, before any is hidden, [candidate].

    `gradients` and `parameters` are of the whole stage, once a step (ZeRO 0 to 2). `layer_gather`, `layer_scatter` are
    of one layer, once a micro-batch (ZeRO 3); `replicas` joins the shards' gradients of HSDP, once a step.
    """

    gradients: Number
    parameters: Number
    layer_gather: Number
    layer_scatter: Number
    replicas: Number


def data_communication(
    plan: Plan, held: Weights, stages: Stages, recipe: Recipe, profile: Profile, wires: Wires, placed: Groups
) -> DataCommunication:
    """Synchronising the replicas of the weights.

    ZeRO 0: all-reduce of gradients. 1 and 2: reduce-scatter of gradients, all-gather of weights. 3: both per layer.
    Expert weights are replicated over expert-data ranks, the rest over data x context ranks.
    """
    zero = np.asarray(plan.zero_stage)
    wire = profile.gradient_wire_bytes
    gather_bytes = DTYPE_BYTES[recipe.weight_gather] if recipe.is_low else DTYPE_BYTES[recipe.high]
    reduces_all = (zero == 0) | (profile.zero_gradients == "all_reduce")
    dense = stages.first * held.layer_dense + held.embedding
    expert = stages.first * held.layer_expert
    gradients, parameters = _replica_times(dense, placed.data, wires, reduces_all, wire, gather_bytes, profile)
    layer_gather = wires.time_s("all_gather", held.layer_dense * gather_bytes, placed.shard)
    layer_scatter = wires.time_s("reduce_scatter", held.layer_dense * wire, placed.shard)
    if np.any(np.asarray(expert) > 0):
        more = _replica_times(expert, placed.expert_data, wires, reduces_all, wire, gather_bytes, profile)
        gradients, parameters = gradients + more[0], parameters + more[1]
        layer_gather = layer_gather + wires.time_s("all_gather", held.layer_expert * gather_bytes, placed.expert_data)
        layer_scatter = layer_scatter + wires.time_s("reduce_scatter", held.layer_expert * wire, placed.expert_data)
    once, per_layer = zero < 3, zero >= 3
    replicas = wires.time_s("all_reduce", dense * wire / np.maximum(plan.zero_shard_size, 1), placed.replica)
    return DataCommunication(
        gradients=np.where(once, gradients, 0.0),
        parameters=np.where((zero > 0) & once, parameters, 0.0),
        layer_gather=np.where(per_layer, layer_gather, 0.0),
        layer_scatter=np.where(per_layer, layer_scatter, 0.0),
        replicas=np.where(per_layer, replicas, 0.0),
    )


def _replica_times(
    elements: Number,
    group: GroupShape,
    wires: Wires,
    reduces_all: Number,
    gradient_bytes: Number,
    weight_bytes: Number,
    profile: Profile,
) -> tuple[Number, Number]:
    """Reducing the gradients of so many weights over a group, and gathering the weights, in buckets."""
    size = elements * gradient_bytes
    buckets = np.ceil(size / profile.bucket_bytes)
    reduced = np.where(
        reduces_all,
        wires.time_s("all_reduce", size, group, buckets),
        wires.time_s("reduce_scatter", size, group, buckets),
    )
    return reduced, wires.time_s("all_gather", elements * weight_bytes, group, buckets)
