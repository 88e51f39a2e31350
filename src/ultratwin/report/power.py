"""A cluster's power over time: tables, a chart in text, JSON, and the series as CSV or as counters for Perfetto."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any, Final

import numpy as np

import ultratwin
from ultratwin.catalogue import loader
from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import Array
from ultratwin.planning.power.question import Cap, PowerAnswer, Region, Smoothing, Swing
from ultratwin.report.json import plan_json
from ultratwin.report.metrics import count_said, said
from ultratwin.report.tables import Bars, Block, Grid, Lines, Pairs, Title
from ultratwin.units import format_seconds, format_si

SERIES_FORMATS: Final = (".csv", ".json")
_CHART_ROWS: Final = 8
_CHART_COLUMNS: Final = 72
_SMALLEST_SHARE: Final = 0.005
_SHOWN_REGIONS: Final = 2
_WAVES: Final = 3


def power_blocks(answer: PowerAnswer) -> list[Block]:
    """The answer of `ultratwin power`."""
    blocks: list[Block] = [_title(answer), _load(answer)]
    blocks.append(_chart("the window: MW of the site", answer.site_w, answer.question.duration_s))
    if answer.smoothing is not None:
        blocks.append(_chart("as the grid sees it", answer.grid_w, answer.question.duration_s))
    blocks.append(_happened(answer))
    blocks.append(_chart("one step", _step_site_w(answer), answer.profile.step_s))
    blocks += [_waves(answer), _step(answer)]
    if answer.cap is not None:
        blocks.append(_cap(answer.cap))
    if answer.smoothing is not None:
        blocks.append(_smoothing(answer.smoothing))
    blocks.append(_run(answer))
    if answer.notes:
        blocks.append(Lines(title="notes", lines=answer.notes))
    return blocks


def _watts(value: float) -> str:
    return format_si(value, "W")


def _energy(joules: float) -> str:
    return format_si(joules / 3600.0, "Wh")


def _title(answer: PowerAnswer) -> Title:
    training, question = answer.training, answer.question
    plan = "" if training.plan is None else training.plan.describe()
    amid = "from the job's start" if question.from_start else "amid the run"
    return Title(
        text=f"power of {training.model.id} on {training.chips:,} chips of {training.system.name}",
        lines=(
            f"layout {plan}, {training.precision}, step {format_seconds(answer.profile.step_s)}",
            f"{format_seconds(question.duration_s)} {amid} in bins of {format_seconds(question.resolution_s)}, "
            f"seed {question.training.seed}; region {question.training.region}, PUE {answer.pue:g}",
        ),
    )


def _load(answer: PowerAnswer) -> Grid:
    """How uneven the load is: over the window, within a step, behind what evens it out."""
    rows = [
        ("window", *_swing_cells(answer.swing)),
        (f"one step, bins of {format_seconds(answer.profile.bin_s)}", *_swing_cells(answer.step_swing)),
    ]
    if answer.smoothing is not None:
        rows.append(("window, as the grid sees it", *_swing_cells(answer.smoothing.after)))
    return Grid(
        title="the site's load: chips, hosts, network, cooling, losses",
        columns=("", "mean", "least", "most", "swing", "ramp per s", "p5", "p50", "p95"),
        rows=tuple(rows), right=frozenset(range(1, 9)),
    )  # fmt: skip


def _swing_cells(swing: Swing) -> tuple[str, ...]:
    numbers = (swing.mean_w, swing.least_w, swing.most_w, swing.swing_w, swing.ramp_w_per_s)
    return (*(_watts(each) for each in numbers), *(_watts(swing.percentiles_w[name]) for name in ("p5", "p50", "p95")))


def _chart(title: str, watts: Array, seconds: float) -> Lines:
    return Lines(title=title, lines=tuple(chart(watts, seconds)))


def chart(watts: Array, seconds: float) -> list[str]:
    """A series as text: each column the mean of its part of the window, axis from zero.

    Example:
        >>> print(chart(np.array([1e6, 2e6]), 2.0)[0])
             2 MW |                                    ████████████████████████████████████
    """
    columns = _CHART_COLUMNS
    edges = np.linspace(0.0, len(watts), columns + 1)
    energy = np.interp(edges, np.arange(len(watts) + 1), np.concatenate([[0.0], np.cumsum(watts)]))
    means = np.diff(energy) / np.diff(edges)
    top = float(means.max()) or 1.0
    lines = []
    for row in range(_CHART_ROWS, 0, -1):
        drawn = "".join("█" if value > top * (row - 0.5) / _CHART_ROWS else " " for value in means)
        label = _watts(top * row / _CHART_ROWS) if row % 4 == 0 else ""
        lines.append(f"{label:>9} |{drawn}".rstrip())
    end = format_seconds(seconds)
    return [*lines, f"{'0':>9} +{'-' * columns}", f"{'':>11}0{end:>{columns - 1}}"]


def _step_site_w(answer: PowerAnswer) -> Array:
    chips = answer.training.chips
    return np.asarray(answer.profile.watts * chips + (answer.pue - 1.0) * answer.profile.mean_w * chips)


def _happened(answer: PowerAnswer) -> Block:
    """The window's states: how often, how long, what they draw."""
    rows = []
    for state, watts in answer.state_w.items():
        found = [each for each in answer.segments if each.state == state]
        seconds = math.fsum(each.end_s - each.start_s for each in found)
        if found:
            share = f"{seconds / answer.question.duration_s:.1%}"
            rows.append((state, f"{len(found):,}", format_seconds(seconds), share, _watts(watts)))
    often = f"{said(answer.failures_per_day)} failures a day" if answer.failures_per_day else "nothing fails"
    saves = f"saves every {format_seconds(answer.checkpoint_s)}" if answer.checkpoint_s < math.inf else "no saves"
    return Grid(
        title=f"what happens ({often}; {saves}; a failure drops {_watts(answer.failure_w)})",
        columns=("state", "times", "seconds", "share", "chips, hosts, network"),
        rows=tuple(rows), right=frozenset({1, 2, 3, 4}),
    )  # fmt: skip


