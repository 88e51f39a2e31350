"""Joules per token: the whole energy over the tokens generated, and over all tokens."""

from ultratwin.report.metrics.serving.metric import RunMetric, ServingRun


def _per_token(run: ServingRun, tokens: float) -> float | None:
    return None if run.energy_j is None or not tokens else run.energy_j / float(tokens)


ENERGY_PER_OUTPUT_TOKEN = RunMetric(
    tag="j_per_output_token",
    field="",
    label="energy per output token",
    formula="energy / output tokens",
    unit="J",
    scale=1.0,
    read=lambda run: _per_token(run, run.times.output_tokens.sum()),
)
ENERGY_PER_TOKEN = RunMetric(
    tag="j_per_token",
    field="",
    label="energy per token",
    formula="energy / (prompt + output tokens)",
    unit="J",
    scale=1.0,
    read=lambda run: _per_token(run, run.times.prompt_tokens.sum() + run.times.output_tokens.sum()),
)
