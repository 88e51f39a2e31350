"""When things happen: requests that arrive after something else, and the replica whose iterations end first."""

from __future__ import annotations

from ultratwin.simulation.serving.compiled import compiled
from ultratwin.simulation.serving.records import ONE, ZERO, Sim


@compiled
def _before(sim: Sim, one: int, other: int) -> bool:
    """Earlier; at the same moment, the request with the smaller number."""
    if sim.timers[one] == sim.timers[other]:
        return sim.timer_ids[one] < sim.timer_ids[other]  # type: ignore[no-any-return]
    return sim.timers[one] < sim.timers[other]  # type: ignore[no-any-return]


@compiled
def _swap(sim: Sim, one: int, other: int) -> None:
    sim.timers[one], sim.timers[other] = sim.timers[other], sim.timers[one]
    sim.timer_ids[one], sim.timer_ids[other] = sim.timer_ids[other], sim.timer_ids[one]


@compiled
def set_timer(sim: Sim, moment_s: float, i: int) -> None:
    """A request arrives at a moment to come."""
    place = sim.total[0].timers
    sim.timers[place], sim.timer_ids[place] = moment_s, i
    sim.total[0].timers += 1
    while place > 0 and _before(sim, place, (place - 1) >> 1):
        _swap(sim, place, (place - 1) >> 1)
        place = (place - 1) >> 1


@compiled
def pop_timer(sim: Sim) -> int:
    """The request that arrives first."""
    found, size = sim.timer_ids[0], sim.total[0].timers - 1
    sim.total[0].timers = size
    sim.timers[0], sim.timer_ids[0] = sim.timers[size], sim.timer_ids[size]
    place, child = ZERO, ONE
    while child < size:
        if child + 1 < size and _before(sim, child + 1, child):
            child += 1
        if not _before(sim, child, place):
            break
        _swap(sim, child, place)
        place, child = child, 2 * child + 1
    return found  # type: ignore[no-any-return]


@compiled
def update_tree(sim: Sim, r: int) -> None:
    """The end of a replica's iterations has changed: play its matches again, up to the root."""
    tree, replicas = sim.tree, sim.replicas
    place = (sim.total[0].leaves + r) >> 1
    while place > 0:
        left, right = tree[2 * place], tree[2 * place + 1]
        if right < 0 or (left >= 0 and replicas[left].end_s <= replicas[right].end_s):
            tree[place] = left
        else:
            tree[place] = right
        place >>= 1
