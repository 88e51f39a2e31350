"""Admission: whose prompt is computed in the next iteration, and how much of it."""

from __future__ import annotations

from ultratwin.simulation.serving.blocks import blocks, used_blocks
from ultratwin.simulation.serving.compiled import compiled, inlined
from ultratwin.simulation.serving.holding import begin_decode, hold
from ultratwin.simulation.serving.lists import append, first_waiting, unlink
from ultratwin.simulation.serving.prefix_cache import find_prefix, register, take_blocks, use_prefix
from ultratwin.simulation.serving.records import EPSILON_S, PREFILLING, RUNNING_LIST, WAITING_LIST, Sim


@compiled
def _schedule_chunk(sim: Sim, r: int, i: int, chunk: int) -> None:
    """Give a chunk its blocks and put it on the iteration's list."""
    replica, q = sim.replicas[r], sim.requests[i]
    size = sim.pools[replica.pool].block_size
    hold(sim, r, i, blocks(q.computed + chunk, size) - q.shared - q.held)
    q.chunk = chunk
    register(sim, r, i, (q.computed + chunk) // size)
    q.link, replica.chunks = replica.chunks, i
    replica.partial = i if q.computed + chunk < q.target else -1


@compiled
def continue_chunk(sim: Sim, r: int, budget: int) -> int:
    """The next chunk of the prompt that was cut; its tokens."""
    replica = sim.replicas[r]
    i = replica.partial
    if i < 0 or budget <= 0:
        return 0
    q = sim.requests[i]
    chunk = min(q.target - q.computed, budget)
    _schedule_chunk(sim, r, i, chunk)
    return chunk  # type: ignore[no-any-return]


@compiled
def _leave_queue(sim: Sim, r: int, i: int) -> None:
    """From waiting to running."""
    replica, q = sim.replicas[r], sim.requests[i]
    unlink(sim, r, WAITING_LIST, i)
    append(sim, r, RUNNING_LIST, i)
    replica.waiting -= 1
    replica.running += 1
    sim.total[0].waiting -= 1
    sim.total[0].running += 1
    if q.scheduled_s < 0.0:
        q.scheduled_s = replica.now_s


@compiled
def _has_reserve(sim: Sim, r: int, i: int) -> bool:
    """Whether room is left for the share of all answers that admission keeps free."""
    replica, q = sim.replicas[r], sim.requests[i]
    pool = sim.pools[replica.pool]
    if pool.reserve_frac == 0.0:
        return True
    decoding = replica.base_sum + replica.decodes * replica.clock
    to_come = replica.finish_sum - replica.decodes * replica.clock + replica.prefill_remaining
    held = decoding + replica.prefill_tokens + pool.block_size * (replica.shared_in_use - replica.decode_shared)
    needed = held + q.target + pool.reserve_frac * (to_come + q.output - q.generated)
    return replica.running == 0 or needed <= pool.num_blocks * pool.block_size  # type: ignore[no-any-return]


@inlined
def _admit_ready(sim: Sim, r: int, i: int, used: int) -> bool:
    """Take in a request whose KV comes from host memory or from a prefill replica; it decodes at once."""
    replica, q = sim.replicas[r], sim.requests[i]
    pool = sim.pools[replica.pool]
    needed = blocks(q.computed + pool.step_tokens, pool.block_size)
    if used + needed > pool.num_blocks or not _has_reserve(sim, r, i):
        return False
    _leave_queue(sim, r, i)
    if pool.swaps and q.preemptions > 0:
        replica.swap_tokens += q.computed
    if q.first_token_s < 0.0:
        q.first_token_s = replica.now_s
        q.last_token_s = replica.now_s
    q.ready = 0
    hold(sim, r, i, blocks(q.computed, pool.block_size))
    begin_decode(sim, r, i, q.computed, q.generated)
    take_blocks(sim, r, needed - blocks(q.computed, pool.block_size))
    replica.accounted += needed - blocks(q.computed, pool.block_size)
    return True


@inlined
def _admit_prompt(sim: Sim, r: int, i: int, budget: int, used: int, first: bool) -> int:
    """Take in the prompt at the head of the queue, as far as the budget goes; its tokens, 0 if it must wait."""
    replica, q = sim.replicas[r], sim.requests[i]
    pool = sim.pools[replica.pool]
    size = pool.block_size
    found, units, free = 0, 0, 0
    if pool.caching:
        found, units, free = find_prefix(sim, r, i, (q.target - 1) // size)
    chunk = q.target - found * size
    if chunk > budget:
        if pool.chunked:
            chunk = budget
        elif not first:
            return 0
    upto = q.target if pool.reserve_prompt else found * size + chunk
    if used + free + blocks(upto, size) - found > pool.num_blocks or not _has_reserve(sim, r, i):
        return 0
    _leave_queue(sim, r, i)
    q.state = PREFILLING
    if q.cached < 0:
        q.cached = found * size
    q.computed = found * size
    replica.prefill_tokens += q.target
    replica.prefill_remaining += q.output - q.generated
    use_prefix(sim, r, i, units, found)
    _schedule_chunk(sim, r, i, chunk)
    return chunk  # type: ignore[no-any-return]


@inlined
def _is_late(sim: Sim, r: int, i: int) -> bool:
    """Whether a request came after the next batch was chosen, by an engine that chooses it while another one runs."""
    replica = sim.replicas[r]
    ahead = sim.pools[replica.pool].overlaps_host and replica.running > 0
    return ahead and sim.requests[i].queued_s > replica.chosen_s + EPSILON_S  # type: ignore[no-any-return]


@compiled
def admit(sim: Sim, r: int, budget: int, most: int) -> int:
    """Admit waiting requests in their order until budget, sequences or blocks run out; prompt tokens taken in.

    `most` requests at most.
    """
    replica = sim.replicas[r]
    pool = sim.pools[replica.pool]
    taken, prompts, admitted = 0, 1 if replica.chunks >= 0 else 0, 0
    replica.late = 0
    while budget > 0 and replica.running < pool.max_num_seqs and replica.partial < 0 and admitted < most:
        i = first_waiting(sim, r)
        if i < 0:
            break
        if _is_late(sim, r, i):
            replica.late = 1
            break
        used = used_blocks(sim, r, replica.clock)
        if sim.requests[i].ready:
            if not _admit_ready(sim, r, i, used):
                break
            budget -= pool.step_tokens
        else:
            if pool.max_prefill_seqs and prompts >= pool.max_prefill_seqs:
                break
            chunk = _admit_prompt(sim, r, i, budget, used, replica.running == 0)
            if chunk == 0:
                break
            budget -= chunk
            taken += chunk
            prompts += 1
        admitted += 1
    return taken
