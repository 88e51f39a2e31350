"""Autoscaling in the event loop; the rule is stated in `autoscaling`."""

from __future__ import annotations

import math

from ultratwin.simulation.serving.compiled import compiled, inlined
from ultratwin.simulation.serving.records import CLOSED, SCALE, Sim
from ultratwin.simulation.serving.timers import set_timer


@inlined
def open_replica(sim: Sim, r: int) -> None:
    """A replica is ready and takes requests."""
    replica, total = sim.replicas[r], sim.total[0]
    if replica.up and not replica.accepting:
        replica.accepting = 1
        total.accepting += 1
        sim.loads[r] -= CLOSED


@compiled
def _start(sim: Sim, moment_s: float) -> None:
    """Start one replica: one that was being ended, else a warm spare, else a cold one."""
    total = sim.total[0]
    best = -1
    for r in range(sim.pools[0].first, sim.pools[0].first + sim.pools[0].count):
        replica = sim.replicas[r]
        if replica.accepting == 0 and replica.up == 1 and replica.spare == 0 and replica.ready_s <= moment_s:
            best = r
            break
        if replica.spare and (best < 0 or not sim.replicas[best].spare):
            best = r
        if replica.up == 0 and best < 0:
            best = r
    if best < 0:
        return
    replica = sim.replicas[best]
    delay = 0.0
    if replica.spare:
        delay = total.warm_start_s
    elif replica.up == 0:
        delay = total.cold_start_s
        replica.up, replica.up_s = 1, moment_s
    replica.spare = 0
    replica.ready_s = moment_s + delay
    total.started += 1
    set_timer(sim, moment_s + delay, -2 - best)


@compiled
def end_if_empty(sim: Sim, r: int, moment_s: float) -> None:
    """A replica that takes no more requests and has none left is paid for no longer."""
    replica = sim.replicas[r]
    ended = replica.up and not replica.accepting and not replica.spare and replica.ready_s < moment_s
    if ended and replica.running == 0 and replica.waiting == 0:
        replica.up = 0
        replica.paid_s += moment_s - replica.up_s


@compiled
def _end(sim: Sim, moment_s: float) -> None:
    """End the accepting replica with the fewest requests; the last of equals."""
    total = sim.total[0]
    best = -1
    for r in range(sim.pools[0].first, sim.pools[0].first + sim.pools[0].count):
        if sim.replicas[r].accepting and (best < 0 or sim.loads[r] <= sim.loads[best]):
            best = r
    if best < 0 or total.accepting <= 1:
        return
    sim.replicas[best].accepting = 0
    sim.loads[best] += CLOSED
    total.accepting -= 1
    total.started -= 1
    end_if_empty(sim, best, moment_s)


@compiled
def look(sim: Sim, moment_s: float) -> None:
    """The rule: compare the replicas wanted with those started."""
    total = sim.total[0]
    wanted = math.ceil((total.waiting + total.running) / total.scale_load)
    wanted = min(max(wanted, total.least_replicas), sim.pools[0].count)
    for _ in range(wanted - total.started):
        _start(sim, moment_s)
    if wanted >= total.started:
        total.wanted_since_s, total.most_wanted = moment_s, total.least_replicas
    else:
        total.most_wanted = max(total.most_wanted, wanted)
        if moment_s - total.wanted_since_s >= total.stabilization_s:
            for _ in range(total.started - total.most_wanted):
                _end(sim, moment_s)
            total.wanted_since_s, total.most_wanted = moment_s, total.least_replicas
    if total.ended < len(sim.requests):
        set_timer(sim, moment_s + total.scale_every_s, SCALE)


@inlined
def ring(sim: Sim, timer: int, moment_s: float) -> None:
    """A timer of the fleet rings."""
    if timer == SCALE:
        look(sim, moment_s)
    else:
        open_replica(sim, -2 - timer)
