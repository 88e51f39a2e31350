"""One iteration of a serving engine: a forward pass over some prompt tokens and one token of each running sequence.

The same operators, kernels and collectives as in training (timing/compute.py), forward only. Array-first: sizes of the
batch and of the plan are numbers or arrays [candidate].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.hardware.chip import DTYPE_BYTES, Array, Number
from ultratwin.hardware.system import Pool, per_rank
from ultratwin.mapping.engine import Engine
from ultratwin.mapping.serving import ServingPlan, kv_rank_bytes
from ultratwin.mapping.serving_formats import ServingFormats, on_chip
from ultratwin.mapping.sharding import GroupShape, group_shape
from ultratwin.timing.collectives import Network, collective_profile, collective_time_s
from ultratwin.timing.collectives.expert_parallel import (
    Routing,
    expert_parallel_time_s,
    expert_profile,
    token_bytes,
)
from ultratwin.timing.collectives.shape import torus_axes
from ultratwin.timing.kernels.model import KernelModel
from ultratwin.timing.layer import pool_kernels
from ultratwin.workload.kv_cache import state_bytes_per_sequence
from ultratwin.workload.model import (
    GatedDeltaNet,
    LatentAttention,
    LightningAttention,
    Mamba,
    Mamba2,
    Model,
    Moe,
)
from ultratwin.workload.operators import AttentionCore
from ultratwin.workload.tables import GemmTable, OperatorTables, operator_tables

INDEXER: Final = "indexer"
"""The small attention that picks what a sparse one sees; every tensor rank computes it whole."""
RECURRENT: Final = (Mamba2, Mamba, GatedDeltaNet, LightningAttention)
_LARGE_M: Final = 8192.0
"""Rows at which a matrix product is limited by the matrix engine alone."""
_KERNELS: Final = {"gemm": 1.0, "quantised gemm": 2.0, "decode": 2.0, "experts": 20.0}
"""Kernels of one call. Inputs are quantised by one of their own; split attention is joined by a second; experts:
choose, sort, quantise, up, activate, quantise, down and combine, each of several small ones that wait for the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSetting:
    """What is the same for all candidates: model, chips and links, number formats, engine."""

    model: Model
    pool: Pool
    formats: ServingFormats
    engine: Engine


def iteration_parts(
    setting: ServingSetting, plan: ServingPlan, *, tokens: Number, decode_sequences: Number = 0.0,
    decode_context: Number = 0.0, prefill_tokens: Number = 0.0, prefill_context: Number = 0.0,
    samples: Number | None = None,
) -> dict[str, Number]:  # fmt: skip
    """Seconds of one iteration of a replica by cause; all its pipeline stages one after the other.

    Equation: a sum over layers of products, passes, attention and collectives, each from its kernel model, plus the
        output head for every sequence that samples; host time is not in it (`host_s`)
    Args:
        setting, plan: what serves
        tokens: computed in this iteration by the whole replica: prompt tokens and one (or more) of each sequence
        decode_sequences, decode_context: sequences that decode, and the mean length of what they attend to
        prefill_tokens, prefill_context: prompt tokens of one request, and how many of its tokens came before
        samples: sequences that sample a token; all that decode where left out
    Returns: seconds by cause, [candidate]
    """
    sampling = decode_sequences if samples is None else samples
    parts = token_parts(setting, plan, tokens)
    parts["attention, decoding"] = decode_attention_s(setting, plan, decode_sequences, decode_context)
    parts["attention, prompts"] = prefill_attention_s(setting, plan, prefill_tokens, prefill_context)
    parts["output head"] = head_s(setting, plan, sampling)
    return parts


def host_s(engine: Engine, plan: ServingPlan, sequences: Number) -> Number:
    """Host time of an iteration: scheduling, preparing inputs, sampling and detokenising each running sequence.

    Every attention group has a process of its own, for its own sequences.
    """
    return engine.host_iteration_s + engine.host_sequence_s * sequences / plan.attention_data_parallel_size


