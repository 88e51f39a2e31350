"""GPipe: all forward passes, then all backward passes."""

from __future__ import annotations

from ultratwin.hardware.chip import Number
from ultratwin.mapping.schedules.schedule import Schedule, StageTimes


class GPipe(Schedule):
    """Bubble (p - 1) t; every micro-batch is in flight.

    Source: Huang et al. 2019 (arXiv 1811.06965)
    """

    name = "gpipe"

    def bubble_time_s(self, stage: StageTimes, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return (stages - 1) * stage.mean_s

    def micro_batches_in_flight(self, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return micro_batches
