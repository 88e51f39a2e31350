"""Decodes first, then prompts as far as the budget of tokens goes, in one iteration: vLLM V1, TensorRT-LLM.

Running requests are served in their order: each decode its tokens, the prompt that was cut its next chunk. When blocks
run out, the last running request is preempted, and nobody is admitted in that iteration. Else waiting requests follow
while budget, sequences and blocks allow; the last one may be cut.
Source: the behaviour of vllm/v1/core/sched/scheduler.py (github:vllm-project/vllm@00024d3145), described in own words
"""

from __future__ import annotations

from ultratwin.simulation.serving.admission import admit, continue_chunk
from ultratwin.simulation.serving.commit import commit
from ultratwin.simulation.serving.compiled import inlined
from ultratwin.simulation.serving.holding import settle
from ultratwin.simulation.serving.preemption import make_room
from ultratwin.simulation.serving.records import YES, Sim


@inlined
def begin_mixed(sim: Sim, r: int) -> None:
    """Choose the next batch."""
    replica = sim.replicas[r]
    pool = sim.pools[replica.pool]
    preempted = make_room(sim, r, YES)
    settle(sim, r, replica.clock + pool.step_tokens)
    budget = pool.budget - replica.decodes * pool.step_tokens
    budget -= continue_chunk(sim, r, budget)
    if not preempted:
        admit(sim, r, budget, pool.max_num_seqs)
    commit(sim, r, YES, preempted)
