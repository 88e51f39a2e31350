"""Zero-bubble schedules: weight gradients are computed later, where a stage would idle."""

from __future__ import annotations

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.mapping.schedules.schedule import (
    FORWARD,
    INPUT_GRADIENT,
    WEIGHT_GRADIENT,
    Path,
    Schedule,
    StageTimes,
    Tasks,
    task_list,
)


class ZeroBubbleH1(Schedule):
    """ZB-H1 / ZB-1p: bubble (p - 1)(t - 2 w), with no more activations than 1F1B.

    Equation: t = F + B + W of a stage; the bubble is (p - 1)(F + B - W)
    Source: Qi et al. 2023 (arXiv 2401.10241) table 1
    """

    name = "zb-1p"

    def bubble_time_s(self, stage: StageTimes, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        table = (stages - 1) * np.maximum(stage.mean_s - 2 * stage.weight_s, 0)
        return np.maximum(table, _unfilled_s(stage, stages, micro_batches))

    def micro_batches_in_flight(self, stage: Number, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return np.minimum(micro_batches, stages)

    def tasks(self, stage: int, stages: int, micro_batches: int, chunks: int) -> Tasks:
        """As 1F1B, stage s computing weight gradients s micro-batches late: every stage holds p."""
        return _late_weights(stages - stage, stage, micro_batches)


class ZeroBubbleH2(Schedule):
    """ZB-H2 / ZB-2p: bubble (p - 1)(F + B - 2 W), with up to 2 p - 1 micro-batches in flight.

    Source: Qi et al. 2023 (arXiv 2401.10241) table 1
    """

    name = "zb-2p"
    spans_steps = True

    def bubble_time_s(self, stage: StageTimes, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        table = (stages - 1) * np.maximum(stage.mean_s - 3 * stage.weight_s, 0)
        return np.maximum(table, _unfilled_s(stage, stages, micro_batches))

    def micro_batches_in_flight(self, stage: Number, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return np.minimum(micro_batches, 2 * stages - 1)

    def tasks(self, stage: int, stages: int, micro_batches: int, chunks: int) -> Tasks:
        """Stage s starts 2 (p - s) - 1 micro-batches, its weight gradients are 2 s late: every stage holds 2 p - 1."""
        return _late_weights(2 * (stages - stage) - 1, 2 * stage, micro_batches)


class ZeroBubbleV(Schedule):
    """ZB-V: two chunks per stage laid out as a V; about no bubble with the activations of 1F1B.

    Source: Qi et al. 2024 (arXiv 2405.15362)
    """

    name = "zb-v"
    spans_steps = True

    def bubble_time_s(self, stage: StageTimes, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return (stages - 1) * np.maximum(stage.mean_s - 3 * stage.weight_s, 0) / 2

    def micro_batches_in_flight(self, stage: Number, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return np.minimum(micro_batches, stages)

    def tasks(self, stage: int, stages: int, micro_batches: int, chunks: int) -> Tasks:
        """The paper's order for equal forward, input- and weight-gradient times: warm-up, steady, cool-down.

        Chunk 0 is on the way down the V, chunk 1 on the way up. A step with fewer than 2 p - 1 micro-batches is a
        longer one with the rest left out.
        """
        down, up, most = 0, 1, max(micro_batches, 2 * stages - 1)
        order = [(FORWARD, down)] * (2 * (stages - stage) - 1) + [(FORWARD, up), (FORWARD, down)] * stage
        order += [(FORWARD, up), (INPUT_GRADIENT, up), (WEIGHT_GRADIENT, up)] * (stages - stage)
        for turn in range(most - stages):
            order += [(FORWARD, down)] if turn + 2 * stages - stage - 1 < most else []
            order += [(INPUT_GRADIENT, down), (WEIGHT_GRADIENT, down)]
            order += [(FORWARD, up), (INPUT_GRADIENT, up), (WEIGHT_GRADIENT, up)]
        order += [(INPUT_GRADIENT, down), (INPUT_GRADIENT, up)] * stage
        order += [(INPUT_GRADIENT, down), (WEIGHT_GRADIENT, down)] * (stages - stage)
        order += [(WEIGHT_GRADIENT, up)] * stage + [(WEIGHT_GRADIENT, down)] * stage
        return _numbered(order, micro_batches)

    def paths(self, stages: int, chunks: int) -> tuple[Path, ...]:
        down = np.arange(stages)
        return (np.stack([np.concatenate([down, down[::-1]]), np.repeat([0, 1], stages)]),)

    def passes(self, chunks: int) -> int:
        return 2


def _unfilled_s(stage: StageTimes, stages: Number, micro_batches: Number) -> Number:
    """The bubble where too few micro-batches leave weight gradients to fill it with.

    Equation: (p - 1)(F + B) - (m - 1) W, below the papers' tables from m = p (zb-1p) or 2 p - 1 (zb-2p) on
    Source: the critical path of the first micro-batch; docs/explanation/pipeline-events.md compares it with events
    """
    return (stages - 1) * (stage.mean_s - stage.weight_s) - (micro_batches - 1) * stage.weight_s


def _late_weights(ahead: int, late: int, micro_batches: int) -> Tasks:
    """Forward tasks ahead, then in turn an input gradient, a weight gradient so many micro-batches late, a forward."""
    order = [(FORWARD, 0)] * min(ahead, micro_batches)
    for micro_batch in range(micro_batches):
        order.append((INPUT_GRADIENT, 0))
        order += [(WEIGHT_GRADIENT, 0)] if micro_batch >= late else []
        order += [(FORWARD, 0)] if micro_batch + ahead < micro_batches else []
    return _numbered(order + [(WEIGHT_GRADIENT, 0)] * min(late, micro_batches), micro_batches)


def _numbered(order: list[tuple[int, int]], micro_batches: int) -> Tasks:
    """Kinds and chunks as tasks: each kind of task on each chunk takes the micro-batches in turn."""
    count: dict[tuple[int, int], int] = {}
    rows = []
    for kind, chunk in order:
        micro_batch = count.get((kind, chunk), 0)
        count[kind, chunk] = micro_batch + 1
        if micro_batch < micro_batches:
            rows.append((kind, micro_batch, chunk))
    return task_list(rows)
