"""Power: mean draw of chips, hosts and network, before PUE."""

from ultratwin.report.metrics.metric import Metric

POWER = Metric(
    tag="power_w", label="power", formula="chips x (limit x activity + host + network)", unit="MW", scale=1e6,
    read=lambda run: run.power_w,
)  # fmt: skip
