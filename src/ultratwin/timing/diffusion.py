"""One denoising step of a video diffusion transformer: a forward pass in which every token sees every other.

The same operators, kernels and collectives as in serving a prompt (timing/serving/iteration.py); what differs is that
attention is in both directions and that the tokens of one video are spread over ranks. Array-first: layouts, chunks and
rates are numbers or arrays [candidate].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ultratwin.hardware.chip import DTYPE_BYTES, Number
from ultratwin.hardware.system import Pool, per_rank
from ultratwin.mapping.engine import Engine
from ultratwin.mapping.plan import IntLike
from ultratwin.mapping.serving import RUNTIME_BYTES, ServingPlan, activation_bytes, weight_bytes
from ultratwin.mapping.serving_formats import ServingFormats, on_chip
from ultratwin.mapping.sharding import GroupShape, group_shape
from ultratwin.timing.communication import wires_of
from ultratwin.timing.layer import pool_kernels
from ultratwin.timing.serving.iteration import ServingSetting, token_parts
from ultratwin.workload.model import Attention
from ultratwin.workload.tables import operator_tables
from ultratwin.workload.video import VideoModel

CAUSES = (
    "linear layers", "self-attention", "attention to the text", "norms, activations, rotary",
    "all-to-all of heads (Ulysses)", "keys and values round the ring", "tensor-parallel communication",
)  # fmt: skip
"""What a step's seconds go to, in the order of reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoLayout:
    """How many ranks compute one video; each an int, or an array [candidate].

    Tensor ranks split each block's matrices. Ulysses ranks hold a share of the tokens, and exchange them for a share of
    the heads around attention. Ring ranks hold a share of the tokens, and keys and values pass by. Guidance ranks each
    compute some of the passes of a step.
    """

    tensor_size: IntLike = 1
    ulysses_size: IntLike = 1
    ring_size: IntLike = 1
    guidance_size: IntLike = 1

    @property
    def sequence_ranks(self) -> IntLike:
        """Ranks that share the tokens."""
        return self.ulysses_size * self.ring_size

    @property
    def num_ranks(self) -> IntLike:
        """Ranks of one video."""
        return self.tensor_size * self.sequence_ranks * self.guidance_size

    def describe(self) -> str:
        """The layout in a few letters, what is not split left out."""
        named = (
            ("TP", self.tensor_size), ("Ulysses", self.ulysses_size), ("ring", self.ring_size),
            ("guidance", self.guidance_size),
        )  # fmt: skip
        return " ".join(f"{name}{size}" for name, size in named if size != 1) or "one rank"


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSetting:
    """What is the same for all candidates: model, chips and links, formats, the engine's factors."""

    model: VideoModel
    pool: Pool
    formats: ServingFormats
    engine: Engine

    @property
    def blocks(self) -> ServingSetting:
        """The transformer's blocks as something that computes tokens."""
        return ServingSetting(model=self.model.transformer, pool=self.pool, formats=self.formats, engine=self.engine)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoTokens:
    """Tokens of one pass: those that are denoised, and those that each of them sees, the denoised ones included."""

    denoised: Number
    seen: Number


def step_parts(setting: VideoSetting, layout: VideoLayout, tokens: VideoTokens) -> dict[str, Number]:
    """Seconds of one denoising step by cause.

    Equation: linear layers and passes of b q / (u r) tokens, attention of q queries to k keys on h / (u t) heads, four
        exchanges of a rank's tokens over u ranks, what of r - 1 transfers of keys and values attention does not hide,
        three all-reduces (two without a text beside) over t ranks
    Symbols: q denoised and k seen tokens, b passes on a rank, t tensor, u Ulysses, r ring ranks, h heads
    Args:
        setting: what computes; layout: how it is spread; tokens: of one pass
    Returns: seconds [candidate], by CAUSES
    Source: Jacobs et al. 2023 (arXiv 2309.14509) for Ulysses; Liu et al. 2023 (arXiv 2310.01889) for the ring; Fang and
        Zhao 2024 (arXiv 2405.07719) for both together
    """
    batch = passes_on_rank(setting.model, layout)
    own = batch * tokens.denoised / np.asarray(layout.sequence_ranks, dtype=np.float64)
    parts = token_parts(setting.blocks, _as_serving(layout), own)
    attention, ring = _self_attention_s(setting, layout, tokens, batch)
    found = {
        "linear layers": parts["linear layers"] + _head_s(setting, layout, own),
        "self-attention": attention,
        "attention to the text": _text_attention_s(setting, layout, tokens, batch),
        "norms, activations, rotary": parts["norms, activations, rotary"],
        "all-to-all of heads (Ulysses)": _ulysses_s(setting, layout, own),
        "keys and values round the ring": ring,
        "tensor-parallel communication": parts["tensor-parallel communication"],
    }
    return {cause: found[cause] for cause in CAUSES}


