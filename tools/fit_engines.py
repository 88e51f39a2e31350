"""Fits at most six constants of each serving engine to half of the public serving rows (design D4).

    python tools/fit_engines.py [--truth FILE.csv] [--engine NAME ...] [--only CONSTANT ...] [--rows N] [--write]

Rows are split by configuration: a SHA-1 of model, chips, plan, format and engine puts each configuration whole into the
half that is fitted or the half that is scored. The constants minimise the median of |log(predicted / measured)|, over
the columns of COLUMNS, a source weighing as the root of its rows, by a coordinate search between the bounds of
CONSTANTS. Only rows whose configuration is complete and whose times the chips can reach are used, at most N of a
source, chosen by a hash; the spread is that of the best tier. Prints both halves; --write updates the files.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from fitted import write_fitted
from ultratwin.catalogue import loader
from ultratwin.errors import UltratwinError
from ultratwin.mapping.engine import GENERIC, Engine, load_engine
from ultratwin.mapping.serving_formats import on_chip
from ultratwin.timing.serving import IterationTables
from ultratwin.validation.rows import Row, Skip
from ultratwin.validation.serving import predict
from ultratwin.validation.serving_rows import ServingRun, configuration_id, run_of
from ultratwin.validation.serving_simulation import CannotRun, Tables
from ultratwin.validation.split import is_fitted_half
from ultratwin.workload.parameters import active_parameter_count

# constant -> (least, most, unit, SI per unit)
CONSTANTS = {
    "host_iteration_s": (0.0, 20.0, "ms", 1e-3),
    "host_sequence_s": (0.0, 100.0, "us", 1e-6),
    "request_s": (0.0, 50.0, "ms", 1e-3),
    "gemm_factor": (0.95, 1.1, "", 1.0),
    "attention_factor": (0.8, 1.2, "", 1.0),
    "collective_factor": (0.8, 1.5, "", 1.0),
}
_FEWEST = 15
"""Rows that an engine is fitted to at least."""
_BELIEVED_FRAC = 0.7
"""Most of the chips' peak that a measured row may need."""
_OVERLAPPED_MS = 4.0
"""Most host time of an iteration where it overlaps: small models decode in 3 to 5 ms on such engines."""
FACTORS = ("gemm_factor", "attention_factor", "collective_factor")
COLUMNS = {
    "ttft": ("ttft_mean_ms", "ttft_p50_ms"),
    "tpot": ("tpot_mean_ms", "tpot_p50_ms", "itl_mean_ms", "itl_p50_ms"),
    "e2e": ("e2e_mean_ms",),
    "rate": ("output_tok_s", "total_tok_s"),
}
TRUTH = Path(__file__).parents[1] / "src/ultratwin/validation/truth/serving.csv"
ENGINES = loader.DATA / "engines"
Runs = dict[str, list[ServingRun]]


class Blended(dict[object, IterationTables]):
    """Iteration tables of any factors from four sets that are computed once: times are linear in each factor."""

    def __init__(self, parts: dict[object, dict[str, IterationTables]]) -> None:
        super().__init__()
        self.parts = parts

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: Any) -> IterationTables:
        if key not in self.keys():
            *_, engine = (each for each in key if isinstance(each, Engine))
            self[key] = blend(self.parts[without_engine(key)], engine)
        return super().__getitem__(key)


def without_engine(key: Any) -> object:
    """A key of iteration tables without its engine's constants."""
    return tuple(each.id if isinstance(each, Engine) else each for each in key)


def blend(parts: dict[str, IterationTables], engine: Engine) -> IterationTables:
    """Tables of an engine: base + sum over factors of (factor - 1) (doubled - base)."""
    base, changed = parts["base"], {}
    for field in ("token_s", "sample_s", "decode_attention_s", "prefill_attention_s"):
        value = getattr(base, field)
        for name in FACTORS:
            step = float(getattr(engine, name)) - 1.0
            if step:
                value = value + step * (getattr(parts[name], field) - getattr(base, field))
        changed[field] = value
    sequences = np.arange(len(base.host_s))
    host = float(engine.host_iteration_s) + float(engine.host_sequence_s) * sequences
    return dataclasses.replace(
        base, **changed, host_s=host, request_s=float(engine.request_s), overlaps_host=engine.overlaps_host
    )


