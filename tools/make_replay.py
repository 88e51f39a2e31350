"""Writes tests/replay.json: some 200 predictions that a refactor must not move.

python tools/make_replay.py

A change that moves them on purpose runs this again and says in CHANGELOG.md which moved, by how much and why.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ultratwin.validation.scoreboard import Scoreboard, score_all

OUT = Path(__file__).parents[1] / "tests/replay.json"
PER_FORMAT = 50


def predictions(boards: Sequence[Scoreboard]) -> dict[str, float]:
    """Evenly spaced scored rows of every format, by format, metric and row id."""
    found = {}
    for board in boards:
        scored = [row for row in board.rows if row.status == "scored" and row.predicted is not None]
        for row in scored[:: max(len(scored) // PER_FORMAT, 1)][:PER_FORMAT]:
            found[f"{board.format.name} {row.metric} {row.id}"] = float(f"{row.predicted:.10g}")
    return found


if __name__ == "__main__":
    OUT.write_text(json.dumps(predictions(score_all()), indent=1, sort_keys=True) + "\n", encoding="utf-8")
