"""The event loop of a run with failures, compiled. Importing this imports Numba.

Time goes from failure to failure: what happens between two is a formula, so a run costs what its failures cost, however
many chips it has. Each run draws from its own stream, a counter that is mixed (SplitMix64, Steele et al. 2014).

A run's scalars are a named tuple, tiers and parts are rows of numbers, and `state` holds where the run stands: plain
numbers, since counting references to records would take longer than the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., Any])
# references to arrays are not counted (_nrt), which would take as long as the arithmetic: nothing is allocated inside
_OPTIONS: dict[str, Any] = {
    "cache": True, "error_model": "numpy", "nogil": True, "forceinline": True, "_nrt": False,
}  # fmt: skip


def compiled(function: _Function) -> _Function:
    """The function in machine code. All are in this file, since Numba's cache on disk looks at no other."""
    found: _Function = njit(**_OPTIONS)(function)
    return found


QUEUE_SLOTS = 8192  # groups of nodes in repair at once, a power of two; later ones join the last group
SLOT_MASK = QUEUE_SLOTS - 1
NEVER = 1e300
# columns of a tier, of a class of parts, of the state, and the causes that wall time goes to
INTERVAL, STALL, LATENCY, RELOAD_TIME, SURVIVES_NODE, SURVIVES_RACK, KEEPS_HISTORY = 0, 1, 2, 3, 4, 5, 6
NODES_LOST, RACK_WIDE, SILENT = 0, 1, 2
TIME, MARK, PAST, SAVED, RESUMED, SPEED, FREE = 0, 1, 2, 3, 4, 5, 6
FAILURE, PART, STOP, DROPPED, TO_RELOAD, COST = 7, 8, 9, 10, 11, 12
TRAINING, SAVING, AGAIN, SPOILT, DETECTION, ISOLATION = 0, 1, 2, 3, 4, 5
WAITING, RESTART, RELOAD, WARM_UP, FEWER, MAINTENANCE = 6, 7, 8, 9, 10, 11


