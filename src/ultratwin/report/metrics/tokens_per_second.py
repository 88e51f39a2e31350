"""Tokens per second: what the whole system trains on."""

from ultratwin.report.metrics.metric import Metric

TOKENS_PER_SECOND = Metric(
    tag="tokens_per_s", label="tokens per second", formula="global batch size x sequence length / step time",
    unit="tokens/s", scale=1.0, read=lambda run: run.tokens_per_s,
)  # fmt: skip
