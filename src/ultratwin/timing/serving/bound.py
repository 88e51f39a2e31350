"""The physical bound of an iteration: what no engine can beat on these chips (speed of light)."""

from __future__ import annotations

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.hardware.system import per_rank
from ultratwin.mapping.serving import ServingPlan, kv_rank_bytes
from ultratwin.mapping.serving_formats import on_chip
from ultratwin.timing.serving.iteration import ServingSetting, expert_flop, expert_width
from ultratwin.workload.tables import operator_tables


def bound_s(
    setting: ServingSetting, plan: ServingPlan, *, tokens: Number, decode_sequences: Number = 0.0,
    decode_context: Number = 0.0,
) -> Number:  # fmt: skip
    """Least time of an iteration: the longer of its operations over peak and its bytes over memory bandwidth.

    Equation: max(FLOP / (R P), (dense weights / t + used experts / (t a) + keys and values) / (p B)) summed over stages
    Args: as of `iteration_parts`
    Returns: seconds, [candidate]; attention's operations and the wire are left out, so it is a bound still
    Source: derived; weights that fit on-chip memory are not counted, as they need not be read again
    """
    pool, model, tables = per_rank(setting.pool), setting.model, operator_tables(setting.model)
    formats = on_chip(setting.formats, pool.chip)
    n = np.asarray(tokens, dtype=np.float64)
    stage, tensor = np.asarray(plan.stage_ranks, dtype=np.float64), np.asarray(plan.tensor_parallel_size)
    table, counts = tables.gemms, tables.layer_share * model.num_layers
    per_token = 0.0
    for at in range(len(table.n)):
        if not (table.is_expert + table.is_vocabulary + table.is_scan)[at, 0]:
            owner = int(np.argmax(table.owner_sum[:, at]))
            per_token += 2.0 * float(table.n[at, 0] * table.k[at, 0]) * float(counts[owner, 0])
    flop = n * per_token / np.where(np.asarray(plan.attention_data_parallel_size) > 1, stage, stage)
    used = 0.0 * n
    for at, moe in enumerate(tables.moe):
        if moe is not None:
            flop = flop + float(counts[at, 0]) * expert_flop(moe, model, n) / stage
            one = (3.0 if moe.gated else 2.0) * expert_width(moe, model) * moe.expert_intermediate_size
            # a token's choices are distinct, so at least k experts are read, whatever the batch
            used = used + float(counts[at, 0]) * one * np.minimum(moe.experts_per_token, moe.num_experts)
    kinds = slice(0, tables.num_owners - 2)
    dense = float((tables.weights.tensor[kinds] * tables.layer_share).sum()) * model.num_layers
    weights = dense / tensor * formats.weight_bytes + used / stage * formats.expert_bytes
    weights = np.maximum(weights - pool.chip.l2_bytes, 0.0)
    kept = kv_rank_bytes(model, formats, plan, decode_context) * plan.pipeline_parallel_size
    sequences = np.asarray(decode_sequences) / plan.attention_data_parallel_size
    moved = np.where(n > 0, weights, 0.0) + np.maximum(sequences * kept - pool.chip.l2_bytes, 0.0)
    least: Number = np.maximum(
        flop / pool.chip.matmul_flop_per_s(formats.compute), moved / np.asarray(pool.chip.memory_bytes_per_s)
    )
    return least
