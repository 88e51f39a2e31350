"""Gaps between tokens: the longest of each request, and the distribution over all tokens."""

from __future__ import annotations

import math

from ultratwin.simulation.serving.compiled import compiled
from ultratwin.simulation.serving.records import GAP_BINS, GAP_ENTRIES, GAP_LEAST_S, GAP_RATIO, Sim

_PER_BIN = 1.0 / math.log(GAP_RATIO)


@compiled
def gap_bin(seconds: float) -> int:
    """Bin of a gap; bins are equally wide in the logarithm."""
    if seconds <= GAP_LEAST_S:
        return 0
    return min(int(math.log(seconds / GAP_LEAST_S) * _PER_BIN) + 1, GAP_BINS - 1)


@compiled
def count_gaps(sim: Sim, first_s: float, last_s: float, count: int) -> None:
    """Count gaps whose lengths go evenly from the first to the last."""
    low, high = min(first_s, last_s), max(first_s, last_s)
    one, other = gap_bin(low), gap_bin(high)
    if one == other:
        sim.gap_bins[one] += count
        return
    done = 0
    for place in range(one, other):
        upper = GAP_LEAST_S * math.exp(place / _PER_BIN)
        until = int(count * min(max((upper - low) / (high - low), 0.0), 1.0))
        sim.gap_bins[place] += until - done
        done = until
    sim.gap_bins[other] += count - done


@compiled
def remember_gap(sim: Sim, r: int, seconds: float) -> None:
    """Note the longest iteration of a decode event. Kept are those that no later one exceeds, the last 64 of them."""
    replica = sim.replicas[r]
    replica.events += 1
    events, lengths = sim.gap_events[r], sim.gap_seconds[r]
    first, count = replica.gap_first, replica.gap_count
    while count > 0 and lengths[(first + count - 1) % GAP_ENTRIES] <= seconds:
        count -= 1
    if count == GAP_ENTRIES:  # the oldest two become one
        second = (first + 1) % GAP_ENTRIES
        lengths[second] = lengths[first]
        first = second
        count -= 1
    place = (first + count) % GAP_ENTRIES
    events[place], lengths[place] = replica.events, seconds
    replica.gap_first, replica.gap_count = first, count + 1


@compiled
def longest_gap(sim: Sim, r: int, since: int) -> float:
    """Longest iteration of the decode events after one."""
    replica = sim.replicas[r]
    events, lengths = sim.gap_events[r], sim.gap_seconds[r]
    low, high = 0, replica.gap_count
    while low < high:
        middle = (low + high) >> 1
        if events[(replica.gap_first + middle) % GAP_ENTRIES] > since:
            high = middle
        else:
            low = middle + 1
    if low == replica.gap_count:
        return 0.0
    return lengths[(replica.gap_first + low) % GAP_ENTRIES]  # type: ignore[no-any-return]
