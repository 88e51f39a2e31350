"""GPipe: all forward passes, then all backward passes."""

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
)


class GPipe(Schedule):
    """Bubble (p - 1) t; every micro-batch is in flight.

    Source: Huang et al. 2019 (arXiv 1811.06965)
    """

    name = "gpipe"

    def bubble_time_s(self, stage: StageTimes, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return (stages - 1) * stage.mean_s

    def micro_batches_in_flight(self, stage: Number, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return micro_batches

    def tasks(self, stage: int, stages: int, micro_batches: int, chunks: int) -> Tasks:
        """Backward in reverse order, as the paper draws it: the last activations are used first."""
        backward = each_micro_batch(BACKWARD, micro_batches)[:, ::-1]
        return np.concatenate([each_micro_batch(FORWARD, micro_batches), backward], axis=1)
