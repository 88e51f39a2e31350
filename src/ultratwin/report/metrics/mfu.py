"""Model FLOP utilisation: FLOP that the model needs, over what the chips could do at their dense peak."""

from ultratwin.report.metrics.metric import Metric

MFU = Metric(
    tag="mfu", label="MFU", formula="model FLOP of a step (causal, none repeated) / (step time x chips x dense peak)",
    unit="%", scale=0.01, read=lambda run: run.mfu,
)  # fmt: skip
