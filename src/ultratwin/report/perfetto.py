"""A training step as a Chrome trace-event file, which opens in ui.perfetto.dev.

Each pipeline stage is a process (its ranks do the same), each kind of work a thread of it. Times are whole eighths of a
microsecond, which floats hold exactly: a slice that lies inside another one stays there whoever reads the file.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import ultratwin
from ultratwin.catalogue import loader
from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import Array
from ultratwin.hardware.system import per_rank
from ultratwin.mapping.memory import activation_bytes, step_memory
from ultratwin.mapping.plan import Plan
from ultratwin.mapping.recipe import recipe
from ultratwin.mapping.schedules.schedule import (
    BACKWARD,
    FORWARD,
    INPUT_GRADIENT,
    JOINED_FORWARD,
    KINDS,
    WEIGHT_GRADIENT,
)
from ultratwin.mapping.sharding import shard, weights
from ultratwin.planning.evaluate import Setting
from ultratwin.planning.training import TrainingAnswer
from ultratwin.report.trace_detail import CAUSES, LAYERS, LEFT_OUT, Detail, affordable_detail, left_out
from ultratwin.simulation.pipeline import StageTimeline
from ultratwin.simulation.step import COMPUTE, HAND_OVER, Piece, Pieces, SimulatedStep, simulated_step
from ultratwin.timing.communication import Groups
from ultratwin.workload.tables import operator_tables

BUDGET: Final = 200_000
"""Events that a trace may have, about."""
LANES: Final = {
    COMPUTE: "compute",
    "tensor": "tensor-parallel communication",
    "context": "context-parallel communication",
    "expert": "expert-parallel communication",
    "data": "data-parallel communication",
    "pipeline": "pipeline hand-over",
}
_TICKS_PER_S: Final = 8e6
_OVERVIEW: Final = 1
_STRIDE: Final = 100
_BOUNDS: Final = {
    "linear layers": "matrix engine",
    "attention": "matrix engine and softmax",
    "norms, activations, casts": "memory bandwidth",
    "recomputation": "as what is recomputed",
    "embedding": "memory bandwidth",
    "output head": "matrix engine",
    "optimizer": "memory bandwidth",
    "host launches": "host",
    "host, per step": "host",
    "stragglers": "the slowest rank",
}
_AXES: Final = {
    "tensor-parallel communication": "tensor",
    "context-parallel communication": "context",
    "expert-parallel communication": "expert",
    "weight sharding communication": "shard",
    HAND_OVER: "pipeline",
    "gradient synchronisation": "data",
    "gathering updated weights": "data",
}
_BEFORE_MEETING: Final = ("gradient synchronisation", "weight sharding communication")
Event = dict[str, Any]
Place = tuple[int, int, int]
"""Forward or backward (0 or 1), stage, chunk."""


def answer_trace(answer: TrainingAnswer, *, budget: int = BUDGET) -> dict[str, Any]:
    """The step of an answer's plan as a trace.

    Raises: ScenarioError if no plan can run
    """
    if answer.plan is None or answer.run is None:
        raise ScenarioError(f"no plan can run, so there is no step to draw: {answer.rejected}", where="--trace")
    setting = Setting(
        model=answer.model, pool=answer.system.pool, recipe=recipe(answer.precision), profile=answer.profile
    )
    return step_trace(setting, answer.plan, budget=budget)


def step_trace(setting: Setting, plan: Plan, *, budget: int = BUDGET) -> dict[str, Any]:
    """One step of a plan as Chrome trace events: slices, arrows between stages, counters, names.

    Args:
        setting: model, machine, number formats, framework
        plan: one plan
        budget: events that the trace may have, about; what does not fit is named in its metadata
    Returns: the trace as JSON objects
    Raises: ScenarioError for a schedule that can't have so many stages
    Source: the Trace Event Format, as Perfetto documents it (docs/getting-started/other-formats.md)
    """
    step = simulated_step(setting.model, setting.pool, plan, setting.recipe, setting.profile)
    detail = affordable_detail(step, budget)
    about = _about(setting, plan, step) | left_out(step, detail)
    stage_ranks = int(plan.num_ranks) // len(step.timeline.stages)
    held, per_layer = _memory(setting, plan, step)
    links = _links(step)
    pen = _Pen(
        step=step, detail=detail, bounds=_bounds(setting, plan), per_layer_bytes=per_layer, held_bytes=held,
        links=links, senders={receiver: sender for sender, receiver in links.items()}, drawn=_drawn(step, detail),
    )  # fmt: skip
    events = [*_overview(step, about), *pen.all_stages(stage_ranks)]
    return {"displayTimeUnit": "ms", "otherData": about, "traceEvents": events}


def write_trace(path: str | Path, trace: dict[str, Any]) -> None:
    """Writes a trace, one event a line.

    Raises: ScenarioError if the file can't be written
    """
    head = {key: value for key, value in trace.items() if key != "traceEvents"}
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(json.dumps(head, ensure_ascii=False, indent=1)[:-2] + ',\n "traceEvents": [\n')
            lines = (json.dumps(event, ensure_ascii=False, separators=(",", ":")) for event in trace["traceEvents"])
            file.write(",\n".join(lines) + "\n]}\n")
    except OSError as error:
        raise ScenarioError(
            f"can't write the trace to {path}: {error.strerror or error}", where="--trace",
            allowed="a file in a folder that exists and may be written", hint="try --trace /tmp/step.pftrace.json",
        ) from None  # fmt: skip


def _about(setting: Setting, plan: Plan, step: SimulatedStep) -> dict[str, Any]:
    """What the trace shows, for those who open the file."""
    closed_s = float(np.ravel(step.closed.total_s)[0])
    return {
        "ultratwin": ultratwin.__version__,
        "catalogue_hash": loader.catalogue_hash(),
        "model": setting.model.id,
        "chip": setting.pool.chip.id,
        "framework": setting.profile.id,
        "plan": plan.describe(),
        "schedule": step.schedule.name,
        "step_s": step.total_s,
        "closed_form_step_s": closed_s,
        "difference_s": step.difference_s,
        "difference_frac": step.difference_s / closed_s,
        "pipeline_s": step.timeline.step_s,
        "bubble_s": step.timeline.bubble_s,
        "later_stages_end_s": step.timeline.span_s - step.timeline.step_s,
        "note": "predicted by a model, not measured; of a layer's hidden communication the place is illustrative",
    }


def _bounds(setting: Setting, plan: Plan) -> dict[str, str]:
    """What bounds each cause: an engine, or the network that its group of ranks goes over."""
    ranks = per_rank(setting.pool)
    groups = Groups(plan=plan, domain_size=ranks.domain.size)
    found = dict(_BOUNDS)
    for cause, axis in _AXES.items():
        out = float(np.ravel(getattr(groups, axis).num_domains)[0]) > 1
        network, link = ("scale-out", ranks.fabric.link) if out else ("scale-up", ranks.domain.link)
        found[cause] = f"{network} network, {link or 'unnamed'}"
    return found


def _memory(setting: Setting, plan: Plan, step: SimulatedStep) -> tuple[list[float], float]:
    """Bytes that each stage holds beside activations, and bytes that a layer saves for one micro-batch."""
    tables, one = operator_tables(setting.model), plan.as_arrays()
    held = weights(tables, one, setting.profile.vocab_multiple)
    memory = step_memory(tables, one, setting.recipe, setting.profile, step.closed.stages, held)
    ends = [float(sum(np.ravel(v)[0] for k, v in parts.items() if k != "activations")) for parts in memory.stages]
    stages = len(step.timeline.stages)
    per_stage = [ends[0] if stage == 0 else ends[2 if stage == stages - 1 else 1] for stage in range(stages)]
    sizes = shard(one, tables.vocab_size, setting.profile.vocab_multiple)
    return per_stage, float(np.ravel(activation_bytes(tables, one, sizes, setting.profile)[0])[0])


def _links(step: SimulatedStep) -> dict[Place, Place]:
    """Where each stage's chunk sends activations and gradients."""
    found: dict[Place, Place] = {}
    for path in step.paths:
        places = [(int(stage), int(chunk)) for stage, chunk in path.T]
        for one, other in itertools.pairwise(places):
            found[0, *one] = (0, *other)
            found[1, *other] = (1, *one)
    return found


