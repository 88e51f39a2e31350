"""One after the other."""

from __future__ import annotations

from ultratwin.simulation.serving.compiled import compiled
from ultratwin.simulation.serving.records import Sim


@compiled
def round_robin(sim: Sim, pool: int) -> int:
    """The replica after the one that had the last request, those left out that accept none."""
    p = sim.pools[pool]
    while True:
        r = p.first + p.turn
        p.turn = p.turn + 1 if p.turn + 1 < p.count else 0
        if sim.replicas[r].accepting:
            return r  # type: ignore[no-any-return]
