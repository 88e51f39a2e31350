"""E2EL: how long a user waits for the whole answer."""

from ultratwin.planning.serving.request_times import Sample, e2el_s
from ultratwin.report.metrics.serving.metric import RequestMetric

E2EL = RequestMetric(
    tag="e2el_s", field="e2el", label="E2EL", formula="last token - arrival", unit="ms", scale=1e-3,
    read=lambda run: Sample(values=e2el_s(run.times)),
)  # fmt: skip
