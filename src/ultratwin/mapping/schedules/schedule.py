"""What a pipeline schedule answers: how long m micro-batches take, and how many activations a stage holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from ultratwin.hardware.chip import Number


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

    @abstractmethod
    def bubble_time_s(self, stage: StageTimes, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        """Seconds that a stage idles in a step, beside the m micro-batches of the slowest stage [s]."""

    @abstractmethod
    def micro_batches_in_flight(self, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        """Activations that the first stage holds at most, in micro-batches of all its layers [1]."""
