"""The policy of a replica's pool chooses its next batch."""

from __future__ import annotations

from ultratwin.simulation.serving.compiled import inlined
from ultratwin.simulation.serving.policies.mixed import begin_mixed
from ultratwin.simulation.serving.policies.prefill_first import begin_prefill_first
from ultratwin.simulation.serving.policies.static import begin_static
from ultratwin.simulation.serving.records import MIXED, PREFILL_FIRST, Sim


@inlined
def begin(sim: Sim, r: int) -> None:
    """Choose and commit what a replica runs next."""
    policy = sim.pools[sim.replicas[r].pool].policy
    if policy == MIXED:
        begin_mixed(sim, r)
    elif policy == PREFILL_FIRST:
        begin_prefill_first(sim, r)
    else:
        begin_static(sim, r)
