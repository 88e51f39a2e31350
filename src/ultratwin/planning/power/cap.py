"""A power cap: the clock that keeps it, and what it makes of a step. And what evens out a load behind it."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Final

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import Array, Number
from ultratwin.mapping.plan import Plan
from ultratwin.planning.evaluate import Setting
from ultratwin.planning.power.chip import activity_of, step_energy_j, supply_figures
from ultratwin.planning.power.profile import StepProfile, step_profile
from ultratwin.timing.step import step_times
from ultratwin.units import format_si

_CLOCKS: Final = 256
_ROUNDS: Final = 4


def slowed_setting(setting: Setting, clock_frac: Number) -> Setting:
    """The setting with its chips' matrix engines slower; memory and links keep their rates."""
    chip = setting.pool.chip
    peaks = {dtype: np.asarray(peak) * clock_frac for dtype, peak in chip.peak_flop_per_s.items()}
    slower = dataclasses.replace(chip, peak_flop_per_s=peaks)
    return dataclasses.replace(setting, pool=dataclasses.replace(setting.pool, chip=slower))


def slowed_activity(chip_id: str, clock_frac: Number) -> dict[str, Number]:
    """Shares of the power limit at a lower clock.

    Equation: a(f) = a_idle + (a - a_idle) f^e
    Symbols: f clock of that without a cap, e exponent: 1 at constant voltage, 3 where voltage follows the clock
    Source: catalogue/data/power/supply.toml
    Example:
        >>> full = slowed_activity("h100-sxm", 1.0)
        >>> full["limit_frac"] > slowed_activity("h100-sxm", 0.5)["limit_frac"] > full["idle_frac"]
        True
    """
    activity = activity_of(chip_id)
    idle, exponent = activity["idle_frac"], supply_figures()["clock_exponent"]
    return {kind: idle + (share - idle) * clock_frac**exponent for kind, share in activity.items()}


def capped_clock(
    setting: Setting, plan: Plan, chips: int, profile: StepProfile, *, cap_w: float, overhead_frac: float, bin_s: float,
) -> tuple[float, StepProfile, float]:  # fmt: skip
    """The highest clock at which no bin of training draws more than a cap.

    Args:
        chips: of the machine; profile: of its step without a cap
        cap_w: of the site; overhead_frac: cooling and losses, of the mean draw of chips, hosts and network
        bin_s: over which the cap holds
    Returns: clock as a share, the profile at it, the lowest cap that the clock can keep
    Raises: ScenarioError if even the lowest clock draws more
    """
    lowest, chip_id = supply_figures()["lowest_clock_frac"], setting.pool.chip.id
    clocks = np.linspace(lowest, 1.0, _CLOCKS)
    slower = slowed_setting(setting, clocks)
    times = step_times(setting.model, slower.pool, plan, setting.recipe, setting.profile)
    means = np.asarray(step_energy_j(times, slower.pool, slowed_activity(chip_id, clocks)) / times.total_s) * chips
    clock, found, ratio = 1.0, profile, 1.0
    for _ in range(_ROUNDS):
        peak = peak_w(found, bin_s, overhead_frac) * chips
        ratio = peak / (found.mean_w * chips)
        if peak <= cap_w and (clock == 1.0 or peak > 0.998 * cap_w):
            break
        if means[0] * ratio > cap_w:
            raise ScenarioError(
                f"a cap of {format_si(cap_w, 'W')} on {chips:,} chips", where="--cap",
                allowed=f"{format_si(float(means[0]) * ratio, 'W', 4)} or more: training at {lowest:.0%} of the clock",
                hint="take fewer chips, or smooth the load instead",
            )  # fmt: skip
        clock = float(np.interp(cap_w * 0.999 / ratio, means, clocks))
        found = step_profile(slowed_setting(setting, clock), plan, activity=slowed_activity(chip_id, clock))
    return clock, found, float(means[0]) * ratio


def peak_w(profile: StepProfile, bin_s: float, overhead_frac: float) -> float:
    """The most that a chip and its share of the site draw on average over any bin of so many seconds."""
    starts = np.linspace(0.0, profile.step_s, 512, endpoint=False)
    drawn = (profile.energy_until_j(starts + bin_s) - profile.energy_until_j(starts)) / bin_s
    return float(drawn.max()) + overhead_frac * profile.mean_w


def with_ballast(watts: Array, floor_w: float) -> Array:
    """A load that never falls below a floor, as chips burn what is missing."""
    return np.maximum(watts, floor_w)


def with_battery(watts: Array, bin_s: float, constant_s: float, start_w: float) -> tuple[Array, Array]:
    """A load behind a battery that follows it with a delay.

    Equation: y_k = y_(k-1) + (1 - exp(-dt/T)) (x_k - y_(k-1))
    Symbols: x load, y what the grid sees, T time constant; losses of the battery are left out
    Args: watts: x [bin]; bin_s: dt; constant_s: T; start_w: y_0, what the grid saw before
    Returns: y, and the joules that the battery has taken up since the beginning, both [bin]
    Example:
        >>> grid, held = with_battery(np.array([0.0, 0.0]), 1.0, 1.0 / np.log(2.0), 8.0)
        >>> grid.tolist(), held.tolist()
        ([4.0, 2.0], [4.0, 6.0])
    """
    share = -np.expm1(-bin_s / constant_s)
    seen = itertools.accumulate(watts.tolist(), lambda y, x: y + share * (x - y), initial=start_w)
    grid = np.array(list(seen)[1:])
    return grid, np.cumsum((grid - watts) * bin_s)
