"""One step of a pipeline, task by task: when each forward, backward and weight gradient starts and ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.chip import Array
from ultratwin.mapping.schedules import Schedule
from ultratwin.mapping.schedules.schedule import (
    BACKWARD,
    FORWARD,
    INPUT_GRADIENT,
    JOINED_FORWARD,
    WEIGHT_GRADIENT,
    Tasks,
)

Integers = NDArray[np.int64]
_LATER: Final = -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTimes:
    """Seconds that one micro-batch keeps each stage busy, [stage, chunk]; `hop_s` passes between two stages.

    `weight_s` is the part of `backward_s` that computes weight gradients.
    """

    forward_s: Array
    backward_s: Array
    weight_s: Array
    hop_s: float = 0.0

    @property
    def by_kind(self) -> Array:
        """Seconds by kind of task, [kind, stage, chunk]."""
        found = np.empty((5, *self.forward_s.shape))
        found[[FORWARD, JOINED_FORWARD]] = self.forward_s
        found[BACKWARD] = self.backward_s
        found[INPUT_GRADIENT] = self.backward_s - self.weight_s
        found[WEIGHT_GRADIENT] = self.weight_s
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimeline:
    """What one stage does, in its order, each [task]. Of two joined tasks each is drawn for its own time, in turn."""

    kind: Integers
    micro_batch: Integers
    chunk: Integers
    start_s: Array
    end_s: Array

    @property
    def busy_s(self) -> float:
        """Seconds of all its tasks."""
        return float((self.end_s - self.start_s).sum())

    @property
    def in_flight(self) -> Integers:
        """Activations that the stage holds once each task has begun, in chunks, [task].

        A forward task adds one; it is let go when its weight gradients are there.
        """
        begun = np.cumsum(np.isin(self.kind, (FORWARD, JOINED_FORWARD)))
        ended = np.cumsum(np.isin(self.kind, (BACKWARD, WEIGHT_GRADIENT)))
        return np.asarray(begun - np.concatenate([[0], ended[:-1]]), dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """All stages of a step. `step_s` is what a step takes, `span_s` the time from the first start to the last end.

    They differ where a schedule begins the next step on some stages before others have ended this one.
    """

    stages: tuple[StageTimeline, ...]
    step_s: float
    span_s: float

    @property
    def bubble_s(self) -> float:
        """Seconds that the busiest stage idles in a step."""
        return self.step_s - max(stage.busy_s for stage in self.stages)


def pipeline_timeline(schedule: Schedule, times: TaskTimes, micro_batches: int, chunks: int = 1) -> Timeline:
    """Exact start and end of every task, each as early as its stage's order and what it needs allow.

    Equation:  start = max(end of the task before it on the stage, end of what it needs + hop)
    A forward task needs the one of the layers before, a backward task the one of the layers behind, or at the end of
    the model its own forward; weight gradients need what the stage has done itself.
    Args:
        schedule: gives the order of tasks on a stage and the way of a micro-batch through the stages
        times: seconds by task [stage, chunk], a chunk for each that the schedule's paths name
        micro_batches: of a step [1]
        chunks: model chunks per stage, as the plan counts them [1]
    Returns: the step; where `spans_steps`, its seconds are those of the slowest stage, else of all together
    Source: the orders are the papers' (mapping/schedules); equal to their closed forms where stages are equal
    """
    num_stages, num_chunks = times.forward_s.shape
    keys = _Keys(num_stages=num_stages, num_chunks=num_chunks, micro_batches=micro_batches)
    sources, hops = _needs(schedule, num_stages, chunks, num_chunks, times.hop_s)
    tasks = [schedule.tasks(stage, num_stages, micro_batches, chunks) for stage in range(num_stages)]
    seconds = times.by_kind
    queues = [_Queue(tasks[stage], stage, keys, sources, hops, seconds[:, stage]) for stage in range(num_stages)]
    done_s = [_LATER] * keys.count
    done_s[keys.nothing] = 0.0
    _run(queues, done_s)
    stages = tuple(queue.timeline() for queue in queues)
    begin = min(float(stage.start_s[0]) for stage in stages)
    span_s = max(float(stage.end_s[-1]) for stage in stages) - begin
    own_s = max(float(stage.end_s[-1] - stage.start_s[0]) for stage in stages)
    return Timeline(stages=stages, step_s=own_s if schedule.spans_steps else span_s, span_s=span_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Keys:
    """Numbers of what tasks need and give: forward and backward of each stage, chunk and micro-batch; two more."""

    num_stages: int
    num_chunks: int
    micro_batches: int

    @property
    def nothing(self) -> int:
        """Needed by tasks that may start at once."""
        return 2 * self.num_stages * self.num_chunks * self.micro_batches

    @property
    def nobody(self) -> int:
        """Given by tasks that no other stage waits for."""
        return self.nothing + 1

    @property
    def count(self) -> int:
        return self.nothing + 2

    def of(self, backward: Integers | bool, stage: Integers | int, chunk: Integers, micro_batch: Integers) -> Integers:
        place = (np.asarray(backward) * self.num_stages + stage) * self.num_chunks + chunk
        return np.asarray(place * self.micro_batches + micro_batch)


def _needs(schedule: Schedule, stages: int, chunks: int, num_chunks: int, hop_s: float) -> tuple[Integers, Array]:
    """What tasks at [forward or backward, stage, chunk] need, as one number of (backward, stage, chunk) or -1; hops."""
    source = np.full((2, stages, num_chunks), -1, dtype=np.int64)
    hops = np.zeros((2, stages, num_chunks))
    for stage, chunk in schedule.paths(stages, chunks):
        here = stage * num_chunks + chunk
        source[0, stage[1:], chunk[1:]] = here[:-1]
        source[1, stage[:-1], chunk[:-1]] = stages * num_chunks + here[1:]
        source[1, stage[-1], chunk[-1]] = here[-1]
        moves = np.where(stage[1:] != stage[:-1], hop_s, 0.0)
        hops[0, stage[1:], chunk[1:]] = moves
        hops[1, stage[:-1], chunk[:-1]] = moves
    return source, hops


class _Queue:
    """A stage's tasks, joined ones as one: what each needs (two, and the hop), takes and gives (two)."""

    def __init__(self, tasks: Tasks, stage: int, keys: _Keys, sources: Integers, hops: Array, seconds: Array) -> None:
        self._kind, self._micro_batch, self._chunk = tasks
        forward = np.isin(self._kind, (FORWARD, JOINED_FORWARD))
        weight = self._kind == WEIGHT_GRADIENT
        backward = np.where(forward, 0, 1)
        source = np.where(weight, -1, sources[backward, stage, self._chunk])
        needs = np.where(source < 0, keys.nothing, source * keys.micro_batches + self._micro_batch)
        gives = np.where(weight, keys.nobody, keys.of(backward, stage, self._chunk, self._micro_batch))
        hop = np.where(source < 0, 0.0, hops[backward, stage, self._chunk])
        self._taken = seconds[self._kind, self._chunk]
        joined = self._kind == JOINED_FORWARD
        self._second = np.concatenate([[False], joined[:-1]])
        first = np.flatnonzero(~self._second)
        pair, after = joined[first], np.minimum(first + 1, len(joined) - 1)
        self.needs = list(zip(needs[first].tolist(), np.where(pair, needs[after], keys.nothing).tolist(), strict=True))
        self.gives = list(zip(gives[first].tolist(), np.where(pair, gives[after], keys.nobody).tolist(), strict=True))
        self.hops = list(zip(hop[first].tolist(), np.where(pair, hop[after], 0.0).tolist(), strict=True))
        self.takes = (self._taken[first] + np.where(pair, self._taken[after], 0.0)).tolist()
        self.starts: list[float] = []
        self._free_s = 0.0

    def advance(self, done_s: list[float]) -> bool:
        """Runs the tasks that can run; whether any could."""
        at = first = len(self.starts)
        free, starts, needs, hops, takes, gives = (
            self._free_s, self.starts, self.needs, self.hops, self.takes, self.gives,
        )  # fmt: skip
        while at < len(takes):
            one, other = needs[at]
            one_s, other_s = done_s[one], done_s[other]
            if one_s < 0.0 or other_s < 0.0:
                break
            hop, other_hop = hops[at]
            free = max(free, one_s + hop, other_s + other_hop)
            starts.append(free)
            free += takes[at]
            one, other = gives[at]
            done_s[one] = done_s[other] = free
            at += 1
        self._free_s = free
        return at > first

    @property
    def ended(self) -> bool:
        return len(self.starts) == len(self.takes)

    def timeline(self) -> StageTimeline:
        """Start and end of every task; the second of a joined pair follows on the first."""
        start = np.empty(len(self._kind))
        start[~self._second] = self.starts
        behind = np.flatnonzero(self._second)
        start[behind] = start[behind - 1] + self._taken[behind - 1]
        return StageTimeline(
            kind=self._kind, micro_batch=self._micro_batch, chunk=self._chunk, start_s=start, end_s=start + self._taken
        )


def _run(queues: list[_Queue], done_s: list[float]) -> None:
    """Advances all stages until all have ended, down and up the pipeline in turn, as forward and backward go.

    Raises: RuntimeError if all wait for each other, which no schedule's order may make them
    """
    while not all(queue.ended for queue in queues):
        moved = [queue.advance(done_s) for queue in queues]
        moved += [queue.advance(done_s) for queue in reversed(queues)]
        if not any(moved):
            raise RuntimeError("the schedule's stages wait for each other")
