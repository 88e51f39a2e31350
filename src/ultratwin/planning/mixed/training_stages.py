"""One pipeline whose stages lie on several kinds of chips: seconds and memory, [candidate]."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Final

import numpy as np

from ultratwin.hardware.chip import DTYPE_BYTES, Number
from ultratwin.hardware.mix import Join
from ultratwin.mapping.memory import Situation, stage_parts
from ultratwin.mapping.plan import IntLike
from ultratwin.mapping.schedules import SCHEDULES, Schedule, StageTimes, by_schedule
from ultratwin.mapping.sharding import Stages, shard
from ultratwin.planning.evaluate import Setting
from ultratwin.planning.mixed.training_step import (
    MixedPlan,
    MixedTimes,
    after_the_batch_s,
    ended,
    largest,
    straggling,
)
from ultratwin.timing.step import Beyond, StepParts, assembled_times, step_parts
from ultratwin.timing.transfer import transfer_time_s
from ultratwin.workload.tables import operator_tables

BACKWARD_FRAC: Final = 2 / 3
"""Of a micro-batch on a stage: two matrix products for each one of the forward pass."""


def divides_stages(schedule: Schedule) -> bool:
    """Whether a schedule's stages can be of several kinds: none that puts both ends of the pipeline on one rank."""
    return len(schedule.paths(2, 1)) == 1 and schedule.passes(1) == 1


STAGE_SCHEDULES: Final = tuple(each.name for each in SCHEDULES if divides_stages(each))


def stage_count(plan: MixedPlan) -> IntLike:
    """Pipeline stages of all sides together, [candidate]."""
    return functools.reduce(np.add, (np.asarray(side.pipeline_parallel_size) for side in plan.sides))


