"""CO2: energy times the carbon intensity of the region's grid."""

from ultratwin.report.metrics.metric import Metric

CARBON = Metric(
    tag="carbon_kg", label="CO2", formula="energy x carbon intensity of the grid", unit="t", scale=1e3,
    read=lambda run: run.carbon_kg,
)  # fmt: skip
