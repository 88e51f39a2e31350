"""TTFT: how long a user waits for the first token."""

from ultratwin.planning.serving.request_times import Sample, ttft_s
from ultratwin.report.metrics.serving.metric import RequestMetric

TTFT = RequestMetric(
    tag="ttft_s", field="ttft", label="TTFT", formula="first token - arrival", unit="ms", scale=1e-3,
    read=lambda run: Sample(values=ttft_s(run.times)),
)  # fmt: skip
