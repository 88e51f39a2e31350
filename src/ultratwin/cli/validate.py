"""`ultratwin validate`: predictions against published measurements."""

from __future__ import annotations

import json as jsonlib
import shutil
import sys
from pathlib import Path

from ultratwin.cli.parameters import Flag


def validate(
    *,
    truth: Path | None = None,
    replay: Path | None = None,
    json: Flag = False,
) -> int:
    """Scores the twin against measurements: the project's own, or a file of yours.

    Parameters
    ----------
    truth
        A CSV of measurements; its columns tell what it holds (see docs). All of the project's where left out.
    replay
        A folder of measured requests of serving runs (llm-d LMBench, LLMServingSim): each is replayed, one to one.
    json
        Print each row's prediction and the summary as JSON.
    """
    from ultratwin.validation import scoreboard

    if replay is not None:
        from ultratwin.validation import serving_replay, truth_file

        boards = [
            serving_replay.replay(truth_file.read_truth(truth or truth_file.OWN_TRUTH / "serving.csv").rows, replay)
        ]
    elif truth is None:
        boards = scoreboard.score_all()
    else:
        boards = [scoreboard.score(scoreboard.read_truth(truth))]
    if not json:
        width = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 120
        lines = [line.rstrip() for board in boards for line in [*board.table(width=width).splitlines(), ""]]
        sys.stdout.write("\n".join(lines[:-1]) + "\n")
    elif truth is None and replay is None:
        sys.stdout.write(_joined([board.to_json() for board in boards]) + "\n")
    else:
        sys.stdout.write(boards[0].to_json() + "\n")
    return 0


def _joined(texts: list[str]) -> str:
    """Many scoreboards as one object: their rows together, their summaries by format."""
    boards = [jsonlib.loads(text) for text in texts]
    rows = [row for board in boards for row in board["rows"]]
    summary = {board["summary"]["format"]: board["summary"] for board in boards}
    return jsonlib.dumps({"rows": rows, "summary": summary}, indent=1, ensure_ascii=False)
