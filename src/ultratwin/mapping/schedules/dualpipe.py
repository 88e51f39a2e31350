"""DualPipe: micro-batches enter at both ends, two copies of the weights, forward and backward overlapped."""

from __future__ import annotations

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.mapping.schedules.schedule import Schedule, StageTimes


class DualPipe(Schedule):
    """Bubble (p/2 - 1)(F&B + B - 3 W), F&B an overlapped pair; p + 1 micro-batches in flight.

    With t = F + B for an overlapped pair and B without weights t - F - W.
    Source: DeepSeek-V3 technical report (arXiv 2412.19437) table 2
    """

    name = "dualpipe"
    weight_copies = 2.0

    def bubble_time_s(self, stage: StageTimes, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        backward = stage.mean_s - stage.forward_s
        return np.maximum(stages / 2 - 1, 0) * np.maximum(stage.mean_s + backward - 3 * stage.weight_s, 0)

    def micro_batches_in_flight(self, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return np.minimum(micro_batches, stages + 1)
