"""What is reported of a run: one metric, one file, one line in METRICS."""

from __future__ import annotations

from typing import Final

from ultratwin.report.metrics.carbon import CARBON
from ultratwin.report.metrics.chip_hours import CHIP_HOURS
from ultratwin.report.metrics.cost import cost_metrics
from ultratwin.report.metrics.duration import DURATION
from ultratwin.report.metrics.energy import ENERGY
from ultratwin.report.metrics.metric import Metric, count_said, said
from ultratwin.report.metrics.mfu import MFU
from ultratwin.report.metrics.power import POWER
from ultratwin.report.metrics.step_time import STEP_TIME
from ultratwin.report.metrics.tokens_per_second import TOKENS_PER_SECOND

METRICS: Final[tuple[Metric, ...]] = (
    STEP_TIME,
    TOKENS_PER_SECOND,
    MFU,
    DURATION,
    CHIP_HOURS,
    ENERGY,
    POWER,
    CARBON,
)

__all__ = ["METRICS", "Metric", "cost_metrics", "count_said", "said"]