def eager_s(setting: ServingSetting) -> float:
    """Time until the host has launched all kernels of a pass that no graph holds.

    Equation: kernels x dispatch; kernels of a call as in _KERNELS
    Trainium's programs are compiled whole.
    """
    if setting.pool.chip.family == "neuron":
        return 0.0
    tables = operator_tables(setting.model)
    counts = np.concatenate([tables.layer_share * setting.model.num_layers, np.ones((1, 1)), np.zeros((1, 1))])
    products, cores = tables.gemms, float(sum(count for _, _, count in _attention_layers(setting.model)))
    of_layers = ((products.is_expert + products.is_vocabulary + products.is_scan) == 0)[:, 0]
    linear = float((products.owner_sum[:, of_layers] * counts).sum())
    passes = sum(float((each.owner_sum[:, each.is_expert[:, 0] == 0] * counts).sum()) for each in tables.vectors)
    routed = sum(float(counts[at, 0]) for at, moe in enumerate(tables.moe) if moe is not None)
    products_of = "quantised gemm" if setting.formats.compute != setting.formats.high else "gemm"
    reduced = float(sum(layer.num_parts for layer in setting.model.layers))
    kernels = (
        linear * _KERNELS[products_of] + passes + _KERNELS["decode"] * cores + routed * _KERNELS["experts"] + reduced
    )
    return kernels * float(setting.engine.eager_kernel_s)


def token_parts(setting: ServingSetting, plan: ServingPlan, tokens: Number) -> dict[str, Number]:
    """Seconds of what depends on how many tokens a pass computes, not on their contexts, by cause."""
    tables, kernels = operator_tables(setting.model), pool_kernels(setting.pool)
    asked = np.atleast_1d(np.asarray(tokens, dtype=np.float64))
    n = np.maximum(asked, 1.0)
    own = np.maximum(n / plan.attention_data_parallel_size, 1.0)  # of one attention group
    counts = tables.layer_share * setting.model.num_layers
    linear = _linear_s(setting, tables, kernels, plan, own)
    reduce = reduce_s(setting, plan, own)
    blocks = float(sum(layer.num_parts for layer in setting.model.layers))
    apart = np.asarray(plan.attention_data_parallel_size) > 1
    dispatch = np.where(apart, _dispatch_s(setting, tables, plan, n), 0.0) if np.any(apart) else 0.0
    moe_layers = sum(float(counts[at, 0]) for at, moe in enumerate(tables.moe) if moe is not None)
    reduced = np.where(apart, blocks - moe_layers, blocks) + 1.0
    busy = asked > 0
    parts: dict[str, Number] = {
        "linear layers": linear,
        "experts": _experts_s(setting, tables, kernels, plan, n, counts),
        "norms, activations, rotary": _passes_s(tables, kernels, plan, own, counts),
        "tensor-parallel communication": reduced * reduce,
        "expert-parallel communication": moe_layers * dispatch,
        "pipeline hand-over": _hand_over_s(setting, plan, own),
    }
    return {name: np.where(busy, value, 0.0) for name, value in parts.items()}


def _linear_s(
    setting: ServingSetting, tables: OperatorTables, kernels: KernelModel, plan: ServingPlan, own: Array
) -> Number:
    """Dense matrix products of all layers; none faster than FLOP over peak."""
    table, counts = tables.gemms, np.concatenate([tables.layer_share * setting.model.num_layers, np.zeros((2, 1))])
    other = table.is_expert + table.is_vocabulary + table.is_scan
    rows = [at for at in range(len(table.n)) if not other[at, 0]]
    often = (table.owner_sum[:, rows] * counts).sum(axis=0)
    n, k = _split_sizes(table, rows, plan)
    time = weight_gemm_s(setting, kernels, own, n, k)
    return np.asarray(often @ np.broadcast_to(time, (len(rows), *np.shape(time)[1:])))


def _split_sizes(table: GemmTable, rows: list[int], plan: ServingPlan) -> tuple[Array, Array]:
    ways = np.asarray(plan.tensor_parallel_size, dtype=np.float64)
    n = table.n[rows] / np.where(table.is_column[rows] > 0, ways, 1.0)
    k = table.k[rows] / np.where(table.is_row[rows] > 0, ways, 1.0)
    return n, k


