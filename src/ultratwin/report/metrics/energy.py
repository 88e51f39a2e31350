"""Energy: chips, hosts and network, times the site's PUE."""

from ultratwin.report.metrics.metric import Metric

ENERGY = Metric(
    tag="energy_j", label="energy", formula="power x PUE x duration", unit="MWh", scale=3.6e9,
    read=lambda run: run.energy_j,
)  # fmt: skip
