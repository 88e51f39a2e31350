"""What a request holds on its replica, from admission to release."""

from __future__ import annotations

from ultratwin.simulation.serving.blocks import blocks, decode_blocks, join_decodes, leave_decodes
from ultratwin.simulation.serving.compiled import compiled
from ultratwin.simulation.serving.lists import push_finish, unlink
from ultratwin.simulation.serving.prefix_cache import end_use, free_nameless, register, take_blocks
from ultratwin.simulation.serving.records import DECODING, NO, RUNNING_LIST, YES, Sim


@compiled
def hold(sim: Sim, r: int, i: int, count: int) -> None:
    """A request that prefills takes blocks of its own."""
    take_blocks(sim, r, count)
    sim.requests[i].held += count
    sim.replicas[r].prefill_blocks += count


@compiled
def settle(sim: Sim, r: int, tokens: int) -> None:
    """Bring the free queue up to what decodes hold, when each has so many tokens beyond its base."""
    replica = sim.replicas[r]
    if sim.pools[replica.pool].caching == 0:
        return
    held = decode_blocks(sim, r, tokens) - replica.decode_shared if replica.decodes else 0
    if held > replica.accounted:
        take_blocks(sim, r, held - replica.accounted)
    else:  # places for draft tokens that were not accepted
        free_nameless(sim, r, replica.accounted - held, YES)
    replica.accounted = held


@compiled
def begin_decode(sim: Sim, r: int, i: int, context: int, generated: int) -> None:
    """From prefill, or from elsewhere with its KV, to decode: what it held becomes part of what decodes hold."""
    replica, q = sim.replicas[r], sim.requests[i]
    replica.accounted += q.held
    replica.prefill_blocks -= q.held
    q.held = 0
    q.state = DECODING
    join_decodes(sim, r, i, context, generated)
    push_finish(sim, r, i)
    q.link, replica.fresh = replica.fresh, i


@compiled
def end_decode(sim: Sim, r: int, i: int) -> int:
    """From decode to holding blocks of its own again; tokens in its KV cache."""
    replica, q = sim.replicas[r], sim.requests[i]
    context = q.base_tokens + replica.clock
    leave_decodes(sim, r, i)
    q.held = max(blocks(context, sim.pools[replica.pool].block_size) - q.shared, 0)
    replica.accounted -= q.held
    replica.prefill_blocks += q.held
    return context  # type: ignore[no-any-return]


@compiled
def release(sim: Sim, r: int, i: int) -> None:
    """A request gives its blocks back and leaves the running list."""
    replica, q = sim.replicas[r], sim.requests[i]
    replica.prefill_blocks -= q.held
    free_nameless(sim, r, q.held, NO)
    q.held = 0
    end_use(sim, r, i)
    unlink(sim, r, RUNNING_LIST, i)
    replica.running -= 1
    sim.total[0].running -= 1


@compiled
def end_prefill_accounts(sim: Sim, r: int, i: int) -> None:
    """Reservations: a request is among those that prefill no more."""
    replica, q = sim.replicas[r], sim.requests[i]
    replica.prefill_tokens -= q.target
    replica.prefill_remaining -= q.output - q.generated


@compiled
def remember_answer(sim: Sim, r: int, i: int, context: int) -> None:
    """Full blocks of the answer become findable too, where the next turn of the session can ask for them."""
    register(sim, r, i, context // sim.pools[sim.replicas[r].pool].block_size)
