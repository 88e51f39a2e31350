"""Preemption: when blocks run out, the youngest running request gives its own up and waits again, at the head."""

from __future__ import annotations

from ultratwin.simulation.serving.blocks import blocks, used_blocks
from ultratwin.simulation.serving.compiled import compiled, inlined
from ultratwin.simulation.serving.gaps import longest_gap
from ultratwin.simulation.serving.holding import end_decode, end_prefill_accounts, release
from ultratwin.simulation.serving.lists import last_running, prepend, remove_finish
from ultratwin.simulation.serving.records import DECODING, DONE, PADDING, WAITING, WAITING_LIST, Sim


@inlined
def preempt(sim: Sim, r: int, i: int) -> None:
    """Take a request off its replica's batch; with "swap" its KV goes to host memory, else it is computed again."""
    replica, q = sim.replicas[r], sim.requests[i]
    pool = sim.pools[replica.pool]
    if q.state == PADDING:
        end_decode(sim, r, i)
        release(sim, r, i)
        q.state = DONE
        return
    if q.state == DECODING:
        remove_finish(sim, r, i)
        _forget_fresh(sim, r, i)
        if q.joined >= 0:
            q.max_gap_s = max(q.max_gap_s, longest_gap(sim, r, q.joined))
        q.last_token_s = replica.now_s
        generated = q.output - (q.finish_clock - replica.clock)
        q.computed = end_decode(sim, r, i)
        q.generated = generated
        q.ready = pool.swaps
        if pool.swaps:
            replica.swap_tokens += q.computed
    else:
        end_prefill_accounts(sim, r, i)
        replica.partial = -1
    q.target = q.prompt + q.generated
    release(sim, r, i)
    q.state = WAITING
    q.preemptions += 1
    prepend(sim, r, WAITING_LIST, i)
    replica.waiting += 1
    sim.total[0].waiting += 1


@inlined
def _forget_fresh(sim: Sim, r: int, i: int) -> None:
    """Take a request out of the list of those that have not decoded yet, if it is there."""
    replica = sim.replicas[r]
    before, here = -1, replica.fresh
    while here >= 0 and here != i:
        before, here = here, sim.requests[here].link
    if here < 0:
        return
    if before < 0:
        replica.fresh = sim.requests[i].link
    else:
        sim.requests[before].link = sim.requests[i].link


@compiled
def chunk_blocks(sim: Sim, r: int, budget: int) -> int:
    """Blocks that the next chunk of the prompt that was cut needs."""
    replica = sim.replicas[r]
    if replica.partial < 0:
        return 0
    q, size = sim.requests[replica.partial], sim.pools[replica.pool].block_size
    chunk = max(min(q.target - q.computed, budget), 0)
    return blocks(q.computed + chunk, size) - blocks(q.computed, size)


@compiled
def make_room(sim: Sim, r: int, with_chunk: bool) -> bool:
    """Preempt until the decodes, and the prompt that was cut, have their blocks; whether anybody was preempted."""
    replica = sim.replicas[r]
    pool = sim.pools[replica.pool]
    any_preempted = False
    while True:
        needed = used_blocks(sim, r, replica.clock)
        if with_chunk:
            needed += chunk_blocks(sim, r, pool.budget - replica.decodes * pool.step_tokens)
        if needed <= pool.num_blocks:
            return any_preempted
        preempt(sim, r, last_running(sim, r))
        any_preempted = True
