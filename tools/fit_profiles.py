"""Fits the few constants of the framework profiles to half of the public training rows (design D4).

    python tools/fit_profiles.py [--truth FILE.csv] [--profile NAME ...] [--write]

Rows are split by configuration: a SHA-1 of config_id puts each configuration whole into the half that is fitted or the
half that is scored. Each profile's constants minimise the mean of |log(predicted / measured)|, a source weighing as the
root of its rows, by a coordinate search between the bounds of CONSTANTS. Prints both halves; --write updates the files.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
from collections import defaultdict
from pathlib import Path

import numpy as np

from fitted import write_fitted
from ultratwin.catalogue import loader
from ultratwin.catalogue.schema import ProfileEntry
from ultratwin.mapping.profile import Profile, load_profile
from ultratwin.validation.rows import Skip
from ultratwin.validation.split import is_fitted_half
from ultratwin.validation.training import Run, predicted_times_s, run_of

# constant -> (least, most, unit, SI per unit); which of them a profile fits is what its file states as "measured"
CONSTANTS = {
    "gemm_factor": (0.95, 1.8, "", 1.0),
    "attention_factor": (0.8, 2.0, "", 1.0),
    "vector_factor": (0.8, 5.0, "", 1.0),
    "host_forward_s": (0.0, 4000.0, "us", 1e-6),
    "host_backward_s": (0.0, 8000.0, "us", 1e-6),
    "host_tensor_s": (0.0, 8000.0, "us", 1e-6),
    "host_expert_s": (0.0, 20000.0, "us", 1e-6),
    "host_micro_batch_s": (0.0, 60.0, "ms", 1e-3),
    "host_step_s": (0.0, 500.0, "ms", 1e-3),
    "tensor_overlap_frac": (0.0, 1.0, "", 1.0),
    "context_overlap_frac": (0.0, 1.0, "", 1.0),
    "expert_overlap_frac": (0.0, 1.0, "", 1.0),
    "pipeline_overlap_frac": (0.0, 1.0, "", 1.0),
    "data_overlap_frac": (0.0, 1.0, "", 1.0),
    "shard_overlap_frac": (0.0, 1.0, "", 1.0),
    "collective_factor": (1.0, 6.0, "", 1.0),
    "bucket_bytes": (5.0, 500.0, "MB", 1e6),
    "expert_imbalance": (1.0, 2.0, "", 1.0),
    "straggler_frac": (0.0, 0.05, "", 1.0),
}
TRUTH = Path(__file__).parents[1] / "src/ultratwin/validation/truth/training.csv"
PROFILES = loader.DATA / "profiles"


def read_runs(path: Path) -> dict[str, dict[bool, list[Run]]]:
    """Scorable rows by profile and half."""
    runs: dict[str, dict[bool, list[Run]]] = defaultdict(lambda: {True: [], False: []})
    with path.open(newline="", encoding="utf-8") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            try:
                run = run_of(row, line)
            except Skip:
                continue
            if run.measured_s is None:
                continue
            runs[run.profile.id][is_fitted_half(row["config_id"])].append(run)
    return runs


def errors(runs: list[Run], profile: Profile) -> dict[str, np.ndarray]:
    """log(predicted / measured) by source."""
    found: dict[str, list[float]] = defaultdict(list)
    for run, predicted in zip(runs, predicted_times_s(runs, profile), strict=True):
        found[run.groups["source"]].append(np.log(predicted / run.measured_s))
    return {source: np.array(each) for source, each in found.items()}


def loss(runs: list[Run], profile: Profile) -> float:
    """Mean |log error| (at most 1), a source weighing as the square root of its rows: neither the large ones nor
    single rows decide alone."""
    found = list(errors(runs, profile).values())
    weights = [np.sqrt(len(each)) for each in found]
    return float(np.average([np.minimum(np.abs(each), 1.0).mean() for each in found], weights=weights))


def fit(runs: list[Run], profile: Profile, names: list[str], rounds: int = 4) -> Profile:
    """Coordinate search: each constant in turn over a grid that narrows around the best value."""
    best = loss(runs, profile)
    for turn in range(rounds):
        for name in names:
            least, most, _, scale = CONSTANTS[name]
            here = float(getattr(profile, name)) / scale
            width = (most - least) / 2 ** (turn + 1)
            for value in np.unique(np.clip(here + width * np.linspace(-1, 1, 9), least, most)):
                trial = dataclasses.replace(profile, **{name: float(value) * scale})
                found = loss(runs, trial)
                if found < best - 1e-6:
                    best, profile = found, trial
    return profile


def spread(runs: list[Run], profile: Profile) -> float:
    """Half-width of the 90 % interval of the error, as a fraction."""
    logs = np.concatenate(list(errors(runs, profile).values()))
    return float(np.exp(np.quantile(np.abs(logs), 0.9)) - 1)


def fitted_names(name: str) -> list[str]:
    """The constants that a profile's own file gives as measured (fitted)."""
    entry = loader.entry("profiles", name)
    figures = entry.figures if isinstance(entry, ProfileEntry) else {}
    return [key for key, fact in figures.items() if key in CONSTANTS and fact.status == "measured"]


def report(name: str, runs: dict[bool, list[Run]], profile: Profile) -> str:
    """Both halves: rows, median error and bias by source."""
    lines = [f"{name}: fitted half {loss(runs[True], profile) if runs[True] else 0:.3f}"]
    for half in (True, False):
        for source, logs in sorted(errors(runs[half], profile).items()):
            error = np.exp(logs) - 1
            lines.append(
                f"  {'fit  ' if half else 'score'} {source:28s} rows {len(logs):4d}  median |e| "
                f"{100 * np.median(np.abs(error)):5.1f} %  bias {100 * np.median(error):6.1f} %"
            )
    return "\n".join(lines)


def write(name: str, profile: Profile, names: list[str], runs: dict[bool, list[Run]]) -> None:
    """Puts the fitted values into the profile's file, with the points and the residual in each note."""
    scored = runs[False] or runs[True]
    residual = np.median(np.abs(np.concatenate(list(errors(scored, profile).values()))))
    note = f"{len(runs[True])} rows fitted; median error {100 * residual:.1f} % on {len(scored)} others"
    values = {key: (float(getattr(profile, key)) / CONSTANTS[key][3], CONSTANTS[key][2]) for key in names}
    values["step_spread_frac"] = (spread(scored, profile), "")
    write_fitted(PROFILES / f"{name}.toml", values, source="fit_profiles", note=note)


def main() -> None:
    """Reads the truth, fits, prints, and writes where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--truth", type=Path, default=TRUTH)
    parser.add_argument("--profile", nargs="*", default=None)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    for name, halves in read_runs(arguments.truth).items():
        if arguments.profile and name not in arguments.profile:
            continue
        profile, names = load_profile(name), fitted_names(name)
        if halves[True] and names:
            profile = fit(halves[True], profile, names)
            print({key: round(float(getattr(profile, key)), 6) for key in names})
        print(report(name, halves, profile), flush=True)
        if arguments.write and names and halves[True]:
            write(name, profile, names, halves)


if __name__ == "__main__":
    main()