def weight_gemm_s(setting: ServingSetting, kernels: KernelModel, m: Number, n: Number, k: Number) -> Number:
    """Time of a product with stored weights.

    Weight-only formats run in the higher one, but read fewer bytes: where memory limits, time falls with the bytes;
    where the matrix engine limits, it does not. A running engine reads weights at no more than a share of the memory's
    rate: tables of isolated products keep part of them in the second-level cache from one call to the next.
    """
    formats, library = on_chip(setting.formats, kernels.chip), setting.engine.kernel_library
    flop = 2.0 * np.multiply(m, n) * k
    least = flop / kernels.chip.matmul_flop_per_s(formats.compute)
    factor = setting.engine.gemm_factor
    time = kernels.gemm_time_s(m, n, k, dtype=formats.compute, library=library)
    smallest = kernels.gemm_time_s(1.0, 64.0, 64.0, dtype=formats.compute, library=library)
    call = "quantised gemm" if formats.compute != formats.high else "gemm"
    time = captured_s(setting, call, time, smallest)
    if formats.is_weight_only:
        high, stored = DTYPE_BYTES[formats.high], formats.weight_bytes
        moved = (np.multiply(m, k) + np.multiply(m, n)) * high
        shorter = time * (moved + np.multiply(n, k) * stored) / (moved + np.multiply(n, k) * high)
        full = kernels.gemm_time_s(_LARGE_M, n, k, dtype=formats.compute, library=library)
        time = np.minimum(time, np.maximum(shorter, full * m / _LARGE_M))
    streamed = np.multiply(n, k) * formats.weight_bytes / (kernels.chip.memory_bytes_per_s * setting.engine.stream_frac)
    return np.maximum(factor * np.maximum(time, streamed), least)


def captured_s(setting: ServingSetting, call: str, time: Number, smallest: Number) -> Number:
    """Time of a call inside a captured graph, whose kernels follow each other without the host.

    Equation: t - max(t_0 - k g, 0), t_0 the smallest call of its kind (all launch), k kernels of g seconds each
    Trainium's programs are one graph, and its kernel model has no launches by the host.
    Args:
        setting: its engine gives g; call: a key of _KERNELS
        time: as measured one call at a time; smallest: the same for a call that does next to nothing
    """
    if setting.pool.chip.family == "neuron":
        return time
    return time - np.maximum(smallest - _KERNELS[call] * setting.engine.graph_launch_s, 0.0)


def _experts_s(
    setting: ServingSetting, tables: OperatorTables, kernels: KernelModel, plan: ServingPlan, n: Array, counts: Array
) -> Number:
    """Routed experts of all layers, on the rank with most of them."""
    formats = on_chip(setting.formats, kernels.chip)
    stored = formats.experts if formats.experts != formats.high else ""
    total: Number = 0.0
    for at, moe in enumerate(tables.moe):
        if moe is None:
            continue
        time = kernels.moe_time_s(
            np.maximum(n, 1.0),
            expert_width(moe, setting.model),
            moe.expert_intermediate_size / np.asarray(plan.expert_tensor_size, dtype=np.float64),
            top_k=float(moe.experts_per_token),
            experts=float(moe.num_experts),
            local_experts=moe.num_experts / np.asarray(plan.expert_parallel_size, dtype=np.float64),
            gated=moe.gated,
            routing_skew=setting.engine.routing_skew,
            dtype=formats.compute,
            weight_dtype=stored,
            library=setting.engine.kernel_library,
        )
        smallest = kernels.moe_time_s(
            1.0, 64.0, 64.0, top_k=1.0, experts=8.0, local_experts=1.0, gated=moe.gated, dtype=formats.compute,
            weight_dtype=stored, library=setting.engine.kernel_library,
        )  # fmt: skip
        time = captured_s(setting, "experts", time, smallest)
        least = (
            expert_flop(moe, setting.model, n)
            / np.asarray(plan.stage_ranks)
            / kernels.chip.matmul_flop_per_s(formats.compute)
        )
        total = total + float(counts[at, 0]) * np.maximum(setting.engine.gemm_factor * time, least)
    return total


def expert_flop(moe: Moe, model: Model, tokens: Number) -> Number:
    """Operations of the routed experts of one layer over so many tokens."""
    matrices = 3.0 if moe.gated else 2.0
    one = 2.0 * matrices * expert_width(moe, model) * moe.expert_intermediate_size
    return one * moe.experts_per_token * tokens


