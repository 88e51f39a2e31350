"""SLO attainment: share of all requests, failed ones included, that keep every objective."""

from ultratwin.planning.serving.slo import attained_frac
from ultratwin.report.metrics.serving.metric import RunMetric

ATTAINMENT = RunMetric(
    tag="attained_frac",
    field="",
    label="SLO attainment",
    formula="good requests / requests sent",
    unit="%",
    scale=0.01,
    read=lambda run: attained_frac(run.slos, run.times) if run.slos.per_request else None,
)
