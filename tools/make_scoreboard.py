"""Writes docs/reference/scoreboard.md and the table of README.md from the project's own measurements.

python tools/make_scoreboard.py
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Final

from ultratwin.validation.formats import FORMATS
from ultratwin.validation.scoreboard import Scoreboard, Summary, score, score_all
from ultratwin.validation.scoreboard_table import cells
from ultratwin.validation.split import is_fitted_half
from ultratwin.validation.statistics import Errors
from ultratwin.validation.truth_file import own_truth, read_truth

OUT: Final = Path(__file__).parents[1] / "docs/reference/scoreboard.md"
HEAD: Final = """# Scoreboard

Every row of the project's published measurements, predicted from the row's own configuration. Written by
`tools/make_scoreboard.py`; do not edit. An error is predicted / measured - 1; "pooled" gives every source the same
weight; "in range" is the share of measurements inside the stated 90 % range.
"""
QUANTITY: Final = ("rows", "median error", "mean error", "bias (median)", "bias (mean)", "in range", "worst")
VERDICT: Final = ("rows", "right", "fits, did", "doesn't, didn't", "fits, didn't", "doesn't, did")


def section(board: Scoreboard, summary: Summary) -> str:
    """One metric of one file: pooled, then by every group of the format."""
    if summary.pooled is None:
        return ""
    headings = QUANTITY if isinstance(summary.pooled, Errors) else VERDICT
    lines = [
        f"\n## {board.format.name}: {summary.metric.name}\n",
        f"| | {' | '.join(headings)} |",
        f"|---|{'---:|' * len(headings)}",
        f"| all sources pooled | {' | '.join(cells(summary.pooled))} |",
    ]
    for heading, groups in summary.groups.items():
        for name in sorted(groups, key=lambda each: (-groups[each].num_rows, each)):
            lines.append(f"| {heading}: {name.replace('|', '/')} | {' | '.join(cells(groups[name]))} |")
    return "\n".join(lines) + "\n"


README: Final = Path(__file__).parents[1] / "README.md"
BEGIN: Final = "<!-- scoreboard: begin (tools/make_scoreboard.py) -->"
END: Final = "<!-- scoreboard: end -->"


def held_out_training() -> Summary:
    """The training rows whose configurations no constant was fitted to."""
    form = next(each for each in FORMATS if each.name == "training")
    path = own_truth(form)
    if path is None:
        raise SystemExit("the project's training rows are missing")
    truth = read_truth(path)
    rows = [row for row in truth.rows if not is_fitted_half(row["config_id"])]
    return score(dataclasses.replace(truth, rows=rows)).summaries[0]


def readme_table(boards: list[Scoreboard]) -> str:
    """One line per kind of measurement, sources pooled with equal weight."""
    lines = [
        "| measurements | rows | median error | mean error | bias (median) | in stated range |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    summaries = [(f"{board.format.name}: {each.metric.name}", each) for board in boards for each in board.summaries]
    summaries.insert(1, ("training: step_time_s, half that nothing was fitted to", held_out_training()))
    verdicts = []
    for name, summary in summaries:
        if isinstance(summary.pooled, Errors):
            shown = cells(summary.pooled)
            lines.append(f"| {name} | {shown[0]} | {shown[1]} | {shown[2]} | {shown[3]} | {shown[5]} |")
        elif summary.pooled is not None:
            told = [group for groups in list(summary.groups.values())[-1:] for group in groups.values()]
            verdicts.append(
                f"Memory verdict (fits or not), all rows: {cells(told[0])[1]} right." if len(told) == 1 else ""
            )
    return "\n".join(lines) + "\n\n" + "\n".join(each for each in verdicts if each) + "\n"


def main() -> int:
    """Writes the page and the README's table."""
    boards = list(score_all())
    text = README.read_text(encoding="utf-8")
    if BEGIN in text and END in text:
        before, rest = text.split(BEGIN, 1)
        README.write_text(
            before + BEGIN + "\n\n" + readme_table(boards) + "\n" + END + rest.split(END, 1)[1], encoding="utf-8"
        )
    OUT.parent.mkdir(parents=True, exist_ok=True)
    parts = [section(board, summary) for board in boards for summary in board.summaries]
    OUT.write_text(HEAD + "".join(parts), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