def expert_width(moe: Moe, model: Model) -> float:
    """Width of what experts read and write: the hidden size, or a latent that tokens are projected to."""
    return float(moe.latent_size or model.hidden_size)


def _passes_s(tables: OperatorTables, kernels: KernelModel, plan: ServingPlan, own: Array, counts: Array) -> Number:
    """Norms, residuals, activations, rotary embedding: what of them is no part of a fused expert layer."""
    tensor = np.asarray(plan.tensor_parallel_size, dtype=np.float64)
    often = np.concatenate([counts, np.ones((1, 1)), np.zeros((1, 1))])
    total: Number = 0.0
    for table in tables.vectors:
        rows = [at for at in range(len(table.forward)) if not table.is_expert[at, 0] and not table.is_scan[at, 0]]
        if not rows:
            continue
        elements = table.forward[rows] * np.where(table.is_tensor[rows] > 0, own / tensor, own)
        time = kernels.memory_bound_time_s(elements * DTYPE_BYTES["bf16"], kind=table.kind)
        total = total + (table.owner_sum[:, rows] * often).sum(axis=0) @ np.asarray(time)
    return total


def decode_attention_s(setting: ServingSetting, plan: ServingPlan, sequences: Number, context: Number) -> Number:
    """Attention of one new token of each sequence over what it has seen, all layers.

    Args:
        sequences: of the whole replica; context: mean tokens that each attends to
    """
    model, kernels = setting.model, pool_kernels(setting.pool)
    batch = np.asarray(sequences, dtype=np.float64) / plan.attention_data_parallel_size
    seen = np.maximum(np.asarray(context, dtype=np.float64), 1.0)
    some = np.maximum(batch, 1e-3)
    tensor = np.asarray(plan.tensor_parallel_size, dtype=np.float64)
    formats, library = setting.formats, setting.engine.kernel_library
    total: Number = 0.0
    for core, latent, count in _attention_layers(model):
        heads = np.maximum(core.num_heads / (tensor if core.name != INDEXER else 1.0), 1.0)
        smallest = kernels.attention_time_s(1.0, 1.0, 1.0, 1.0, 1.0, 64.0, phase="decode", library=library)
        if latent is not None:
            keys = seen if core.window is None else np.minimum(seen, core.window)
            time = kernels.mla_time_s(
                some, 1.0, keys, heads, latent_dim=latent.kv_lora_rank, rope_dim=latent.rope_head_dim,
                head_dim=core.head_dim, head_dim_v=core.head_dim_v, phase="decode", dtype=formats.high,
                kv_dtype=formats.kv, library=library,
            )  # fmt: skip
        else:
            time = kernels.attention_time_s(
                some, 1.0, seen, heads, np.maximum(core.num_kv_heads / tensor, 1.0), core.head_dim,
                head_dim_v=core.head_dim_v, window=core.window, phase="decode", dtype=formats.high,
                kv_dtype=formats.kv, library=library,
            )  # fmt: skip
        total = total + count * captured_s(setting, "decode", time, smallest)
    states = 2.0 * batch * state_bytes_per_sequence(model) / tensor
    recurrent = sum(isinstance(layer.attention, RECURRENT) for layer in model.layers)
    if recurrent:
        total = total + kernels.memory_bound_time_s(states, num_kernels=recurrent)
    # whatever the kernels, what is kept must be read, but for what the last-level cache holds
    chip = per_rank(setting.pool).chip
    kept = batch * kv_rank_bytes(model, formats, plan, seen) * plan.pipeline_parallel_size
    least = np.maximum(kept - chip.l2_bytes, 0.0) / np.asarray(chip.memory_bytes_per_s)
    return np.where(batch > 0, np.maximum(setting.engine.attention_factor * total, least), 0.0)