def _drawn(step: SimulatedStep, detail: Detail) -> set[tuple[int, int, int, int]]:
    """The forward and backward tasks that are drawn: place and micro-batch."""
    found: set[tuple[int, int, int, int]] = set()
    for stage, line in enumerate(step.timeline.stages):
        shown = detail.levels(len(line.kind)) != LEFT_OUT
        shown &= (line.kind != WEIGHT_GRADIENT) & (_tick_array(line.end_s) > _tick_array(line.start_s))
        way = np.isin(line.kind, (BACKWARD, INPUT_GRADIENT)).astype(int)
        for row in np.stack([way, np.full_like(way, stage), line.chunk, line.micro_batch])[:, shown].T.tolist():
            found.add((row[0], row[1], row[2], row[3]))
    return found


def _overview(step: SimulatedStep, about: dict[str, Any]) -> Iterator[Event]:
    """A process of its own that says what the trace is of: readers show slices, but not a file's metadata."""
    yield from _named(_OVERVIEW, "the step", -1, {1: "whole step"})
    yield _slice(_OVERVIEW, _OVERVIEW + 1, f"step of {step.total_s:.6g} s", 0, _ticks(step.total_s), about)


def _named(pid: int, name: str, order: int, lanes: dict[int, str]) -> Iterator[Event]:
    """Names and order of a process and its threads."""
    yield {"ph": "M", "name": "process_name", "pid": pid, "tid": pid, "args": {"name": name}}
    yield {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": pid, "args": {"sort_index": order}}
    for lane, text in lanes.items():
        tid = pid + lane
        yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": text}}
        yield {"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": tid, "args": {"sort_index": lane}}


def _ticks(seconds: float) -> int:
    return round(seconds * _TICKS_PER_S)


def _tick_array(seconds: Array) -> NDArray[np.int64]:
    return np.round(seconds * _TICKS_PER_S).astype(np.int64)


def _slice(pid: int, tid: int, name: str, start: int, end: int, args: dict[str, Any]) -> Event:
    """A slice from tick to tick."""
    return {
        "ph": "X", "name": name, "cat": "step", "pid": pid, "tid": tid, "ts": start / 8, "dur": (end - start) / 8,
        "args": args,
    }  # fmt: skip


@dataclass(slots=True, kw_only=True)
class _Pen:
    """Draws stages; `_until` is where each lane of the stage at hand has been drawn to."""

    step: SimulatedStep
    detail: Detail
    bounds: dict[str, str]
    per_layer_bytes: float
    held_bytes: list[float]
    links: dict[Place, Place]
    senders: dict[Place, Place]
    drawn: set[tuple[int, int, int, int]]
    numbers: dict[tuple[int, int, int, int], int] = field(default_factory=dict)
    _pid: int = 0
    _until: dict[str, int] = field(default_factory=dict)

    def all_stages(self, stage_ranks: int) -> Iterator[Event]:
        """Every stage, a process each."""
        stages = self.step.timeline.stages
        lanes = [lane for lane in LANES if lane in self._lanes_used()]
        for stage, line in enumerate(stages):
            self._pid, self._until = _STRIDE * (stage + 1), {}
            first = stage * stage_ranks
            name = f"stage {stage} of {len(stages)}: ranks {first}-{first + stage_ranks - 1} ({stage_ranks} alike)"
            yield from _named(self._pid, name, stage, {self._tid(lane) - self._pid: LANES[lane] for lane in lanes})
            yield from self._tasks(stage, line)
            yield from self._after(line)
            yield from self._counters(stage, line)

    def _lanes_used(self) -> set[str]:
        tasks = self.step.tasks
        found = {COMPUTE} | {piece.lane for piece in self.step.after}
        for pieces in (tasks.layer, tasks.chunk):
            found |= {piece.lane for each in pieces.values() for piece in each if piece.all_s > 0}
        return found

    def _tid(self, lane: str) -> int:
        return self._pid + 1 + list(LANES).index(lane)

    def _tasks(self, stage: int, line: StageTimeline) -> Iterator[Event]:
        """A stage's tasks in its order, and one slice for those that are left out."""
        levels = self.detail.levels(len(line.kind)).tolist()
        for task, level in enumerate(levels):
            if level != LEFT_OUT:
                yield from self._task(stage, line, task, level)
            elif levels[task - 1] != LEFT_OUT:
                yield self._gap(line, task, levels.count(LEFT_OUT))

    def _gap(self, line: StageTimeline, task: int, count: int) -> Event:
        """One slice instead of many tasks."""
        inside = slice(task, task + count)
        first, last = line.micro_batch[inside].min(), line.micro_batch[inside].max()
        start_s, end_s = float(line.start_s[task]), float(line.end_s[task + count - 1])
        busy_s = float((line.end_s[inside] - line.start_s[inside]).sum())
        start, end = _ticks(start_s), _ticks(end_s)
        self._until = dict.fromkeys(LANES, end)
        args = {"seconds": end_s - start_s, "busy_s": busy_s, "idle_s": end_s - start_s - busy_s, "tasks": count}
        name = f"{count} tasks of micro-batches {first} to {last}, not drawn"
        return _slice(self._pid, self._tid(COMPUTE), name, start, end, args)

    def _task(self, stage: int, line: StageTimeline, task: int, level: int) -> Iterator[Event]:
        kind, micro_batch, chunk = int(line.kind[task]), int(line.micro_batch[task]), int(line.chunk[task])
        start, end = _ticks(float(line.start_s[task])), _ticks(float(line.end_s[task]))
        if end <= start:  # weight gradients of a chunk that holds the head only
            return
        pieces = self.step.tasks.pieces(kind, stage, chunk)
        name = f"{KINDS[kind]} mb {micro_batch} chunk {chunk}"
        args: dict[str, Any] = {
            "seconds": float(line.end_s[task] - line.start_s[task]), "micro-batch": micro_batch, "chunk": chunk,
            "layers": float(self.step.tasks.layers[stage, chunk]),
        }  # fmt: skip
        if kind == JOINED_FORWARD:
            args["joined with"] = f"{KINDS[line.kind[task + 1]]} mb {line.micro_batch[task + 1]}, after it here"
        received = self._message(stage, line, task, sent=False)
        arrow = {} if received is None else {"bind_id": f"{received:#x}", "flow_in": True}
        yield _slice(self._pid, self._tid(COMPUTE), name, start, end, args) | arrow
        if level >= CAUSES:
            yield from self._inside(stage, kind, chunk, start, end, level)
        yield from self._hand_over(stage, line, task, start, end, pieces)

    def _inside(self, stage: int, kind: int, chunk: int, start: int, end: int, level: int) -> Iterator[Event]:
        """A task's pieces: layer by layer if there are whole layers, else cause by cause."""
        tasks = self.step.tasks
        count = float(tasks.layers[stage, chunk])
        plain = FORWARD if kind == JOINED_FORWARD else kind
        layer_s = sum(piece.shown_s for piece in tasks.layer[plain])
        at = float(start)
        if level == LAYERS and count >= 1 and count == int(count):
            order = range(int(count)) if plain == FORWARD else range(int(count) - 1, -1, -1)
            for layer in order:
                stop = at + layer_s * _TICKS_PER_S
                begin, until = round(at), min(round(stop), end)
                args = {"seconds": layer_s}
                yield _slice(self._pid, self._tid(COMPUTE), f"layer {layer} of the chunk", begin, until, args)
                yield from self._pieces(tasks.layer[plain], at, begin, until)
                at = stop
            beside = [*(tasks.embedding[plain] if tasks.has_embedding[stage, chunk] else ())]
            beside += [*(tasks.head[plain] if tasks.has_head[stage, chunk] else ()), *tasks.chunk[plain]]
            yield from self._pieces(tuple(beside), at, round(at), end)
        else:
            yield from self._pieces(tasks.pieces(kind, stage, chunk), at, start, end)

    def _pieces(self, pieces: Pieces, at: float, begin: int, end: int) -> Iterator[Event]:
        """Causes one after the other on the compute lane, their communication on its own lane, partly under compute."""
        for piece in pieces:
            start = min(max(round(at), begin), end)
            at += piece.shown_s * _TICKS_PER_S
            stop = min(round(at), end)
            if stop > start:
                yield _slice(self._pid, self._tid(COMPUTE), piece.cause, start, stop, self._args(piece))
            if piece.lane in LANES and piece.lane not in (COMPUTE, "pipeline"):
                yield from self._sent(piece, begin, stop, piece.cause)

    def _sent(self, piece: Piece, earliest: int, end: int, name: str) -> Iterator[Event]:
        """What a communication takes in all, up to where it has ended; no earlier than its lane is free."""
        start = max(end - _ticks(piece.all_s), earliest, self._until.get(piece.lane, 0))
        if start < end:
            self._until[piece.lane] = end
            yield _slice(self._pid, self._tid(piece.lane), name, start, end, self._args(piece))

    def _args(self, piece: Piece) -> dict[str, Any]:
        found: dict[str, Any] = {"seconds": piece.shown_s}
        if piece.lane != COMPUTE and piece.lane in LANES:
            found |= {"seconds in all": piece.all_s, "hidden_s": piece.all_s - piece.shown_s}
        if piece.payload_bytes:
            found["payload_bytes"] = piece.payload_bytes
        return found | {"bound by": self.bounds.get(piece.cause, "")}

    def _hand_over(
        self, stage: int, line: StageTimeline, task: int, start: int, end: int, pieces: Pieces
    ) -> Iterator[Event]:
        """The message to the next stage, and the beginning of its arrow."""
        number = self._message(stage, line, task, sent=True)
        piece = next((each for each in pieces if each.lane == "pipeline"), None)
        if number is None or piece is None:
            return
        what = "activations" if line.kind[task] in (FORWARD, JOINED_FORWARD) else "gradients"
        for event in self._sent(piece, start, end, f"send {what} mb {line.micro_batch[task]}"):
            yield event | {"bind_id": f"{number:#x}", "flow_out": True}

    def _message(self, stage: int, line: StageTimeline, task: int, *, sent: bool) -> int | None:
        """Number of the message that a task sends or receives; None without one, or if one of its ends is not drawn."""
        kind, chunk = int(line.kind[task]), int(line.chunk[task])
        if kind == WEIGHT_GRADIENT:
            return None
        way = 0 if kind in (FORWARD, JOINED_FORWARD) else 1
        here = (way, stage, chunk)
        receiver = self.links.get(here) if sent else here
        sender = here if sent else self.senders.get(here)
        if receiver is None or sender is None or receiver[1] == sender[1]:
            return None
        micro_batch = int(line.micro_batch[task])
        if (*receiver, micro_batch) not in self.drawn or (*sender, micro_batch) not in self.drawn:
            return None
        return self.numbers.setdefault((*receiver, micro_batch), len(self.numbers) + 1)

    def _after(self, line: StageTimeline) -> Iterator[Event]:
        """What follows the pipeline once a step.

        All stages wait for each other before the optimizer, as the norm of the gradients is one of all stages; a
        schedule that spans steps checks it later instead.
        """
        timeline, at_s, waited = self.step.timeline, float(line.end_s[-1]), self.step.schedule.spans_steps
        meeting_s = timeline.step_s
        for piece in self.step.after:
            if piece.cause in _BEFORE_MEETING:
                meeting_s += piece.shown_s
            elif not waited:
                waited = True
                yield from self._wait(at_s, meeting_s)
                at_s = max(at_s, meeting_s)
            start, end = _ticks(at_s), _ticks(at_s + piece.shown_s)
            at_s += piece.shown_s
            if end > start:
                yield _slice(self._pid, self._tid(COMPUTE), piece.cause, start, end, self._args(piece))
            if piece.lane in LANES and piece.lane != COMPUTE:
                # what hides under the next step's forward pass is not in this one
                earliest = 0 if piece.cause in _BEFORE_MEETING else start
                yield from self._sent(piece, earliest, end, piece.cause)

    def _wait(self, start_s: float, end_s: float) -> Iterator[Event]:
        start, end = _ticks(start_s), _ticks(end_s)
        if end > start:
            args = {"seconds": end_s - start_s, "bound by": "the slowest stage"}
            yield _slice(self._pid, self._tid(COMPUTE), "waiting for the other stages", start, end, args)

    def _counters(self, stage: int, line: StageTimeline) -> Iterator[Event]:
        """Micro-batches in flight and memory, whenever a drawn task changes them, [change]."""
        begun = np.isin(line.kind, (FORWARD, JOINED_FORWARD))
        ended = np.isin(line.kind, (BACKWARD, WEIGHT_GRADIENT))
        saved = self.per_layer_bytes * self.step.tasks.layers[stage][line.chunk]
        when = np.concatenate([line.start_s[begun], line.end_s[ended]])
        change = np.concatenate([np.ones(begun.sum()), -np.ones(ended.sum())])
        saved = np.concatenate([saved[begun], -saved[ended]])
        shown = self.detail.levels(len(line.kind)) != LEFT_OUT
        shown = np.concatenate([shown[begun], shown[ended]])
        # what ends makes room for what begins at the same time
        order = np.lexsort((change, when))
        ticks = _tick_array(when[order])
        last = np.append(ticks[1:] > ticks[:-1], True)
        flying, held = np.cumsum(change[order]) / self.step.passes, np.cumsum(saved[order]) + self.held_bytes[stage]
        for place in np.flatnonzero(last & shown[order]):
            tick = int(ticks[place])
            yield self._counter("micro-batches", "in flight", tick, round(float(flying[place]), 6))
            yield self._counter("memory", "GiB", tick, round(float(held[place]) / 2**30, 6))

    def _counter(self, name: str, series: str, tick: int, value: float) -> Event:
        return {
            "ph": "C",
            "name": name,
            "pid": self._pid,
            "tid": self._pid + 1,
            "ts": tick / 8,
            "args": {series: value},
        }
