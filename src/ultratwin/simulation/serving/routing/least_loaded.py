"""To the replica with the fewest requests, waiting and running; the first of equals."""

from __future__ import annotations

from ultratwin.simulation.serving.compiled import compiled
from ultratwin.simulation.serving.records import Sim


@compiled
def least_loaded(sim: Sim, pool: int) -> int:
    """The replica with the fewest requests."""
    p = sim.pools[pool]
    best = p.first
    for r in range(p.first, p.first + p.count):
        if sim.loads[r] < sim.loads[best]:
            best = r
    return best  # type: ignore[no-any-return]
