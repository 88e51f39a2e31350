"""What one step draws over its time: the mean over pipeline stages, as all replicas do the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.hardware.chip import Array, Number
from ultratwin.hardware.system import Pool
from ultratwin.mapping.plan import Plan
from ultratwin.planning.evaluate import Setting
from ultratwin.planning.power.chip import cause_power_w, limit_power_w, step_energy_j
from ultratwin.simulation.step import Pieces, SimulatedStep, simulated_step
from ultratwin.timing.jitter import load_jitter
from ultratwin.timing.step import step_times

MOST_POINTS: Final = 4096
"""Points of a step's profile."""
MOST_TASKS: Final = 2_000_000
"""Tasks of a pipeline that are simulated; a longer one is drawn with its mean."""
_NAMES: Final = {
    "embedding": "embedding, head, uneven stages",
    "output head": "embedding, head, uneven stages",
    "gathering updated weights": "gradient synchronisation",
}
"""Causes of events -> the closed form's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProfile:
    """Watts per chip in bins of equal length over one step, with its share of host and network.

    `pipeline_s`: from the beginning to where gradients are synchronised; `spread_s`: how far replicas are apart in it.
    `is_mean`: one level, for a pipeline of too many tasks.
    """

    step_s: float
    pipeline_s: float
    spread_s: float
    watts: Array
    is_mean: bool = False

    @property
    def bin_s(self) -> float:
        """Seconds of a bin."""
        return self.step_s / len(self.watts)

    @property
    def mean_w(self) -> float:
        """Mean watts per chip."""
        return float(self.watts.mean())

    def harmonics(self, count: int) -> tuple[tuple[float, float], ...]:
        """The strongest frequencies of a repeating step: hertz and watts per chip from the mean to the top of a wave.

        Equation: c_k = 2/n |sum_j P_j e^(-2 pi i j k / n)|, at k / step
        """
        waves = 2.0 * np.abs(np.fft.rfft(self.watts)[1:]) / len(self.watts)
        strongest = np.argsort(-waves, kind="stable")[:count]
        return tuple((float(at + 1) / self.step_s, float(waves[at])) for at in np.sort(strongest))

    def energy_until_j(self, time_s: Array) -> Array:
        """Joules of one chip from the beginning of a step, which repeats, to each time."""
        steps, within = np.divmod(time_s, self.step_s)
        ends = np.concatenate([[0.0], np.cumsum(self.watts) * self.bin_s])
        found: Array = steps * ends[-1] + np.interp(within, np.linspace(0.0, self.step_s, len(ends)), ends)
        return found


def step_profile(
    setting: Setting, plan: Plan, *, activity: Mapping[str, Number] | None = None, bin_s: float = 1e-3
) -> StepProfile:
    """The profile of one step of one plan.

    A task draws the mean of what it consists of, as its layers follow each other in less than a millisecond; no more
    than the limit. Replicas run apart by their chips' spread until they meet at the gradients' synchronisation:
    until there the profile is smoothed by a normal distribution, which keeps its energy.
    Equation: P(t) = (P_0 * N(0, s))(t), s = a t_p / 2
    Symbols: P_0 mean over stages, a spread of chips and of a step, t_p seconds of the pipeline
    Args: activity: as of planning.power.cause_power_w; bin_s: wished length of a bin, longer for a long step
    Source: docs/explanation/power.md; tasks from simulation.step
    """
    watts = {cause: float(np.ravel(each)[0]) for cause, each in cause_power_w(setting.pool, activity).items()}
    limit = float(np.ravel(limit_power_w(setting.pool, activity))[0])
    if _num_tasks(plan) > MOST_TASKS:
        return _closed_profile(setting, plan, activity)
    step = simulated_step(setting.model, setting.pool, plan, setting.recipe, setting.profile)
    num_bins = int(np.clip(np.ceil(step.total_s / bin_s), 8, MOST_POINTS))
    edges = np.linspace(0.0, step.total_s, num_bins + 1)
    energy = _pipeline_energy_j(step, watts, limit, edges) + _after_energy_j(step, watts, limit, edges)
    drawn, replicas = np.diff(energy) / np.diff(edges), int(np.ravel(plan.data_parallel_size)[0])
    # events take a little longer or shorter than the closed form, which decides how long a step is
    total = float(np.ravel(step.closed.total_s)[0])
    pipeline = step.timeline.step_s / step.total_s * total
    jitter = load_jitter()
    spread = math.hypot(jitter.chip_frac, jitter.noise_frac) * pipeline / 2.0 if replicas > 1 else 0.0
    inside = int(pipeline / total * num_bins)
    drawn[:inside] = smoothed(drawn[:inside], spread / (total / num_bins))
    return StepProfile(step_s=total, pipeline_s=pipeline, spread_s=spread, watts=drawn)


def smoothed(values: Array, spread: float) -> Array:
    """Values under a normal kernel whose ends are mirrored, so that their sum stays.

    Args: values: [bin]; spread: standard deviation [bins]
    Example:
        >>> float(smoothed(np.array([0.0, 0.0, 4.0, 0.0]), 0.5).sum().round(9))
        4.0
    """
    reach = min(int(np.ceil(4.0 * spread)), len(values))
    if spread <= 0.05 or reach < 1:
        return values
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offsets / spread) ** 2)
    padded = np.concatenate([values[:reach][::-1], values, values[-reach:][::-1]])
    found: Array = np.convolve(padded, kernel / kernel.sum(), mode="valid")
    return found


def _num_tasks(plan: Plan) -> float:
    counts = (plan.pipeline_parallel_size, plan.virtual_pipeline_size, plan.num_micro_batches)
    return 2.0 * float(np.prod([float(np.ravel(each)[0]) for each in counts]))


def _task_power_w(pieces: Pieces, watts: Mapping[str, float], limit: float) -> float:
    """Mean power of a task of these pieces, no more than the limit."""
    seconds = sum(each.shown_s for each in pieces)
    if seconds <= 0.0:
        return 0.0
    drawn = sum(each.shown_s * watts[_NAMES.get(each.cause, each.cause)] for each in pieces)
    return min(drawn / seconds, limit)


def _pipeline_energy_j(step: SimulatedStep, watts: Mapping[str, float], limit: float, edges: Array) -> Array:
    """Joules of the mean chip up to each edge while the pipeline runs; stages that wait draw as in a bubble.

    Where stages begin their next step before others have ended this one, what reaches beyond the step is the next
    one's and is drawn at its beginning.
    """
    period, idle = step.timeline.step_s, watts["pipeline bubble"]
    times, changes, first = [], [], idle
    for at, stage in enumerate(step.timeline.stages):
        power: dict[tuple[int, int], float] = {}
        for kind, chunk in {*zip(stage.kind.tolist(), stage.chunk.tolist(), strict=True)}:
            power[kind, chunk] = _task_power_w(step.tasks.pieces(kind, at, chunk), watts, limit)
        keys = zip(stage.kind.tolist(), stage.chunk.tolist(), strict=True)
        more = (np.array([power[key] for key in keys]) - idle) / len(step.timeline.stages)
        # the last task of the longest stage ends with the period, not in the next one
        wraps, starts = np.divmod(stage.start_s, period)
        laps, ends = np.divmod(stage.end_s, period)
        first += float((more * (laps - wraps)).sum())
        times += [starts, ends]
        changes += [more, -more]
    when, change = np.concatenate(times), np.concatenate(changes)
    order = np.argsort(when, kind="stable")
    when, level = np.concatenate([[0.0], when[order]]), first + np.concatenate([[0.0], np.cumsum(change[order])])
    energy = np.concatenate([[0.0], np.cumsum(level[:-1] * np.diff(when))])
    whole = energy[-1] + level[-1] * (period - when[-1])
    found: Array = np.interp(edges, np.append(when, period), np.append(energy, whole))
    return found


def _after_energy_j(step: SimulatedStep, watts: Mapping[str, float], limit: float, edges: Array) -> Array:
    """Joules up to each edge of what follows the pipeline once a step: all chips together, one after the other."""
    ends = step.timeline.step_s + np.cumsum([0.0, *(piece.shown_s for piece in step.after)])
    power = [min(watts[_NAMES.get(piece.cause, piece.cause)], limit) for piece in step.after]
    energy = np.concatenate([[0.0], np.cumsum(np.diff(ends) * power)])
    found: Array = np.interp(edges, ends, energy)
    return found


def _closed_profile(setting: Setting, plan: Plan, activity: Mapping[str, Number] | None) -> StepProfile:
    """One level over the pipeline, for plans with more tasks than are simulated."""
    pool: Pool = setting.pool
    times = step_times(setting.model, pool, plan, setting.recipe, setting.profile)
    total = float(np.ravel(times.total_s)[0])
    mean = float(np.ravel(step_energy_j(times, pool, activity))[0]) / total
    return StepProfile(step_s=total, pipeline_s=total, spread_s=0.0, watts=np.full(8, mean), is_mean=True)
