"""What is asked about a cluster's power over time, and the answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import Array
from ultratwin.planning.power.profile import StepProfile
from ultratwin.planning.training import TrainingAnswer, TrainingQuestion

MOST_BINS: Final = 1_000_000
"""Points that a series may have."""
STATES: Final = (
    "training", "saving", "detection", "isolation", "restart", "reload", "warm-up",
)  # fmt: skip
"""What a job does, in the order of a failure's course."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerQuestion:
    """What is asked about power.

    duration_s: of the window; resolution_s: of its bins
    checkpoint_s: work between saves, None for the best, infinite for none
    failures: "default" (the chip's fleet, drawn by `seed`), "none", or a TOML file of rates and times
    fail_at_s: a failure that is put into the window, instead of drawn ones
    recovery: how fast the job comes back; from_start: the window begins with the job's start, not amid training
    cap_w: what the site may draw, cooling and losses included; the chips' clock is lowered until it holds
    smoothing_s: time constant of a battery between the grid and the machine, 0 for none
    ballast_frac: of the mean draw in training, below which chips burn power to keep the load up; 0 for none
    """

    training: TrainingQuestion
    duration_s: float = 600.0
    resolution_s: float = 1.0
    checkpoint_s: float | None = None
    failures: str | Path = "default"
    fail_at_s: float | None = None
    recovery: str = "automatic"
    from_start: bool = False
    cap_w: float | None = None
    smoothing_s: float = 0.0
    ballast_frac: float = 0.0

    def checked(self) -> PowerQuestion:
        """The same question.

        Raises: ScenarioError for a value out of range
        """
        for value, where, what in (
            (self.duration_s, "--duration", "a window of"), (self.resolution_s, "--resolution", "bins of"),
        ):  # fmt: skip
            if not 0 < value < math.inf:
                raise ScenarioError(f"{what} {value:g} s", where=where, allowed="above 0", hint="for example 600s")
        if self.resolution_s > self.duration_s:
            raise ScenarioError(
                f"bins of {self.resolution_s:g} s in a window of {self.duration_s:g} s", where="--resolution",
                allowed="no longer than the window",
            )  # fmt: skip
        if self.duration_s / self.resolution_s > MOST_BINS:
            raise ScenarioError(
                f"{self.duration_s / self.resolution_s:,.0f} bins", where="--resolution",
                allowed=f"up to {MOST_BINS:,}", hint="a shorter window, or longer bins",
            )  # fmt: skip
        if self.checkpoint_s is not None and not self.checkpoint_s > 0:
            raise ScenarioError(
                f"a checkpoint every {self.checkpoint_s:g} s", where="--checkpoint", allowed="above 0, auto or none"
            )
        if self.cap_w is not None and not 0 < self.cap_w < math.inf:
            raise ScenarioError(f"a cap of {self.cap_w:g} W", where="--cap", allowed="above 0", hint="for example 10MW")
        if not 0 <= self.smoothing_s < math.inf:
            raise ScenarioError(
                f"smoothing over {self.smoothing_s:g} s", where="--smoothing", allowed="0 or more",
                hint="the time constant of the battery, for example 30s",
            )  # fmt: skip
        if not 0 <= self.ballast_frac <= 1:
            raise ScenarioError(f"ballast at {self.ballast_frac:g}", where="--ballast", allowed="0 to 100 %")
        if self.fail_at_s is not None and not 0 <= self.fail_at_s < self.duration_s:
            raise ScenarioError(
                f"a failure at {self.fail_at_s:g} s", where="--fail-at",
                allowed=f"within the window, 0 to {self.duration_s:g} s",
            )  # fmt: skip
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What the job does from one time of the window to another; `state` is one of STATES."""

    state: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Swing:
    """How uneven a load is. `percentiles_w` by percentile; `ramp_w_per_s`: steepest change between two bins."""

    mean_w: float
    least_w: float
    most_w: float
    ramp_w_per_s: float
    percentiles_w: dict[str, float]

    @property
    def swing_w(self) -> float:
        """From the least to the most."""
        return self.most_w - self.least_w


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """What a power cap does: the clock that keeps it, and steps that take longer.

    `least_w`: the lowest cap that the clock can keep; `energy_frac`: energy of a step, of that without the cap.
    """

    cap_w: float
    clock_frac: float
    exponent: float
    uncapped_step_s: float
    step_s: float
    uncapped_peak_w: float
    least_w: float
    energy_frac: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothing:
    """What evens out a load: joules burnt as ballast, and the battery behind it."""

    burnt_j: float
    battery_j: float
    battery_w: float
    before: Swing
    after: Swing


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A run's energy and CO2 on a grid, at its PUE."""

    name: str
    pue: float
    energy_j: float
    carbon_kg: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerAnswer:
    """The answer: one step, the window, what evens it out, the whole run.

    time_s: beginning of each bin; it_w: chips, hosts, network; site_w: with cooling and losses; grid_w: behind ballast
    and battery, the same as site_w without them. All [bin].
    step_swing: of one step in its bins of a millisecond. `failure_w`: what the site's load falls by when the job fails.
    state_w: by state, chips, hosts and network.
    """

    question: PowerQuestion
    training: TrainingAnswer
    profile: StepProfile
    part_w: dict[str, tuple[float, float]]
    state_w: dict[str, float]
    segments: tuple[Segment, ...]
    checkpoint_s: float
    failures_per_day: float
    pue: float
    time_s: Array
    it_w: Array
    site_w: Array
    grid_w: Array
    swing: Swing
    step_swing: Swing
    failure_w: float
    cap: Cap | None
    smoothing: Smoothing | None
    regions: tuple[Region, ...]
    notes: tuple[str, ...]


def swing_of(watts: Array, bin_s: float) -> Swing:
    """How uneven a series is.

    Example:
        >>> found = swing_of(np.array([1.0, 3.0, 2.0]), 0.5)
        >>> found.swing_w, found.ramp_w_per_s
        (2.0, 4.0)
    """
    names = ("p1", "p5", "p50", "p95", "p99")
    found = np.percentile(watts, [float(name[1:]) for name in names])
    return Swing(
        mean_w=float(watts.mean()), least_w=float(watts.min()), most_w=float(watts.max()),
        ramp_w_per_s=float(np.abs(np.diff(watts)).max()) / bin_s if len(watts) > 1 else 0.0,
        percentiles_w={name: float(value) for name, value in zip(names, found, strict=True)},
    )  # fmt: skip
