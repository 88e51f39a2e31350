"""How much of a step a trace shows: everything while it fits a number of events, else the beginning and the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.simulation.step import SimulatedStep

LEFT_OUT: Final = 0
WHOLE: Final = 1
CAUSES: Final = 2
LAYERS: Final = 3
_LAYERS_FRAC: Final = 0.25
_CAUSES_FRAC: Final = 0.5
_SELF: Final = 4
"""Events of a task that is drawn as one slice: itself, its hand-over, two counters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """How many of each stage's tasks are drawn layer by layer, by cause, as one slice; half of each at either end."""

    layers: int
    causes: int
    whole: int

    def levels(self, num_tasks: int) -> NDArray[np.int64]:
        """How each of a stage's tasks is drawn, by its place in the stage's order, [task]."""
        place = np.arange(num_tasks)
        from_end = np.minimum(place, num_tasks - 1 - place)
        found = np.full(num_tasks, LEFT_OUT)
        for level, count in (
            (WHOLE, self.layers + self.causes + self.whole),
            (CAUSES, self.layers + self.causes),
            (LAYERS, self.layers),
        ):
            found[from_end < -(-count // 2)] = level
        return found


def affordable_detail(step: SimulatedStep, budget: int) -> Detail:
    """The most detail that about `budget` events can show.

    If not every task fits layer by layer, some are drawn so, some by cause and the rest as one slice, or not at all.
    """
    stages = step.timeline.stages
    num_tasks = max(len(stage.kind) for stage in stages)
    left = budget / len(stages)
    costs = _costs(step)
    counts: list[int] = []
    for cost, share in ((costs[LAYERS], _LAYERS_FRAC), (costs[CAUSES], _CAUSES_FRAC), (costs[WHOLE], 1.0)):
        wanted = num_tasks - sum(counts)
        counts.append(wanted if wanted * cost <= left else int(left * share / cost))
        left -= counts[-1] * cost
    return Detail(layers=counts[0], causes=counts[1], whole=counts[2])


def _costs(step: SimulatedStep) -> dict[int, int]:
    """Events of the costliest kind of task at each level of detail."""
    tasks = step.tasks
    layer = max(2 * len(pieces) for pieces in tasks.layer.values())
    beside = max(
        2 * (len(tasks.embedding[kind]) + len(tasks.head[kind]) + len(tasks.chunk[kind])) for kind in tasks.layer
    )
    num_layers = int(tasks.layers.max()) + 1
    return {
        WHOLE: _SELF,
        CAUSES: _SELF + layer + beside,
        LAYERS: _SELF + num_layers * (layer + 1) + beside,
    }


def left_out(step: SimulatedStep, detail: Detail) -> dict[str, int]:
    """What a trace shows and what it doesn't; where it can't show all, the middle of each stage's tasks is left out."""
    lengths = [len(stage.kind) for stage in step.timeline.stages]
    levels = np.sum([np.bincount(detail.levels(length), minlength=LAYERS + 1) for length in lengths], axis=0).tolist()
    return {
        "tasks": sum(lengths),
        "tasks drawn layer by layer": levels[LAYERS],
        "tasks drawn by cause": levels[CAUSES],
        "tasks drawn as one slice": levels[WHOLE],
        "tasks left out, one slice per stage instead": levels[LEFT_OUT],
    }
