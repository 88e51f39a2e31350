"""Output throughput: tokens generated per second by the whole service."""

from ultratwin.report.metrics.serving.metric import RunMetric, per_second

OUTPUT_THROUGHPUT = RunMetric(
    tag="output_tokens_per_s", field="output_throughput", label="output throughput", formula="output tokens / duration",
    unit="tokens/s", scale=1.0, read=lambda run: per_second(run.times.output_tokens.sum(), run),
)  # fmt: skip
