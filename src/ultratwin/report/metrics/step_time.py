"""Step time: seconds from one optimizer update to the next."""

from ultratwin.report.metrics.metric import Metric

STEP_TIME = Metric(
    tag="step_time_s", label="step time", formula="time of one optimizer step", unit="s", scale=1.0,
    read=lambda run: run.step_s,
)  # fmt: skip
