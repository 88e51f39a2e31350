"""The event loop: what happens next, an arrival or the end of a replica's iterations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ultratwin.simulation.serving.arrival import deliver, next_arrival_s, next_by_clock
from ultratwin.simulation.serving.compiled import compiled_once, inlined, sources_key
from ultratwin.simulation.serving.completion import end_iterations
from ultratwin.simulation.serving.policies.begin import begin
from ultratwin.simulation.serving.records import EPSILON_S, NEVER, SERIES_COLUMNS, SERIES_POINTS, Sim
from ultratwin.simulation.serving.scaling import end_if_empty, ring
from ultratwin.simulation.serving.state import State
from ultratwin.simulation.serving.timers import pop_timer, update_tree


@inlined
def tick(sim: Sim, moment_s: float) -> None:
    """Time goes on to a moment; the time series is sampled, ever more coarsely as it grows."""
    total = sim.total[0]
    if total.waiting > 0 and moment_s > total.time_s:
        total.backlog_s += moment_s - total.time_s
    total.time_s = max(total.time_s, moment_s)
    if moment_s < total.next_sample_s:
        return
    if total.samples == SERIES_POINTS:
        for k in range(SERIES_POINTS // 2):
            for column in range(SERIES_COLUMNS):
                sim.series[k, column] = sim.series[2 * k + 1, column]
        total.samples = SERIES_POINTS // 2
        total.sample_every_s *= 2.0
    series, row = sim.series, total.samples
    series[row, 0], series[row, 1], series[row, 2] = moment_s, total.waiting, total.running
    series[row, 3], series[row, 4], series[row, 5] = total.used, total.generated, total.accepting
    total.samples += 1
    total.next_sample_s = moment_s + total.sample_every_s


@inlined
def arriving_s(sim: Sim) -> float:
    """When the next request arrives, by the clock or after something else."""
    static_s = next_arrival_s(sim)
    return min(static_s, sim.timers[0]) if sim.total[0].timers > 0 else static_s


@inlined
def run_events(sim: Sim) -> None:
    """All events until the last request has ended. Who arrives at the end of an iteration is there for the next one."""
    total = sim.total[0]
    while True:
        r = sim.tree[1]
        end_s = sim.replicas[r].end_s
        arrival_s = arriving_s(sim)
        if arrival_s < NEVER and arrival_s <= end_s + EPSILON_S:
            moment_s = max(arrival_s, total.time_s)
            tick(sim, moment_s)
            after_another = total.timers > 0 and sim.timers[0] <= arrival_s
            who = pop_timer(sim) if after_another else next_by_clock(sim, moment_s)
            if who >= 0:
                deliver(sim, who, moment_s)
            else:
                ring(sim, who, moment_s)
        elif end_s < NEVER:
            tick(sim, end_s)
            end_iterations(sim, r)
            if arriving_s(sim) > end_s + EPSILON_S:
                begin(sim, r)
                update_tree(sim, r)
                if sim.replicas[r].accepting == 0:
                    end_if_empty(sim, r, end_s)
        else:
            return


def runner() -> Callable[[Sim], None]:
    """The event loop as machine code, kept on disk for as long as its sources stay what they are."""
    key = sources_key()

    @compiled_once
    def run(sim: Sim) -> None:
        if key >= 0:
            state: Any = State(*sim)  # type: ignore[no-untyped-call]
            run_events(state)

    return run
