"""Measured runs, request by request: the same arrivals and lengths are simulated, and every request is compared.

A row of serving.csv says what served (chips, plan, engine, limits); its column `request_file` names its requests.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.errors import TruthError, UltratwinError
from ultratwin.validation.formats import Format, Metric
from ultratwin.validation.result import RowResult
from ultratwin.validation.rows import Row, Skip, row_id, word
from ultratwin.validation.scoreboard import Scoreboard, board_of
from ultratwin.validation.serving_metrics import Times, own_spread
from ultratwin.validation.serving_rows import ServingRun, run_of
from ultratwin.validation.serving_simulation import CannotRun, Tables, served_times
from ultratwin.workload.traffic.requests import Requests, sorted_requests

Floats = NDArray[np.float64]
MAX_FILE_BYTES: Final = 256 * 2**20
METRICS: Final = (
    Metric(name="ttft_ms", unit="ms"),
    Metric(name="tpot_ms", unit="ms"),
    Metric(name="e2e_ms", unit="ms"),
)
# columns of a file of requests -> what they hold; times in seconds
_LAUNCHED: Final = ("launch_time", "finish_time", "ttft", "prompt_tokens", "generation_tokens")
_QUEUED: Final = ("queued_ts", "first_token_ts", "last_token_ts", "input_toks", "output_toks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Requests of a measured run: when each was sent, had its first and its last token [s], and its lengths."""

    sent_s: Floats
    first_s: Floats
    finish_s: Floats
    prompt_tokens: Floats
    output_tokens: Floats


def replay(rows: Iterable[Row], folder: str | Path) -> Scoreboard:
    """The scoreboard of all rows whose file of requests lies in a folder; its groups are the runs.

    Raises: TruthError if the folder has none of them
    """
    place = Path(folder)
    if not place.is_dir():
        raise TruthError("not a folder", where=str(folder), hint="give the folder of the files that request_file names")
    files = {path.name: path for path in sorted(place.rglob("*")) if path.suffix in (".csv", ".jsonl")}
    results: list[RowResult] = []
    tables: Tables = {}
    found = 0
    for line, row in enumerate(rows, start=2):
        names = re.findall(r"[^/;\s]+\.(?:csv|jsonl)", word(row, "request_file"))
        path = next((files[name] for name in names if name in files), None)
        if path is not None and (log := read_log(path)) is not None:
            found += 1
            results += _of_run(row, line, log, tables)
    if not found:
        raise TruthError(
            "no row of the truth file names a file of requests that is in the folder", where=str(folder),
            hint="the column request_file names them",
        )  # fmt: skip
    return board_of(place.name, FORMAT, results)


def _nothing(rows: Sequence[Row]) -> list[RowResult]:
    """Replays are not read row by row."""
    return []


FORMAT: Final = Format(
    name="serving_replay",
    columns=("request_file",),
    predict=_nothing,
    metrics=METRICS,
    source="run",
    groups=(("run", "run"), ("chip", "chip"), ("engine", "engine")),
    family=("chip",),
)
"""Of the scoreboard of replays; not in FORMATS, since no file is told by it."""


def read_log(path: Path) -> Log | None:
    """The requests of a file; None if it is a list of lengths only.

    Lines that are broken, or have a time or length that can't be, are left out.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise TruthError(f"the file has {path.stat().st_size / 1e6:,.0f} MB", where=str(path), allowed="256 MB")
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = list(csv.DictReader(file)) if path.suffix == ".csv" else [_object(line) for line in file]
    kept = [values for line in lines if (values := _request(line)) is not None]
    if not kept:
        return None
    sent, first, finish, prompts, outputs = np.array(sorted(kept)).T
    start = float(sent[0])
    return Log(
        sent_s=sent - start,
        first_s=first - start,
        finish_s=finish - start,
        prompt_tokens=prompts,
        output_tokens=outputs,
    )


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _request(line: dict[str, Any]) -> tuple[float, ...] | None:
    """Sent, first token, last token, prompt and output tokens of a line, None if they can't be."""
    try:
        if all(line.get(name) not in (None, "") for name in _LAUNCHED):
            sent, finish, ttft, prompt, output = (float(line[name]) for name in _LAUNCHED)
            values = (sent, sent + ttft, finish, prompt, output)
        else:
            sent, first, finish, prompt, output = (float(line[name]) for name in _QUEUED)
            values = (sent, first, finish, prompt, output)
    except (KeyError, TypeError, ValueError):
        return None
    possible = all(math.isfinite(each) for each in values) and values[0] < values[1] <= values[2]
    return values if possible and values[3] >= 1 and values[4] >= 1 else None


def _of_run(row: Row, line: int, log: Log, tables: Tables) -> list[RowResult]:
    name = row_id(row, line)
    labels = {"run": name, "chip": word(row, "chip")}
    try:
        run = run_of(row, line)
        labels |= {"engine": run.engine.id}
        times = _replayed(run, log, tables)
    except (Skip, CannotRun, UltratwinError) as error:
        reason = error.what if isinstance(error, UltratwinError) else str(error)
        return [
            RowResult(id=name, metric=each.name, unit="ms", status="skipped", reason=reason, groups=labels)
            for each in METRICS
        ]
    measured = _columns(log.sent_s, log.first_s, log.finish_s, log.output_tokens)
    predicted = _columns(times.sent_s, times.first_s, times.finish_s, times.output_tokens)
    return [
        RowResult(
            id=f"{name}/{at}",
            metric=metric.name,
            unit="ms",
            status="scored",
            predicted=float(said),
            measured=float(was) if was > 0 else None,
            low=float(said) / (1.0 + own_spread(run.engine, metric.name)),
            high=float(said) * (1.0 + own_spread(run.engine, metric.name)),
            groups=labels,
        )
        for metric, ours, theirs in zip(METRICS, predicted, measured, strict=True)
        for at, (said, was) in enumerate(zip(ours, theirs, strict=True))
    ]


def _columns(sent: Floats, first: Floats, finish: Floats, outputs: Floats) -> tuple[Floats, Floats, Floats]:
    """TTFT, TPOT and E2E in ms; a TPOT of 0 where there was one token only."""
    tpot = np.where(outputs > 1, (finish - first) / np.maximum(outputs - 1, 1), 0.0)
    return 1e3 * (first - sent), 1e3 * tpot, 1e3 * (finish - sent)


def _replayed(run: ServingRun, log: Log, tables: Tables) -> Times:
    """Simulated times of the log's requests; replicas take turns.

    Raises: CannotRun if one of them does not fit
    """
    workers, count = run.decode.workers, len(log.sent_s)
    columns = {name: np.zeros(count) for name in ("sent_s", "first_s", "finish_s")}
    for worker in range(min(workers, count)):
        chosen = np.arange(worker, count, workers)
        found = served_times(run, tables, _requests(log, chosen))
        if len(found.sent_s) != len(chosen):
            raise CannotRun("a request does not fit into the KV cache")
        for name, column in columns.items():
            column[chosen] = getattr(found, name)
    nothing = np.zeros(0)
    return Times(
        **columns, prompt_tokens=log.prompt_tokens, output_tokens=log.output_tokens, duration_s=0.0, energy_j=0.0,
        gap_s=nothing, gap_count=nothing,
    )  # fmt: skip


def _requests(log: Log, chosen: NDArray[np.int64]) -> Requests:
    return sorted_requests(
        arrival_s=log.sent_s[chosen],
        prompt_tokens=log.prompt_tokens[chosen].astype(np.int64),
        output_tokens=log.output_tokens[chosen].astype(np.int64),
    )
