"""What is reported of serving: one metric, one file, one line in REQUEST_METRICS or RUN_METRICS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ultratwin.planning.serving.request_times import PERCENTILES
from ultratwin.report.metrics.serving.attainment import ATTAINMENT
from ultratwin.report.metrics.serving.concurrency import MEAN_CONCURRENCY, PEAK_CONCURRENCY
from ultratwin.report.metrics.serving.cost import (
    COST_PER_MILLION_INPUT,
    COST_PER_MILLION_OUTPUT,
    COST_PER_MILLION_TOKENS,
)
from ultratwin.report.metrics.serving.e2el import E2EL
from ultratwin.report.metrics.serving.energy import ENERGY_PER_OUTPUT_TOKEN, ENERGY_PER_TOKEN
from ultratwin.report.metrics.serving.goodput import GOODPUT
from ultratwin.report.metrics.serving.itl import ITL
from ultratwin.report.metrics.serving.metric import RequestMetric, RunMetric, ServingRun
from ultratwin.report.metrics.serving.normalized_latency import NORMALIZED_LATENCY
from ultratwin.report.metrics.serving.output_throughput import OUTPUT_THROUGHPUT
from ultratwin.report.metrics.serving.request_throughput import REQUEST_THROUGHPUT
from ultratwin.report.metrics.serving.tokens_per_s_per_chip import OUTPUT_TOKENS_PER_S_PER_CHIP, TOKENS_PER_S_PER_CHIP
from ultratwin.report.metrics.serving.tokens_per_s_per_user import TOKENS_PER_S_PER_USER
from ultratwin.report.metrics.serving.total_token_throughput import TOTAL_TOKEN_THROUGHPUT
from ultratwin.report.metrics.serving.tpot import TPOT
from ultratwin.report.metrics.serving.ttft import TTFT
from ultratwin.report.metrics.serving.vllm_result import result_fields, vllm_detail

REQUEST_METRICS: Final[tuple[RequestMetric, ...]] = (
    TTFT,
    TPOT,
    ITL,
    E2EL,
    NORMALIZED_LATENCY,
    TOKENS_PER_S_PER_USER,
)
RUN_METRICS: Final[tuple[RunMetric, ...]] = (
    REQUEST_THROUGHPUT,
    GOODPUT,
    OUTPUT_THROUGHPUT,
    TOTAL_TOKEN_THROUGHPUT,
    PEAK_CONCURRENCY,
    MEAN_CONCURRENCY,
    ATTAINMENT,
    OUTPUT_TOKENS_PER_S_PER_CHIP,
    TOKENS_PER_S_PER_CHIP,
    COST_PER_MILLION_INPUT,
    COST_PER_MILLION_OUTPUT,
    COST_PER_MILLION_TOKENS,
    ENERGY_PER_OUTPUT_TOKEN,
    ENERGY_PER_TOKEN,
)


def vllm_fields(run: ServingRun, percentiles: Sequence[float] = PERCENTILES) -> dict[str, Any]:
    """A run's figures by the names of `vllm bench serve`'s JSON."""
    return result_fields(run, (*RUN_METRICS, *REQUEST_METRICS), percentiles)


__all__ = ["REQUEST_METRICS", "RUN_METRICS", "RequestMetric", "RunMetric", "ServingRun", "vllm_detail", "vllm_fields"]
