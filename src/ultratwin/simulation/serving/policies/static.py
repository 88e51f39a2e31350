"""A batch runs to its end: who waits when a replica is free makes a batch, prompts first, then all of it decodes until
its last answer is complete. Places of those that are done stay in the batch and are computed with it.
"""

from __future__ import annotations

from ultratwin.simulation.serving.commit import commit
from ultratwin.simulation.serving.compiled import inlined
from ultratwin.simulation.serving.holding import settle
from ultratwin.simulation.serving.policies.prefill_first import choose_prompts
from ultratwin.simulation.serving.preemption import make_room
from ultratwin.simulation.serving.records import NO, YES, Sim


@inlined
def begin_static(sim: Sim, r: int) -> None:
    """Choose the next batch."""
    replica = sim.replicas[r]
    pool = sim.pools[replica.pool]
    if replica.running == 0:
        replica.quota = min(replica.waiting, pool.max_num_seqs)
    if replica.quota > 0 or replica.partial >= 0:
        before = replica.running
        choose_prompts(sim, r, replica.quota)
        replica.quota -= replica.running - before
        if replica.chunks >= 0:
            commit(sim, r, NO, YES)
            return
        replica.quota = 0
    preempted = make_room(sim, r, NO)
    settle(sim, r, replica.clock + pool.step_tokens)
    commit(sim, r, YES, preempted)
