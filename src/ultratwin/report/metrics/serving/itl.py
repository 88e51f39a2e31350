"""ITL: gaps between tokens, every gap of every request, as users see a stream falter."""

from ultratwin.planning.serving.request_times import itl_sample
from ultratwin.report.metrics.serving.metric import RequestMetric

ITL = RequestMetric(
    tag="itl_s", field="itl", label="ITL", formula="time from a token to the next of the same request", unit="ms",
    scale=1e-3, read=lambda run: itl_sample(run.times),
)  # fmt: skip
