"""Total token throughput: tokens read and generated per second by the whole service."""

from ultratwin.report.metrics.serving.metric import RunMetric, per_second

TOTAL_TOKEN_THROUGHPUT = RunMetric(
    tag="tokens_per_s", field="total_token_throughput", label="total token throughput",
    formula="(prompt tokens + output tokens) / duration", unit="tokens/s", scale=1.0,
    read=lambda run: per_second(run.times.prompt_tokens.sum() + run.times.output_tokens.sum(), run),
)  # fmt: skip
