"""What a pipeline schedule answers: how long m micro-batches take, and how many activations a stage holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.chip import Number

FORWARD: Final = 0
BACKWARD: Final = 1
INPUT_GRADIENT: Final = 2
WEIGHT_GRADIENT: Final = 3
JOINED_FORWARD: Final = 4
KINDS: Final = ("forward", "backward", "input gradient", "weight gradient", "forward")
"""Kinds of tasks by index: `BACKWARD` computes both gradients, `JOINED_FORWARD` runs with the task after it."""
Tasks = NDArray[np.int64]
"""What a stage does, in order: kind, micro-batch and model chunk, [3, task]."""
Path = NDArray[np.int64]
"""Where a micro-batch's layers lie, from the first to the last: stage and chunk, [2, position]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimes:
    """Seconds of one micro-batch on a stage, all [candidate].

    `slowest_s`: forward and backward on the slowest stage; `mean_s`: the mean over stages; `weight_s`: the part of the
    mean that computes weight gradients, which zero-bubble schedules move.
    """

    slowest_s: Number
    mean_s: Number
    forward_s: Number
    weight_s: Number


class Schedule(ABC):
    """One pipeline schedule. p stages, m micro-batches, v model chunks per stage; all may be arrays [candidate]."""

    name: str
    weight_copies: float = 1.0
    """How many copies of the weights a rank holds (DualPipe: 2)."""
    mirrored: bool = False
    """Whether a rank holds a stage and its mirror image, so that it is as fast as their mean (DualPipe)."""
    spans_steps: bool = False
    """Whether a stage begins its next step before the others have ended this one: a step is one stage's, not all's."""

    @abstractmethod
    def bubble_time_s(self, stage: StageTimes, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        """Seconds that a stage idles in a step, beside the m micro-batches of the slowest stage [s]."""

    @abstractmethod
    def micro_batches_in_flight(self, stage: Number, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        """Activations that a stage (the first is 0) holds at most, in micro-batches of all its layers [1]."""

    @abstractmethod
    def tasks(self, stage: int, stages: int, micro_batches: int, chunks: int) -> Tasks:
        """What one stage of a pipeline does in a step, in its order."""

    def paths(self, stages: int, chunks: int) -> tuple[Path, ...]:
        """The ways that micro-batches take through the stages; here one, from stage to stage and chunk to chunk."""
        position = np.arange(stages * self.passes(chunks))
        return (np.stack([position % stages, position // stages]),)

    def passes(self, chunks: int) -> int:
        """How often a micro-batch comes through each stage."""
        return 1


def task_list(rows: list[tuple[int, int, int]]) -> Tasks:
    """Kind, micro-batch and chunk of each task as an array [3, task]."""
    return np.array(rows, dtype=np.int64).reshape(-1, 3).T


def in_turn(ahead: int, forward: Tasks, backward: Tasks) -> Tasks:
    """So many forward tasks, then one forward and one backward in turn, then the backward tasks that are left."""
    steady = forward.shape[1] - ahead
    pairs = np.stack([forward[:, ahead:], backward[:, :steady]], axis=2).reshape(3, -1)
    return np.concatenate([forward[:, :ahead], pairs, backward[:, steady:]], axis=1)


def each_micro_batch(kind: int, micro_batches: int) -> Tasks:
    """The same task of every micro-batch, on a stage's only chunk."""
    order = np.arange(micro_batches)
    return np.stack([np.full_like(order, kind), order, np.zeros_like(order)])