def passes_on_rank(model: VideoModel, layout: VideoLayout) -> Number:
    """Forward passes of a step that one rank computes."""
    return np.ceil(model.passes / np.asarray(layout.guidance_size, dtype=np.float64))


def _as_serving(layout: VideoLayout) -> ServingPlan:
    return ServingPlan(tensor_parallel_size=layout.tensor_size)


def _heads(setting: VideoSetting, layout: VideoLayout) -> Number:
    return setting.model.attention.num_heads / np.asarray(layout.tensor_size * layout.ulysses_size, dtype=np.float64)


def _head_s(setting: VideoSetting, layout: VideoLayout, own: Number) -> Number:
    """The projection of every token to the numbers of its patch."""
    kernels, model = pool_kernels(setting.pool), setting.model.transformer
    ways = np.asarray(layout.tensor_size, dtype=np.float64)
    time = kernels.gemm_time_s(own, model.vocab_size / ways, float(model.hidden_size), dtype=setting.formats.high)
    return setting.engine.gemm_factor * time


def _self_attention_s(
    setting: VideoSetting, layout: VideoLayout, tokens: VideoTokens, batch: Number
) -> tuple[Number, Number]:
    """Attention of all blocks, and what of the ring's transfers shows beside it."""
    kernels, kind = pool_kernels(setting.pool), setting.model.attention
    text = setting.model.joint_text_tokens
    ring, heads = np.asarray(layout.ring_size, dtype=np.float64), _heads(setting, layout)
    queries, keys = (tokens.denoised + text) / ring, (tokens.seen + text) / ring
    one = kernels.attention_time_s(
        batch, queries, keys, heads, heads, kind.head_dim, causal=False, dtype=setting.formats.high,
        library=setting.engine.kernel_library,
    )  # fmt: skip
    flop = 4.0 * batch * queries * keys * heads * kind.head_dim
    least = flop / per_rank(setting.pool).chip.matmul_flop_per_s(setting.formats.high)
    one = np.maximum(setting.engine.attention_factor * one, least)
    size = 2.0 * batch * keys * heads * kind.head_dim * DTYPE_BYTES[setting.formats.high]
    inner = np.asarray(layout.tensor_size * layout.ulysses_size)
    group = group_shape(ring, inner, float(per_rank(setting.pool).domain.size))
    across = np.asarray(group.num_domains) > 1.0
    pair = GroupShape(ranks_per_domain=np.where(across, 1.0, 2.0), num_domains=np.where(across, 2.0, 1.0))
    sent = wires_of(per_rank(setting.pool)).time_s("send_recv", size, pair) * setting.engine.collective_factor
    blocks = setting.model.num_blocks
    return blocks * ring * one, blocks * (ring - 1.0) * np.maximum(sent - one, 0.0)


def _text_attention_s(setting: VideoSetting, layout: VideoLayout, tokens: VideoTokens, batch: Number) -> Number:
    """Attention of a rank's tokens to the text, whose keys and values every rank has for its heads."""
    kernels = pool_kernels(setting.pool)
    kinds = [each.attention for each in setting.model.transformer.layers]
    cross = [each for each in kinds if isinstance(each, Attention) and each.cross]
    if not cross:
        return np.zeros(())
    heads = cross[0].num_heads / np.asarray(layout.tensor_size, dtype=np.float64)
    queries = tokens.denoised / np.asarray(layout.sequence_ranks, dtype=np.float64)
    one = kernels.attention_time_s(
        batch, queries, float(cross[0].window or 1), heads, heads, cross[0].head_dim, causal=False,
        dtype=setting.formats.high, library=setting.engine.kernel_library,
    )  # fmt: skip
    return len(cross) * setting.engine.attention_factor * one


