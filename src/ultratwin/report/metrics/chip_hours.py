"""Chip-hours: what is rented."""

from ultratwin.report.metrics.metric import Metric

CHIP_HOURS = Metric(
    tag="chip_hours", label="chip-hours", formula="duration x chips", unit="chip-hours", scale=1.0,
    read=lambda run: run.chip_hours,
)  # fmt: skip
