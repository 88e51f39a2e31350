"""1F1B: one forward, one backward in turn, after a warm-up."""

from __future__ import annotations

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.mapping.schedules.schedule import (
    BACKWARD,
    FORWARD,
    Schedule,
    StageTimes,
    Tasks,
    each_micro_batch,
    in_turn,
)


class OneFOneB(Schedule):
    """Bubble (p - 1) t, as GPipe; at most p micro-batches are in flight.

    Source: Narayanan et al. 2021 (arXiv 2104.04473) section 2.2
    """

    name = "1f1b"

    def bubble_time_s(self, stage: StageTimes, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return (stages - 1) * stage.mean_s

    def micro_batches_in_flight(self, stage: Number, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return np.minimum(micro_batches, stages - stage)

    def tasks(self, stage: int, stages: int, micro_batches: int, chunks: int) -> Tasks:
        """Stage s runs p - s - 1 micro-batches ahead."""
        ahead = min(stages - stage - 1, micro_batches)
        return in_turn(ahead, each_micro_batch(FORWARD, micro_batches), each_micro_batch(BACKWARD, micro_batches))
