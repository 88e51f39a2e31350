"""Disaggregation: the KV cache of a prompt goes from the replica that computed it to one that decodes."""

from __future__ import annotations

from ultratwin.simulation.serving.compiled import inlined
from ultratwin.simulation.serving.lists import unlink
from ultratwin.simulation.serving.prefix_cache import end_use, free_nameless
from ultratwin.simulation.serving.records import DECODERS, NEVER, NO, RUNNING_LIST, TRANSFERRING, Sim
from ultratwin.simulation.serving.routing.route import route
from ultratwin.simulation.serving.timers import set_timer


@inlined
def begin_transfer(sim: Sim, r: int, i: int) -> None:
    """Send a prompt's KV to a decode replica: over one link out and one link in, each one transfer at a time."""
    replica, q, total = sim.replicas[r], sim.requests[i], sim.total[0]
    unlink(sim, r, RUNNING_LIST, i)
    replica.running -= 1
    total.running -= 1
    replica.prefill_blocks -= q.held
    replica.transfer_blocks += q.held
    there = route(sim, i, DECODERS)
    goal = sim.replicas[there]
    begin = max(replica.end_s, replica.egress_s, goal.ingress_s)
    free = begin + q.computed * total.transfer_token_s
    replica.egress_s = goal.ingress_s = free
    total.transferred_tokens += q.computed
    q.state, q.home, q.replica = TRANSFERRING, r, there
    sim.loads[there] += 1
    set_timer(sim, free + total.transfer_s, i)


@inlined
def end_transfer(sim: Sim, i: int, moment_s: float) -> int:
    """The KV has arrived: the prefill replica's blocks are free. Returns that replica if it has to be woken, or -1."""
    q = sim.requests[i]
    r = q.home
    replica = sim.replicas[r]
    replica.transfer_blocks -= q.held
    free_nameless(sim, r, q.held, NO)
    q.held = 0
    end_use(sim, r, i)
    sim.loads[r] -= 1
    q.ready = 1
    if replica.end_s == NEVER and (replica.waiting > 0 or replica.partial >= 0):
        replica.now_s = replica.end_s = replica.chosen_s = moment_s
        return r  # type: ignore[no-any-return]
    return -1