def read_runs(path: Path, per_source: int) -> dict[str, dict[bool, Runs]]:
    """Runs with a load, by engine, half and source; of each source as many as asked for."""
    found: dict[str, dict[bool, Runs]] = defaultdict(lambda: {True: defaultdict(list), False: defaultdict(list)})
    with path.open(newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: hashlib.sha1(row["id"].encode()).hexdigest())
    for row in rows:
        run = _readable(row)
        if run is not None:
            chosen = found[run.engine.id][is_fitted_half(configuration_id(row))][run.groups["source"]]
            if len(chosen) < per_source:
                chosen.append(run)
    return found


def best_tier(path: Path) -> frozenset[str]:
    """Rows whose tier is A."""
    with path.open(newline="", encoding="utf-8") as file:
        return frozenset(row["id"] for row in csv.DictReader(file) if row.get("tier") == "A")


def _readable(row: Row) -> ServingRun | None:
    """The run of a row whose configuration is all published: what is guessed of a run must not become a constant."""
    if row.get("complete", "") != "yes":
        return None
    try:
        run = run_of(row, 0)
    except (Skip, UltratwinError):
        return None
    return None if run.load.kind == "capacity" or run.prefill is not None or not is_believable(run) else run


def is_believable(run: ServingRun) -> bool:
    """Whether a closed loop's times need no more than 7/10 of the chips' peak: nobody serves faster than that."""
    load, found = run.load, run.measured
    first = found.get("ttft_mean_ms") or found.get("ttft_p50_ms")
    each = found.get("tpot_mean_ms") or found.get("tpot_p50_ms")
    if load.kind != "closed" or not first or not each:
        return True
    stay_s = 1e-3 * (first + (load.output_tokens - 1) * each)
    flop = 2.0 * active_parameter_count(run.model) * (load.prompt_tokens + load.output_tokens) * load.concurrency
    peak = run.num_chips * run.pool.chip.matmul_flop_per_s(on_chip(run.formats, run.pool.chip).compute)
    return flop / stay_s < _BELIEVED_FRAC * float(np.min(peak))


def with_engine(run: ServingRun, engine: Engine) -> ServingRun:
    """The run on another engine; what its own row says of scheduling ahead, and its chip of limits, stays."""
    kept = {name: getattr(run.engine, name) for name in ("overlaps_host", "max_num_seqs", "max_num_batched_tokens")}
    return dataclasses.replace(run, engine=dataclasses.replace(engine, **kept))


def prepare(runs: list[ServingRun], engine: Engine) -> tuple[list[ServingRun], Blended]:
    """The runs that can be answered, and the parts of their tables."""
    one = dataclasses.replace(engine, **dict.fromkeys(FACTORS, 1.0))
    variants = {"base": one} | {name: dataclasses.replace(one, **{name: 2.0}) for name in FACTORS}
    parts: dict[object, dict[str, IterationTables]] = defaultdict(dict)
    kept = []
    for run in runs:
        for name, variant in variants.items():
            tables: Tables = {}
            try:
                predict(with_engine(run, variant), tables)
            except (CannotRun, Skip, UltratwinError, ArithmeticError):
                break
            for key, value in tables.items():
                parts[without_engine(key)][name] = value
        else:
            kept.append(run)
    return kept, Blended(parts)


