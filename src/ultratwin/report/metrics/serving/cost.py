"""Cost per million tokens: the whole bill over the tokens of one kind, as InferenceX and price lists compare it."""

from ultratwin.report.metrics.serving.metric import RunMetric, ServingRun


def _per_million(run: ServingRun, tokens: float) -> float | None:
    """Equation: chips x hours x price per chip-hour / tokens x 10^6 [USD]."""
    if run.usd_per_chip_hour is None or not tokens:
        return None
    return run.num_chips * run.duration_s / 3600 * run.usd_per_chip_hour / float(tokens) * 1e6


COST_PER_MILLION_INPUT = RunMetric(
    tag="usd_per_million_input_tokens", field="", label="cost per million input tokens",
    formula="chip-hours x price / prompt tokens x 10^6", unit="USD", scale=1.0,
    read=lambda run: _per_million(run, run.times.prompt_tokens.sum()),
)  # fmt: skip
COST_PER_MILLION_OUTPUT = RunMetric(
    tag="usd_per_million_output_tokens", field="", label="cost per million output tokens",
    formula="chip-hours x price / output tokens x 10^6", unit="USD", scale=1.0,
    read=lambda run: _per_million(run, run.times.output_tokens.sum()),
)  # fmt: skip
COST_PER_MILLION_TOKENS = RunMetric(
    tag="usd_per_million_tokens", field="", label="cost per million tokens",
    formula="chip-hours x price / (prompt + output tokens) x 10^6", unit="USD", scale=1.0,
    read=lambda run: _per_million(run, run.times.prompt_tokens.sum() + run.times.output_tokens.sum()),
)  # fmt: skip
