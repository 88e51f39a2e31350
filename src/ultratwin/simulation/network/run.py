"""The time of a collective by event simulation, alone on the machine or beside others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from ultratwin.errors import ScenarioError, unknown_name
from ultratwin.hardware.chip import Array
from ultratwin.simulation.network.classes import Classes, Links, merged
from ultratwin.simulation.network.engine import Engine, Load, Track
from ultratwin.simulation.network.flows import Flows, Phase
from ultratwin.simulation.network.machine import INSIDE, Machine, make_machine
from ultratwin.simulation.network.schedules import SCHEDULES, Schedule
from ultratwin.timing.collectives import CollectiveProfile, Pipe

OPERATIONS: Final = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTime:
    """What one phase took. `bottleneck`: links that are full while its longest step runs."""

    name: str
    seconds: float
    bottleneck: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveRun:
    """A simulated collective. `num_flows`: flows of all its steps; `num_classes`: kinds of them that were simulated."""

    operation: str
    algorithm: str
    size_bytes: float
    time_s: float
    phases: tuple[PhaseTime, ...]
    num_flows: float
    num_classes: int
    num_events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Steps that are simulated together: their classes and what each class of groups does."""

    classes: Classes
    tracks: list[Track]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """One way of a library to send: start, seconds a step, shares of the line rate inside domains and between."""

    start_s: float = 0.0
    step_s: float = 0.0
    up_frac: float = 1.0
    out_frac: float = 1.0


PLAIN: Final = Protocol()
"""Links as they are: with link latencies it is the alpha-beta model of each link."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulator:
    """Event simulation of collectives on a machine; classes are found once for each operation and algorithm.

    `profile`: the library's constants; None counts the links only. `merge`: see `merged`.
    """

    machine: Machine
    profile: CollectiveProfile | None = None
    merge: bool = True
    _segments: dict[tuple[str, str], list[tuple[Phase, list[Segment]]]] = field(default_factory=dict)

    def algorithms(self, operation: str) -> dict[str, str]:
        """Schedules that know an operation, each with why it can't run on this machine (empty if it can)."""
        if operation not in OPERATIONS:
            raise unknown_name("collective", operation, OPERATIONS, error=ScenarioError)
        return {each.name: each.why_not(self.machine) for each in SCHEDULES if operation in each.operations}

    def time(self, operation: str, size_bytes: float, algorithm: str) -> CollectiveRun:
        """One collective of all chips, alone on the machine.

        Equation: of each phase launch + the least over protocols of (start + k step) (+) wire time, as in `Pipe`, with
        the wire time simulated flow by flow; phases follow one another
        Args:
            operation: one of OPERATIONS
            size_bytes: S by the nccl-tests convention [byte]
            algorithm: name of a schedule
        Raises: ScenarioError for a schedule that is unknown or can't run here
        """
        check_size(size_bytes)
        plan = self.plan(operation, algorithm)
        found, events = [], 0
        for phase, segments in plan:
            seconds, count = self._phase(phase, segments, size_bytes)
            events += count
            found.append(PhaseTime(name=phase.name, seconds=seconds, bottleneck=bottleneck(self.machine, segments)))
        return CollectiveRun(
            operation=operation,
            algorithm=algorithm,
            size_bytes=size_bytes,
            time_s=sum(each.seconds for each in found),
            phases=tuple(found),
            num_flows=sum(step.flows.num_flows * step.repeats for phase, _ in plan for step in phase.steps),
            num_classes=sum(len(each.classes.share) for _, segments in plan for each in segments),
            num_events=events,
        )

    def plan(self, operation: str, algorithm: str) -> list[tuple[Phase, list[Segment]]]:
        """The phases of a collective with their classes."""
        key = (operation, algorithm)
        if key not in self._segments:
            schedule = self._schedule(operation, algorithm)
            machine = self.driven(schedule)
            phases = schedule.phases(operation, machine)
            self._segments[key] = [(phase, self.merged_phase(phase, machine.links)) for phase in phases]
        return self._segments[key]

    def driven(self, schedule: Schedule) -> Machine:
        """The machine as a schedule uses it: a library's channels drive so many adapters of a domain, and no more."""
        machine, rails = self.machine, self.machine.domain.size
        if self.profile is None or not schedule.uses_channels or machine.topology.fabric is None:
            return machine
        idle = rails - min(self.profile.scale_up.max_nics_per_domain, rails)
        if idle <= machine.faults.lost_rails:
            return machine
        faults = replace(machine.faults, lost_rails=int(idle))
        return make_machine(
            machine.topology, faults, folded=machine.folded, routing=machine.routing, seed=machine.seed,
            link_latency=machine.link_latency,
        )  # fmt: skip

    def _schedule(self, operation: str, algorithm: str) -> Schedule:
        able = self.algorithms(operation)
        if algorithm not in able:
            raise unknown_name(f"algorithm for {operation}", algorithm, able, error=ScenarioError)
        if able[algorithm]:
            can = ", ".join(name for name, why in able.items() if not why)
            hint = "" if can else "the closed form, fidelity analytic, has no such limit"
            raise ScenarioError(f"{algorithm} can't run here: {able[algorithm]}", allowed=can, hint=hint)
        return next(each for each in SCHEDULES if each.name == algorithm)

    def merged_phase(self, phase: Phase, links: Links) -> list[Segment]:
        """The steps of a phase as classes; steps of one group are simulated one by one."""
        flows: list[Flows] = []
        numbers = []
        for step in phase.steps:
            same = next((at for at, other in enumerate(flows) if other is step.flows), None)
            if same is None:
                flows.append(step.flows)
            numbers.append(len(flows) - 1 if same is None else same)
        repeats = tuple(step.repeats for step in phase.steps)
        if phase.num_groups > 1:  # groups may get out of step, so flows of different steps may meet
            classes = merged(flows, links, phase.num_groups, merge=self.merge)
            tracks = [Track(group=group, steps=tuple(numbers), repeats=repeats) for group in range(classes.num_groups)]
            return [Segment(classes=classes, tracks=tracks)]
        alone = [merged([each], links, 1, merge=self.merge) for each in flows]
        return [
            Segment(classes=alone[number], tracks=[Track(group=0, steps=(0,), repeats=(count,))])
            for number, count in zip(numbers, repeats, strict=True)
        ]

    def _phase(self, phase: Phase, segments: list[Segment], size_bytes: float) -> tuple[float, int]:
        """Seconds and events of one phase."""
        if self.profile is None:
            return run_segments(segments, size_bytes, PLAIN)
        up = _pipe(self.profile.scale_up.pipes, phase.up_pipe)
        out = _pipe(self.profile.scale_out.pipes, phase.out_pipe) if phase.out_pipe else None
        outer = out or up
        seconds, events = np.inf, 0
        if phase.own_repeats:
            size_bytes *= 1.0 + outer.own_frac / phase.own_repeats
        bulk_only = phase.chunk_share * size_bytes >= outer.bulk_chunk_bytes
        for protocol, overlap in protocols(up, out):
            if bulk_only and overlap is None:
                continue
            whole, count = run_segments(segments, size_bytes, protocol)
            whole, events = whole + protocol.start_s, events + count
            if overlap is not None and overlap < 1.0:
                wire, count = run_segments(segments, size_bytes, _without_steps(protocol))
                whole = float(np.sqrt(whole**2 - 2.0 * (1.0 - overlap) * (whole - wire) * wire))
                events += count
            seconds = min(seconds, whole)
        return outer.launch_s + seconds + phase.after_steps * up.step_s, events