def _step(answer: PowerAnswer) -> Bars:
    """Phases of a step: what each draws, as a share of the highest."""
    total = math.fsum(seconds for seconds, _ in answer.part_w.values())
    most = max(watts for _, watts in answer.part_w.values())
    rows = [
        (cause, _watts(watts), watts / most, f"{format_seconds(seconds)}, {seconds / total:.1%} of the step")
        for cause, (seconds, watts) in answer.part_w.items()
        if seconds / total >= _SMALLEST_SHARE
    ]
    return Bars(
        title="what the chips draw with hosts and network, by what they do (share of the most)", rows=tuple(rows)
    )


def _waves(answer: PowerAnswer) -> Grid:
    """Frequencies at which the load swings, step after step."""
    chips = answer.training.chips
    rows = [
        (f"{hertz:.3g} Hz", format_seconds(1.0 / hertz), _watts(2.0 * watts * chips))
        for hertz, watts in answer.profile.harmonics(_WAVES)
    ]
    return Grid(
        title="what repeats with the steps", columns=("frequency", "every", "from trough to crest"), rows=tuple(rows),
        right=frozenset({0, 1, 2}),
    )  # fmt: skip


def _cap(cap: Cap) -> Pairs:
    slower = cap.step_s / cap.uncapped_step_s - 1.0
    return Pairs(
        title=f"cap of {_watts(cap.cap_w)}",
        rows=(
            ("clock", f"{cap.clock_frac:.1%}", f"power above idle goes with the clock to the {cap.exponent:g}"),
            ("step", format_seconds(cap.step_s), f"{slower:+.1%} on {format_seconds(cap.uncapped_step_s)}"),
            ("peak without it", _watts(cap.uncapped_peak_w), ""),
            ("energy of a step", f"{cap.energy_frac - 1.0:+.1%}", "chips, hosts, network"),
            ("least possible cap", _watts(cap.least_w), "training at the lowest clock"),
        ),
    )


def _smoothing(found: Smoothing) -> Pairs:
    before, after = found.before, found.after
    rows = [
        ("swing", _watts(after.swing_w), f"from {_watts(before.swing_w)}"),
        ("ramp per s", _watts(after.ramp_w_per_s), f"from {_watts(before.ramp_w_per_s)}"),
    ]
    if found.battery_j:
        rows += [
            ("battery holds", _energy(found.battery_j), "between its fullest and its emptiest"),
            ("battery gives or takes", _watts(found.battery_w), "at most"),
        ]
    if found.burnt_j:
        rows.append(("burnt as ballast", _energy(found.burnt_j), "in the window"))
    return Pairs(title="smoothing", rows=tuple(rows))


def _run(answer: PowerAnswer) -> Grid:
    asked = next(each for each in answer.regions if each.name == answer.question.training.region)
    ends = [*answer.regions[:_SHOWN_REGIONS], *answer.regions[-_SHOWN_REGIONS:]]
    shown = [asked, *(each for each in ends if each.name != asked.name)]
    run = answer.training.run
    mean = ""
    if run is not None and answer.cap is None:
        mean = f", {_watts(run.power_w.low)} to {_watts(run.power_w.high)} before cooling (90 % range)"
    return Grid(
        title=f"the whole run without failures{mean}: as asked, cleanest, dirtiest grids",
        columns=("region", "PUE", "energy", "CO2 (t)"),
        rows=tuple(_region_cells(each) for each in shown), right=frozenset({1, 2, 3}),
    )  # fmt: skip


def _region_cells(region: Region) -> tuple[str, str, str, str]:
    return region.name, f"{region.pue:g}", _energy(region.energy_j), count_said(region.carbon_kg / 1000.0)


