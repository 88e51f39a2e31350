"""Request throughput: answers per second."""

from ultratwin.report.metrics.serving.metric import RunMetric, per_second

REQUEST_THROUGHPUT = RunMetric(
    tag="requests_per_s",
    field="request_throughput",
    label="request throughput",
    formula="answered requests / duration",
    unit="requests/s",
    scale=1.0,
    read=lambda run: per_second(len(run.times), run),
)
