"""Served at capacity: the rate of a saturated server in its steady state, and the best plan where none is stated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.system import per_rank
from ultratwin.mapping.serving import ServingPlan, kv_capacity_tokens
from ultratwin.timing.serving.iteration import (
    ServingSetting,
    decode_attention_s,
    head_s,
    host_s,
    prefill_attention_s,
    token_parts,
)
from ultratwin.validation.rows import Skip
from ultratwin.validation.serving_rows import ServingRun

Floats = NDArray[np.float64]
_BATCHES: Final = np.unique(np.round(np.geomspace(1, 4096, 64)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Tokens per second of all replicas, time per output token [s], sequences that run at once on a replica."""

    output_tok_s: float
    tpot_s: float
    batch: float
    plan: ServingPlan
    replicas: int


def capacity(run: ServingRun) -> Capacity:
    """The highest rate that a row's chips keep up, over batch sizes and, where it states none, over plans.

    Raises: Skip if the model does not fit
    """
    ranks = int(run.num_chips * run.pool.ranks_per_chip)
    plans = [run.decode.plan] if run.decode.plan is not None else candidate_plans(run, ranks)
    found = [each for plan in plans if (each := _of_plan(run, plan, ranks)) is not None]
    if not found:
        raise Skip("the model does not fit on the chips")
    return max(found, key=lambda each: each.output_tok_s)


def candidate_plans(run: ServingRun, ranks: int) -> list[ServingPlan]:
    """Tensor sizes up to a node's; for experts also attention-data groups with experts on all of them."""
    widest = min(ranks, run.pool.chips_per_node * run.pool.ranks_per_chip)
    sizes = [size for size in (1, 2, 4, 8, 16) if size <= widest]
    plans = [ServingPlan(tensor_parallel_size=size) for size in sizes]
    if any(hasattr(layer.mlp, "num_experts") for layer in run.model.layer_kinds()):
        plans += [
            ServingPlan(attention_data_parallel_size=size, expert_parallel_size=size) for size in sizes if size > 1
        ]
        plans += [ServingPlan(tensor_parallel_size=size, expert_parallel_size=size) for size in sizes if size > 1]
    return plans


def _of_plan(run: ServingRun, plan: ServingPlan, ranks: int) -> Capacity | None:
    """The best batch of a plan.

    In the steady state of b sequences with mean output o an iteration decodes b tokens and computes b i / o prompt
    tokens; engines that prefill apart pay the same tokens in iterations of their own, b / o prompts for each decode.
    """
    replicas = ranks // int(plan.num_ranks)
    if not replicas:
        return None
    setting = ServingSetting(model=run.model, pool=run.pool, formats=run.formats, engine=run.engine)
    load, groups = run.load, int(plan.attention_data_parallel_size)
    budget = float(run.limits.max_num_batched_tokens or int(run.engine.max_num_batched_tokens) * groups)
    held = kv_capacity_tokens(
        run.model, per_rank(run.pool).chip, run.formats, plan, run.engine, max_num_batched_tokens=budget / groups,
        memory_utilization_frac=run.limits.memory_utilization_frac or None,
    ) * groups  # fmt: skip
    context = load.prompt_tokens + load.output_tokens / 2
    most = min(float(np.ravel(held)[0]) / context, float(run.limits.max_num_seqs or run.engine.max_num_seqs) * groups)
    batch = _BATCHES[: np.searchsorted(_BATCHES, most, side="right")]
    if not batch.size:
        return None
    seconds = _seconds(setting, plan, batch, run, budget)
    allowed = seconds <= load.tpot_limit_s if load.tpot_limit_s else np.ones(len(batch), dtype=bool)
    rate = np.where(allowed, batch / seconds, 0.0)
    best = int(np.argmax(rate))
    if rate[best] <= 0:
        best = 0
    return Capacity(
        output_tok_s=replicas * float(batch[best] / seconds[best]) / load.beams,
        tpot_s=float(seconds[best]),
        batch=float(batch[best]),
        plan=plan,
        replicas=replicas,
    )


def _seconds(setting: ServingSetting, plan: ServingPlan, batch: Floats, run: ServingRun, budget: float) -> Floats:
    """Seconds in which every one of b sequences gets one token, in the mean, [batch]."""
    load, engine = run.load, setting.engine
    prompts = batch / load.beams / load.output_tokens  # that end, and so begin, in each decode step
    fresh = prompts * load.prompt_tokens
    context = load.prompt_tokens + load.output_tokens / 2
    reading = prompts * np.asarray(prefill_attention_s(setting, plan, load.prompt_tokens, 0.0))
    attending = np.asarray(decode_attention_s(setting, plan, batch, context)) + np.asarray(
        head_s(setting, plan, batch + prompts)
    )
    host = np.asarray(host_s(engine, plan, batch))

    def with_host(device: Floats) -> Floats:
        both: Floats = np.maximum(device, host) if engine.overlaps_host else device + host
        return both

    def tokens_s(tokens: Floats) -> Floats:
        return np.asarray(
            sum(np.broadcast_to(each, tokens.shape) for each in token_parts(setting, plan, tokens).values())
        )

    if engine.policy == "mixed":
        held = np.minimum(batch + fresh, budget)
        over = np.maximum((batch + fresh) / budget, 1.0)
        return np.asarray(with_host(tokens_s(held) + attending + reading) * over)
    whole = np.full_like(batch, max(min(budget, 8192.0), 1.0))
    return np.asarray(with_host(tokens_s(batch) + attending) + fresh * tokens_s(whole) / whole + reading)
