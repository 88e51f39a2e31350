"""Commit: the scheduler has chosen a batch; how long it runs, and for how many iterations at once."""

from __future__ import annotations

from ultratwin.simulation.serving.blocks import steps_that_fit, steps_until, used_blocks
from ultratwin.simulation.serving.compiled import compiled, inlined
from ultratwin.simulation.serving.jump import advance
from ultratwin.simulation.serving.lists import first_finish_clock, first_waiting
from ultratwin.simulation.serving.records import EPSILON_S, NEVER, STATIC, Sim
from ultratwin.simulation.serving.tables import batch_cost, decode_line, entry, prefill_cost


@compiled
def mean_context(sim: Sim, r: int) -> float:
    """Tokens that a decoding sequence attends to, itself included, on average."""
    replica = sim.replicas[r]
    grown = sim.pools[replica.pool].accepted * replica.steps
    return replica.base_sum / replica.decodes + grown + 1.0  # type: ignore[no-any-return]


@inlined
def _mixed_cost(sim: Sim, r: int, with_decodes: bool) -> tuple[float, float]:
    """Seconds and joules of one iteration with prompts, and with the decodes or without."""
    replica = sim.replicas[r]
    pool = sim.pools[replica.pool]
    decodes = replica.decodes if with_decodes else 0
    tokens, samples, sequences = decodes * pool.step_tokens, decodes, decodes
    seconds, joules = 0.0, 0.0
    i = replica.chunks
    while i >= 0:
        q = sim.requests[i]
        tokens += q.chunk
        sequences += 1
        samples += 1 if q.computed + q.chunk == q.target else 0
        more_s, more_j = prefill_cost(sim, replica.pool, q.chunk, q.computed)
        seconds += more_s
        joules += more_j
        i = q.link
    more_s, more_j = batch_cost(sim, replica.pool, tokens, samples, decodes)
    seconds += more_s
    joules += more_j
    if decodes > 0:
        line_s, _, line_j, _, _ = decode_line(sim, replica.pool, decodes, mean_context(sim, r))
        seconds += line_s
        joules += line_j
    host = entry(sim.values, pool.host_s, pool.sequences, sequences)
    launch = pool.eager_s if tokens > pool.captured_tokens else 0.0
    whole = max(seconds, host + launch) if pool.overlaps_host else max(seconds, launch) + host
    return whole, joules + pool.idle_w * (whole - seconds)


@inlined
def _open_level(sim: Sim, r: int) -> int:
    """Requests of a level before this one, arriving from now on, could be admitted before the next event."""
    replica = sim.replicas[r]
    pool = sim.pools[replica.pool]
    if replica.running >= pool.max_num_seqs or pool.policy == STATIC:
        return 0
    head = first_waiting(sim, r)
    return sim.total[0].levels if head < 0 else sim.requests[head].level  # type: ignore[no-any-return]


@compiled
def commit(sim: Sim, r: int, with_decodes: bool, once: bool) -> None:
    """Run the batch that was chosen: one iteration if it holds prompts or is asked to be, else until the next event."""
    replica = sim.replicas[r]
    pool = sim.pools[replica.pool]
    used = used_blocks(sim, r, replica.clock)
    sim.total[0].used += used - replica.used
    replica.used = used
    replica.with_decodes = 1 if with_decodes and replica.decodes > 0 else 0
    extra = replica.swap_tokens * pool.swap_token_s
    replica.swap_tokens = 0
    if replica.chunks >= 0:
        seconds, joules = _mixed_cost(sim, r, with_decodes)
        replica.begun, replica.seconds, replica.joules = 1, seconds + extra, joules
        replica.first_gap_s = replica.last_gap_s = seconds + extra
    elif replica.with_decodes:
        most = 1
        if not once and replica.late == 0 and extra == 0.0 and sim.total[0].stepwise == 0:
            most = steps_until(pool.accepted, replica.steps, first_finish_clock(sim, r))
            most = steps_that_fit(sim, r, most) if most > 1 else 1
        count, seconds, joules, first, last = advance(
            sim, replica.pool, replica.decodes, mean_context(sim, r), most, NEVER
        )
        replica.begun, replica.seconds, replica.joules = count, seconds + extra, joules
        replica.first_gap_s, replica.last_gap_s = first + extra, last
        replica.open_level = _open_level(sim, r) if count > 1 else 0
    else:
        replica.begun, replica.end_s = 0, NEVER
        return
    replica.end_s = replica.now_s + replica.seconds


@inlined
def cut(sim: Sim, r: int, moment_s: float) -> None:
    """End a jump with the first iteration that ends at a moment or later: somebody has arrived."""
    replica = sim.replicas[r]
    if replica.begun <= 1:
        return
    wanted = moment_s - EPSILON_S - replica.now_s
    most, context = replica.begun, mean_context(sim, r)
    count, seconds, joules, first, last = advance(sim, replica.pool, replica.decodes, context, most, wanted)
    replica.begun, replica.seconds, replica.joules = count, seconds, joules
    replica.first_gap_s, replica.last_gap_s = first, last
    replica.end_s = replica.now_s + seconds
