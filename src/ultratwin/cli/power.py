"""`ultratwin power`: what a training run draws from the grid, second by second."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter, Token

from ultratwin.cli.parameters import Count, Duration, Flag
from ultratwin.cli.printing import print_result
from ultratwin.cli.training_options import OUTPUT, Layout, Site, Training, chosen_options
from ultratwin.errors import UnitError
from ultratwin.units import parse

_WINDOW = Group("Window", sort_key=0)
_EVENING = Group("Caps and smoothing", sort_key=0)


def _watts(type_: Any, tokens: Any) -> float:
    """10MW, or watts."""
    token: Token = tokens[0]
    try:
        return parse(token.value, "watt", where=token.keyword or "")
    except UnitError as error:
        if error.where:
            raise
        raise UnitError(f'"{token.value}": {error.what}', where=token.keyword or "", allowed="such as 10MW") from None


Watts = Annotated[float, Parameter(converter=_watts, allow_leading_hyphen=True)]


@Parameter(name="*", group=_WINDOW)
@dataclass(frozen=True, kw_only=True)
class Window:
    """What is looked at, and what happens in it."""

    duration: Duration = 600.0
    "How long, such as 600s or 1h."
    resolution: Duration = 1.0
    "Length of a bin, such as 1s or 10ms."
    from_start: Flag = False
    "Begin with the job's start, not amid training."
    checkpoint: str = "auto"
    "Work between saves, such as 30min; auto is the best, none saves nothing."
    failures: str = "default"
    "default (rates of the chip's fleet, drawn by the seed), none, or a TOML file of rates and times."
    fail_at: Duration | None = None
    "Put one failure at this time of the window, instead of drawn ones."
    recovery: str = "automatic"
    "How fast the job comes back: automatic, hot or manual."


@Parameter(name="*", group=_EVENING)
@dataclass(frozen=True, kw_only=True)
class Evening:
    """What limits the load, and what evens it out."""

    cap: Watts | None = None
    "What the site may draw, such as 10MW: the chips' clock is lowered until it holds."
    smoothing: Duration = 0.0
    "A battery that follows the load with this time constant, such as 30s."
    ballast: str = "0%"
    "Chips burn power so that the load never falls below this share of the mean in training, such as 80%."


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True, kw_only=True)
class Output:
    """What is printed."""

    seed: Count = 0
    "Seed of the failures."
    series: Path | None = None
    "Also write the window second by second: power.csv, or power.json for ui.perfetto.dev."
    json: Flag = False
    "Print JSON, with the series, instead of the tables."


def power(
    model: str,
    /,
    *,
    system: str,
    chips: Count | None = None,
    training: Training | None = None,
    layout: Layout | None = None,
    site: Site | None = None,
    window: Window | None = None,
    evening: Evening | None = None,
    output: Output | None = None,
) -> int:
    """What training draws from the grid over time: swings, ramps, caps, smoothing, energy, CO2 by region.

    Parameters
    ----------
    model
        A catalogue name, the path of a config.json, or a hub id.
    system
        A system of `ultratwin catalogue systems`.
    chips
        How many chips [default: one unit of the system].
    """
    import ultratwin

    chosen = output or Output()
    options = chosen_options(training or Training(), layout or Layout(), site or Site())
    asked = _asked(window or Window(), evening or Evening())
    result = ultratwin.power(model, system, chips=chips, seed=chosen.seed, **asked, **options)
    if result.feasible and chosen.series is not None:
        from ultratwin.report.power import write_series

        write_series(result.answer, chosen.series)
    return print_result(result, json=chosen.json)


def _asked(window: Window, evening: Evening) -> dict[str, Any]:
    """The options of `ultratwin.power`, texts parsed."""
    found: dict[str, Any] = {
        "duration_s": window.duration, "resolution_s": window.resolution, "from_start": window.from_start,
        "failures": window.failures, "fail_at_s": window.fail_at, "recovery": window.recovery,
        "cap_w": evening.cap, "smoothing_s": evening.smoothing,
        "ballast_frac": parse(evening.ballast, "number", where="--ballast"),
    }  # fmt: skip
    if window.checkpoint == "none":
        found["checkpoint_s"] = math.inf
    elif window.checkpoint != "auto":
        found["checkpoint_s"] = parse(window.checkpoint, "second", where="--checkpoint")
    return found
