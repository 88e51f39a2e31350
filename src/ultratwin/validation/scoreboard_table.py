"""The scoreboard as rich tables. Nothing depends on colour."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.table import Table

from ultratwin.validation.result import RowResult
from ultratwin.validation.statistics import Errors, Verdicts

if TYPE_CHECKING:
    from ultratwin.validation.scoreboard import Scoreboard, Summary

_MAX_GROUPS = 25
_MAX_REASONS = 12


def scoreboard_renderables(board: Scoreboard) -> list[Any]:
    """Heading, one table per metric, its worst rows, and what was not scored with its reason."""
    counts = Counter(each.status for each in board.rows)
    shown: list[Any] = [
        f"{board.format.name} ({board.path}): "
        + ", ".join(f"{counts[each]:,} {each}" for each in ("scored", "rejected", "skipped"))
    ]
    for summary in board.summaries:
        if summary.pooled is None:
            shown.append(f"{summary.metric.name}: no row could be compared")
            continue
        shown.append(_groups_table(summary))
        if summary.worst and isinstance(summary.pooled, Errors):
            shown.append(_worst_table(summary))
    if reasons := Counter(each.reason for each in board.rows if each.status != "scored"):
        shown.append(_reasons_table(reasons, board.rows))
    return shown


def percent(value: float, *, sign: bool = False) -> str:
    """A share as text, such as "12.3 %" or "+4.0 %".

    Example:
        >>> percent(0.1234), percent(0.04, sign=True)
        ('12.3 %', '+4.0 %')
    """
    return f"{100 * value:{'+' if sign else ''}.1f} %"


def cells(found: Errors | Verdicts) -> tuple[str, ...]:
    """A group's statistics as the table shows them."""
    if isinstance(found, Verdicts):
        counts = (found.yes_yes, found.no_no, found.yes_no, found.no_yes)
        return (f"{found.num_rows:,}", percent(found.right_frac), *(f"{each:,}" for each in counts))
    return (
        f"{found.num_rows:,}",
        percent(found.median),
        percent(found.mean),
        percent(found.bias_median, sign=True),
        percent(found.bias_mean, sign=True),
        percent(found.inside_frac),
        percent(found.worst),
    )


def _groups_table(summary: Summary) -> Table:
    quantity = isinstance(summary.pooled, Errors)
    table = Table(title=summary.metric.name, title_justify="left", box=None, pad_edge=False)
    table.add_column("group", overflow="fold")
    table.add_column("", overflow="fold", max_width=44)
    headings = (
        ("rows", "median error", "mean error", "bias (median)", "bias (mean)", "in range", "worst") if quantity
        else ("rows", "right", "fits, did", "doesn't, didn't", "fits, didn't", "doesn't, did")
    )  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="right")
    if summary.pooled is not None:
        table.add_row("all sources pooled", "equal weight per source", *cells(summary.pooled))
    for heading, groups in summary.groups.items():
        largest = sorted(groups, key=lambda name: (-groups[name].num_rows, name))
        for name in largest[:_MAX_GROUPS]:
            table.add_row(heading, name, *cells(groups[name]))
        if len(largest) > _MAX_GROUPS:
            table.add_row(heading, f"... {len(largest) - _MAX_GROUPS} more in --json")
    return table


def _worst_table(summary: Summary) -> Table:
    table = Table(title=f"worst rows: {summary.metric.name}", title_justify="left", box=None, pad_edge=False)
    for heading in ("id", "predicted", "measured", "error"):
        table.add_column(heading, justify="left" if heading == "id" else "right")
    table.add_column("what", overflow="fold")
    for each in summary.worst:
        predicted, measured = each.predicted or 0.0, each.measured or 1.0
        table.add_row(
            each.id, f"{predicted:.4g} {each.unit}", f"{measured:.4g} {each.unit}",
            percent(predicted / measured - 1, sign=True), ", ".join(value for value in each.groups.values() if value),
        )  # fmt: skip
    return table


def _reasons_table(reasons: Counter[str], rows: tuple[RowResult, ...]) -> Table:
    table = Table(title="not scored", title_justify="left", box=None, pad_edge=False)
    table.add_column("rows", justify="right")
    table.add_column("status")
    table.add_column("reason", overflow="fold")
    table.add_column("such as")
    ranked = sorted(reasons.items(), key=lambda each: (-each[1], each[0]))
    for reason, count in ranked[:_MAX_REASONS]:
        example = next(each for each in rows if each.status != "scored" and each.reason == reason)
        table.add_row(f"{count:,}", example.status, reason, example.id)
    if len(ranked) > _MAX_REASONS:
        rest = sum(count for _, count in ranked[_MAX_REASONS:])
        table.add_row(f"{rest:,}", "", f"{len(ranked) - _MAX_REASONS} other reasons, in --json", "")
    return table
