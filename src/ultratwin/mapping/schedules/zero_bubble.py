"""Zero-bubble schedules: weight gradients are computed later, where a stage would idle."""

from __future__ import annotations

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.mapping.schedules.schedule import Schedule, StageTimes


class ZeroBubbleH1(Schedule):
    """ZB-H1 / ZB-1p: bubble (p - 1)(t - 2 w), with no more activations than 1F1B.

    Equation: t = F + B + W of a stage; the bubble is (p - 1)(F + B - W)
    Source: Qi et al. 2023 (arXiv 2401.10241) table 1
    """

    name = "zb-1p"

    def bubble_time_s(self, stage: StageTimes, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return (stages - 1) * np.maximum(stage.mean_s - 2 * stage.weight_s, 0)

    def micro_batches_in_flight(self, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return np.minimum(micro_batches, stages)


class ZeroBubbleH2(Schedule):
    """ZB-H2 / ZB-2p: bubble (p - 1)(F + B - 2 W), with up to 2 p - 1 micro-batches in flight.

    Source: Qi et al. 2023 (arXiv 2401.10241) table 1
    """

    name = "zb-2p"

    def bubble_time_s(self, stage: StageTimes, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return (stages - 1) * np.maximum(stage.mean_s - 3 * stage.weight_s, 0)

    def micro_batches_in_flight(self, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return np.minimum(micro_batches, 2 * stages - 1)


class ZeroBubbleV(Schedule):
    """ZB-V: two chunks per stage laid out as a V; about no bubble with the activations of 1F1B.

    Source: Qi et al. 2024 (arXiv 2405.15362)
    """

    name = "zb-v"

    def bubble_time_s(self, stage: StageTimes, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return (stages - 1) * np.maximum(stage.mean_s - 3 * stage.weight_s, 0) / 2

    def micro_batches_in_flight(self, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return np.minimum(micro_batches, stages)
