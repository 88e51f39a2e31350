"""The gate: limits on the error of every family of rows, that may tighten and never loosen.

A family is a source, or rows that share the groups that its format names (chip and number format, ...).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ultratwin.validation.result import RowResult
from ultratwin.validation.scoreboard import Scoreboard, compared, statistics_of
from ultratwin.validation.statistics import Errors

MIN_ROWS: Final = 5
"""Smaller families are held together, as the rest of their format."""
SLACK: Final = 1.10
"""A new limit lies so far above what is measured."""
FLOOR: Final = 0.002
"""No limit is closer to what is measured than this, so that rounding on another machine fails nothing."""
Limits = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """A family that got worse: which figure, what it is, what is allowed."""

    family: str
    figure: str
    value: float
    limit: float

    def __str__(self) -> str:
        return f"{self.family}: {self.figure} is {self.value:.4g}, the limit is {self.limit:.4g}"


def measured_families(boards: Iterable[Scoreboard]) -> dict[str, Limits]:
    """Figures of every family: rows compared, median, mean, worst error, absolute bias; of verdicts the wrong share."""
    found: dict[str, Limits] = {}
    for board in boards:
        for metric in board.format.metrics:
            rows = compared(board.rows, metric)
            prefix = f"{board.format.name} {metric.name}"
            for name, members in _families(board, rows).items():
                figures = statistics_of(members, metric)
                found[f"{prefix}: {name}"] = (
                    {"rows": figures.num_rows, "median": figures.median, "mean": figures.mean, "worst": figures.worst,
                     "bias": abs(figures.bias_median)}
                    if isinstance(figures, Errors)
                    else {"rows": figures.num_rows, "wrong": 1 - figures.right_frac}
                )  # fmt: skip
    return found


def _families(board: Scoreboard, rows: list[RowResult]) -> dict[str, list[RowResult]]:
    found: dict[str, list[RowResult]] = {}
    for kind, keys in (("source", (board.format.source,)), ("group", board.format.family)):
        members: dict[str, list[RowResult]] = {}
        for each in rows:
            members.setdefault(", ".join(each.groups.get(key) or "not stated" for key in keys), []).append(each)
        for name in sorted(members):
            small = len(members[name]) < MIN_ROWS
            found.setdefault(f"{kind} {'(all small ones)' if small else name}", []).extend(members[name])
    return found


def breaches(measured: Mapping[str, Limits], limits: Mapping[str, Limits]) -> list[Breach]:
    """Every figure beyond its limit; a family without rows, or with fewer than before, is a breach too."""
    found = []
    for family, allowed in limits.items():
        now = measured.get(family, {})
        for figure, limit in allowed.items():
            value = now.get(figure, 0.0 if figure == "rows" else float("inf"))
            if value < limit if figure == "rows" else value > limit:
                found.append(Breach(family=family, figure=figure, value=value, limit=limit))
    return found


def tightened(measured: Mapping[str, Limits], limits: Mapping[str, Limits]) -> dict[str, Limits]:
    """Limits after a better measurement: the lower of the old and SLACK times the new one; new families are added.

    A family that is no longer measured keeps its limits, so that it fails rather than vanishes.
    """
    result = {family: dict(values) for family, values in limits.items()}
    for family, now in measured.items():
        allowed = result.setdefault(family, {})
        for figure, value in now.items():
            if figure == "rows":
                allowed[figure] = max(value, allowed.get(figure, 0))
            else:
                new = round(max(value * SLACK, value + FLOOR), 4)
                allowed[figure] = min(new, allowed.get(figure, new))
    return dict(sorted(result.items()))
