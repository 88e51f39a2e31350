"""Published columns from the times of simulated requests."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ultratwin.mapping.engine import Engine

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """What happened to requests, [request], and to the server.

    sent_s, first_s, finish_s: when a request was sent, had its first and its last token [s]
    duration_s: from the first request to the last token; energy_j: of all chips in that time
    gap_s, gap_count: times between two tokens of a request and how often each occurred, empty where not known
    """

    sent_s: Floats
    first_s: Floats
    finish_s: Floats
    prompt_tokens: Floats
    output_tokens: Floats
    duration_s: float
    energy_j: float
    gap_s: Floats
    gap_count: Floats


def joined(parts: list[Times]) -> Times:
    """Stages of one run, one after the other."""
    names = ("sent_s", "first_s", "finish_s", "prompt_tokens", "output_tokens", "gap_s", "gap_count")
    columns = {name: np.concatenate([getattr(each, name) for each in parts]) for name in names}
    return Times(
        **columns, duration_s=sum(each.duration_s for each in parts), energy_j=sum(each.energy_j for each in parts)
    )


def metrics(
    times: Times, *, replicas: int, num_chips: float, counts_prompts: bool, normalised_itl: bool, steady: bool = False
) -> dict[str, float]:
    """Columns by name, in their units.

    Args:
        replicas: so many servers did the same; energy and rates are of all of them
        counts_prompts: TPOT and output rate divide by prompt and output tokens together
        steady: rates are of the middle half of all requests
        normalised_itl: ITL is the whole latency by output tokens, as inference-perf's normalised time per token
    """
    ttft, e2e = times.first_s - times.sent_s, times.finish_s - times.sent_s
    tpot = (e2e - ttft) / np.maximum(times.output_tokens - 1, 1)
    several = times.output_tokens > 1
    tpot = tpot[several] if several.any() else tpot
    if counts_prompts:
        tpot = e2e / (times.prompt_tokens + times.output_tokens)
    found: dict[str, float] = {}
    for name, values in (("ttft", ttft), ("tpot", tpot), ("e2e", e2e)):
        found[f"{name}_mean_ms"] = 1e3 * float(values.mean())
        for share, value in zip((50, 90, 99), np.percentile(values, (50, 90, 99)), strict=True):
            found[f"{name}_p{share}_ms"] = 1e3 * float(value)
    gaps = _gaps(times, tpot)
    found["itl_mean_ms"] = 1e3 * float((e2e / times.output_tokens).mean()) if normalised_itl else gaps[0]
    found["itl_p50_ms"], found["itl_p99_ms"] = gaps[1], gaps[2]
    return found | _rates(_middle(times) if steady else times, replicas, num_chips, counts_prompts)


def _gaps(times: Times, tpot: Floats) -> tuple[float, float, float]:
    """Mean, median and 99th percentile of the times between tokens [ms], pooled over requests."""
    weight = times.output_tokens - 1
    waits = times.finish_s - times.first_s
    mean = float(waits.sum() / weight.sum()) if weight.sum() > 0 else float(tpot.mean())
    if not times.gap_s.size:
        return 1e3 * mean, 1e3 * float(np.percentile(tpot, 50)), 1e3 * float(np.percentile(tpot, 99))
    order = np.argsort(times.gap_s)
    reached = np.cumsum(times.gap_count[order])
    places = np.searchsorted(reached, np.array([0.5, 0.99]) * reached[-1])
    median, high = times.gap_s[order][np.minimum(places, len(order) - 1)]
    return 1e3 * mean, 1e3 * float(median), 1e3 * float(high)


def _middle(times: Times) -> Times:
    """The requests that end in the middle half of all ends, and the time in which they do."""
    low, high = np.percentile(times.finish_s, (25, 75))
    kept = (times.finish_s > low) & (times.finish_s <= high)
    if not kept.any() or high <= low:
        return times
    return dataclasses.replace(
        times, sent_s=times.sent_s[kept], prompt_tokens=times.prompt_tokens[kept],
        output_tokens=times.output_tokens[kept], duration_s=float(high - low),
        energy_j=times.energy_j * float(high - low) / max(times.duration_s, 1e-9),
    )  # fmt: skip


def _rates(times: Times, replicas: int, num_chips: float, counts_prompts: bool) -> dict[str, float]:
    seconds = max(times.duration_s, 1e-9)
    outputs = replicas * float(times.output_tokens.sum()) / seconds
    inputs = replicas * float(times.prompt_tokens.sum()) / seconds
    watts = replicas * times.energy_j / seconds
    stated = inputs + outputs if counts_prompts else outputs
    return {
        "req_per_s": replicas * len(times.sent_s) / seconds,
        "output_tok_s": stated,
        "input_tok_s": inputs,
        "total_tok_s": inputs + outputs,
        "output_tok_s_per_chip": stated / num_chips,
        "total_tok_s_per_chip": (inputs + outputs) / num_chips,
        "avg_power_w_per_chip": watts / num_chips,
        "j_per_output_tok": watts / outputs if outputs else 0.0,
    }


def own_spread(engine: Engine, metric: str) -> float:
    """The engine's spread of a metric: first tokens have one of their own."""
    return float(engine.ttft_spread_frac if metric.startswith("ttft") else engine.spread_frac)