def prefill_attention_s(setting: ServingSetting, plan: ServingPlan, tokens: Number, context: Number) -> Number:
    """Attention of a chunk of one prompt's tokens over themselves and what came before, all layers.

    With several attention groups each has a share of the prompts: the mean time of one group.
    """
    model, kernels = setting.model, pool_kernels(setting.pool)
    chunk = np.maximum(np.asarray(tokens, dtype=np.float64), 1.0)
    keys = np.asarray(context, dtype=np.float64) + chunk
    tensor = np.asarray(plan.tensor_parallel_size, dtype=np.float64)
    formats, library = setting.formats, setting.engine.kernel_library
    total: Number = 0.0
    for core, latent, count in _attention_layers(model):
        heads = np.maximum(core.num_heads / (tensor if core.name != INDEXER else 1.0), 1.0)
        time = kernels.attention_time_s(
            1.0, chunk, keys, heads, np.maximum(core.num_kv_heads / tensor, 1.0), core.head_dim,
            head_dim_v=core.head_dim_v, window=core.window, dtype=formats.high,
            kv_dtype="" if latent is not None else formats.kv, library=library,
        )  # fmt: skip
        total = total + count * time
    total = total + _scans_s(setting, kernels, tensor, chunk)
    peak = kernels.chip.matmul_flop_per_s(formats.high)
    total = np.maximum(setting.engine.attention_factor * total, _attention_flop(model, tensor, chunk, keys) / peak)
    shared: Number = total / plan.attention_data_parallel_size
    return np.where(np.asarray(tokens) > 0, shared, 0.0)


def _attention_flop(model: Model, tensor: Array, chunk: Array, keys: Array) -> Number:
    """Operations of a chunk's attention on one rank, all layers: 2 (d + d_v) for each head, token and key it sees."""
    total: Number = 0.0
    for core, _, count in _attention_layers(model):
        seen = np.maximum(keys - chunk / 2.0, 0.0)
        seen = seen if core.window is None else np.minimum(seen, core.window / 2.0)
        total = total + count * 2.0 * core.num_heads / tensor * (core.head_dim + core.head_dim_v) * chunk * seen
    return total


def _scans_s(setting: ServingSetting, kernels: KernelModel, tensor: Array, chunk: Array) -> Number:
    """Scans of recurrent layers over a chunk of tokens: their products and passes; one new token runs none of them."""
    tables, formats = operator_tables(setting.model), setting.formats
    counts = np.concatenate([tables.layer_share * setting.model.num_layers, np.zeros((2, 1))])
    total: Number = 0.0
    table = tables.gemms
    if rows := [at for at in range(len(table.n)) if table.is_scan[at, 0]]:
        n = table.n[rows] / np.where(table.is_column[rows] > 0, tensor, 1.0)
        k = table.k[rows] / np.where(table.is_row[rows] > 0, tensor, 1.0)
        often = (table.owner_sum[:, rows] * counts).sum(axis=0)
        time = kernels.gemm_time_s(np.atleast_1d(chunk), n, k, dtype=formats.high)
        total = total + often @ np.asarray(time)
    for vector in tables.vectors:
        if rows := [at for at in range(len(vector.forward)) if vector.is_scan[at, 0]]:
            elements = vector.forward[rows] * np.atleast_1d(chunk) / tensor
            often = (vector.owner_sum[:, rows] * counts).sum(axis=0)
            passes = kernels.memory_bound_time_s(elements * DTYPE_BYTES["bf16"], kind=vector.kind)
            total = total + often @ np.asarray(passes)
    return total


def _attention_layers(model: Model) -> list[tuple[AttentionCore, LatentAttention | None, float]]:
    """Each kind of attention, its latent form if it has one, and how many layers have it."""
    tables, kinds = operator_tables(model), model.layer_kinds()
    found = []
    for owner, core in tables.cores:
        attention = kinds[owner].attention
        latent = attention if isinstance(attention, LatentAttention) and core.name != INDEXER else None
        found.append((core, latent, float(tables.layer_share[owner, 0]) * model.num_layers))
    return found


def head_s(setting: ServingSetting, plan: ServingPlan, samples: Number) -> Number:
    """Output head for so many sequences, and gathering what tensor ranks hold of the logits."""
    model, kernels = setting.model, pool_kernels(setting.pool)
    tensor = np.asarray(plan.tensor_parallel_size, dtype=np.float64)
    rows = np.asarray(samples, dtype=np.float64) / plan.attention_data_parallel_size
    some = np.maximum(rows, 1.0)
    time = kernels.gemm_time_s(
        some, model.vocab_size / tensor, float(model.hidden_size), dtype=setting.formats.high,
        library=setting.engine.kernel_library,
    )  # fmt: skip
    logits = some * model.vocab_size * DTYPE_BYTES[setting.formats.high]
    gathered = _group_time_s(setting, "all_gather", logits, group_shape(tensor, 1, _domain(setting)))
    return np.where(rows > 0, setting.engine.gemm_factor * time + gathered, 0.0)


