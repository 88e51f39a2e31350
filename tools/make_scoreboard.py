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
from ultratwin.validation.statistics import Errors, Verdicts
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


def half_of_training(*, fitted: bool) -> Summary:
    """The training rows of the configurations that profiles were fitted to, or of the others."""
    form = next(each for each in FORMATS if each.name == "training")
    path = own_truth(form)
    if path is None:
        raise SystemExit("the project's training rows are missing")
    truth = read_truth(path)
    rows = tuple(row for row in truth.rows if is_fitted_half(row["config_id"]) == fitted)
    return score(dataclasses.replace(truth, rows=rows)).summaries[0]


Line = tuple[str, Errors | Verdicts]
KERNELS: Final = {
    "gemm": "kernels: matrix products", "attention": "kernels: attention", "mla": "kernels: latent attention (MLA)",
    "grouped_gemm": "kernels: grouped products", "moe_fused": "kernels: fused expert layers", "norm": "kernels: norms",
}  # fmt: skip
SERVING: Final = {
    "ttft_mean_ms": "serving: mean time to first token", "ttft_p50_ms": "serving: median time to first token",
    "tpot_mean_ms": "serving: mean time per output token", "tpot_p50_ms": "serving: median time per output token",
    "e2e_mean_ms": "serving: mean time of a request", "output_tok_s": "serving: output tokens per second",
    "j_per_output_tok": "serving: joules per output token",
}  # fmt: skip
WORST_OF_AT_LEAST: Final = 20
"""Rows that a source must have to be named as the worst."""


def training_lines(summary: Summary) -> list[Line]:
    """Step times: all, both halves, both kinds of models, the worst large source."""
    lines = [
        ("training: step time, all sources pooled", pooled(summary)),
        ("training: half of the configurations that constants were fitted to", pooled(half_of_training(fitted=True))),
        ("training: the other half, which nothing was fitted to", pooled(half_of_training(fitted=False))),
    ]
    lines += [(f"training: {name} models", each) for name, each in summary.groups["model kind"].items()]
    return [*lines, worst_line("training", summary)]


def worst_line(subject: str, summary: Summary) -> Line:
    """The source with the largest median error among those that have enough rows."""
    large = [
        (each.median, name, each)
        for name, each in summary.groups["source"].items()
        if isinstance(each, Errors) and each.num_rows >= WORST_OF_AT_LEAST
    ]
    _, name, worst = max(large, key=lambda each: each[:2])
    return f"{subject}: worst source of {WORST_OF_AT_LEAST} rows or more ({name.partition(' (')[0]})", worst


def pooled(summary: Summary) -> Errors | Verdicts:
    """Statistics with equal weight per source.

    Raises: SystemExit if no row could be compared
    """
    if summary.pooled is None:
        raise SystemExit(f"no row of {summary.metric.name} could be compared")
    return summary.pooled


def readme_lines(boards: list[Scoreboard]) -> list[Line]:
    """What the README shows: a few lines per format."""
    by_name = {board.format.name: board for board in boards}
    kinds = by_name["kernels"].summaries[0].groups["kind"]
    fits, peak = by_name["training_memory"].summaries
    told = fits.groups["source"].values()
    right = sum(each.right_frac * each.num_rows for each in told if isinstance(each, Verdicts))
    verdict = dataclasses.replace(pooled(fits), right_frac=right / sum(each.num_rows for each in told))
    return [
        *training_lines(by_name["training"].summaries[0]),
        *((label, kinds[kind]) for kind, label in KERNELS.items()),
        ("kernels: Trainium3 matrix products, from documents alone", pooled(by_name["trn3_gemm"].summaries[0])),
        ("collectives", pooled(by_name["collectives"].summaries[0])),
        ("memory: fits or not, every row the same weight", verdict),
        ("memory: peak, all sources pooled", pooled(peak)),
        *(
            (f"memory: peak on {chip}", each)
            for chip, each in peak.groups["chip"].items()
            if each.num_rows >= WORST_OF_AT_LEAST
        ),
        *(
            (SERVING[each.metric.name], pooled(each))
            for each in by_name["serving"].summaries
            if each.metric.name in SERVING
        ),
        ("failures: rates, times between them, goodput", pooled(by_name["reliability"].summaries[0])),
        ("power of nodes, energy of runs", pooled(by_name["power"].summaries[0])),
    ]


def readme_table(boards: list[Scoreboard]) -> str:
    """The lines as Markdown."""
    lines = ["| measurements | rows | median error | bias | in the stated range |", "|---|---:|---:|---:|---:|"]
    for label, found in readme_lines(boards):
        shown = cells(found)
        if isinstance(found, Errors):
            lines.append(f"| {label} | {shown[0]} | {shown[1]} | {shown[3]} | {shown[5]} |")
        else:
            lines.append(f"| {label} | {shown[0]} | {shown[1]} right | | |")
    return "\n".join(lines) + "\n"


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
