"""Tokens per second and chip: what a chip yields, the other axis of every Pareto plot."""

from ultratwin.report.metrics.serving.metric import RunMetric, ServingRun, per_second


def _per_chip(run: ServingRun, tokens: float) -> float | None:
    return per_second(float(tokens) / run.num_chips, run)


OUTPUT_TOKENS_PER_S_PER_CHIP = RunMetric(
    tag="output_tokens_per_s_per_chip", field="", label="output tokens/s/chip",
    formula="output tokens / duration / chips", unit="tokens/s", scale=1.0,
    read=lambda run: _per_chip(run, run.times.output_tokens.sum()),
)  # fmt: skip
TOKENS_PER_S_PER_CHIP = RunMetric(
    tag="tokens_per_s_per_chip", field="", label="tokens/s/chip",
    formula="(prompt tokens + output tokens) / duration / chips", unit="tokens/s", scale=1.0,
    read=lambda run: _per_chip(run, run.times.prompt_tokens.sum() + run.times.output_tokens.sum()),
)  # fmt: skip
