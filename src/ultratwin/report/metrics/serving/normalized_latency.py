"""Normalised latency: the whole wait, shared by all tokens of the answer (Orca, vLLM's paper)."""

from ultratwin.planning.serving.request_times import Sample, e2el_s
from ultratwin.report.metrics.serving.metric import RequestMetric

NORMALIZED_LATENCY = RequestMetric(
    tag="normalized_latency_s", field="", label="normalised latency", formula="E2EL / output tokens", unit="ms/token",
    scale=1e-3, read=lambda run: Sample(values=e2el_s(run.times) / run.times.output_tokens),
)  # fmt: skip
