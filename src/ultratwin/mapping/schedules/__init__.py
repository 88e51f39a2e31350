"""Pipeline schedules: one schedule, one file, one line in SCHEDULES. A plan holds the index."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ultratwin.errors import ScenarioError, unknown_name
from ultratwin.hardware.chip import Number
from ultratwin.mapping.schedules.dualpipe import DualPipe
from ultratwin.mapping.schedules.gpipe import GPipe
from ultratwin.mapping.schedules.interleaved import Interleaved
from ultratwin.mapping.schedules.one_f_one_b import OneFOneB
from ultratwin.mapping.schedules.schedule import Schedule, StageTimes
from ultratwin.mapping.schedules.zero_bubble import ZeroBubbleH1, ZeroBubbleH2, ZeroBubbleV

SCHEDULES: Final[tuple[Schedule, ...]] = (
    GPipe(),
    OneFOneB(),
    Interleaved(),
    ZeroBubbleH1(),
    ZeroBubbleH2(),
    ZeroBubbleV(),
    DualPipe(),
)
SCHEDULE_NAMES: Final = tuple(schedule.name for schedule in SCHEDULES)


def schedule_index(name: str) -> int:
    """Index of a schedule in SCHEDULES.

    Raises: ScenarioError for an unknown name
    """
    if name.lower() not in SCHEDULE_NAMES:
        raise unknown_name("schedule", name, SCHEDULE_NAMES, error=ScenarioError)
    return SCHEDULE_NAMES.index(name.lower())


def by_schedule(index: Any, method: str, *args: Any) -> Number:
    """One method of whichever schedule each candidate has.

    Args:
        index: position in SCHEDULES, int or [candidate]
        method: `bubble_time_s` or `micro_batches_in_flight`
    """
    present = np.unique(index)
    result: Number = getattr(SCHEDULES[int(present[0])], method)(*args)
    for code in present[1:]:
        result = np.where(index == code, getattr(SCHEDULES[int(code)], method)(*args), result)
    return result


__all__ = ["SCHEDULES", "SCHEDULE_NAMES", "Schedule", "StageTimes", "by_schedule", "schedule_index"]
