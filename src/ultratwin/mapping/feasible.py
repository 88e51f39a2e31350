"""Which plans can run: sizes that divide, chips that exist, memory that suffices. Reasons are codes [candidate]."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.chip import Number
from ultratwin.hardware.system import Pool
from ultratwin.mapping.memory import Memory
from ultratwin.mapping.plan import Plan, Rejected
from ultratwin.mapping.schedules import SCHEDULE_NAMES
from ultratwin.workload.model import Attention, LatentAttention, Mlp, Model, Moe

REASONS: Final = (
    "feasible",
    "the parallel sizes don't multiply out to the chips",
    "tensor parallelism doesn't divide the attention heads",
    "tensor parallelism doesn't fit the key/value heads",
    "tensor parallelism doesn't divide the feed-forward size",
    "more pipeline stages and chunks than layers",
    "virtual pipeline stages need a pipeline, and micro-batches that are a multiple of its stages",
    "the schedule needs another number of model chunks per stage",
    "the global batch is not a multiple of micro-batch x data-parallel size",
    "context parallelism doesn't divide the sequence into two chunks per rank",
    "expert parallelism doesn't divide the experts",
    "experts don't fit into tensor x context x data ranks",
    "sequence parallelism needs tensor parallelism",
    "the shard size doesn't divide the data-parallel ranks",
    "tensor parallelism is wider than a scale-up domain",
    "DualPipe needs an even number of stages, and at least two micro-batches for each",
    "does not fit into memory",
)
"""Index 0 is feasible; the rest say why not."""
OUT_OF_MEMORY: Final = len(REASONS) - 1
Codes = NDArray[np.int64]


def shape_reasons(model: Model, plan: Plan, num_ranks: Number, *, domain_size: float = 0.0) -> Codes:
    """The first reason for which a plan's sizes cannot be laid out, 0 where they can, [candidate].

    Args:
        model: whose heads, layers and experts must divide
        plan: sizes [candidate]
        num_ranks: ranks of the system
        domain_size: ranks of a scale-up domain; if given, tensor parallelism may not leave it (a search's choice)
    """
    tensor, pipeline = np.asarray(plan.tensor_parallel_size), np.asarray(plan.pipeline_parallel_size)
    chunks, context = np.asarray(plan.virtual_pipeline_size), np.asarray(plan.context_parallel_size)
    expert, expert_tensor = np.asarray(plan.expert_parallel_size), np.asarray(plan.expert_tensor_parallel_size)
    inner = tensor * context * plan.data_parallel_size
    micro_batches = plan.num_micro_batches
    interleaved = np.asarray(plan.schedule) == SCHEDULE_NAMES.index("interleaved")
    dualpipe = np.asarray(plan.schedule) == SCHEDULE_NAMES.index("dualpipe")
    shards = np.asarray(plan.zero_shard_size)
    checks = [
        inner * pipeline != num_ranks,
        _any(model, lambda layer: layer.attention.num_heads % tensor != 0),
        _any(model, lambda layer: _key_value_misfit(layer.attention, tensor)),
        _any(model, lambda layer: _width_misfit(layer.mlp, tensor, expert_tensor)),
        pipeline * chunks > model.num_layers + 2,
        (chunks > 1) & ((pipeline == 1) | (np.asarray(micro_batches) % np.maximum(pipeline, 1) != 0)),
        (chunks > 1) != interleaved,
        np.asarray(plan.global_batch_size) % (np.asarray(plan.micro_batch_size) * plan.data_parallel_size) != 0,
        (context > 1) & (np.asarray(plan.seq_length) % (2 * context) != 0),
        _any(model, lambda layer: _experts(layer.mlp) % expert != 0),
        (inner % (expert * expert_tensor) != 0) | (expert_tensor > tensor),
        (np.asarray(plan.sequence_parallel) > 0) & (tensor == 1),
        np.asarray(plan.data_shard_size) % np.maximum(shards, 1) != 0,
        (tensor > domain_size) if domain_size else np.zeros((), dtype=bool),
        dualpipe & (pipeline > 1) & ((pipeline % 2 != 0) | (np.asarray(micro_batches) < 2 * pipeline)),
    ]
    # each test has the shape of the sizes that it reads: the codes grow no larger than they differ
    codes = np.zeros((), dtype=np.int64)
    for code in range(len(checks), 0, -1):
        codes = np.where(checks[code - 1], code, codes)
    return codes


def _any(model: Model, fails: object) -> NDArray[np.bool_]:
    result = np.zeros((), dtype=bool)
    for layer in model.layer_kinds():
        result = result | fails(layer)  # type: ignore[operator]
    return result


def _key_value_misfit(attention: Attention | LatentAttention, tensor: Codes) -> NDArray[np.bool_]:
    if isinstance(attention, LatentAttention):
        return np.zeros((), dtype=bool)
    heads = attention.num_kv_heads
    return np.asarray((heads % tensor != 0) & (tensor % heads != 0))


def _width_misfit(mlp: Mlp | Moe, tensor: NDArray[np.int64], expert_tensor: NDArray[np.int64]) -> NDArray[np.bool_]:
    if isinstance(mlp, Moe):
        return np.asarray(
            (mlp.expert_intermediate_size % expert_tensor != 0) | (mlp.shared_intermediate_size % tensor != 0)
        )
    return np.asarray(mlp.intermediate_size % tensor != 0)


def _experts(mlp: Mlp | Moe) -> int:
    return mlp.num_experts if isinstance(mlp, Moe) else 0


def memory_reasons(codes: Codes, memory: Memory, pool: Pool) -> Codes:
    """The codes with OUT_OF_MEMORY where a plan that could be laid out needs more than a rank has."""
    return np.where((codes == 0) & ~memory_fits(memory.total_bytes, pool), OUT_OF_MEMORY, codes)


def memory_fits(total_bytes: Number, pool: Pool) -> NDArray[np.bool_]:
    """Whether so many bytes fit on a rank."""
    return np.asarray(np.asarray(total_bytes) <= pool.chip.memory_bytes)


def rejection(code: int, memory: Memory, pool: Pool) -> Rejected:
    """One plan's reason as a value, with the bytes where memory is the reason."""
    if code != OUT_OF_MEMORY:
        return Rejected(reason=REASONS[code])
    return Rejected(
        reason=REASONS[code],
        needed=float(np.ravel(memory.total_bytes)[0]) / 2**30,
        available=float(np.ravel(pool.chip.memory_bytes)[0]) / 2**30,
        unit="GiB per rank",
    )