def errors(runs: list[ServingRun], engine: Engine, tables: Blended) -> dict[tuple[str, str], np.ndarray]:
    """log(predicted / measured) by source and kind of column."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    tables.clear()
    for run in runs:
        answer = predict(with_engine(run, engine), tables)
        for kind, columns in COLUMNS.items():
            name = next((each for each in columns if run.measured.get(each)), "")
            if name and answer.get(name, 0.0) > 0:
                found[run.groups["source"], kind].append(float(np.log(answer[name] / run.measured[name])))
    return {key: np.array(each) for key, each in found.items()}


def loss(found: dict[tuple[str, str], np.ndarray]) -> float:
    """Mean over kinds of column of the median |log error| of all rows, and a fifth of their mean (each at most 0.5).

    A row weighs as one over the root of its source's rows, so that neither large sources nor odd ones decide alone.
    """
    total = []
    for kind in COLUMNS:
        members = [each for (_, name), each in found.items() if name == kind]
        if members:
            logs = np.abs(np.concatenate(members))
            weights = np.concatenate([np.full(len(each), len(each) ** -0.5) for each in members])
            order = np.argsort(logs)
            reached = np.cumsum(weights[order])
            middle = logs[order][np.searchsorted(reached, reached[-1] / 2)]
            total.append(middle + 0.2 * np.average(np.minimum(logs, 0.5), weights=weights))
    return float(np.mean(total))


def fit(runs: list[ServingRun], engine: Engine, tables: Blended, names: list[str], rounds: int = 3) -> Engine:
    """Coordinate search: each constant in turn over a grid that narrows around the best value."""
    best = loss(errors(runs, engine, tables))
    # no engine's host needs longer for an iteration than the shortest one that was measured
    shortest_s = min(
        (1e-3 * value for run in runs for name in COLUMNS["tpot"] if (value := run.measured.get(name))), default=1.0
    )
    for turn in range(rounds):
        for name in names:
            least, most, _, scale = CONSTANTS[name]
            if name == "host_iteration_s":
                most = min(most, shortest_s / scale, _OVERLAPPED_MS if engine.overlaps_host else most)
            here = min(float(getattr(engine, name)) / scale, most)
            width = (most - least) / 2 ** (turn + 1)
            for value in np.unique(np.clip(here + width * np.linspace(-1, 1, 7), least, most)):
                trial = dataclasses.replace(engine, **{name: float(value) * scale})
                found = loss(errors(runs, trial, tables))
                if found < best - 1e-5:
                    best, engine = found, trial
    return engine


def report(title: str, found: dict[tuple[str, str], np.ndarray]) -> str:
    """Rows, median error and bias by source and kind."""
    lines = []
    for (source, kind), logs in sorted(found.items()):
        error = np.exp(logs) - 1
        lines.append(
            f"  {title:5s} {source:24s} {kind:5s} rows {len(logs):4d}  median |e| "
            f"{100 * np.median(np.abs(error)):6.1f} %  bias {100 * np.median(error):7.1f} %"
        )
    return "\n".join(lines)


Residuals = dict[tuple[str, str], np.ndarray]


def write(name: str, engine: Engine, names: list[str], found: tuple[int, Residuals, Residuals]) -> None:
    """Puts the constants that were fitted into the engine's file, with the rows and the residual in each note.

    `found`: rows that were fitted, residuals of the other configurations, and of those in the best tier
    """
    fitted, scored, trusted = found
    logs = np.concatenate(list(scored.values()))
    median = 100 * np.median(np.abs(np.exp(logs) - 1))
    note = f"{fitted} rows fitted; median error {median:.0f} % of {len(logs)} figures of other configurations"
    values = {
        key: (float(getattr(engine, key)) / scale, unit)
        for key, (_, _, unit, scale) in CONSTANTS.items()
        if key in names
    }
    for figure, is_first in (("spread_frac", False), ("ttft_spread_frac", True)):
        parts = [each for (_, kind), each in trusted.items() if (kind == "ttft") == is_first]
        if sum(map(len, parts)) >= _FEWEST:
            measured = float(np.exp(np.quantile(np.abs(np.concatenate(parts)), 0.9)) - 1)
            # few rows that agree make no engine surer than engines are
            values[figure] = (max(measured, float(getattr(load_engine(GENERIC), figure))), "")
    write_fitted(ENGINES / f"{name}.toml", values, source="fit_engines", note=note)


def main() -> None:
    """Reads the truth, fits, prints, and writes where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--truth", type=Path, default=TRUTH)
    parser.add_argument("--engine", nargs="*", default=None)
    parser.add_argument("--only", nargs="*", default=list(CONSTANTS), choices=list(CONSTANTS), metavar="CONSTANT")
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    np.seterr(all="ignore")
    best = best_tier(arguments.truth)
    for name, halves in sorted(read_runs(arguments.truth, arguments.rows).items()):
        if arguments.engine and name not in arguments.engine:
            continue
        # always from the same point, so that a second run gives the same constants
        start = {key: getattr(load_engine(GENERIC), key) for key in arguments.only}
        engine = dataclasses.replace(load_engine(name), **start)
        parts = {half: prepare([run for each in halves[half].values() for run in each], engine) for half in halves}
        (fitted, tables), (others, their_tables) = parts[True], parts[False]
        if len(fitted) < _FEWEST:
            print(f"{name}: {len(fitted)} rows are too few; it keeps what it has or inherits")
            continue
        before = loss(errors(fitted, engine, tables))
        engine = fit(fitted, engine, tables, arguments.only)
        now = errors(fitted, engine, tables)
        scored = errors(others, engine, their_tables) if others else now
        print(
            f"{name}: {before:.3f} -> {loss(now):.3f}",
            {key: round(float(getattr(engine, key)), 6) for key in CONSTANTS},
        )
        print(report("fit", now) + "\n" + report("score", scored), flush=True)
        if arguments.write:
            trusted = [run for run in others if run.id in best] or others
            spread = errors(trusted, engine, their_tables) if trusted else now
            write(name, engine, arguments.only, (len(fitted), scored, spread))


if __name__ == "__main__":
    main()