def power_json(answer: PowerAnswer) -> dict[str, Any]:
    """The answer as JSON objects, series included."""
    training, question = answer.training, answer.question
    asked = {
        each.name: getattr(question, each.name) for each in dataclasses.fields(question) if each.name != "training"
    }
    return {
        "verb": "power",
        "version": ultratwin.__version__,
        "catalogue_hash": loader.catalogue_hash(),
        "seed": question.training.seed,
        "question": asked | {"failures": str(question.failures), "region": question.training.region},
        "model": training.model.id,
        "system": training.system.id,
        "chips": training.chips,
        "feasible": True,
        "plan": None if training.plan is None else plan_json(training.plan),
        "pue": answer.pue,
        "swing": _swing_json(answer.swing),
        "step": {
            "step_s": answer.profile.step_s, "bin_s": answer.profile.bin_s, "spread_s": answer.profile.spread_s,
            "swing": _swing_json(answer.step_swing), "site_w": _step_site_w(answer).tolist(),
            "harmonics": [
                {"hertz": hertz, "watts": watts * training.chips} for hertz, watts in answer.profile.harmonics(_WAVES)
            ],
            "causes": {name: {"seconds": seconds, "watts": watts} for name, (seconds, watts) in answer.part_w.items()},
        },
        "states": {state: {"watts": watts} for state, watts in answer.state_w.items()},
        "segments": [dataclasses.asdict(each) for each in answer.segments],
        "checkpoint_s": answer.checkpoint_s,
        "failures_per_day": answer.failures_per_day,
        "failure_w": answer.failure_w,
        "run_power_w": training.run and dataclasses.asdict(training.run.power_w),
        "cap": answer.cap and dataclasses.asdict(answer.cap),
        "smoothing": answer.smoothing
        and {
            "burnt_j": answer.smoothing.burnt_j, "battery_j": answer.smoothing.battery_j,
            "battery_w": answer.smoothing.battery_w, "after": _swing_json(answer.smoothing.after),
        },
        "regions": [dataclasses.asdict(each) for each in answer.regions],
        "notes": list(answer.notes),
        "series": {
            "time_s": answer.time_s.tolist(), "it_w": answer.it_w.tolist(), "site_w": answer.site_w.tolist(),
            "grid_w": answer.grid_w.tolist(),
        },
    }  # fmt: skip


def _swing_json(swing: Swing) -> dict[str, Any]:
    return dataclasses.asdict(swing) | {"swing_w": swing.swing_w}


def write_series(answer: PowerAnswer, path: Path) -> None:
    """The window as a file: .csv, or .json with counters that ui.perfetto.dev draws.

    Raises: ScenarioError for another ending, or if it can't be written
    """
    if path.suffix not in SERIES_FORMATS:
        raise ScenarioError(
            f"a series as {path.suffix or 'a file without an ending'}", where="--series",
            allowed=" or ".join(SERIES_FORMATS), hint="for example power.csv",
        )  # fmt: skip
    text = _series_csv(answer) if path.suffix == ".csv" else _series_trace(answer)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ScenarioError(f"can't write the series to {path}: {error.strerror or error}", where="--series") from None


def _columns(answer: PowerAnswer) -> dict[str, Array]:
    return {"it_w": answer.it_w, "site_w": answer.site_w, "grid_w": answer.grid_w}


def _series_csv(answer: PowerAnswer) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    columns = _columns(answer)
    writer.writerow(["time_s", *columns])
    rows = np.stack([answer.time_s, *columns.values()], axis=1)
    writer.writerows([f"{value:.10g}" for value in row] for row in rows.tolist())
    return out.getvalue()


def _series_trace(answer: PowerAnswer) -> str:
    """Chrome trace events: a counter for each column, a slice for each state, and one step of its own in front."""
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "the window"}},
        {"ph": "M", "pid": 2, "name": "process_name", "args": {"name": "one step"}},
    ]
    micro = 1e6
    for name, values in _columns(answer).items():
        events += [
            {"ph": "C", "pid": 1, "name": name, "ts": time * micro, "args": {"MW": watts / 1e6}}
            for time, watts in zip(answer.time_s.tolist(), values.tolist(), strict=True)
        ]
    events += [
        {"ph": "X", "pid": 1, "tid": 1, "name": each.state, "ts": each.start_s * micro,
         "dur": (each.end_s - each.start_s) * micro}
        for each in answer.segments
    ]  # fmt: skip
    step = _step_site_w(answer)
    events += [
        {"ph": "C", "pid": 2, "name": "site_w", "ts": at * answer.profile.bin_s * micro, "args": {"MW": watts / 1e6}}
        for at, watts in enumerate(step.tolist())
    ]
    about = {"ultratwin": ultratwin.__version__, "catalogue_hash": loader.catalogue_hash(),
             "model": answer.training.model.id, "chips": answer.training.chips}  # fmt: skip
    return json.dumps({"displayTimeUnit": "ms", "otherData": about, "traceEvents": events}, ensure_ascii=False) + "\n"
