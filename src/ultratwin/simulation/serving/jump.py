"""Many decode iterations at once: between two events a batch repeats itself, each time with one token more.

Decode attention is linear in the mean context between two knots, so the seconds of n iterations are an arithmetic
series per line; where host time hides behind the device, a line ends where one overtakes the other.
"""

from __future__ import annotations

import math

from ultratwin.simulation.serving.compiled import compiled
from ultratwin.simulation.serving.records import Sim
from ultratwin.simulation.serving.tables import batch_cost, decode_line, entry


@compiled
def series(first: float, growth: float, count: int) -> float:
    """Sum of an arithmetic series."""
    return first * count + growth * (0.5 * count * (count - 1.0))


@compiled
def count_until(first: float, growth: float, most: int, wanted: float) -> int:
    """Terms of an arithmetic series of positive terms until their sum reaches `wanted`; at most `most`."""
    half = first - 0.5 * growth
    root = math.sqrt(max(half * half + 2.0 * growth * wanted, 0.0))
    guess = math.ceil(min(2.0 * wanted / (half + root), float(most))) if half + root > 0.0 else most
    count = max(min(guess, most), 1)
    while count > 1 and series(first, growth, count - 1) >= wanted:
        count -= 1
    while count < most and series(first, growth, count) < wanted:
        count += 1
    return count


@compiled
def advance(
    sim: Sim, pool: int, decodes: int, context: float, most: int, wanted_s: float
) -> tuple[int, float, float, float, float]:
    """Decode iterations in one go.

    Args:
        decodes: sequences of the batch
        context: mean tokens that one attends to in the first iteration
        most: iterations at most
        wanted_s: stop with the iteration whose end reaches this
    Returns: iterations, seconds, joules, seconds of the first and of the last iteration
    """
    p = sim.pools[pool]
    fixed_s, fixed_j = batch_cost(sim, pool, decodes * p.step_tokens, decodes, decodes)
    host = entry(sim.values, p.host_s, p.sequences, decodes)
    count, seconds, joules, first, last = 0, 0.0, 0.0, 0.0, 0.0
    while count < most:
        at = context + p.accepted * count
        line_s, slope_s, line_j, slope_j, end = decode_line(sim, pool, decodes, at)
        slope_s, slope_j = slope_s * p.accepted, slope_j * p.accepted
        device, energy = fixed_s + line_s, fixed_j + line_j
        n = int(min((end - at) / p.accepted, float(most - count - 1))) + 1
        if p.overlaps_host:
            margin = device - host
            if slope_s != 0.0 and (margin > 0.0) != (margin + slope_s * (n - 1) > 0.0):
                n = min(max(math.ceil(-margin / slope_s), 1), n)
            # the first and the last of these n are on one side, the device's or the host's
            slower_device = margin > 0.0 or (margin == 0.0 and slope_s > 0.0)
            start, growth = (device, slope_s) if slower_device else (host, 0.0)
            idle, idle_growth = (0.0, 0.0) if slower_device else (host - device, -slope_s)
        else:
            start, growth, idle, idle_growth = device + host, slope_s, host, 0.0
        left = wanted_s - seconds
        done = series(start, growth, n) >= left
        if done:
            n = count_until(start, growth, n, left)
        seconds += series(start, growth, n)
        joules += series(energy + p.idle_w * idle, slope_j + p.idle_w * idle_growth, n)
        if count == 0:
            first = start
        last = start + growth * (n - 1)
        count += n
        if done:
            break
    return count, seconds, joules, first, last