@compiled
def uniform(stream: Any) -> float:
    """The next number of a run's stream, above 0 and below 1."""
    stream[0] += np.uint64(0x9E3779B97F4A7C15)
    z = stream[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (np.float64(z >> np.uint64(11)) + 0.5) * (1.0 / 9007199254740992.0)


@compiled
def draw_failure(state: Any, stream: Any, edges: Any, sums: Any) -> None:
    """When the next failure comes, and of which class: an exponential through the bins of the rates.

    `sums` are running sums over the classes, so that the last one of a bin is its whole rate.
    """
    left = -math.log(uniform(stream))
    at = state[TIME]
    last = sums.shape[1] - 1
    b = 0
    while b + 1 < len(edges) and edges[b + 1] <= at:
        b += 1
    while True:
        total = sums[b, last]
        end = edges[b + 1] if b + 1 < len(edges) else NEVER
        if total > 0.0 and left <= total * (end - at):
            at += left / total
            break
        if end == NEVER:
            state[FAILURE] = NEVER
            return
        left -= total * (end - at)
        at = end
        b += 1
    chosen = uniform(stream) * total
    c = 0
    while c < last and chosen >= sums[b, c]:
        c += 1
    state[FAILURE] = at
    state[PART] = c


@compiled
def advance(run: Any, state: Any, tiers: Any, causes: Any, dt: float) -> None:
    """So much wall time of training and saving goes by."""
    interval, stall = tiers[0, INTERVAL], tiers[0, STALL]
    cost = state[COST]
    to_next = interval - state[PAST]
    if dt < to_next * cost + stall:
        work = min(dt / cost, to_next)
        state[PAST] += work
        saving = dt - work * cost
    else:
        left = dt - to_next * cost - stall
        cycles = math.floor(left / (interval * cost + stall))
        left = max(left - cycles * (interval * cost + stall), 0.0)
        state[MARK] += 1.0 + cycles
        state[PAST] = min(left / cost, interval)
        state[SAVED] = state[MARK] * interval
        saving = (1.0 + cycles) * stall + max(left - state[PAST] * cost, 0.0)
        work = to_next + cycles * interval + state[PAST]
    state[TIME] += dt
    causes[TRAINING] += work
    causes[FEWER] += work * (cost - 1.0 - run.coarse_cost)
    causes[SAVING] += saving + work * run.coarse_cost


@compiled
def time_to_finish(run: Any, state: Any, tiers: Any) -> float:
    """Wall time to the end if nothing fails. The last save would be at the end itself and is left out."""
    interval = tiers[0, INTERVAL]
    remaining = run.work - state[MARK] * interval - state[PAST]
    beyond = remaining - (interval - state[PAST])
    saves = 0.0 if beyond <= 0.0 else math.ceil(beyond / interval)
    return float(max(remaining, 0.0) * state[COST] + saves * tiers[0, STALL])


@compiled
def finish(run: Any, state: Any, tiers: Any, causes: Any, need: float) -> float:
    """The rest of the work without failures; returns when the run ends."""
    remaining = max(run.work - state[MARK] * tiers[0, INTERVAL] - state[PAST], 0.0)
    slow = remaining * (state[COST] - 1.0 - run.coarse_cost)
    causes[TRAINING] += remaining
    causes[FEWER] += slow
    causes[SAVING] += need - remaining - slow
    return float(state[TIME] + need)


@compiled
def last_good(run: Any, state: Any, tiers: Any, k: int, done: float, silent: bool) -> float:
    """The progress that tier k would give back after a failure at `done` seconds of work."""
    cost = state[COST]
    if k == 0 and not silent:
        if state[SAVED] > state[RESUMED] and state[PAST] * cost < tiers[0, LATENCY]:
            return float(max(state[SAVED] - tiers[0, INTERVAL], state[RESUMED]))
        return float(state[SAVED])
    behind = tiers[k, LATENCY] + (run.silent_delay if silent else 0.0)
    good = done - behind / cost
    return min(math.floor(good / tiers[k, INTERVAL]) * tiers[k, INTERVAL], done) if good > 0.0 else 0.0


@compiled
def best_checkpoint(run: Any, state: Any, tiers: Any, parts: Any, part: int, done: float) -> float:
    """The progress of the checkpoint that costs least of those that a failure left; its reload goes into the state."""
    cost = state[COST]
    best, least = 0.0, NEVER
    state[TO_RELOAD] = 0.0
    silent = parts[part, SILENT] > 0.0
    for k in range(len(tiers)):
        if silent:
            kept = tiers[k, KEEPS_HISTORY] > 0.0
        elif parts[part, NODES_LOST] == 0.0:
            kept = True
        else:
            kept = tiers[k, SURVIVES_RACK if parts[part, RACK_WIDE] > 0.0 else SURVIVES_NODE] > 0.0
        if kept:
            at = last_good(run, state, tiers, k, done, silent)
            loss = (done - at) * cost + tiers[k, RELOAD_TIME]
            if loss < least:
                best, least = at, loss
                state[TO_RELOAD] = tiers[k, RELOAD_TIME]
    return best


@compiled
def roll_back(run: Any, state: Any, tiers: Any, parts: Any, part: int, causes: Any) -> None:
    """Back to a checkpoint; an elastic run that only lost nodes goes back one step instead."""
    interval = tiers[0, INTERVAL]
    done = state[MARK] * interval + state[PAST]
    silent = parts[part, SILENT] > 0.0
    if run.elastic and parts[part, NODES_LOST] > 0.0 and not silent:
        state[DROPPED], state[TO_RELOAD] = 1.0, 0.0
        best = max(done - run.step, 0.0)
    else:
        state[DROPPED] = 0.0
        best = best_checkpoint(run, state, tiers, parts, part, done)
    causes[TRAINING] -= done - best
    causes[SPOILT if silent else AGAIN] += done - best
    state[MARK] = math.floor(best / interval + 1e-9)
    state[PAST] = max(best - state[MARK] * interval, 0.0)
    if state[DROPPED] > 0.0:  # what was saved is still there
        state[SAVED] = min(state[SAVED], best)
        state[RESUMED] = min(state[RESUMED], best)
    else:
        state[SAVED] = state[RESUMED] = best


@compiled
def next_queue(times: Any, heads: Any) -> int:
    """The repair queue whose first group of nodes comes back first, -1 if nothing is in repair."""
    has0, has1 = heads[0, 0] < heads[0, 1], heads[1, 0] < heads[1, 1]
    if has0 and has1:
        return 0 if times[0, heads[0, 0] & SLOT_MASK] <= times[1, heads[1, 0] & SLOT_MASK] else 1
    return 0 if has0 else (1 if has1 else -1)


@compiled
def next_return(times: Any, heads: Any) -> float:
    """When the next group of nodes comes back from repair."""
    q = next_queue(times, heads)
    return float(times[q, heads[q, 0] & SLOT_MASK]) if q >= 0 else NEVER


@compiled
def take_back(state: Any, times: Any, nodes: Any, heads: Any) -> None:
    """Nodes whose repair is over are spares again."""
    q = next_queue(times, heads)
    while q >= 0 and times[q, heads[q, 0] & SLOT_MASK] <= state[TIME]:
        state[FREE] += nodes[q, heads[q, 0] & SLOT_MASK]
        heads[q, 0] += 1
        q = next_queue(times, heads)


@compiled
def lose_nodes(run: Any, state: Any, stream: Any, parts: Any, part: int, times: Any, nodes: Any, heads: Any) -> None:
    """The nodes of a failure leave for repair: a reset, or a new part.

    All of a queue take equally long, so they come back in order; a full queue adds them to its last group.
    """
    count = parts[part, NODES_LOST]
    if count == 0.0:
        return
    q = 1 if parts[part, RACK_WIDE] == 0.0 and uniform(stream) < run.replacement_frac else 0
    ready = state[TIME] + (run.replacement if q == 1 else run.reset)
    state[FREE] -= count
    if heads[q, 1] - heads[q, 0] == QUEUE_SLOTS:
        last = (heads[q, 1] - 1) & SLOT_MASK
        times[q, last] = ready
        nodes[q, last] += count
    else:
        times[q, heads[q, 1] & SLOT_MASK] = ready
        nodes[q, heads[q, 1] & SLOT_MASK] = count
        heads[q, 1] += 1


@compiled
def waiting_time(run: Any, state: Any, times: Any, nodes: Any, heads: Any) -> float:
    """How long until repairs bring back enough nodes."""
    free = state[FREE]
    wanted = -(run.replicas - run.least) * run.nodes_per_replica if run.elastic else 0.0
    until = state[TIME]
    a, b = heads[0, 0], heads[1, 0]
    while free < wanted:
        first = times[0, a & SLOT_MASK] if a < heads[0, 1] else NEVER
        second = times[1, b & SLOT_MASK] if b < heads[1, 1] else NEVER
        if first == NEVER and second == NEVER:
            return NEVER
        if first <= second:
            until = first
            free += nodes[0, a & SLOT_MASK]
            a += 1
        else:
            until = second
            free += nodes[1, b & SLOT_MASK]
            b += 1
    return float(max(until - state[TIME], 0.0))


@compiled
def set_speed(run: Any, state: Any) -> None:
    """How fast the run goes with the nodes that it has (whole replicas count), and wall time of a second of work."""
    if run.elastic and state[FREE] < 0.0:
        missing = math.ceil(-state[FREE] / run.nodes_per_replica)
        state[SPEED] = max(run.replicas - missing, 1.0) / run.replicas
        state[COST] = 1.0 / state[SPEED] + run.coarse_cost  # slower, and the saves to coarser tiers
    else:
        state[SPEED], state[COST] = 1.0, 1.0 + run.coarse_cost


@compiled
def passes(run: Any, state: Any, causes: Any, cause: int, seconds: float) -> bool:
    """One phase of a recovery; whether it ended before the next failure and before the run is given up."""
    spent = max(min(seconds, state[FAILURE] - state[TIME], run.horizon - state[TIME]), 0.0)
    causes[cause] += spent
    state[TIME] += spent
    return bool(spent >= seconds)


@compiled
def pass_phases(run: Any, state: Any, causes: Any, times: Any, nodes: Any, heads: Any) -> bool:
    """The phases of a recovery one after the other; whether all ended before the next failure."""
    if not passes(run, state, causes, DETECTION, run.detection):
        return False
    if not passes(run, state, causes, ISOLATION, run.isolation):
        return False
    take_back(state, times, nodes, heads)
    waiting = waiting_time(run, state, times, nodes, heads)
    if waiting > 0.0:
        state[FAILURE] += waiting  # what stands idle hardly fails: the next failure is put off
        if not passes(run, state, causes, WAITING, waiting):
            return False
    dropped = state[DROPPED] > 0.0
    if not passes(run, state, causes, RESTART, run.resize if dropped else run.restart):
        return False
    if dropped:
        return True
    if not passes(run, state, causes, RELOAD, state[TO_RELOAD]):
        return False
    return passes(run, state, causes, WARM_UP, run.warm_up)


@compiled
def recover(
    run: Any, state: Any, stream: Any, tiers: Any, parts: Any, edges: Any, sums: Any, times: Any, nodes: Any,
    heads: Any, causes: Any, counts: Any,
) -> None:  # fmt: skip
    """A failure, and whatever fails until the run goes on."""
    while state[TIME] < run.horizon:
        part = int(state[PART])
        counts[part] += 1
        roll_back(run, state, tiers, parts, part, causes)
        take_back(state, times, nodes, heads)
        lose_nodes(run, state, stream, parts, part, times, nodes, heads)
        draw_failure(state, stream, edges, sums)
        done = pass_phases(run, state, causes, times, nodes, heads)
        take_back(state, times, nodes, heads)
        if done:
            set_speed(run, state)
            return


@compiled
def change_over(run: Any, state: Any, causes: Any, times: Any, nodes: Any, heads: Any) -> None:
    """A planned stop, before which a checkpoint is saved, or nodes that come back to a run with fewer replicas."""
    if state[TIME] >= state[STOP]:
        state[STOP] += run.maintenance_every + run.maintenance
        causes[MAINTENANCE] += run.maintenance
        state[TIME] += run.maintenance
        state[FAILURE] += run.maintenance  # nothing runs meanwhile
        return
    before = state[SPEED]
    take_back(state, times, nodes, heads)
    set_speed(run, state)
    if state[SPEED] > before:
        causes[RESTART] += run.resize
        state[TIME] += run.resize
        state[FAILURE] = max(state[FAILURE], state[TIME])


@compiled
def run_once(
    run: Any, state: Any, stream: Any, tiers: Any, parts: Any, edges: Any, sums: Any, times: Any, nodes: Any,
    heads: Any, causes: Any, counts: Any,
) -> float:  # fmt: skip
    """One run from start to end. Returns when it ends, infinity if it was given up."""
    draw_failure(state, stream, edges, sums)
    while state[TIME] < run.horizon:
        back = next_return(times, heads) if state[SPEED] < 1.0 else NEVER
        event = max(min(state[FAILURE], back, state[STOP]), state[TIME])
        need = time_to_finish(run, state, tiers)
        if state[TIME] + need <= min(event, run.horizon):
            return finish(run, state, tiers, causes, need)
        advance(run, state, tiers, causes, min(event, run.horizon) - state[TIME])
        if event >= run.horizon:
            break
        state[TIME] = event
        if event >= state[FAILURE]:
            recover(run, state, stream, tiers, parts, edges, sums, times, nodes, heads, causes, counts)
        else:
            change_over(run, state, causes, times, nodes, heads)
    return np.inf


def run_all(
    run: Any, streams: Any, tiers: Any, parts: Any, edges: Any, rates: Any, factors: Any, causes: Any, counts: Any,
    ends: Any,
) -> None:  # fmt: skip
    """Every run, each with its own stream and its own factors on the rates."""
    times, nodes, heads = np.empty((2, QUEUE_SLOTS)), np.empty((2, QUEUE_SLOTS)), np.zeros((2, 2), dtype=np.int64)
    run_each(
        run, streams, tiers, parts, edges, rates, factors, causes, counts, ends, times, nodes, heads,
        np.empty_like(rates), np.empty(13),
    )  # fmt: skip


@compiled
def run_each(
    run: Any, streams: Any, tiers: Any, parts: Any, edges: Any, rates: Any, factors: Any, causes: Any, counts: Any,
    ends: Any, times: Any, nodes: Any, heads: Any, sums: Any, state: Any,
) -> None:  # fmt: skip
    """The runs, one after the other, in arrays that they share."""
    for r in range(len(ends)):
        for b in range(rates.shape[0]):
            total = 0.0
            for c in range(rates.shape[1]):
                total += rates[b, c] * factors[r, c]
                sums[b, c] = total
        heads[:] = 0
        state[:] = 0.0
        state[FREE], state[STOP] = run.spares, run.maintenance_every
        set_speed(run, state)
        ends[r] = run_once(
            run, state, streams[r], tiers, parts, edges, sums, times, nodes, heads, causes[r], counts[r]
        )  # fmt: skip
