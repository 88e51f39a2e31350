"""Several collectives at once: the groups of a plan's parallel axes, which share links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from ultratwin.errors import ScenarioError, unknown_name
from ultratwin.simulation.network.classes import merged
from ultratwin.simulation.network.engine import Engine, Load, Track
from ultratwin.simulation.network.flows import Flows, Phase
from ultratwin.simulation.network.machine import INSIDE, Machine
from ultratwin.simulation.network.run import OPERATIONS, Simulator, check_size
from ultratwin.simulation.network.schedules import SCHEDULES
from ultratwin.simulation.network.schedules.schedule import PASSES, fabric_exchange, fabric_ring

SPANS: Final = ("all", "domain", "lane")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One collective of every group of an axis.

    `span`: the groups are all chips together, the chips of each domain, or each lane (the chips of one place of all
    domains).
    """

    operation: str
    size_bytes: float
    algorithm: str
    span: str = "all"


def together_s(simulator: Simulator, jobs: Sequence[Job]) -> list[float]:
    """End of each of several collectives that begin at once and share the links.

    Latencies add up step by step, at the constants of the library's protocol for long messages; overlap is left out.
    Raises: ScenarioError for a job that can't run
    """
    if not jobs:
        return []
    machine = simulator.machine
    phases = [_phases(machine, job) for job in jobs]
    flows: list[Flows] = []
    sizes: list[float] = []
    steps_s: list[float] = []
    tracks: list[Track] = []
    base = 0
    for number, (job, of_job) in enumerate(zip(jobs, phases, strict=True)):
        for at, phase in enumerate(of_job):
            first = len(flows)
            flows += [replace(step.flows, group=step.flows.group + base) for step in phase.steps]
            sizes += [job.size_bytes] * len(phase.steps)
            steps_s += [_step_s(simulator, phase)] * len(phase.steps)
            numbers = tuple(range(first, len(flows)))
            repeats = tuple(step.repeats for step in phase.steps)
            tracks += [
                Track(group=base + group, steps=numbers, repeats=repeats, job=number, phase=at)
                for group in range(phase.num_groups)
            ]
            base += phase.num_groups
    classes = merged(flows, machine.links, base, merge=simulator.merge)
    up, out = _fracs(simulator)
    load = Load(
        size_bytes=classes.share * np.array(sizes)[classes.step],
        latency_s=classes.steps * np.array(steps_s)[classes.step] + classes.hop_s,
        capacity=classes.capacity * np.where(classes.level == INSIDE, up, out),
    )
    chosen_groups = set(
        np.unique(classes.group_of, return_index=True)[1].tolist()
    )  # one group of each class is simulated
    chosen = [replace(each, group=int(classes.group_of[each.group])) for each in tracks if each.group in chosen_groups]
    ends = Engine(classes=classes, load=load).run(chosen)
    return [max(end for end, track in zip(ends, chosen, strict=True) if track.job == at) for at in range(len(jobs))]


def _fracs(simulator: Simulator) -> tuple[float, float]:
    profile = simulator.profile
    if profile is None:
        return 1.0, 1.0
    return profile.scale_up.pipes["ring"].bulk_frac, profile.scale_out.pipes["ring"].bulk_frac


def _step_s(simulator: Simulator, phase: Phase) -> float:
    profile = simulator.profile
    if profile is None:
        return 0.0
    pipes = profile.scale_out.pipes if phase.out_pipe else profile.scale_up.pipes
    return (pipes.get(phase.out_pipe or phase.up_pipe) or pipes["ring"]).bulk_step_s


def _phases(machine: Machine, job: Job) -> tuple[Phase, ...]:
    """The phases of a job as its groups see the machine."""
    check_size(job.size_bytes)
    if job.operation not in OPERATIONS:
        raise unknown_name("collective", job.operation, OPERATIONS, error=ScenarioError)
    if job.span not in SPANS:
        raise unknown_name("span", job.span, SPANS, error=ScenarioError)
    if job.span == "lane":
        ways = {"ring": fabric_ring, "recursive_halving_doubling": fabric_exchange}
        if job.algorithm not in ways or job.operation not in PASSES or machine.topology.fabric is None:
            raise ScenarioError(
                f"{job.operation} by {job.algorithm} on lanes", allowed=f"{', '.join(PASSES)} by {', '.join(ways)}"
            )
        return (ways[job.algorithm](machine, 1.0, passes=PASSES[job.operation]),)
    view = machine
    if job.span == "domain":
        view = replace(machine, topology=replace(machine.topology, num_domains=1, fabric=None))
    able = {each.name: each for each in SCHEDULES if job.operation in each.operations and not each.why_not(view)}
    if job.algorithm not in able:
        raise unknown_name(f"algorithm for {job.operation} here", job.algorithm, able, error=ScenarioError)
    return able[job.algorithm].phases(job.operation, view)
