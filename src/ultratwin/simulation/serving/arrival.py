"""Arrivals: from the clock, from a session's last turn, from a transfer; and those that are turned away."""

from __future__ import annotations

from ultratwin.simulation.serving.blocks import blocks
from ultratwin.simulation.serving.commit import cut
from ultratwin.simulation.serving.compiled import compiled, inlined
from ultratwin.simulation.serving.completion import answered
from ultratwin.simulation.serving.lists import append
from ultratwin.simulation.serving.records import (
    ENTERING,
    ENTRY,
    NEVER,
    REJECTED,
    TRANSFERRING,
    WAITING,
    WAITING_LIST,
    Sim,
)
from ultratwin.simulation.serving.routing.route import route
from ultratwin.simulation.serving.timers import set_timer, update_tree
from ultratwin.simulation.serving.transfer import end_transfer


@inlined
def next_arrival_s(sim: Sim) -> float:
    """When the next request comes by the clock; in a closed loop not before there is a place."""
    total = sim.total[0]
    if total.next_static >= len(sim.order):
        return NEVER
    arrival = sim.requests[sim.order[total.next_static]].arrival_s
    if total.concurrency:
        if total.in_flight >= total.concurrency:
            return NEVER
        arrival = max(arrival, total.gate_s)
    return arrival + sim.pools[0].request_s  # type: ignore[no-any-return]


@compiled
def fits(sim: Sim, i: int, pool: int) -> bool:
    """Whether a request can be served at all: by the model's length, the KV cache and the budget of tokens."""
    p, q = sim.pools[pool], sim.requests[i]
    if q.prompt + q.output > p.max_model_len or (p.chunked == 0 and q.prompt > p.budget):
        return False
    answer = 1 if p.role == 1 else q.output
    longest = q.prompt if answer == 1 else q.prompt + answer - 2 + p.step_tokens
    return blocks(longest, p.block_size) <= p.num_blocks  # type: ignore[no-any-return]


@compiled
def _join_queue(sim: Sim, r: int, i: int, moment_s: float) -> None:
    """A request is in a replica's queue: wake the replica, or end its jump where the request could be admitted."""
    replica, q = sim.replicas[r], sim.requests[i]
    q.replica, q.state, q.queued_s = r, WAITING, moment_s
    append(sim, r, WAITING_LIST, i)
    replica.waiting += 1
    sim.total[0].waiting += 1
    if replica.end_s == NEVER:
        replica.now_s = replica.end_s = replica.chosen_s = moment_s
        update_tree(sim, r)
    elif replica.begun > 1 and q.level < replica.open_level:
        cut(sim, r, moment_s)
        replica.open_level = 0  # who comes before that end is served after it too
        update_tree(sim, r)


@inlined
def _enters_later(sim: Sim, i: int, moment_s: float) -> bool:
    """Whether a request must wait until those before it have been taken in; it comes back by a timer."""
    total = sim.total[0]
    turn_s = max(total.entry_free_s, moment_s)
    total.entry_free_s = turn_s + sim.pools[0].entry_s
    if turn_s <= moment_s:
        return False
    sim.requests[i].state = ENTERING
    set_timer(sim, turn_s, i)
    return True


@compiled
def deliver(sim: Sim, i: int, moment_s: float) -> None:
    """A request reaches the replica that takes it, or is turned away."""
    q = sim.requests[i]
    if q.state == TRANSFERRING:
        woken = end_transfer(sim, i, moment_s)
        if woken >= 0:
            update_tree(sim, woken)
        _join_queue(sim, q.replica, i, moment_s)
        return
    if q.state != ENTERING and _enters_later(sim, i, moment_s):
        return
    if not fits(sim, i, ENTRY) or (len(sim.pools) > 1 and not fits(sim, i, len(sim.pools) - 1)):
        q.state = REJECTED
        answered(sim, i, moment_s)
        return
    q.target = q.prompt
    r = route(sim, i, ENTRY)
    sim.loads[r] += 1
    sim.replicas[r].served += 1
    _join_queue(sim, r, i, moment_s)


@inlined
def next_by_clock(sim: Sim, moment_s: float) -> int:
    """The next request that comes by the clock."""
    total = sim.total[0]
    i = sim.order[total.next_static]
    total.next_static += 1
    if total.concurrency:
        total.in_flight += 1
        sim.requests[i].arrival_s = moment_s - sim.pools[0].request_s
    if total.next_static == len(sim.order):
        total.queued_at_last_arrival = total.waiting
    return i  # type: ignore[no-any-return]
