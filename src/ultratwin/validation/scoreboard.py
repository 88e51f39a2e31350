"""The scoreboard: every row of a truth file predicted and compared, in a table and as JSON.

Errors are relative: predicted / measured - 1. "Pooled" gives every source the same weight, however many rows it has.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ultratwin.errors import UltratwinError
from ultratwin.validation.formats import FORMATS, Format, Metric
from ultratwin.validation.result import RowResult
from ultratwin.validation.rows import Row
from ultratwin.validation.statistics import Errors, Verdicts, errors, source_weights, verdicts
from ultratwin.validation.truth_file import Truth, own_truth, read_truth

__all__ = ["Scoreboard", "Summary", "own_truth", "read_truth", "score", "score_all"]
NUM_WORST: Final = 5
MAX_GROUPS_SHOWN: Final = 30
_FAULTS: Final = (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, MemoryError, OSError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Statistics of one metric of a file.

    pooled: all compared rows with equal weight per source; None where no row could be compared
    groups: heading -> value -> statistics of its rows, each row weighing the same
    worst: the rows with the largest errors
    """

    metric: Metric
    pooled: Errors | Verdicts | None
    groups: dict[str, dict[str, Errors | Verdicts]]
    worst: tuple[RowResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoreboard:
    """A truth file scored: `rows` in the order of the file, one result per row and metric."""

    path: str
    format: Format
    rows: tuple[RowResult, ...]
    summaries: tuple[Summary, ...]

    def summary(self) -> dict[str, Any]:
        """Counts and statistics as plain data, the same for the same file."""
        counts = Counter(each.status for each in self.rows)
        reasons = Counter(each.reason for each in self.rows if each.status != "scored")
        return {
            "format": self.format.name,
            "rows": {status: counts[status] for status in ("scored", "rejected", "skipped")},
            "compared": sum(each.pooled.num_rows for each in self.summaries if each.pooled),
            "reasons": dict(sorted(reasons.items(), key=lambda each: (-each[1], each[0]))),
            "metrics": {each.metric.name: _plain(each) for each in self.summaries},
        }

    def to_json(self) -> str:
        """One JSON object with `rows` and `summary`; the same file gives the same bytes."""
        rows = [
            {
                name: getattr(each, name)
                for name in ("id", "metric", "predicted", "low", "high", "unit", "status", "reason")
            }
            for each in self.rows
        ]
        return json.dumps({"rows": rows, "summary": self.summary()}, ensure_ascii=False, allow_nan=False, indent=1)

    def table(self, width: int = 120) -> str:
        """The scoreboard as text without colour."""
        from rich.console import Console

        text = io.StringIO()
        console = Console(file=text, width=width, no_color=True, force_terminal=False, highlight=False, markup=False)
        for each in self.renderables():
            console.print(each)
        return text.getvalue()

    def renderables(self) -> list[Any]:
        """What rich prints: a heading, a table of groups per metric, its worst rows, what could not be scored."""
        from ultratwin.validation.scoreboard_table import scoreboard_renderables

        return scoreboard_renderables(self)


def score_all() -> list[Scoreboard]:
    """The scoreboard of every truth file that the project carries, in the order of FORMATS."""
    return [score(read_truth(path)) for each in FORMATS if (path := own_truth(each)) is not None]


def score(truth: Truth) -> Scoreboard:
    """Predicts and compares every row; a row that can't be is counted with its reason."""
    answered = [_checked(each) for each in predict(truth.format, list(truth.rows))]
    return board_of(Path(truth.path).name, truth.format, _with_broken(truth, answered))


def board_of(path: str, form: Format, rows: Sequence[RowResult]) -> Scoreboard:
    """The scoreboard of results."""
    summaries = tuple(_summary(form, metric, rows) for metric in form.metrics)
    return Scoreboard(path=path, format=form, rows=tuple(rows), summaries=summaries)


def predict(form: Format, rows: list[Row]) -> list[RowResult]:
    """The predictor's results; rows that it stumbles over are found by halving and skipped, the rest is kept."""
    if not rows:
        return []
    try:
        with np.errstate(divide="raise", over="raise", invalid="raise"):
            return form.predict(rows)
    except (UltratwinError, *_FAULTS) as error:
        if len(rows) == 1:
            reason = f"prediction failed: {type(error).__name__}: {error}"[:200]
            return _skipped(form, rows[0]["id"], reason, metrics_of(form, rows[0]))
    half = len(rows) // 2
    return predict(form, rows[:half]) + predict(form, rows[half:])


def metrics_of(form: Format, row: Row) -> list[Metric]:
    """The metrics that a row has a result for."""
    if form.published is None:
        return list(form.metrics)
    names = set(form.published(row))
    return [each for each in form.metrics if each.name in names]


def _skipped(form: Format, row_id: str, reason: str, metrics: Sequence[Metric]) -> list[RowResult]:
    return [
        RowResult(id=row_id, metric=metric.name, unit=metric.unit, status="skipped", reason=reason)
        for metric in metrics
    ]


def _checked(result: RowResult) -> RowResult:
    """The result, or a skipped one where a number is not finite: JSON has no such numbers."""
    numbers = (result.predicted, result.low, result.high)
    if all(each is None or math.isfinite(each) for each in numbers):
        return result
    return dataclasses.replace(
        result, status="skipped", reason="the prediction is not finite", predicted=None, low=None, high=None
    )


def _with_broken(truth: Truth, answered: list[RowResult]) -> list[RowResult]:
    rows: list[RowResult] = []
    queue, read = iter(answered), iter(truth.rows)
    broken = {each.at: each for each in truth.broken}
    for at in range(len(truth.rows) + len(broken)):
        if at in broken:
            rows += _skipped(truth.format, broken[at].id, broken[at].reason, truth.format.metrics)
        else:
            rows += [next(queue) for _ in metrics_of(truth.format, next(read))]
    return rows


def compared(rows: Sequence[RowResult], metric: Metric) -> list[RowResult]:
    """The scored rows of a metric that have a measurement to compare with."""
    return [
        each for each in rows
        if each.metric == metric.name and each.status == "scored" and each.predicted is not None
        and each.measured is not None and math.isfinite(each.measured)
        and (metric.kind == "verdict" or each.measured > 0)
    ]  # fmt: skip


def statistics_of(
    rows: Sequence[RowResult], metric: Metric, weights: Sequence[float] | None = None
) -> Errors | Verdicts:
    """Statistics of compared rows; each row weighs the same unless weights say otherwise."""
    predicted = np.array([each.predicted for each in rows], dtype=np.float64)
    measured = np.array([each.measured for each in rows], dtype=np.float64)
    weight = np.ones(len(rows)) if weights is None else np.asarray(weights, dtype=np.float64)
    if metric.kind == "verdict":
        return verdicts(predicted, measured, weight)
    low = np.array([-np.inf if each.low is None else each.low for each in rows])
    high = np.array([np.inf if each.high is None else each.high for each in rows])
    return errors(predicted, measured, ((low <= measured) & (measured <= high)).astype(np.float64), weight)


def signed_error(result: RowResult) -> float:
    """predicted / measured - 1 of a compared quantity; predicted - measured of a verdict."""
    if result.predicted is None or result.measured is None:
        return 0.0
    return result.predicted - result.measured if result.unit == "1" else result.predicted / result.measured - 1


def _summary(form: Format, metric: Metric, rows: Sequence[RowResult]) -> Summary:
    found = compared(rows, metric)
    if not found:
        return Summary(metric=metric, pooled=None, groups={}, worst=())
    groups: dict[str, dict[str, Errors | Verdicts]] = {}
    for heading, key in form.groups:
        members: dict[str, list[RowResult]] = {}
        for each in found:
            members.setdefault(each.groups.get(key) or "not stated", []).append(each)
        groups[heading] = {name: statistics_of(members[name], metric) for name in sorted(members)}
    wrong = [each for each in found if abs(signed_error(each)) > 0]
    wrong.sort(key=lambda each: (-abs(signed_error(each)), each.id))
    weights = source_weights([each.groups.get(form.source, "") for each in found]).tolist()
    return Summary(
        metric=metric, pooled=statistics_of(found, metric, weights), groups=groups, worst=tuple(wrong[:NUM_WORST])
    )


def _plain(summary: Summary) -> dict[str, Any]:
    return {
        "pooled": None if summary.pooled is None else dataclasses.asdict(summary.pooled),
        "by": {
            heading: {name: dataclasses.asdict(each) for name, each in values.items()}
            for heading, values in summary.groups.items()
        },
        "worst": [
            {"id": each.id, "predicted": each.predicted, "measured": each.measured, "error": signed_error(each),
             "groups": dict(sorted(each.groups.items()))}
            for each in summary.worst
        ],
    }  # fmt: skip
