"""Tokens per second and user: how fast an answer is written, once it has begun (InferenceX: interactivity)."""

from ultratwin.planning.serving.request_times import Sample, tpot_sample
from ultratwin.report.metrics.serving.metric import RequestMetric, ServingRun


def _rates(run: ServingRun) -> Sample:
    tpot = tpot_sample(run.times).values
    return Sample(values=1.0 / tpot[tpot > 0])


TOKENS_PER_S_PER_USER = RequestMetric(
    tag="output_tokens_per_s_per_user",
    field="",
    label="tokens/s/user",
    formula="1 / TPOT of a request",
    unit="tokens/s",
    scale=1.0,
    read=_rates,
)
