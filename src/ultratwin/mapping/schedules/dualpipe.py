"""DualPipe: micro-batches enter at both ends, two copies of the weights, forward and backward overlapped."""

from __future__ import annotations

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.mapping.schedules.schedule import (
    BACKWARD,
    FORWARD,
    INPUT_GRADIENT,
    JOINED_FORWARD,
    WEIGHT_GRADIENT,
    Path,
    Schedule,
    StageTimes,
    Tasks,
    task_list,
)


class DualPipe(Schedule):
    """Bubble (p/2 - 1)(F&B + B - 3 W), F&B an overlapped pair; p + 1 micro-batches in flight.

    With t = F + B for an overlapped pair and B without weights t - F - W.
    Source: DeepSeek-V3 technical report (arXiv 2412.19437) table 2
    """

    name = "dualpipe"
    weight_copies = 2.0
    mirrored = True

    def bubble_time_s(self, stage: StageTimes, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        backward = stage.mean_s - stage.forward_s
        return np.maximum(stages / 2 - 1, 0) * np.maximum(stage.mean_s + backward - 3 * stage.weight_s, 0)

    def micro_batches_in_flight(self, stage: Number, stages: Number, micro_batches: Number, chunks: Number) -> Number:
        return np.minimum(micro_batches, stages + 1)

    def tasks(self, stage: int, stages: int, micro_batches: int, chunks: int) -> Tasks:
        """Eight phases, mirrored in the middle of the pipeline; a chunk is a direction, and every second micro-batch's.

        A step with fewer than 2 p micro-batches is a longer one with the rest left out.
        Source: github.com/deepseek-ai/DualPipe, whose order this is
        Raises: ValueError for an odd number of stages
        """
        if stages % 2:
            raise ValueError("DualPipe feeds a pipeline from both ends: the number of stages must be even")
        from_end = min(stage, stages - 1 - stage)
        inner, outer = stages // 2 - 1 - from_end, from_end + 1
        lane = _Lanes(near=0 if 2 * stage < stages else 1, micro_batches=micro_batches)
        lane.repeat(2 * inner, "F")
        lane.repeat(outer, "Ff")
        lane.repeat(inner, "iwf")
        steady = max((micro_batches + 1) // 2, stages) - stages + outer
        # the middle ranks don't join their first pair
        lane.repeat(1, "Fb" if inner == 0 else "Jb", "jB")
        lane.repeat(steady - 1, "JbjB")
        lane.repeat(inner, "bjB")
        # in the second half of this phase weight gradients are left for later
        whole = "".join("bB"[turn % 2] if turn < outer else "iI"[turn % 2] for turn in range(2 * outer))
        lane.repeat(1, whole)
        lane.repeat(inner, "wI")
        lane.repeat(outer, "w")
        return task_list(lane.rows)

    def paths(self, stages: int, chunks: int) -> tuple[Path, ...]:
        there = np.arange(stages)
        return np.stack([there, np.zeros_like(there)]), np.stack([there[::-1], np.ones_like(there)])


_LETTERS = {"f": FORWARD, "j": JOINED_FORWARD, "b": BACKWARD, "i": INPUT_GRADIENT}


class _Lanes:
    """Tasks of one stage as they are written: capitals of the direction that begins near, small ones of the other."""

    def __init__(self, *, near: int, micro_batches: int) -> None:
        self.rows: list[tuple[int, int, int]] = []
        self._near = near
        self._ends = ((micro_batches + 1) // 2, micro_batches // 2)
        self._count = {(forward, lane): 0 for forward in (True, False) for lane in (0, 1)}
        self._left: list[tuple[int, int, int]] = []

    def repeat(self, times: int, *phases: str) -> None:
        """The same letters so many times."""
        for letter in "".join(phases) * times:
            if letter == "w":
                self._keep(self._left.pop(0))
            else:
                self._one(_LETTERS[letter.lower()], self._near if letter.isupper() else 1 - self._near)

    def _one(self, kind: int, lane: int) -> None:
        key = (kind in (FORWARD, JOINED_FORWARD), lane)
        micro_batch = self._count[key]
        self._count[key] += 1
        self._keep((kind, micro_batch, lane))
        if kind == INPUT_GRADIENT:
            self._left.append((WEIGHT_GRADIENT, micro_batch, lane))

    def _keep(self, row: tuple[int, int, int]) -> None:
        """Direction d takes micro-batches d, d + 2, ...; what a short step doesn't have is left out."""
        kind, number, lane = row
        if number >= self._ends[lane]:
            # what it was joined with is left out
            if self.rows and self.rows[-1][0] == JOINED_FORWARD:
                self.rows[-1] = (FORWARD, *self.rows[-1][1:])
            return
        self.rows.append((kind, 2 * number + lane, lane))