def reduce_s(setting: ServingSetting, plan: ServingPlan, own: Number) -> Number:
    """One all-reduce of an attention group's hidden states over its tensor ranks."""
    size = own * setting.model.hidden_size * DTYPE_BYTES[setting.formats.high]
    tensor = np.asarray(plan.tensor_parallel_size, dtype=np.float64)
    return _group_time_s(setting, "all_reduce", size, group_shape(tensor, 1, _domain(setting)))


def _dispatch_s(setting: ServingSetting, tables: OperatorTables, plan: ServingPlan, n: Array) -> Number:
    """Tokens of all attention groups to their experts and back, one layer, by the faster of the engine's libraries.

    DeepEP's low-latency kernels suit decoding, its normal ones prompts.
    """
    moe = next((each for each in tables.moe if each is not None), None)
    if moe is None:
        return 0.0
    ranks = per_rank(setting.pool)
    network = _network(setting)
    stage = np.asarray(plan.stage_ranks, dtype=np.float64)
    group = group_shape(stage, 1, _domain(setting))
    hidden = int(expert_width(moe, setting.model))
    sides = {
        "prepare": 4.0 * moe.experts_per_token,
        "dispatch": token_bytes(hidden, setting.formats.compute),
        "combine": token_bytes(hidden, "bf16"),
    }
    fastest: Number = np.inf
    for library in setting.engine.expert_libraries:
        profile = expert_profile(library, ranks.domain.link)
        total: Number = 0.0
        for phase, size in sides.items():
            if phase not in profile.pipes:
                continue
            routing = Routing(tokens_per_rank=n / stage, token_bytes=size, top_k=float(moe.experts_per_token))
            total = total + expert_parallel_time_s(
                phase, routing, network, profile, ranks_per_domain=group.ranks_per_domain, num_domains=group.num_domains
            )
        fastest = np.minimum(fastest, total)
    return fastest * setting.engine.collective_factor


def _hand_over_s(setting: ServingSetting, plan: ServingPlan, own: Array) -> Number:
    """Hidden states from stage to stage, p - 1 times."""
    size = own * setting.model.hidden_size * DTYPE_BYTES[setting.formats.high]
    stages = np.asarray(plan.pipeline_parallel_size, dtype=np.float64)
    across = np.asarray(plan.num_ranks) > _domain(setting)
    pair = GroupShape(ranks_per_domain=np.where(across, 1.0, 2.0), num_domains=np.where(across, 2.0, 1.0))
    return np.where(stages > 1, (stages - 1) * _group_time_s(setting, "send_recv", size, pair), 0.0)


def _group_time_s(setting: ServingSetting, operation: str, size_bytes: Number, group: GroupShape) -> Number:
    time = collective_time_s(
        operation, size_bytes, _network(setting), ranks_per_domain=group.ranks_per_domain,
        num_domains=group.num_domains,
    )  # fmt: skip
    return time * setting.engine.collective_factor


def _domain(setting: ServingSetting) -> float:
    return float(per_rank(setting.pool).domain.size)


def _network(setting: ServingSetting) -> Network:
    """What a rank sees; small messages go by the engine's own collectives where it has any."""
    pool = per_rank(setting.pool)
    library = setting.engine.collective_library or None
    profile = collective_profile(pool.domain.link or "generic", pool.fabric.link, library)
    return Network(
        scale_up_bytes_per_s=pool.domain.bytes_per_s,
        scale_up_latency_s=pool.domain.latency_s,
        domain_size=pool.domain.size,
        topology=pool.domain.topology,
        scale_out_bytes_per_s=pool.fabric.bytes_per_s,
        scale_out_latency_s=pool.fabric.latency_s,
        profile=profile,
        axes=torus_axes(pool.domain),
        in_network_reduction="switch" in profile.scale_up.pipes and pool.domain.topology == "switch",
    )
