"""A run as `vllm bench serve --save-result` writes it, so that tools that read its JSON read ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ultratwin.planning.serving.request_times import e2el_s, statistics, tpot_s, ttft_s
from ultratwin.report.metrics.serving.metric import RequestMetric, RunMetric, ServingRun


def result_fields(
    run: ServingRun, metrics: Sequence[RequestMetric | RunMetric], percentiles: Sequence[float] = (50, 90, 95, 99)
) -> dict[str, Any]:
    """Figures by vLLM's names: request_throughput, mean_ttft_ms, p99_tpot_ms, ...; 0 where a run has none, as vLLM.

    Args: a run; metrics, of which those without a vLLM name are left out; percentiles beside mean, median and std
    Source: vllm/benchmarks/serve.py, benchmark
    """
    times = run.times
    fields: dict[str, Any] = {
        "duration": run.duration_s,
        "completed": len(times),
        "failed": times.num_failed,
        "total_input_tokens": int(times.prompt_tokens.sum()),
        "total_output_tokens": int(times.output_tokens.sum()),
    }
    named = [metric for metric in metrics if metric.field]
    for metric in named:
        if isinstance(metric, RunMetric):
            value = metric.read(run)
            fields[metric.field] = value / metric.scale if value is not None else _absent(metric)
    for metric in named:
        if isinstance(metric, RequestMetric):
            fields |= _statistics_fields(metric, run, percentiles)
    return fields


def vllm_detail(run: ServingRun) -> dict[str, Any]:
    """What `--save-detailed` adds of each request: input_lens, output_lens, ttfts, latencies, start_times, and tpots.

    vLLM lists all gaps of each request as itls; a run knows only their mean by request.
    """
    times = run.times
    return {
        "input_lens": times.prompt_tokens.tolist(),
        "output_lens": times.output_tokens.tolist(),
        "ttfts": ttft_s(times).tolist(),
        "tpots": tpot_s(times).tolist(),
        "latencies": e2el_s(times).tolist(),
        "start_times": times.arrival_s.tolist(),
    }


def _absent(metric: RunMetric) -> float | None:
    return None if metric.field == "request_goodput" else 0.0


def _statistics_fields(metric: RequestMetric, run: ServingRun, percentiles: Sequence[float]) -> Mapping[str, float]:
    found = statistics(metric.read(run), percentiles)
    end = f"{metric.field}_{metric.unit}"
    fields = {f"mean_{end}": found.mean, f"median_{end}": found.median, f"std_{end}": found.std}
    fields |= {f"p{float(percent):g}_{end}": found.percentiles[float(percent)] for percent in percentiles}
    return {name: 0.0 if math.isnan(value) else value / metric.scale for name, value in fields.items()}
