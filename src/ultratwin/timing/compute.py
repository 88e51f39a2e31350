"""Compute time of one micro-batch on one rank, by layer kind: matrix products, attention, passes over memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ultratwin.hardware.chip import DTYPE_BYTES, Array, Number
from ultratwin.mapping.plan import Plan
from ultratwin.mapping.profile import Profile
from ultratwin.mapping.recipe import Recipe
from ultratwin.mapping.sharding import Shard, gemm_shapes, shard, vector_elements
from ultratwin.timing.kernels.model import KernelModel
from ultratwin.workload.operators import AttentionCore
from ultratwin.workload.tables import GemmTable, OperatorTables


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeTimes:
    """Seconds of one micro-batch by owner (layer kinds, embedding, head), each [owner, candidate].

    `weight`: the part of `gemm_backward` that computes weight gradients. `attention_forward` is also what selective
    recomputation runs again.
    """

    gemm_forward: Array
    gemm_backward: Array
    weight: Array
    attention_forward: Array
    attention_backward: Array
    vector_forward: Array
    vector_backward: Array

    @property
    def forward(self) -> Array:
        """Device time of the forward pass."""
        return self.gemm_forward + self.attention_forward + self.vector_forward

    @property
    def backward(self) -> Array:
        """Device time of the backward pass, without recomputation."""
        return self.gemm_backward + self.attention_backward + self.vector_backward


def compute_times(
    tables: OperatorTables, kernels: KernelModel, plan: Plan, recipe: Recipe, profile: Profile
) -> ComputeTimes:
    """Time of every operator of one micro-batch, forward and backward, summed by owner.

    Args:
        tables: the model's operators
        kernels: kernel model of one rank's (share of a) chip
        plan: sizes [candidate]
        recipe: number formats
        profile: the framework's factors
    Returns: seconds, [owner, candidate]
    """
    sizes = shard(plan, tables.vocab_size, profile.vocab_multiple)
    forward, gradient, weight = _gemm_times(tables, kernels, sizes, recipe, profile)
    attention_forward, attention_backward = _attention_times(tables, kernels, plan, sizes, recipe, profile)
    vector_forward, vector_backward = _vector_times(tables, kernels, sizes, profile)
    if recipe.is_low:
        cast_forward, cast_backward = _quantize_times(tables, kernels, sizes, recipe)
        vector_forward = vector_forward + profile.vector_factor * cast_forward
        vector_backward = vector_backward + profile.vector_factor * cast_backward
    return ComputeTimes(
        gemm_forward=forward,
        gemm_backward=gradient + weight,
        weight=weight,
        attention_forward=attention_forward,
        attention_backward=attention_backward,
        vector_forward=vector_forward,
        vector_backward=vector_backward,
    )


def _gemm_times(
    tables: OperatorTables, kernels: KernelModel, sizes: Shard, recipe: Recipe, profile: Profile
) -> tuple[Array, Array, Array]:
    """Forward, input-gradient and weight-gradient products, each [owner, candidate]; none beats FLOP over peak."""
    table = tables.gemms
    m, n, k, groups = np.broadcast_arrays(*gemm_shapes(table, sizes))
    totals: list[Array] = [np.zeros((tables.num_owners, 1))] * 3
    for rows, dtype, weight_dtype, grouped in _segments(table, recipe):
        mm, nn, kk, gg = m[rows], n[rows], k[rows], groups[rows]
        both: Array = np.asarray(
            kernels.gemm_time_s(
                np.concatenate([mm, mm]),
                np.concatenate([nn, kk]),
                np.concatenate([kk, nn]),
                dtype=dtype,
                groups=np.concatenate([gg, gg]) if grouped else 1,
                library=profile.kernel_library,
            )
        )
        weight = kernels.gemm_time_s(
            nn, kk, mm, dtype=weight_dtype, groups=gg if grouped else 1, accumulate=True,
            library=profile.kernel_library,
        )  # fmt: skip
        owner_sum = table.owner_sum[:, rows]
        flop = 2.0 * mm * nn * kk * gg
        least = flop / kernels.chip.matmul_flop_per_s(dtype)
        least_weight = least if weight_dtype == dtype else flop / kernels.chip.matmul_flop_per_s(weight_dtype)
        for i, (time, bound) in enumerate(
            ((both[: len(rows)], least), (both[len(rows) :], least), (weight, least_weight))
        ):
            totals[i] = totals[i] + owner_sum @ np.maximum(profile.gemm_factor * time, bound)
    return totals[0], totals[1], totals[2]


def _segments(table: GemmTable, recipe: Recipe) -> list[tuple[list[int], str, str, bool]]:
    """Rows of the table that go into one call: format, format of weight gradients, whether they are grouped."""
    expert = [at for at in table.is_low if table.is_expert[at, 0]]
    plain = [at for at in table.is_low if not table.is_expert[at, 0]]
    high = list(table.is_high)
    if not recipe.is_low:
        plain, high = plain + high, []
    segments = [
        (plain, recipe.gemm, recipe.weight_gemm, False),
        (expert, recipe.gemm, recipe.weight_gemm, True),
        (high, recipe.high, recipe.high, False),
    ]
    return [each for each in segments if each[0]]


def _attention_times(
    tables: OperatorTables, kernels: KernelModel, plan: Plan, sizes: Shard, recipe: Recipe, profile: Profile
) -> tuple[Array, Array]:
    rates = kernels.chip.memory_bytes_per_s, kernels.chip.matmul_flop_per_s(recipe.high)
    shape = np.broadcast(sizes.tokens, sizes.tensor, *rates).shape or (1,)
    forward, backward = np.zeros((tables.num_owners, *shape)), np.zeros((tables.num_owners, *shape))
    one = _flash_times if profile.attention == "flash" else _unfused_times
    for owner, core in tables.cores:
        fwd, bwd = one(core, kernels, plan, sizes, recipe, profile.kernel_library)
        forward[owner] += fwd * profile.attention_factor
        backward[owner] += bwd * profile.attention_factor
    return forward, backward


def _flash_times(
    core: AttentionCore, kernels: KernelModel, plan: Plan, sizes: Shard, recipe: Recipe, library: str
) -> tuple[Number, Number]:
    # context parallelism gives each rank two opposite chunks of the sequence, so that causal work is even: on average
    # its s/CP queries meet half of all s keys, which is a causal square of the same area
    edge = np.asarray(plan.seq_length) / np.sqrt(plan.context_parallel_size)
    arguments: tuple[Number, Number, Number, Number, Number, Number] = (
        np.asarray(plan.micro_batch_size, dtype=np.float64),
        edge,
        edge,
        core.num_heads / sizes.tensor,
        np.maximum(core.num_kv_heads / sizes.tensor, 1.0),
        core.head_dim,
    )
    times = [
        kernels.attention_time_s(
            *arguments,
            head_dim_v=core.head_dim_v,
            causal=True,
            window=core.window,
            phase=phase,
            dtype=recipe.high,
            library=library,
        )
        for phase in ("forward", "backward")
    ]
    return times[0], times[1]


def _unfused_times(
    core: AttentionCore, kernels: KernelModel, plan: Plan, sizes: Shard, recipe: Recipe, library: str
) -> tuple[Number, Number]:
    """Scores and values as batched products, with mask, softmax and dropout as passes over the s x s scores.

    Forward passes over the scores: scale-mask-softmax reads and writes them, dropout reads and writes them and its
    mask (2 + 2.5 passes); backward: dropout, softmax gradient (reads two, writes one) (2.5 + 3).
    """
    groups = np.asarray(plan.micro_batch_size) * core.num_heads / sizes.tensor
    seq = np.asarray(plan.seq_length, dtype=np.float64)
    rows = seq / plan.context_parallel_size
    scores = groups * rows * seq * DTYPE_BYTES[recipe.high]
    keys = kernels.gemm_time_s(rows, seq, core.head_dim, groups=groups, dtype=recipe.high, library=library)
    values = kernels.gemm_time_s(rows, core.head_dim_v, seq, groups=groups, dtype=recipe.high, library=library)
    forward = keys + values + kernels.memory_bound_time_s(4.5 * scores, kind="softmax", num_kernels=2)
    backward = 2 * (keys + values) + kernels.memory_bound_time_s(5.5 * scores, kind="softmax", num_kernels=2)
    return forward, backward


def _vector_times(tables: OperatorTables, kernels: KernelModel, sizes: Shard, profile: Profile) -> tuple[Array, Array]:
    forward = backward = np.zeros((tables.num_owners, 1))
    for table in tables.vectors:
        ahead, back = vector_elements(table, sizes)
        both = np.asarray(
            kernels.memory_bound_time_s(np.concatenate([ahead, back]) * DTYPE_BYTES["bf16"], kind=table.kind)
        )
        forward = forward + table.owner_sum @ both[: len(ahead)]
        backward = backward + table.owner_sum @ both[len(ahead) :]
    return forward * profile.vector_factor, backward * profile.vector_factor


def _quantize_times(tables: OperatorTables, kernels: KernelModel, sizes: Shard, recipe: Recipe) -> tuple[Array, Array]:
    """Casting the operands of low-precision products: inputs forward, output gradients backward."""
    table = tables.gemms
    at = list(table.is_low)
    m, n, k, groups = (each[at] for each in np.broadcast_arrays(*gemm_shapes(table, sizes)))
    moved = DTYPE_BYTES[recipe.high] + DTYPE_BYTES[recipe.gemm]
    passes = recipe.quantize_passes * groups * m * moved
    both = np.asarray(kernels.memory_bound_time_s(np.concatenate([passes * k, passes * n]), kind="quantize"))
    owner_sum = table.owner_sum[:, at]
    return owner_sum @ both[: len(at)], owner_sum @ both[len(at) :]
