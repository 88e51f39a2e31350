"""Waiting prompts have iterations of their own, and decoding goes on when none can be admitted: SGLang, vLLM V0.

Source: the behaviour of python/sglang/srt/managers/schedule_policy.py (github:sgl-project/sglang@00550cd11b), in own
words
"""

from __future__ import annotations

from ultratwin.simulation.serving.admission import admit, continue_chunk
from ultratwin.simulation.serving.blocks import used_blocks
from ultratwin.simulation.serving.commit import commit
from ultratwin.simulation.serving.compiled import compiled, inlined
from ultratwin.simulation.serving.holding import settle
from ultratwin.simulation.serving.preemption import chunk_blocks, make_room
from ultratwin.simulation.serving.records import NO, YES, Sim


@compiled
def choose_prompts(sim: Sim, r: int, most: int) -> None:
    """Put the prompt that was cut, and at most so many waiting ones, on the next iteration's list."""
    replica = sim.replicas[r]
    pool = sim.pools[replica.pool]
    used = used_blocks(sim, r, replica.clock)
    if used > pool.num_blocks:
        return
    settle(sim, r, replica.clock + pool.step_tokens)
    budget = pool.budget
    if replica.partial >= 0 and used + chunk_blocks(sim, r, budget) <= pool.num_blocks:
        budget -= continue_chunk(sim, r, budget)
    admit(sim, r, budget, most)


@inlined
def begin_prefill_first(sim: Sim, r: int) -> None:
    """Choose the next batch."""
    replica = sim.replicas[r]
    choose_prompts(sim, r, sim.pools[replica.pool].max_num_seqs)
    if replica.chunks >= 0:
        commit(sim, r, NO, YES)
        return
    preempted = make_room(sim, r, NO)
    settle(sim, r, replica.clock + sim.pools[replica.pool].step_tokens)
    commit(sim, r, YES, preempted)
