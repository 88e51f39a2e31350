"""Interleaved 1F1B: each stage holds v chunks of layers, so the pipeline fills v times sooner."""

from __future__ import annotations

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.mapping.schedules.schedule import Schedule, StageTimes


class Interleaved(Schedule):
    """Bubble (p - 1) t / v; the warm-up holds ((v - 1) p + 2 (p - 1) + 1) / v micro-batches.

    Source: Narayanan et al. 2021 (arXiv 2104.04473) section 2.2; Korthikanti et al. 2022 (arXiv 2205.05198) 4.2.3
    """

    name = "interleaved"

    def bubble_time_s(self, stage: StageTimes, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return (stages - 1) * stage.mean_s / chunks

    def micro_batches_in_flight(self, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return np.minimum(micro_batches, ((chunks - 1) * stages + 2 * (stages - 1) + 1) / chunks)
