"""A cluster's power over time: steps, saves, failures, restarts; caps, ballast, batteries; the run's energy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ultratwin.catalogue import loader
from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import Array
from ultratwin.hardware.failures import (
    Layout,
    Recovery,
    interruptions_per_s,
    load_rates,
    load_recovery,
    machine_parts,
    read_failures_file,
)
from ultratwin.hardware.storage import load_storage
from ultratwin.planning.evaluate import Setting
from ultratwin.planning.power.cap import (
    capped_clock,
    peak_w,
    slowed_activity,
    slowed_setting,
    with_ballast,
    with_battery,
)
from ultratwin.planning.power.chip import cause_power_w, idle_power_w, limit_power_w, step_energy_j, supply_figures
from ultratwin.planning.power.profile import MOST_TASKS, StepProfile, step_profile
from ultratwin.planning.power.question import (
    Cap,
    PowerAnswer,
    PowerQuestion,
    Region,
    Segment,
    Smoothing,
    swing_of,
)
from ultratwin.planning.reliability.model import checkpoint_bytes, saved_tier
from ultratwin.planning.training import TrainingAnswer, answer_training, training_setting
from ultratwin.simulation.reliability.closed_form import with_best_intervals
from ultratwin.simulation.reliability.records import NO_SAVES, RunModel, SavedTier
from ultratwin.timing.step import step_times
from ultratwin.units import format_si

_DAY: Final = 86400.0
_TIERS: Final = ("peer", "store")
_RACK_CHIPS: Final = 32
_NO_DETAIL: Final = f"a step has more than {MOST_TASKS:,} tasks: it is drawn with its mean"
_MOST_SEGMENTS: Final = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Course:
    """What interrupts training: saves, and how a failure goes on."""

    model: RunModel
    failure_rate_per_s: float
    notes: tuple[str, ...]

    @property
    def finest(self) -> SavedTier:
        return self.model.tiers[0]


def answer_power(question: PowerQuestion) -> PowerAnswer | TrainingAnswer:
    """Answers a question about power.

    Returns: the answer; that of `answer_training` where no plan can run
    Raises: ScenarioError, CatalogueError, ModelError for bad input
    """
    question = question.checked()
    region = loader.resolve("regions", question.training.region)
    question = dataclasses.replace(question, training=dataclasses.replace(question.training, region=region))
    training = answer_training(question.training)
    if training.plan is None or training.run is None:
        return training
    setting, _, _ = training_setting(question.training)
    figures = loader.entry("regions", region).figures
    return _answered(question, training, setting, figures["pue"].si)


def _answered(question: PowerQuestion, training: TrainingAnswer, setting: Setting, pue: float) -> PowerAnswer:
    plan, chips = training.plan, training.chips
    if plan is None:
        raise ScenarioError("no plan can run")
    profile = step_profile(setting, plan)
    idle = idle_power_w(setting.pool)
    profile, cap = _capped(question, training, setting, profile, pue)
    states = _state_watts(setting, profile, idle)
    course = _course(question, training)
    segments = _segments(question, course)
    edges = np.linspace(0.0, question.duration_s, round(question.duration_s / question.resolution_s) + 1)
    bin_s = float(edges[1])
    it = np.diff(_energy_until_j(segments, profile, states, edges)) / bin_s * chips
    # cooling follows heat over minutes, so what the site adds stays at its mean over training
    overhead = (pue - 1.0) * profile.mean_w * chips
    site = it + overhead
    grid, smoothing = _evened(question, site, bin_s, profile.mean_w * chips + overhead, site_start=site[0])
    fine = profile.watts * chips + overhead
    return PowerAnswer(
        question=question, training=training, profile=profile, part_w=_parts(setting, training, cap),
        state_w={state: watts * chips for state, watts in states.items()}, segments=segments,
        checkpoint_s=course.finest.interval_s if course.finest.interval_s < NO_SAVES else math.inf,
        failures_per_day=course.failure_rate_per_s * _DAY, pue=pue, time_s=edges[:-1], it_w=it, site_w=site,
        grid_w=grid, swing=swing_of(site, bin_s), step_swing=swing_of(fine, profile.bin_s),
        failure_w=(profile.mean_w - idle) * chips, cap=cap, smoothing=smoothing,
        regions=_regions(training, cap), notes=(*course.notes, *([_NO_DETAIL] if profile.is_mean else ())),
    )  # fmt: skip


def _state_watts(setting: Setting, profile: StepProfile, idle: float) -> dict[str, float]:
    """Watts per chip in each state.

    A job that hangs still spins in its collectives; while it is warm again its steps come with gaps: half of the way
    between idle and training.
    """
    waiting = float(np.ravel(cause_power_w(setting.pool)["gradient synchronisation"])[0])
    hanging = min(waiting, profile.mean_w)
    return {
        "training": profile.mean_w, "saving": idle, "detection": hanging, "isolation": idle, "restart": idle,
        "reload": idle, "warm-up": (idle + profile.mean_w) / 2.0,
    }  # fmt: skip


def _course(question: PowerQuestion, training: TrainingAnswer) -> _Course:
    """Saves and failures of a run: tiers that hold a checkpoint, with the best or the given interval."""
    pool, run, chips = training.system.pool, training.run, training.chips
    if run is None:
        raise ScenarioError("no plan can run")
    rates, recovery = load_rates(pool.chip.id), load_recovery(question.recovery)
    if str(question.failures) not in ("default", "none"):
        rates, recovery = read_failures_file(Path(question.failures), rates, recovery)
    node = min(pool.chips_per_node, chips)
    layout = Layout(
        chips=chips, chips_per_node=node, chips_per_rack=max(pool.domain.size, _RACK_CHIPS), unit_chips=node
    )
    parts = machine_parts(rates, layout)
    storage, size, notes = load_storage(training.system, layout.nodes), checkpoint_bytes(training), []
    tiers = []
    for name in _TIERS:
        if storage.tier(name).capacity_bytes < size:
            notes.append(f"{name} can't hold a checkpoint of {size / 1e12:.3g} TB")
        else:
            tiers.append(saved_tier(storage, name, size, nodes=layout.nodes, chips=chips))
    given, saves = question.checkpoint_s, bool(tiers) and question.checkpoint_s != math.inf
    if not tiers:
        tiers = [saved_tier(storage, "store", size, nodes=layout.nodes, chips=chips)]
    model = RunModel(work_s=run.duration_s.expected, parts=parts, tiers=tuple(tiers), recovery=recovery)
    if saves:
        model = with_best_intervals(model, given)
    else:
        never = tuple(dataclasses.replace(each, interval_s=NO_SAVES) for each in tiers)
        model = dataclasses.replace(model, tiers=never)
    rate = 0.0 if str(question.failures) == "none" else interruptions_per_s(parts, model.work_s)
    return _Course(model=model, failure_rate_per_s=rate, notes=tuple(notes))


def _segments(question: PowerQuestion, course: _Course) -> tuple[Segment, ...]:
    """The window as segments that follow each other.

    Raises: ScenarioError for more of them than a window may have
    """
    found: list[Segment] = []
    clock = 0.0

    def spend(state: str, seconds: float) -> None:
        nonlocal clock
        end = min(clock + seconds, question.duration_s)
        if end > clock:
            found.append(Segment(state=state, start_s=clock, end_s=end))
        clock = end

    recovery, tier = course.model.recovery, course.finest
    if question.from_start:
        for state, seconds in _downtime(recovery, tier)[2:]:
            spend(state, seconds)
    failures = _Failures(question, course.failure_rate_per_s)
    failure = failures.after(clock)
    until_save = _first_save_s(question, tier)
    while clock < question.duration_s and len(found) < _MOST_SEGMENTS:
        if failure <= clock + until_save:
            spend("training", failure - clock)
            for state, seconds in _downtime(recovery, tier):
                spend(state, seconds)
            failure = failures.after(clock)
        else:
            spend("training", until_save)
            spend("saving", tier.stall_s)
            failure = max(failure, clock)  # one that hits a save hits the training after it
        until_save = tier.interval_s
    if clock < question.duration_s:
        raise ScenarioError(
            f"more than {_MOST_SEGMENTS:,} saves and failures in {question.duration_s:g} s", where="--duration",
            allowed=f"up to {_MOST_SEGMENTS:,}", hint="a shorter window, rarer saves or slower failures",
        )  # fmt: skip
    return tuple(found)


def _downtime(recovery: Recovery, tier: SavedTier) -> tuple[tuple[str, float], ...]:
    return (
        ("detection", recovery.detection_s), ("isolation", recovery.isolation_s), ("restart", recovery.restart_s),
        ("reload", tier.reload_s), ("warm-up", recovery.warm_up_s),
    )  # fmt: skip


def _first_save_s(question: PowerQuestion, tier: SavedTier) -> float:
    """Training before the first save: half an interval, so that a window amid a run shows one if it can."""
    return tier.interval_s if question.from_start else min(tier.interval_s, question.duration_s) / 2.0


class _Failures:
    """When a job that is up fails next: at the given time, once, or as a Poisson process draws it."""

    def __init__(self, question: PowerQuestion, rate_per_s: float) -> None:
        self._given_s = question.fail_at_s
        self._rate_per_s = rate_per_s
        self._random = np.random.default_rng(question.training.seed)

    def after(self, clock: float) -> float:
        """The next failure; infinite if there is none. Nothing fails while the job is down."""
        if self._given_s is not None:
            return self._given_s if self._given_s >= clock else math.inf
        if self._rate_per_s <= 0.0:
            return math.inf
        return clock + float(self._random.exponential(1.0 / self._rate_per_s))


def _energy_until_j(segments: Sequence[Segment], profile: StepProfile, states: dict[str, float], edges: Array) -> Array:
    """Joules of one chip from the beginning of the window to each edge; steps begin anew with each segment."""
    found, spent = np.zeros(len(edges)), 0.0
    for segment in segments:
        low, high = np.searchsorted(edges, [segment.start_s, segment.end_s], side="right")
        inside = np.append(edges[low:high], segment.end_s) - segment.start_s
        training = segment.state == "training"
        energy = profile.energy_until_j(inside) if training else inside * states[segment.state]
        found[low:high] = spent + energy[:-1]
        spent += float(energy[-1])
    found[edges >= segments[-1].end_s] = spent
    return found


def _evened(
    question: PowerQuestion, site: Array, bin_s: float, training_w: float, *, site_start: float
) -> tuple[Array, Smoothing | None]:
    """The load as the grid sees it, behind ballast and battery."""
    if not question.smoothing_s and not question.ballast_frac:
        return site, None
    grid = with_ballast(site, question.ballast_frac * training_w)
    burnt, held, flow = float((grid - site).sum()) * bin_s, np.zeros(1), np.zeros(1)
    if question.smoothing_s:
        before = grid
        start = site_start if question.from_start else training_w
        grid, held = with_battery(before, bin_s, question.smoothing_s, start)
        flow = grid - before
    return grid, Smoothing(
        burnt_j=burnt, battery_j=float(max(held.max(), 0.0) - min(held.min(), 0.0)),
        battery_w=float(np.abs(flow).max()), before=swing_of(site, bin_s), after=swing_of(grid, bin_s),
    )  # fmt: skip


def _capped(
    question: PowerQuestion, training: TrainingAnswer, setting: Setting, profile: StepProfile, pue: float
) -> tuple[StepProfile, Cap | None]:
    """The step under a cap.

    Raises: ScenarioError for a cap below what idle chips draw, or below training at the lowest clock
    """
    plan, chips, cap_w = training.plan, training.chips, question.cap_w
    if cap_w is None or plan is None:
        return profile, None
    overhead = pue - 1.0
    idle = idle_power_w(setting.pool) * chips * pue
    if cap_w <= idle:
        raise ScenarioError(
            f"a cap of {format_si(cap_w, 'W')} is below what {chips:,} idle chips draw", where="--cap",
            allowed=f"above {format_si(idle, 'W')}", hint="take fewer chips",
        )  # fmt: skip
    bin_s = question.resolution_s
    clock, capped, least = capped_clock(setting, plan, chips, profile, cap_w=cap_w, overhead_frac=overhead, bin_s=bin_s)
    slower = slowed_setting(setting, clock)
    pairs = (
        (step_times(each.model, each.pool, plan, each.recipe, each.profile), each.pool, activity)
        for each, activity in ((setting, None), (slower, slowed_activity(setting.pool.chip.id, clock)))
    )
    full, less = (float(np.ravel(step_energy_j(times, pool, activity))[0]) for times, pool, activity in pairs)
    return capped, Cap(
        cap_w=cap_w, clock_frac=clock, exponent=supply_figures()["clock_exponent"],
        uncapped_step_s=profile.step_s, step_s=capped.step_s,
        uncapped_peak_w=peak_w(profile, bin_s, overhead) * chips, least_w=least, energy_frac=less / full,
    )  # fmt: skip


def _parts(setting: Setting, training: TrainingAnswer, cap: Cap | None) -> dict[str, tuple[float, float]]:
    """Seconds of a step and watts of all chips, hosts and network by cause, no more than the limit."""
    if training.plan is None:
        return {}
    clock = 1.0 if cap is None else cap.clock_frac
    slower, activity = slowed_setting(setting, clock), slowed_activity(setting.pool.chip.id, clock)
    times = step_times(slower.model, slower.pool, training.plan, slower.recipe, slower.profile)
    limit = limit_power_w(setting.pool, activity)
    watts = cause_power_w(setting.pool, activity)
    return {
        cause: (float(np.ravel(seconds)[0]), float(np.ravel(np.minimum(watts[cause], limit))[0]) * training.chips)
        for cause, seconds in times.parts.items()
        if float(np.ravel(seconds)[0]) > 0.0
    }


def _regions(training: TrainingAnswer, cap: Cap | None) -> tuple[Region, ...]:
    """The run, without failures, on every grid of the catalogue, cleanest first."""
    run = training.run
    if run is None:
        return ()
    it_j = run.power_w.expected * run.duration_s.expected * (1.0 if cap is None else cap.energy_frac)
    found = []
    for name in loader.ids("regions"):
        figures = loader.entry("regions", name).figures
        if "carbon_kg_per_j" in figures and "pue" in figures:
            energy = it_j * figures["pue"].si
            carbon = energy * figures["carbon_kg_per_j"].si
            found.append(Region(name=name, pue=figures["pue"].si, energy_j=energy, carbon_kg=carbon))
    return tuple(sorted(found, key=lambda each: (each.carbon_kg, each.name)))


__all__ = ["PowerAnswer", "PowerQuestion", "answer_power"]
