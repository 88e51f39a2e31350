"""One training step as events: what each task is made of, the pipeline's timeline, what comes after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import Array, Number
from ultratwin.hardware.system import Pool
from ultratwin.mapping.plan import RECOMPUTE, Plan
from ultratwin.mapping.profile import Profile
from ultratwin.mapping.recipe import Recipe
from ultratwin.mapping.schedules import SCHEDULES, Schedule, schedule_index
from ultratwin.mapping.schedules.schedule import (
    BACKWARD,
    FORWARD,
    INPUT_GRADIENT,
    JOINED_FORWARD,
    WEIGHT_GRADIENT,
    Path,
)
from ultratwin.mapping.sharding import Stages
from ultratwin.simulation.payload import LayerBytes, layer_bytes
from ultratwin.simulation.pipeline import TaskTimes, Timeline, pipeline_timeline
from ultratwin.timing.communication import DataCommunication
from ultratwin.timing.layer import LayerTimes, exposed_time_s
from ultratwin.timing.step import StepTimes, step_parts, step_times
from ultratwin.workload.model import Model
from ultratwin.workload.tables import operator_tables

COMPUTE: Final = "compute"
HAND_OVER: Final = "pipeline hand-over"
_FORWARD_FRAC: Final = 1.0 / 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What a task spends on one cause: `shown_s` of its own time, `all_s` with what runs under other work.

    `lane`: "compute", or the parallel axis that communicates; `payload_bytes`: what is given to collectives.
    """

    cause: str
    lane: str
    shown_s: float
    all_s: float
    payload_bytes: float = 0.0

    def times(self, count: float) -> Piece:
        """The same so many times."""
        return Piece(
            cause=self.cause, lane=self.lane, shown_s=self.shown_s * count, all_s=self.all_s * count,
            payload_bytes=self.payload_bytes * count,
        )  # fmt: skip


Pieces = tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTasks:
    """What tasks are made of, by kind: of one layer, of embedding and head together, of every chunk.

    `layers`: on each stage and chunk; `has_embedding`, `has_head`: where these are. All [stage, chunk].
    """

    layer: dict[int, Pieces]
    embedding: dict[int, Pieces]
    head: dict[int, Pieces]
    chunk: dict[int, Pieces]
    layers: Array
    has_embedding: Array
    has_head: Array

    def pieces(self, kind: int, stage: int, chunk: int) -> Pieces:
        """Causes of one task in the order they are drawn; their shown seconds are its duration."""
        kind = FORWARD if kind == JOINED_FORWARD else kind
        num_layers = float(self.layers[stage, chunk])
        found = [each.times(num_layers) for each in self.layer[kind]]
        found += self.embedding[kind] if self.has_embedding[stage, chunk] else ()
        found += self.head[kind] if self.has_head[stage, chunk] else ()
        found += self.chunk[kind]
        return tuple(each for each in found if each.all_s > 0 or each.shown_s > 0)

    def task_times(self) -> TaskTimes:
        """Seconds of each stage's tasks."""

        def seconds(kind: int) -> Array:
            layer, embedding, head, chunk = (
                sum(each.shown_s for each in pieces[kind])
                for pieces in (self.layer, self.embedding, self.head, self.chunk)
            )
            return layer * self.layers + embedding * self.has_embedding + head * self.has_head + chunk

        return TaskTimes(forward_s=seconds(FORWARD), backward_s=seconds(BACKWARD), weight_s=seconds(WEIGHT_GRADIENT))


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedStep:
    """A step as events. `passes`, `paths`: how a micro-batch goes through the stages (mapping.schedules).

    `after`: what follows the pipeline, once a step, in its order; its last piece is the wait for stragglers.
    `total_s`: of the whole step; `closed`: the closed form's answer to the same plan.
    """

    schedule: Schedule
    passes: int
    paths: tuple[Path, ...]
    tasks: StageTasks
    timeline: Timeline
    after: Pieces
    total_s: float
    closed: StepTimes

    @property
    def difference_s(self) -> float:
        """Seconds by which the events are longer than the closed form."""
        return self.total_s - _one(self.closed.total_s)


