"""Bytes that one rank gives to the collectives of a layer and of a step. What travels follows from the algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ultratwin.hardware.chip import DTYPE_BYTES
from ultratwin.mapping.plan import RECOMPUTE, Plan
from ultratwin.mapping.profile import Profile
from ultratwin.mapping.recipe import Recipe
from ultratwin.mapping.sharding import Stages, Weights, shard
from ultratwin.timing.communication import dense_share
from ultratwin.workload.model import Model
from ultratwin.workload.tables import OperatorTables


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBytes:
    """Payloads of one rank [byte]: forward and backward of one layer and micro-batch; `gradients`, `parameters` a step.

    `hand_over`: one micro-batch to the next stage.
    """

    tensor: tuple[float, float]
    context: tuple[float, float]
    expert: tuple[float, float]
    shard: tuple[float, float]
    hand_over: float
    gradients: float
    parameters: float


def layer_bytes(
    model: Model, tables: OperatorTables, plan: Plan, recipe: Recipe, profile: Profile, held: Weights, stages: Stages
) -> LayerBytes:
    """Sizes that timing.communication asks its collectives for, added up, for one plan.

    Equation:  tensor b s h / c for each collective of a block; context (c - 1) keys and values of a chunk; experts two
        exchanges of the top-k copies of a rank's tokens; shard: the layer's weights and gradients
    Source: docs/explanation/training-step.md
    """
    sizes, width = shard(plan), DTYPE_BYTES[recipe.high]
    hidden = _one(sizes.tokens) * model.hidden_size * width
    split, tensor = _one(plan.tensor_parallel_size) > 1, _one(sizes.tensor)
    calls = (2.0, 3.0) if _one(plan.sequence_parallel) > 0 else (1.0, 1.0)
    plain = dense_share(tables)
    blocks = 1.0 + (1.0 if _one(sizes.expert_tensor) >= tensor else plain) if split else 0.0
    again = 1.0 if int(_one(plan.recompute)) == RECOMPUTE.index("full") else 0.0
    core, context = tables.cores[0][1], _one(plan.context_parallel_size)
    keys = core.num_kv_heads * (core.head_dim + core.head_dim_v) * width * _one(sizes.tokens) / tensor * (context - 1)
    top_k = sum(
        float(share) * moe.experts_per_token
        for share, moe in zip(tables.layer_share[:, 0], tables.moe, strict=True)
        if moe is not None
    )
    routed = _one(sizes.routed_tokens) / _one(sizes.expert_tensor) * model.hidden_size * width * top_k
    expert = 2.0 * routed if _one(sizes.expert) > 1 else 0.0
    gather, wire = (
        DTYPE_BYTES[recipe.weight_gather if recipe.is_low else recipe.high],
        _one(profile.gradient_wire_bytes),
    )
    layer = _one(held.layer_dense) + _one(held.layer_expert)
    stage = _one(stages.first) * layer + _one(held.embedding)
    sharded = 1.0 if _one(plan.zero_stage) >= 3 and _one(plan.data_shard_size) > 1 else 0.0
    copies = 1.0 - sharded if _one(plan.data_shard_size) > 1 else 0.0
    return LayerBytes(
        tensor=(calls[0] * blocks * hidden, (calls[1] + again * calls[0]) * blocks * hidden),
        context=(keys, 2.0 * keys),
        expert=(expert, (1.0 + again) * expert),
        shard=(sharded * layer * gather, sharded * layer * (gather + wire)),
        hand_over=_one(sizes.sequence_tokens) * model.hidden_size * width,
        gradients=copies * stage * wire,
        parameters=copies * stage * gather if _one(plan.zero_stage) > 0 else 0.0,
    )


def _one(value: Any) -> float:
    return float(np.ravel(value)[0])
