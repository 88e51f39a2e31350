"""Event simulation of phases: flows start, share links fairly, end; groups go on to their next step."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import Array
from ultratwin.simulation.network.classes import Classes
from ultratwin.simulation.network.fairness import max_min_rates
from ultratwin.simulation.network.flows import Integers

MOST_EVENTS: Final = 2_000_000
_EQUAL: Final = 1.0 + 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """What one class of groups does: steps (by their number in the classes) and how often each is repeated.

    A job's tracks of one phase begin when all of the phase before have ended.
    """

    group: int
    steps: tuple[int, ...]
    repeats: tuple[int, ...]
    job: int = 0
    phase: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the classes carry in a run: bytes and latency by flow class, rate by link class."""

    size_bytes: Array
    latency_s: Array
    capacity: Array


@dataclass(slots=True)
class _State:
    """A track under way."""

    track: Track
    at: int = 0
    left: int = 0
    pending: int = 0
    arrived_s: float = 0.0

    def __post_init__(self) -> None:
        self.left = self.track.repeats[0]

    def advance(self) -> bool:
        """On to the next step; False at the end."""
        self.left -= 1
        if self.left == 0:
            self.at += 1
            if self.at == len(self.track.steps):
                return False
            self.left = self.track.repeats[self.at]
        return True


@dataclass(slots=True)
class Engine:
    """The simulation of tracks that share links. `run` gives the end of each; `events` counts what happened.

    Equation: between two events every flow sends at its max-min fair rate; a flow has arrived its latency after its
    last byte left; a group's next step begins when all flows of its step have arrived.
    """

    classes: Classes
    load: Load
    events: int = 0
    _rates: dict[bytes, Array] = field(default_factory=dict)
    _flows: dict[tuple[int, int], Integers] = field(default_factory=dict)

    def run(self, tracks: list[Track], start_s: float = 0.0) -> list[float]:
        """End of each track [s], all of which begin at a time."""
        run = _Run(engine=self, states=[_State(track=each) for each in tracks], now=start_s)
        return run.ends()

    def flows_of(self, group: int, step: int) -> Integers:
        """Flow classes of a group's step."""
        key = (group, step)
        if key not in self._flows:
            self._flows[key] = np.flatnonzero((self.classes.group == group) & (self.classes.step == step))
        return self._flows[key]

    def rates(self, active: Array) -> Array:
        """Rates while these flow classes send; the same sets come again and again."""
        key = active.tobytes()
        if key not in self._rates:
            each = self.classes
            self._rates[key] = max_min_rates(self.load.capacity, each.flow, each.link, each.weight, active)
        return self._rates[key]


@dataclass(slots=True)
class _Run:
    """One run of an engine."""

    engine: Engine
    states: list[_State]
    now: float
    remaining: Array = field(init=False)
    active: Array = field(init=False)
    owner: dict[int, int] = field(default_factory=dict)
    queue: list[tuple[float, int]] = field(default_factory=list)
    end_s: list[float] = field(default_factory=list)
    sync: tuple[float, tuple[tuple[int, int], ...]] | None = None
    unfinished: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        number = len(self.engine.load.size_bytes)
        self.remaining, self.active = np.zeros(number), np.zeros(number, dtype=np.int8)
        self.end_s = [self.now] * len(self.states)
        self.queue = [(self.now, index) for index, state in enumerate(self.states) if state.track.phase == 0]
        for state in self.states:
            key = (state.track.job, state.track.phase)
            self.unfinished[key] = self.unfinished.get(key, 0) + 1

    def ends(self) -> list[float]:
        """Runs to the end."""
        sending = np.flatnonzero(self.active)
        while self.queue or len(sending):
            if not len(sending):
                self._skip_periods()
                self.now = self.queue[0][0]
            self._begin_due()
            sending = np.flatnonzero(self.active)
            if len(sending):
                self._advance(sending)
                sending = np.flatnonzero(self.active)
        return self.end_s

    def _begin_due(self) -> None:
        while self.queue and self.queue[0][0] <= self.now:
            _, index = heapq.heappop(self.queue)
            state = self.states[index]
            flows = self.engine.flows_of(state.track.group, state.track.steps[state.at])
            self.remaining[flows] = self.engine.load.size_bytes[flows]
            self.active[flows] = 1
            self.owner.update(dict.fromkeys(flows.tolist(), index))
            state.pending, state.arrived_s = len(flows), self.now
            if not len(flows):
                self._arrived(index)

    def _advance(self, sending: Integers) -> None:
        self.engine.events += 1
        if self.engine.events > MOST_EVENTS:
            raise ScenarioError(
                f"the simulation takes more than {MOST_EVENTS:,} events",
                hint="groups out of step can't be skipped over; ask for fewer chips or a schedule of fewer steps",
            )
        rate = self.engine.rates(self.active)[sending]
        need = self.remaining[sending] / rate
        least = float(need.min())
        due = self.queue[0][0] - self.now if self.queue else np.inf
        if due < least:
            self.remaining[sending] -= np.where(np.isinf(rate), 0.0, rate) * due
            self.now += due
            return
        self.now += least
        done = need <= least * _EQUAL
        going = ~done
        self.remaining[sending[going]] -= rate[going] * least
        ended = sending[done]
        self.active[ended] = 0
        for flow in ended.tolist():
            state = self.states[index := self.owner[flow]]
            state.arrived_s = max(state.arrived_s, self.now + float(self.engine.load.latency_s[flow]))
            state.pending -= 1
            if state.pending == 0:
                self._arrived(index)

    def _arrived(self, index: int) -> None:
        state = self.states[index]
        if state.advance():
            heapq.heappush(self.queue, (state.arrived_s, index))
        else:
            self.end_s[index] = state.arrived_s
            self._ended(state.track)

    def _ended(self, track: Track) -> None:
        """The next phase of the job begins if this was the last track of its phase."""
        self.unfinished[track.job, track.phase] -= 1
        if self.unfinished[track.job, track.phase]:
            return
        of_job = [(each.track.phase, index) for index, each in enumerate(self.states) if each.track.job == track.job]
        when = max(self.end_s[index] for phase, index in of_job if phase == track.phase)
        for phase, index in of_job:
            if phase == track.phase + 1:
                heapq.heappush(self.queue, (when, index))

    def _skip_periods(self) -> None:
        """Where all tracks begin a step together, as they did one step before, whole periods are skipped."""
        first = self.queue[0][0]
        if any(when > first for when, _ in self.queue):
            self.sync = None
            return
        marks = tuple((state.at, state.left) for state in self.states)
        alive = [index for _, index in self.queue]
        if self.sync is not None:
            before, old = self.sync
            same = all(old[index][0] == marks[index][0] and old[index][1] == marks[index][1] + 1 for index in alive)
            gone = [index for index, mark in enumerate(old) if index not in alive and mark != marks[index]]
            periods = min(self.states[index].left for index in alive) - 1
            if same and not gone and periods > 0:
                shift = periods * (first - before)
                for index in alive:
                    self.states[index].left -= periods
                self.queue = [(when + shift, index) for when, index in self.queue]
                self.sync = None
                return
        self.sync = (first, marks)
