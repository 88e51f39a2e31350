"""A study as blocks for the terminal, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ultratwin.planning.studies.store import COLUMNS, Counts, Store
from ultratwin.planning.studies.study import STATUSES
from ultratwin.report.metrics import count_said, said
from ultratwin.report.tables import Block, Grid, Lines, Title

_JOULES_PER_MWH: Final = 3.6e9
_BEST: Final = (("time", "days"), ("cost", "cost_usd"), ("energy", "energy_j"), ("carbon", "carbon_kg"))
_FRONT: Final = ("days", "cost_usd", "energy_j")
_SHOWN: Final = ("position", *(name for name in COLUMNS if name != "result"))
_REASONS: Final = 6
_CELL: Final = 60

Row = Mapping[str, Any]


def study_rows(store: Store) -> list[dict[str, Any]]:
    """The finished scenarios of a study in its order, each without the whole answer."""
    return [dict(zip(_SHOWN, row, strict=True)) for row in store.rows(f"SELECT {', '.join(_SHOWN)} FROM results")]


def study_json(store: Store) -> dict[str, Any]:
    """A study as JSON objects; the whole answers are in the store's column `result`."""
    about, counts = store.about(), store.counts()
    return {
        "verb": "study",
        "name": about["name"],
        "version": about["version"],
        "catalogue_hash": about["catalogue_hash"],
        "num_scenarios": counts.total,
        "by_status": counts.by_status,
        "scenarios": study_rows(store),
    }


def study_blocks(store: Store, *, limit: int) -> list[Block]:
    """Title, the best by objective, the scenarios that no other beats, all (up to a limit), reasons of refusals."""
    about, counts, rows = store.about(), store.counts(), study_rows(store)
    blocks: list[Block] = [_title(about, counts)]
    done = [row for row in rows if row["status"] == "done"]
    if done:
        blocks += [_best(done), _table("scenarios that no other beats in days, cost and energy at once", _front(done))]
        shown = f"{len(done):,}" if limit >= len(done) else f"the first {limit:,} of {len(done):,}; --limit shows more"
        blocks.append(_table(f"scenarios that can run ({shown})", done[:limit]))
    reasons = Counter(f"{row['status']}: {_first_line(row['reason'])}" for row in rows if row["status"] != "done")
    if reasons:
        lines = [f"{count:>7,}  {reason}" for reason, count in reasons.most_common(_REASONS)]
        rest = sum(reasons.values()) - sum(count for _, count in reasons.most_common(_REASONS))
        blocks.append(
            Lines(title="the others", lines=tuple(lines + ([f"{rest:>7,}  for other reasons"] if rest else [])))
        )
    return blocks


def answer_blocks(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Block]:
    """The rows of a query."""
    numeric = frozenset(
        at
        for at in range(len(columns))
        if rows and all(row[at] is None or isinstance(row[at], int | float) for row in rows)
    )
    cells = tuple(tuple(_cell(value) for value in row) for row in rows)
    return [Grid(title="", columns=tuple(columns), rows=cells, right=numeric)]


def _title(about: Mapping[str, Any], counts: Counts) -> Title:
    if about["name"] is None:
        return Title(text="a study that has not begun")
    shares = [f"{counts.by_status[status]:,} {status}" for status in STATUSES if status in counts.by_status]
    lines = [
        f"{counts.finished:,} of {counts.total:,} scenarios finished" + (f": {', '.join(shares)}" if shares else "")
    ]
    if counts.finished < counts.total:
        lines.append("`ultratwin study run` goes on with the rest")
    if counts.num_former:
        lines.append(f"{counts.num_former:,} answers of earlier versions of this study are kept, and not shown")
    lines.append(f"ultratwin {about['version']}, catalogue {about['catalogue_hash']}")
    return Title(text=str(about["name"]), lines=tuple(lines))


def _best(done: Sequence[Row]) -> Grid:
    """For each model the best scenario by each objective."""
    rows = []
    for model in dict.fromkeys(row["model"] for row in done):
        for objective, column in _BEST:
            known = [row for row in done if row["model"] == model and row[column] is not None]
            if known:
                rows.append((f"least {objective}", *_cells(min(known, key=lambda row: row[column]))))
    columns, right = ("objective", *_COLUMNS), frozenset(at + 1 for at in _RIGHT)
    return Grid(title="best by objective", columns=columns, rows=tuple(rows), right=right)


def _front(done: Sequence[Row]) -> list[Row]:
    """The scenarios that no other of the same model and tokens beats in everything.

    Sorted by time first, so that each is compared with the front so far only: whatever comes later is not faster.
    """
    front: list[Row] = []
    for row in sorted(done, key=lambda each: (*_sizes(each), each["position"])):
        same = [each for each in front if (each["model"], each["tokens"]) == (row["model"], row["tokens"])]
        if not any(all(a <= b for a, b in zip(_sizes(each), _sizes(row), strict=True)) for each in same):
            front.append(row)
    return sorted(front, key=lambda row: row["position"])


def _sizes(row: Row) -> tuple[float, ...]:
    return tuple(float("inf") if row[name] is None else row[name] for name in _FRONT)


_COLUMNS: Final = ("model", "system", "chips", "format", "days", "cost", "MWh", "MFU", "plan")
_RIGHT: Final = (2, 4, 5, 6, 7)


def _table(title: str, rows: Sequence[Row]) -> Grid:
    return Grid(title=title, columns=_COLUMNS, rows=tuple(_cells(row) for row in rows), right=frozenset(_RIGHT))


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row["model"].rpartition("/")[2],
        row["system"],
        f"{row['chips']:,}",
        row["precision"],
        _said(row["days"]),
        "" if row["cost_usd"] is None else f"${count_said(row['cost_usd'])}",
        _said(row["energy_j"], _JOULES_PER_MWH),
        "" if row["mfu"] is None else f"{row['mfu']:.1%}",
        row["plan"] or "",
    )


def _said(value: float | None, scale: float = 1.0) -> str:
    return "" if value is None else said(value / scale)


def _first_line(reason: str | None) -> str:
    return (reason or "").partition("\n")[0][:160]


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:,.6g}" if isinstance(value, float) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= _CELL else text[: _CELL - 3] + "..."
