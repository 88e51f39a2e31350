"""Seconds and joules of an iteration, read from tables."""

from __future__ import annotations

from typing import Any

from ultratwin.simulation.serving.compiled import compiled
from ultratwin.simulation.serving.records import Sim


@compiled
def entry(values: Any, start: int, last: int, index: int) -> float:
    """A table at a whole number; beyond its end the last slope goes on."""
    if index <= last:
        return values[start + index]  # type: ignore[no-any-return]
    if last == 0:
        return values[start]  # type: ignore[no-any-return]
    end = values[start + last]
    return end + (index - last) * (end - values[start + last - 1])  # type: ignore[no-any-return]


@compiled
def interval(values: Any, start: int, size: int, place: float) -> int:
    """Number of the interval between knots that holds a place, by bisection; at least 0, at most size - 2."""
    low, high = 0, size - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if values[start + middle] <= place:
            low = middle
        else:
            high = middle
    return low


@compiled
def batch_cost(sim: Sim, pool: int, tokens: int, samples: int, decodes: int) -> tuple[float, float]:
    """Seconds and joules of an iteration without attention."""
    p, v = sim.pools[pool], sim.values
    seconds = entry(v, p.token_s, p.tokens, tokens) + entry(v, p.sample_s, p.samples, samples)
    joules = entry(v, p.token_j, p.tokens, tokens) + entry(v, p.sample_j, p.samples, samples)
    if decodes > 0:
        seconds += entry(v, p.draft_s, p.sequences, decodes)
    return seconds, joules


@compiled
def decode_line(sim: Sim, pool: int, decodes: int, context: float) -> tuple[float, float, float, float, float]:
    """Decode attention near a mean context: seconds, their slope per token, joules, their slope, end of the line."""
    p, v = sim.pools[pool], sim.values
    row = min(decodes, p.sequences) * p.knots
    first, last = v[p.decode_knots], v[p.decode_knots + p.knots - 1]
    if context < first or p.knots == 1:
        return v[p.decode_s + row], 0.0, v[p.decode_j + row], 0.0, first if context < first else 1e300
    if context >= last:
        end = row + p.knots - 1
        return v[p.decode_s + end], 0.0, v[p.decode_j + end], 0.0, 1e300
    i = interval(v, p.decode_knots, p.knots, context)
    left, right = v[p.decode_knots + i], v[p.decode_knots + i + 1]
    s, j = p.decode_s + row + i, p.decode_j + row + i
    slope_s, slope_j = (v[s + 1] - v[s]) / (right - left), (v[j + 1] - v[j]) / (right - left)
    return v[s] + slope_s * (context - left), slope_s, v[j] + slope_j * (context - left), slope_j, right


@compiled
def _share(values: Any, start: int, size: int, place: float) -> tuple[int, float]:
    """Interval and position in it, from 0 to 1; beyond the knots their ends."""
    if size == 1:
        return 0, 0.0
    i = interval(values, start, size, place)
    left, right = values[start + i], values[start + i + 1]
    return i, min(max((place - left) / (right - left), 0.0), 1.0)


@compiled
def prefill_cost(sim: Sim, pool: int, chunk: int, before: int) -> tuple[float, float]:
    """Attention of `chunk` prompt tokens after `before` others: seconds and joules, bilinear between knots."""
    p, v = sim.pools[pool], sim.values
    i, u = _share(v, p.chunk_knots, p.chunk_sizes, chunk)
    j, w = _share(v, p.context_knots, p.contexts, before)
    down = p.contexts if p.chunk_sizes > 1 else 0
    right = 1 if p.contexts > 1 else 0
    corner = i * p.contexts + j
    weight = ((1 - u) * (1 - w), (1 - u) * w, u * (1 - w), u * w)
    s, e = p.prefill_s + corner, p.prefill_j + corner
    seconds = weight[0] * v[s] + weight[1] * v[s + right] + weight[2] * v[s + down] + weight[3] * v[s + down + right]
    joules = weight[0] * v[e] + weight[1] * v[e + right] + weight[2] * v[e + down] + weight[3] * v[e + down + right]
    return seconds, joules