def _ulysses_s(setting: VideoSetting, layout: VideoLayout, own: Number) -> Number:
    """Tokens for heads and back, all blocks: queries, keys and values in one exchange, the output in another."""
    hidden = setting.model.transformer.hidden_size / np.asarray(layout.tensor_size, dtype=np.float64)
    size = own * hidden * DTYPE_BYTES[setting.formats.high]
    ranks = per_rank(setting.pool)
    group = group_shape(np.asarray(layout.ulysses_size), np.asarray(layout.tensor_size), float(ranks.domain.size))
    wires = wires_of(ranks)
    both = wires.time_s("all_to_all", 3.0 * size, group) + wires.time_s("all_to_all", size, group)
    shown = np.where(np.asarray(layout.ulysses_size) > 1, both, 0.0)
    return setting.model.num_blocks * setting.engine.collective_factor * shown


def step_flop(model: VideoModel, tokens: VideoTokens) -> tuple[Number, Number]:
    """Operations of one denoising step, all passes: of linear layers, and of attention.

    Equation: 2 q (sum of n k) and 4 q k h d for each block, 4 q s h d to a text of s tokens
    """
    tables = operator_tables(model.transformer)
    counts = np.concatenate([tables.layer_share * model.transformer.num_layers, np.zeros((1, 1)), np.ones((1, 1))])
    products = (tables.gemms.owner_sum * counts).sum(axis=0) * (tables.gemms.n * tables.gemms.k)[:, 0]
    attention: Number = 0.0
    for layer in model.transformer.layer_kinds():
        kind = layer.attention
        if isinstance(kind, Attention):
            count = sum(each is layer or each == layer for each in model.transformer.layers)
            beside = 0 if kind.cross else model.joint_text_tokens
            keys = (kind.window or 0) if kind.cross else tokens.seen + beside
            attention = attention + count * 4.0 * (tokens.denoised + beside) * keys * kind.num_heads * kind.head_dim
    return model.passes * 2.0 * tokens.denoised * float(products.sum()), model.passes * attention


def step_bound_s(setting: VideoSetting, layout: VideoLayout, tokens: VideoTokens) -> Number:
    """Least time of a denoising step on so many ranks, whatever the kernels and wires.

    Equation: max((F_l / P + F_a / P_h) / N, W / t / B)
    Symbols: F_l, F_a operations of linear layers and attention, P and P_h peaks of their formats, N ranks, W bytes of
        weights, t tensor ranks, B memory rate
    Source: derived; weights that fit on-chip memory need not be read again
    """
    chip, formats = per_rank(setting.pool).chip, on_chip(setting.formats, per_rank(setting.pool).chip)
    linear, attention = step_flop(setting.model, tokens)
    seconds = linear / chip.matmul_flop_per_s(formats.compute) + attention / chip.matmul_flop_per_s(formats.high)
    held = weight_bytes(setting.model.transformer, formats, _as_serving(layout))
    read = np.maximum(held - chip.l2_bytes, 0.0) / np.asarray(chip.memory_bytes_per_s)
    least: Number = np.maximum(seconds / np.asarray(layout.num_ranks, dtype=np.float64), read)
    return least


def memory_parts(
    setting: VideoSetting, layout: VideoLayout, tokens: VideoTokens, *, is_streamed: bool
) -> dict[str, Number]:
    """Bytes that one rank holds, by purpose [candidate].

    `is_streamed`: keys and values of what was denoised before are kept. Text encoder and decoder are elsewhere.
    """
    model, formats = setting.model, setting.formats
    share = np.asarray(layout.sequence_ranks, dtype=np.float64)
    batch = passes_on_rank(model, layout)
    own = batch * (tokens.denoised + model.joint_text_tokens) / share
    per_token = 2.0 * model.num_blocks * model.transformer.hidden_size * DTYPE_BYTES[formats.high]
    ways = share * layout.tensor_size
    kept = batch * tokens.seen * per_token / ways if is_streamed else 0.0 * own
    # while one block runs, a ring rank holds two chunks of keys and values
    passing = 4.0 * batch * tokens.seen * model.transformer.hidden_size * DTYPE_BYTES[formats.high] / ways
    return {
        "weights": weight_bytes(model.transformer, formats, _as_serving(layout))
        + model.other_parameters * formats.high_bytes,
        "activations": activation_bytes(model.transformer, formats, _as_serving(layout), own),
        "keys and values": kept + np.where(np.asarray(layout.ring_size) > 1, passing, 0.0),
        "runtime": RUNTIME_BYTES + 0.0 * own,
    }
