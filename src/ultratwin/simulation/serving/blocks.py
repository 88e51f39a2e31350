"""Blocks of the KV cache, by arithmetic: nobody counts tokens one by one.

All sequences that decode grow together. Their tokens are a base that is fixed plus a clock that they share, so how many
blocks they hold follows from how many of them have each base modulo the block size.
"""

from __future__ import annotations

from ultratwin.simulation.serving.compiled import compiled, inlined
from ultratwin.simulation.serving.records import Sim


@inlined
def blocks(tokens: int, block_size: int) -> int:
    """Blocks that hold so many tokens."""
    return (tokens + block_size - 1) // block_size


@compiled
def clock_after(accepted: float, steps: int) -> int:
    """Tokens that a sequence has gained after so many decode steps; each step brings `accepted` on average."""
    return steps if accepted == 1.0 else int(accepted * steps + 1e-6)


@inlined
def steps_until(accepted: float, steps: int, clock: int) -> int:
    """Decode steps that are missing until the clock shows a value; at least 1."""
    if accepted == 1.0:
        return max(clock - steps, 1)
    count = max(int(clock / accepted) - steps - 1, 1)
    while clock_after(accepted, steps + count) < clock:
        count += 1
    return count


@compiled
def decode_blocks(sim: Sim, r: int, tokens: int) -> int:
    """Blocks of all sequences that decode, when each has `tokens` beyond its base."""
    replica = sim.replicas[r]
    size = sim.pools[replica.pool].block_size
    whole, rest = tokens // size, tokens % size
    total = replica.base_blocks + replica.decodes * (whole + 1)
    # the rest of a base and the rest of the tokens fill no block, one, or one and a part of a second
    if rest == 0:
        return total - sim.residues[r, 0]  # type: ignore[no-any-return]
    for residue in range(size - rest + 1, size):
        total += sim.residues[r, residue]
    return total  # type: ignore[no-any-return]


@compiled
def used_blocks(sim: Sim, r: int, clock: int) -> int:
    """Blocks in use once the decode step at a clock has been given its blocks."""
    replica = sim.replicas[r]
    others = replica.prefill_blocks + replica.shared_in_use + replica.transfer_blocks - replica.decode_shared
    if replica.decodes == 0:
        return others  # type: ignore[no-any-return]
    return others + decode_blocks(sim, r, clock + sim.pools[replica.pool].step_tokens)  # type: ignore[no-any-return]


@inlined
def steps_that_fit(sim: Sim, r: int, most: int) -> int:
    """Decode steps, from now on and at most so many, for which there are blocks; the first one is known to fit."""
    replica = sim.replicas[r]
    pool = sim.pools[replica.pool]
    if used_blocks(sim, r, clock_after(pool.accepted, replica.steps + most - 1)) <= pool.num_blocks:
        return most
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) >> 1
        if used_blocks(sim, r, clock_after(pool.accepted, replica.steps + middle - 1)) <= pool.num_blocks:
            low = middle
        else:
            high = middle
    return low


@compiled
def join_decodes(sim: Sim, r: int, i: int, context: int, generated: int) -> None:
    """A request begins to decode, with so many tokens in the KV cache."""
    replica, q = sim.replicas[r], sim.requests[i]
    size = sim.pools[replica.pool].block_size
    q.base_tokens = context - replica.clock
    q.generated = generated
    q.finish_clock = replica.clock + q.output - generated
    q.joined = replica.events
    replica.decodes += 1
    replica.base_sum += q.base_tokens
    replica.base_blocks += q.base_tokens // size
    replica.finish_sum += q.finish_clock
    replica.decode_shared += q.shared
    sim.residues[r, q.base_tokens % size] += 1


@compiled
def leave_decodes(sim: Sim, r: int, i: int) -> None:
    """A request decodes no longer; it is in no heap any more."""
    replica, q = sim.replicas[r], sim.requests[i]
    size = sim.pools[replica.pool].block_size
    replica.decodes -= 1
    replica.base_sum -= q.base_tokens
    replica.base_blocks -= q.base_tokens // size
    replica.finish_sum -= q.finish_clock
    replica.decode_shared -= q.shared
    sim.residues[r, q.base_tokens % size] -= 1
