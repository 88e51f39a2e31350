"""Concurrency: requests under way, on average and at most."""

import numpy as np

from ultratwin.planning.serving.request_times import e2el_s
from ultratwin.report.metrics.serving.metric import RunMetric, ServingRun, per_second


def _peak(run: ServingRun) -> float | None:
    """Most requests between arrival and end at one moment; one that ends makes room before one that comes."""
    times = run.times
    moments = np.concatenate((times.finish_s, times.arrival_s))
    steps = np.repeat([-1, 1], len(times))
    order = np.argsort(moments, kind="stable")
    return float(np.cumsum(steps[order]).max(initial=0))


MEAN_CONCURRENCY = RunMetric(
    tag="mean_concurrency", field="", label="mean concurrency", formula="sum of E2EL / duration (Little's law)",
    unit="requests", scale=1.0, read=lambda run: per_second(e2el_s(run.times).sum(), run),
)  # fmt: skip
PEAK_CONCURRENCY = RunMetric(
    tag="peak_concurrency", field="max_concurrent_requests", label="peak concurrency",
    formula="most requests between arrival and end at one moment", unit="requests", scale=1.0, read=_peak,
)  # fmt: skip
