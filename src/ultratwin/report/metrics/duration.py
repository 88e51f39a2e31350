"""Duration: the whole run, no failures and no checkpoints."""

from ultratwin.report.metrics.metric import Metric

DURATION = Metric(
    tag="duration_s", label="duration", formula="step time x ceil(tokens / tokens of a step)", unit="days",
    scale=86400.0, read=lambda run: run.duration_s,
)  # fmt: skip