def check_size(size_bytes: float) -> None:
    """Whether a message can be sent.

    Raises: ScenarioError if not
    """
    if not 0 < size_bytes < 1e18:
        raise ScenarioError(f"a message of {size_bytes:g} bytes", allowed="above 0, below 1 EB")


def _pipe(pipes: Mapping[str, Pipe], name: str) -> Pipe:
    return pipes.get(name) or pipes["ring"]


def protocols(up: Pipe, out: Pipe | None) -> list[tuple[Protocol, float | None]]:
    """The ways of a library to send, each with its overlap (None: latencies add up)."""
    outer = out or up

    def made(start_s: float, step_s: float, frac: float) -> Protocol:
        return Protocol(
            start_s=start_s, step_s=step_s, up_frac=frac if out is None else up.bulk_frac, out_frac=frac
        )  # fmt: skip

    found: list[tuple[Protocol, float | None]] = [(made(0.0, outer.step_s, outer.quick_frac), None)]
    if outer.mid_frac:
        found.append((made(outer.mid_start_s, outer.mid_step_s, outer.mid_frac), None))
    return [*found, (made(outer.bulk_start_s, outer.bulk_step_s, outer.bulk_frac), outer.overlap)]


def _without_steps(protocol: Protocol) -> Protocol:
    return Protocol(up_frac=protocol.up_frac, out_frac=protocol.out_frac)


def make_load(classes: Classes, size_bytes: Array | float, protocol: Protocol) -> Load:
    """What classes carry for a message of a size."""
    frac = np.where(classes.level == INSIDE, protocol.up_frac, protocol.out_frac)
    return Load(
        size_bytes=classes.share * size_bytes,
        latency_s=classes.steps * protocol.step_s + classes.hop_s,
        capacity=classes.capacity * frac,
    )


def run_segments(segments: list[Segment], size_bytes: float, protocol: Protocol) -> tuple[float, int]:
    """Seconds and events of segments that follow one another."""
    seconds, events = 0.0, 0
    known: dict[int, tuple[float, int]] = {}
    for each in segments:
        key = id(each.classes) if len(each.tracks) == 1 and each.tracks[0].repeats == (1,) else -1
        if key not in known or key < 0:
            engine = Engine(classes=each.classes, load=make_load(each.classes, size_bytes, protocol))
            known[key] = max(engine.run(each.tracks)), engine.events
        seconds, events = seconds + known[key][0], events + known[key][1]
    return seconds, events


def bottleneck(machine: Machine, segments: list[Segment]) -> str:
    """The links that are full in the step that takes longest at line rate."""
    longest, name = -1.0, ""
    for each in segments:
        classes = each.classes
        for step in np.unique(classes.step):
            engine = Engine(classes=classes, load=make_load(classes, 1.0, PLAIN))
            active = (classes.step == step).astype(np.int8)
            rate = engine.rates(active)
            needed = np.where(active > 0, classes.share / np.where(rate > 0, rate, 1.0), 0.0)
            slowest = int(np.argmax(needed))
            if needed[slowest] > longest:
                longest = float(needed[slowest])
                name = _full_link(machine, classes, rate, slowest)
    return name


def _full_link(machine: Machine, classes: Classes, rate: Array, slowest: int) -> str:
    on = rate[classes.flow] * classes.weight
    use = np.bincount(classes.link, weights=np.where(np.isinf(on), 0.0, on), minlength=len(classes.capacity))
    crossed = classes.link[classes.flow == slowest]
    if not len(crossed):
        return ""
    share = use[crossed] / classes.capacity[crossed]
    full = crossed[share >= share.max() * (1.0 - 1e-9)]
    return machine.link_name(int(classes.link_of[full[np.argmin(classes.level[full])]]))
