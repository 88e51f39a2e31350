"""To any replica, by lot."""

from __future__ import annotations

from ultratwin.simulation.serving.compiled import compiled
from ultratwin.simulation.serving.records import Sim


@compiled
def at_random(sim: Sim, pool: int) -> int:
    """A replica by lot (linear congruential generator of MMIX, Knuth), drawn again while it accepts none."""
    p, total = sim.pools[pool], sim.total[0]
    while True:
        total.random = total.random * 6364136223846793005 + 1442695040888963407
        r = p.first + ((((total.random >> 33) & 0x7FFFFFFF) * p.count) >> 31)
        if sim.replicas[r].accepting:
            return r  # type: ignore[no-any-return]
