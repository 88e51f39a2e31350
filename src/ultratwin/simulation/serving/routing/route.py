"""The rule of a fleet chooses a replica of a pool."""

from __future__ import annotations

from ultratwin.simulation.serving.compiled import compiled
from ultratwin.simulation.serving.records import Sim
from ultratwin.simulation.serving.routing.at_random import at_random
from ultratwin.simulation.serving.routing.least_loaded import least_loaded
from ultratwin.simulation.serving.routing.prefix_aware import prefix_aware
from ultratwin.simulation.serving.routing.round_robin import round_robin


@compiled
def route(sim: Sim, i: int, pool: int) -> int:
    """The replica of a pool that takes a request."""
    if sim.pools[pool].count == 1:
        return sim.pools[pool].first  # type: ignore[no-any-return]
    rule = sim.total[0].rule
    if rule == 0:
        return round_robin(sim, pool)
    if rule == 1:
        return least_loaded(sim, pool)
    if rule == 2:
        return prefix_aware(sim, i, pool)
    return at_random(sim, pool)
