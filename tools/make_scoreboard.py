"""Writes docs/reference/scoreboard.md from the project's own measurements.

python tools/make_scoreboard.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from ultratwin.validation.scoreboard import Scoreboard, Summary, score_all
from ultratwin.validation.scoreboard_table import cells
from ultratwin.validation.statistics import Errors

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


def main() -> int:
    """Writes the page."""
    OUT.parent.mkdir(parents=True, exist_ok=True)
    parts = [section(board, summary) for board in score_all() for summary in board.summaries]
    OUT.write_text(HEAD + "".join(parts), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
