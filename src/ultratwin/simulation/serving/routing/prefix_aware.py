"""To the replica that has the longest part of the prompt in its prefix cache, unless the fleet is out of balance.

As SGLang's router: balance comes first. The replica with the fewest requests is taken when the loads lie further apart
than 32 requests and a factor of 1.5, or when no replica has half of the prompt's units.
"""

from __future__ import annotations

from ultratwin.simulation.serving.compiled import compiled
from ultratwin.simulation.serving.prefix_cache import find_prefix
from ultratwin.simulation.serving.records import Sim
from ultratwin.simulation.serving.routing.least_loaded import least_loaded

_LOADS_APART = 32
_LOADS_FACTOR = 1.5
_MATCHED_FRAC = 0.5


@compiled
def prefix_aware(sim: Sim, i: int, pool: int) -> int:
    """The replica with the longest match; of equal ones that with the fewest requests."""
    p = sim.pools[pool]
    q = sim.requests[i]
    light = least_loaded(sim, pool)
    heaviest = 0
    for r in range(p.first, p.first + p.count):
        heaviest = max(heaviest, sim.loads[r]) if sim.replicas[r].accepting else heaviest
    if heaviest - sim.loads[light] > _LOADS_APART and heaviest > _LOADS_FACTOR * sim.loads[light]:
        return light
    most, best = 0, light
    for r in range(p.first, p.first + p.count):
        if sim.replicas[r].accepting:
            found, _, _ = find_prefix(sim, r, i, (q.prompt - 1) // p.block_size)
            if found > most or (found == most and found > 0 and sim.loads[r] < sim.loads[best]):
                most, best = found, r
    return best if most * p.block_size >= _MATCHED_FRAC * q.prompt else light
