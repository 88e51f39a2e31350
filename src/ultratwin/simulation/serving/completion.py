"""What the end of iterations brings: tokens, first tokens, answers that are complete."""

from __future__ import annotations

from ultratwin.simulation.serving.blocks import clock_after
from ultratwin.simulation.serving.compiled import compiled, inlined
from ultratwin.simulation.serving.gaps import count_gaps, longest_gap, remember_gap
from ultratwin.simulation.serving.holding import (
    begin_decode,
    end_decode,
    end_prefill_accounts,
    release,
    remember_answer,
    settle,
)
from ultratwin.simulation.serving.lists import first_finish_clock, pop_finish
from ultratwin.simulation.serving.records import DONE, ONE, PADDING, PREFILL, STATIC, Sim
from ultratwin.simulation.serving.timers import set_timer
from ultratwin.simulation.serving.transfer import begin_transfer


@compiled
def answered(sim: Sim, i: int, moment_s: float) -> None:
    """A request is done, or was turned away: the next turn of its session follows, or its place is free."""
    q, total = sim.requests[i], sim.total[0]
    total.ended += 1
    if q.successor >= 0:
        follower = sim.requests[q.successor]
        follower.arrival_s = max(follower.arrival_s, moment_s + follower.think_s)
        set_timer(sim, follower.arrival_s + sim.pools[0].request_s, q.successor)
    elif total.concurrency:
        total.in_flight -= 1
        total.gate_s = moment_s


@compiled
def _finish(sim: Sim, r: int, i: int) -> None:
    """The last token of a request is there."""
    replica, q, total = sim.replicas[r], sim.requests[i], sim.total[0]
    q.finish_s, q.state = replica.end_s, DONE
    total.finished += 1
    if total.waiting > 0:
        total.backlog_finished += 1
    total.generated += q.output
    sim.loads[r] -= 1
    answered(sim, i, replica.end_s)


@inlined
def _count_first_gaps(sim: Sim, r: int) -> None:
    """Gaps of the first decode step: longer than the step for those who waited while prompts had their turn."""
    replica = sim.replicas[r]
    end, fresh, i = replica.now_s + replica.first_gap_s, 0, replica.fresh
    while i >= 0:
        q = sim.requests[i]
        gap = end - q.last_token_s
        q.max_gap_s = max(q.max_gap_s, gap)
        count_gaps(sim, gap, gap, ONE)
        q.joined = replica.events + 1
        fresh += 1
        i = q.link
    replica.fresh = -1
    old = replica.decodes - fresh
    longest = replica.first_gap_s
    if old > 0:
        longest = end - replica.decoded_s
        count_gaps(sim, longest, longest, old)
    remember_gap(sim, r, longest)


@inlined
def _end_decode_steps(sim: Sim, r: int) -> None:
    """All decodes have gained what the steps bring."""
    replica = sim.replicas[r]
    pool = sim.pools[replica.pool]
    _count_first_gaps(sim, r)
    if replica.begun > 1:
        count_gaps(sim, replica.first_gap_s, replica.last_gap_s, replica.decodes * (replica.begun - 1))
        remember_gap(sim, r, max(replica.first_gap_s, replica.last_gap_s))
    replica.decoded_s = replica.end_s
    settle(sim, r, clock_after(pool.accepted, replica.steps + replica.begun - 1) + pool.step_tokens)
    replica.steps += replica.begun
    replica.clock = clock_after(pool.accepted, replica.steps)
    settle(sim, r, replica.clock)
    while replica.heap > 0 and first_finish_clock(sim, r) <= replica.clock:
        i = pop_finish(sim, r)
        q = sim.requests[i]
        q.max_gap_s = max(q.max_gap_s, longest_gap(sim, r, q.joined))
        _finish(sim, r, i)
        if pool.policy == STATIC:
            q.state = PADDING
            q.link, replica.padding = replica.padding, i
        else:
            remember_answer(sim, r, i, end_decode(sim, r, i))
            release(sim, r, i)


@inlined
def _end_chunk(sim: Sim, r: int, i: int) -> None:
    """A chunk is computed; with the last one of a prompt comes a token."""
    replica, q = sim.replicas[r], sim.requests[i]
    q.computed += q.chunk
    sim.total[0].prefilled += q.chunk
    q.chunk = 0
    if q.computed < q.target:
        return
    end_prefill_accounts(sim, r, i)
    generated = q.generated + 1
    moved = sim.pools[replica.pool].role == PREFILL and generated < q.output
    if q.first_token_s < 0.0:
        if not moved:
            q.first_token_s = replica.end_s
    else:
        gap = replica.end_s - q.last_token_s
        q.max_gap_s = max(q.max_gap_s, gap)
        count_gaps(sim, gap, gap, ONE)
    q.last_token_s = replica.end_s
    if generated >= q.output:
        _finish(sim, r, i)
        remember_answer(sim, r, i, q.computed)
        release(sim, r, i)
    elif moved:
        q.generated = generated
        begin_transfer(sim, r, i)
    else:
        begin_decode(sim, r, i, q.computed, generated)


@inlined
def _end_static_batch(sim: Sim, r: int) -> None:
    """The last answer of a static batch is complete: all its places are free again."""
    replica = sim.replicas[r]
    i = replica.padding
    while i >= 0:
        following = sim.requests[i].link
        if sim.requests[i].state == PADDING:
            remember_answer(sim, r, i, end_decode(sim, r, i))
            release(sim, r, i)
            sim.requests[i].state = DONE
        i = following
    replica.padding = -1


@inlined
def end_iterations(sim: Sim, r: int) -> None:
    """Book what ran on a replica until now."""
    replica = sim.replicas[r]
    if replica.begun > 0:
        replica.iterations += replica.begun
        replica.busy_s += replica.seconds
        replica.energy_j += replica.joules
        if replica.with_decodes:
            _end_decode_steps(sim, r)
        else:
            settle(sim, r, replica.clock)
        i, replica.chunks = replica.chunks, -1
        while i >= 0:
            following = sim.requests[i].link
            _end_chunk(sim, r, i)
            i = following
        if replica.padding >= 0 and replica.heap == 0 and replica.partial < 0:
            _end_static_batch(sim, r)
        replica.begun = 0
        replica.chosen_s = replica.end_s - replica.last_gap_s
    replica.now_s = replica.end_s