def side_stages(plan: MixedPlan, at: int) -> Stages:
    """How a side's layers lie on its stages, [candidate]; `first` and `last` are the end of the pipeline that it holds.

    Equation: c = ceil(L / (p v)) v; of the p c - L missing layers the stage at the pipeline's end goes without at most
        one per chunk, as on one pool
    """
    side = plan.sides[at]
    stages, chunks = np.asarray(side.pipeline_parallel_size), np.asarray(side.virtual_pipeline_size)
    layers = np.asarray(plan.layers[at])
    most = -(-layers // (stages * chunks)) * chunks
    at_an_end = at in (0, len(plan.sides) - 1)
    end = most - np.minimum(most * stages - layers, chunks) if at_an_end else most
    # a side of one stage at an end has no other
    return Stages(most=np.where((stages > 1) | (not at_an_end), most, end), first=end, last=end, layers=1.0)


def staged_times(sides: Sequence[Setting], join: Join, plan: MixedPlan) -> MixedTimes:
    """A step of one pipeline whose stages lie on several kinds.

    Equation:  T = (m t + bubble + max_i(sync_i + rest_i - slack_i))(1 + stragglers)
    Symbols: m micro-batches, t the slowest stage of all sides with its hand-over, bubble that of the schedule for all
        stages; sync_i what a side's own replicas exchange, rest_i its optimizer and host; slack_i how much sooner the
        last backward pass of a later side ends: 2/3 t for each stage before it, at most the bubble
    Args: sides: in the order of plan.sides; join: between them; plan: layouts [candidate]
    Returns: seconds and bytes [candidate]
    Source: docs/explanation/mixed-training.md; each term is that of timing/step.py
    """
    hand_over = hand_over_s(sides, join, plan)
    parts = [_side(setting, hand_over, plan, at) for at, setting in enumerate(sides)]
    timing = _pipeline_timing(sides, plan, parts)
    done = [assembled_times(part, timing, setting.profile) for setting, part in zip(sides, parts, strict=True)]
    own = [np.asarray(each.total_s - each.once["stragglers"]) for each in done]
    late, ahead, ends = straggling(sides, plan.num_ranks), np.zeros(1), []
    for side, each, before in zip(plan.sides, done, own, strict=True):
        after = after_the_batch_s(each) + each.once["gradient synchronisation"]
        slack = np.minimum(ahead * BACKWARD_FRAC * timing.slowest_s, each.once["pipeline bubble"])
        ends.append(before - np.minimum(slack, after))
        ahead = ahead + np.asarray(side.pipeline_parallel_size)
    end = largest(ends)
    return MixedTimes(
        total_s=end * (1.0 + late),
        sides=tuple(ended(each, before, end, late) for each, before in zip(done, own, strict=True)),
        memory_bytes=tuple(_memory_bytes(setting, plan, at, part) for at, (setting, part) in _numbered(sides, parts)),
    )


def _numbered(sides: Sequence[Setting], parts: Sequence[StepParts]) -> list[tuple[int, tuple[Setting, StepParts]]]:
    return list(enumerate(zip(sides, parts, strict=True)))


def _side(setting: Setting, hand_over: Number, plan: MixedPlan, at: int) -> StepParts:
    """One kind's stages, as if the whole pipeline were of it, but for the layers.

    Replicas synchronise on its own links, and no stage hands over faster than the two kinds.
    """
    whole = dataclasses.replace(plan.sides[at], pipeline_parallel_size=stage_count(plan))
    beyond = Beyond(stages=side_stages(plan, at), hop_s=hand_over)
    return step_parts(setting.model, setting.pool, whole, setting.recipe, setting.profile, beyond)


def hand_over_s(sides: Sequence[Setting], join: Join, plan: MixedPlan) -> Number:
    """Handing a micro-batch's activations from one kind to the next, one way, every chip of a stage at once [s].

    The kind whose chips each have more of it counts; activations stay in the format that both compute the rest in.
    """
    times = []
    for setting, side in zip(sides, plan.sides, strict=True):
        size = shard(side.as_arrays()).sequence_tokens * setting.model.hidden_size * DTYPE_BYTES[setting.recipe.high]
        times.append(transfer_time_s(join, size * setting.pool.ranks_per_chip, 1.0))
    return largest(times)


def _pipeline_timing(sides: Sequence[Setting], plan: MixedPlan, parts: Sequence[StepParts]) -> StageTimes:
    """One micro-batch on the slowest and the mean stage; embedding and head lie on the first and the last side."""
    slowest, total, fixed, weight = [], [], [], []
    for at, (setting, part) in _numbered(sides, parts):
        stages, one = np.asarray(plan.sides[at].pipeline_parallel_size), part.layer.total
        beside: Number = np.zeros(1)
        if at == 0:
            beside = beside + part.times.embedding
        if at == len(parts) - 1:
            modules = operator_tables(setting.model).num_mtp_modules
            beside = beside + part.times.head * (1 + modules) + modules * one
        end = part.stages.first * one + beside
        slowest.append(np.maximum(np.where(stages > 1, part.stages.most, 0) * one, end) + part.fixed_s)
        total.append(np.asarray(plan.layers[at]) * one + beside)
        fixed.append(stages * part.fixed_s)
        weight.append(np.asarray(plan.layers[at]) * part.layer.weight)
    count = np.asarray(stage_count(plan))
    mean = functools.reduce(np.add, total) / count + functools.reduce(np.add, fixed) / count
    return StageTimes(
        slowest_s=largest(slowest),
        mean_s=mean,
        forward_s=mean / 3,
        weight_s=functools.reduce(np.add, weight) / count,
    )


def _memory_bytes(setting: Setting, plan: MixedPlan, at: int, part: StepParts) -> Number:
    """Bytes of a side's fullest rank: the end of the pipeline that it holds, or the first of its other stages."""
    tables, profile = operator_tables(setting.model), setting.profile
    case = Situation(
        tables=tables, plan=part.plan, recipe=setting.recipe, profile=profile, held=part.held,
        sizes=shard(part.plan, tables.vocab_size, profile.vocab_multiple),
    )  # fmt: skip
    whole, stages = part.plan, np.asarray(plan.sides[at].pipeline_parallel_size)
    count, chunks = np.asarray(whole.pipeline_parallel_size), np.asarray(whole.virtual_pipeline_size)
    micro_batches = np.asarray(whole.num_micro_batches, dtype=np.float64)
    before = functools.reduce(
        np.add, (np.asarray(side.pipeline_parallel_size) for side in plan.sides[:at]), np.zeros(1, dtype=np.int64)
    )

    def held(layers: Number, stage: Number, with_embedding: float, with_head: float) -> Number:
        flying = by_schedule(whole.schedule, "micro_batches_in_flight", stage, count, micro_batches, chunks)
        return functools.reduce(np.add, stage_parts(case, layers, flying, with_embedding, with_head).values())

    first, last = at == 0, at == len(plan.sides) - 1
    inner = np.where((stages > 1) | (not (first or last)), part.stages.most, 0)
    fullest = [held(inner, np.asarray(before + first, dtype=np.float64), 0.0, 0.0)]
    if first:
        fullest.append(held(part.stages.first, np.zeros(1), 1.0, 0.0))
    if last:
        fullest.append(held(part.stages.last, count - 1, 0.0, 1.0))
    return largest(fullest) * (1.0 + profile.allocator_frac) + profile.context_bytes
