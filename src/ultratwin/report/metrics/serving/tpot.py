"""TPOT: how long each further token takes, on a request's average."""

from ultratwin.planning.serving.request_times import tpot_sample
from ultratwin.report.metrics.serving.metric import RequestMetric

TPOT = RequestMetric(
    tag="tpot_s",
    field="tpot",
    label="TPOT",
    formula="(E2EL - TTFT) / (output tokens - 1); answers of one token have none",
    unit="ms",
    scale=1e-3,
    read=lambda run: tpot_sample(run.times),
)