def simulated_step(model: Model, pool: Pool, plan: Plan, recipe: Recipe, profile: Profile) -> SimulatedStep:
    """One optimizer step of one plan, every task of every stage.

    Equation:  T = (pipeline + exposed(gradients, parameters) + optimizer + host)(1 + stragglers)
    Args: as timing.step.step_times, for one plan
    Returns: the step; equal to the closed form where all stages take equally long
    Raises: ScenarioError for a schedule that can't have so many stages
    Source: docs/explanation/pipeline-events.md
    """
    plan = plan.as_arrays()
    closed = step_times(model, pool, plan, recipe, profile)
    stages, chunks, micro_batches = (
        int(np.ravel(size)[0])
        for size in (plan.pipeline_parallel_size, plan.virtual_pipeline_size, plan.num_micro_batches)
    )
    # one stage has no pipeline to schedule
    schedule = SCHEDULES[int(np.ravel(plan.schedule)[0]) if stages > 1 else schedule_index("1f1b")]
    if schedule.name == "dualpipe" and stages % 2:
        raise ScenarioError(
            f"dualpipe on {stages} pipeline stages", allowed="an even number of them",
            hint="it feeds a pipeline from both ends; take another schedule or size",
        )  # fmt: skip
    raw = _raw(model, pool, plan, recipe, profile)
    tasks = _stage_tasks(raw, closed, plan, profile, schedule, operator_tables(model).num_mtp_modules)
    timeline = pipeline_timeline(schedule, tasks.task_times(), micro_batches, chunks)
    after = _after(raw, closed, profile)
    once = sum(piece.shown_s for piece in after)
    late_frac = _one(closed.once["stragglers"]) / (_one(closed.total_s) - _one(closed.once["stragglers"]))
    late = (timeline.step_s + once) * late_frac
    return SimulatedStep(
        schedule=schedule, passes=schedule.passes(chunks), paths=schedule.paths(stages, chunks), tasks=tasks,
        timeline=timeline, closed=closed, total_s=timeline.step_s + once + late,
        after=(*after, Piece(cause="stragglers", lane=COMPUTE, shown_s=late, all_s=late)),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Raw:
    """Seconds and bytes of a plan's parts before anything is hidden."""

    layer: LayerTimes
    data: DataCommunication
    hop_s: float
    sizes: LayerBytes


def _raw(model: Model, pool: Pool, plan: Plan, recipe: Recipe, profile: Profile) -> _Raw:
    parts = step_parts(model, pool, plan, recipe, profile)
    times, data = parts.times, parts.data
    return _Raw(
        layer=LayerTimes(**{each.name: _one(getattr(times, each.name)) for each in dataclasses.fields(times)}),
        data=DataCommunication(**{each.name: _one(getattr(data, each.name)) for each in dataclasses.fields(data)}),
        hop_s=_one(parts.hop_s),
        sizes=layer_bytes(model, operator_tables(model), plan, recipe, profile, parts.held, parts.stages),
    )


def _stage_tasks(
    raw: _Raw, closed: StepTimes, plan: Plan, profile: Profile, schedule: Schedule, num_mtp_modules: int
) -> StageTasks:
    """Tasks of every stage, from one layer and what lies beside the layers."""
    stages, chunks = int(np.ravel(plan.pipeline_parallel_size)[0]), int(np.ravel(plan.virtual_pipeline_size)[0])
    passes, paths = schedule.passes(chunks), schedule.paths(stages, chunks)
    where = (stages, 1 + max(int(path[1].max()) for path in paths))
    layers, has_embedding, has_head = np.zeros(where), np.zeros(where), np.zeros(where)
    for path in paths:
        layers[path[0], path[1]] = _layers_along(closed.stages, stages, chunks, passes)
        has_embedding[path[0, 0], path[1, 0]] = has_head[path[0, -1], path[1, -1]] = 1.0
    layer = _layer_pieces(raw, closed, plan, profile)
    # the closed form's hand-overs and launches of a micro-batch, spread evenly over its forward and backward tasks
    shown, launch = _one(closed.hop_s) / (2 * passes), float(profile.host_micro_batch_s) * chunks / (2 * passes)
    beside = (
        Piece(cause="host launches", lane="host", shown_s=launch, all_s=launch),
        Piece(
            cause=HAND_OVER, lane="pipeline", shown_s=shown, all_s=max(raw.hop_s if stages > 1 else 0.0, shown),
            payload_bytes=raw.sizes.hand_over if stages > 1 else 0.0,
        ),
    )  # fmt: skip
    head = _third("output head", float(raw.layer.head) * (1 + num_mtp_modules))
    extra = {kind: tuple(each.times(num_mtp_modules) for each in pieces) for kind, pieces in layer.items()}
    return StageTasks(
        layer=layer,
        embedding=_third("embedding", float(raw.layer.embedding)),
        head={kind: (*pieces, *(extra[kind] if num_mtp_modules else ())) for kind, pieces in head.items()},
        chunk={FORWARD: beside, BACKWARD: beside, INPUT_GRADIENT: beside, WEIGHT_GRADIENT: ()},
        layers=layers,
        has_embedding=has_embedding,
        has_head=has_head,
    )


def _third(cause: str, seconds: float) -> dict[int, Pieces]:
    """Embedding or head: one third forward, two backward; its weight gradients stay with the backward task."""
    forward = Piece(cause=cause, lane=COMPUTE, shown_s=seconds * _FORWARD_FRAC, all_s=seconds * _FORWARD_FRAC)
    rest = seconds - forward.shown_s
    backward = Piece(cause=cause, lane=COMPUTE, shown_s=rest, all_s=rest)
    return {FORWARD: (forward,), BACKWARD: (backward,), INPUT_GRADIENT: (backward,), WEIGHT_GRADIENT: ()}


def _layers_along(stages: Stages, num_stages: int, chunks: int, passes: int) -> Array:
    """Layers at each position of a micro-batch's way, [position]; they sum to the model's.

    What the first and the last stage hold less than the others, their first and last chunk holds less.
    """
    first, last = _one(stages.first), _one(stages.last)
    if num_stages == 1:
        return np.array([float(stages.layers)])
    if passes == 1:
        inner = np.diff(np.ceil(np.linspace(0.0, stages.layers - first - last, num_stages - 1) - 1e-9))
        return np.concatenate([[first], inner, [last]])
    full = -(-stages.layers // (num_stages * chunks)) * chunks / passes
    found = np.full(num_stages * passes, full)
    missing = full * len(found) - stages.layers
    from_last = min(full * passes - last, missing)
    for order, less in ((range(len(found)), missing - from_last), (range(len(found) - 1, -1, -1), from_last)):
        for position in order:
            taken = min(found[position], less)
            found[position] -= taken
            less -= taken
    return found


def _layer_pieces(raw: _Raw, closed: StepTimes, plan: Plan, profile: Profile) -> dict[int, Pieces]:
    """One layer's pieces by kind of task. Forward parts are computed as timing.layer does; backward is the rest.

    What shows comes after the compute that it partly ran under, so that it can be drawn there.
    """
    times, layer, factor = raw.layer, closed.layer, float(profile.collective_factor)
    full = int(np.ravel(plan.recompute)[0]) == RECOMPUTE.index("full")
    forward_compute = times.linear_forward + times.attention_forward + times.vector_forward
    again = 1.0 if full else 0.0
    gather, scatter = factor * raw.data.layer_gather, factor * raw.data.layer_scatter
    launches = profile.host_forward_s * (1.0 + again) + profile.host_backward_s
    sizes = raw.sizes
    rows: tuple[tuple[str, str, Number, Number, Number, Number, tuple[float, float]], ...] = (
        # cause, lane, shown forward, shown in all, whole forward, whole backward, bytes
        ("linear layers", COMPUTE, times.linear_forward, layer.linear, 0.0, 0.0, (0.0, 0.0)),
        ("attention", COMPUTE, times.attention_forward, layer.attention, 0.0, 0.0, (0.0, 0.0)),
        ("norms, activations, casts", COMPUTE, times.vector_forward, layer.vector, 0.0, 0.0, (0.0, 0.0)),
        ("recomputation", COMPUTE, 0.0, layer.recompute, 0.0, 0.0, (0.0, 0.0)),
        (
            "tensor-parallel communication", "tensor",
            factor * exposed_time_s(times.tensor_forward, times.linear_forward, profile.tensor_overlap_frac),
            layer.tensor, factor * times.tensor_forward,
            factor * (times.tensor_backward + again * times.tensor_forward), sizes.tensor,
        ),
        (
            "context-parallel communication", "context",
            exposed_time_s(factor * times.context_forward, times.attention_forward, profile.context_overlap_frac),
            layer.context, factor * times.context_forward, factor * times.context_backward, sizes.context,
        ),
        (
            "expert-parallel communication", "expert",
            exposed_time_s(factor * times.expert_forward, forward_compute, profile.expert_overlap_frac),
            layer.expert, factor * times.expert_forward,
            factor * (times.expert_backward + again * times.expert_forward), sizes.expert,
        ),
        (
            "weight sharding communication", "data",
            exposed_time_s(gather, forward_compute, profile.shard_overlap_frac), layer.shard,
            gather, gather + scatter, sizes.shard,
        ),
        (
            "host launches", "host",
            layer.host * profile.host_forward_s / launches if launches else 0.0, layer.host, 0.0, 0.0, (0.0, 0.0),
        ),
    )  # fmt: skip
    forward, backward, rest, late = [], [], [], []
    for cause, lane, shown_forward, shown, whole_forward, whole_backward, payload in rows:
        ahead, behind = _one(shown_forward), _one(shown) - _one(shown_forward)
        weight = _one(layer.weight) if cause == "linear layers" else 0.0
        of = {"cause": cause, "lane": lane}
        whole = max(_one(whole_backward), behind)
        forward.append(_piece(of, ahead, max(_one(whole_forward), ahead), payload[0]))
        backward.append(_piece(of, behind, whole, payload[1]))
        rest.append(_piece(of, behind - weight, whole - weight, payload[1]))
        late.append(_piece(of, weight, weight, 0.0))
    return {
        FORWARD: _real(forward), BACKWARD: _real(backward), INPUT_GRADIENT: _real(rest), WEIGHT_GRADIENT: _real(late),
    }  # fmt: skip


def _piece(of: dict[str, str], shown_s: float, all_s: float, payload_bytes: float) -> Piece:
    return Piece(cause=of["cause"], lane=of["lane"], shown_s=shown_s, all_s=all_s, payload_bytes=payload_bytes)


def _real(pieces: Iterable[Piece]) -> Pieces:
    return tuple(each for each in pieces if each.all_s > 0 or each.shown_s > 0)


def _after(raw: _Raw, closed: StepTimes, profile: Profile) -> Pieces:
    """What follows the pipeline once a step, stragglers left out."""
    factor = float(profile.collective_factor)
    synchronised = _one(closed.once["gradient synchronisation"])
    window = _one(closed.stages.first) * _one(closed.layer.total) / 1.5
    gradients = _one(exposed_time_s(factor * raw.data.gradients, window, profile.data_overlap_frac))
    replicas = _one(closed.once["weight sharding communication"])
    rows = (
        ("gradient synchronisation", "data", gradients, factor * raw.data.gradients, raw.sizes.gradients),
        ("weight sharding communication", "data", replicas, replicas, 0.0),
        ("optimizer", COMPUTE, _one(closed.once["optimizer"]), 0.0, 0.0),
        (
            "gathering updated weights", "data", synchronised - gradients, factor * raw.data.parameters,
            raw.sizes.parameters,
        ),
        ("host, per step", "host", _one(closed.once["host, per step"]), 0.0, 0.0),
    )  # fmt: skip
    return _real(
        Piece(cause=cause, lane=lane, shown_s=shown, all_s=max(_one(whole), shown), payload_bytes=size)
        for cause, lane, shown, whole, size in rows
    )


def _one(value: Number) -> float:
    """The number of a plan that is alone."""
    return float(np.ravel(value)[0])
