"""Writes docs/explanation/claims.md: every published claim with its readings, the twin's numbers and the verdicts.

python tools/make_claims.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from ultratwin.planning.claims.ledger import Claim, ledger
from ultratwin.report.claims import answers_of, claimed_said, value_said
from ultratwin.report.figures import cited

OUT: Final = Path(__file__).parents[1] / "docs/explanation/claims.md"
HEAD: Final = """# Claims on trial

Every published claim of the catalogue (`src/ultratwin/catalogue/data/claims`), what it may mean, what the twin computes
under each reading, and the verdict that follows. Written by `tools/make_claims.py` from the same numbers as
`ultratwin claims`; do not edit. [How to judge a claim](../how-to/judge-a-claim.md) says how one is added.

A number is followed by its 90 % range, which comes from the ranges of the figures that it rests on and, where a
training run or a service is computed, from the twin's own error. What is claimed holds if the number reaches the
least that the statement's words cover, rounding included ("from"). A reading *holds* or *does not hold* if 95 % of the
samples agree; else it *holds only if* a figure, alone, lies where it is said. The twin's own errors on two kinds of
chips are taken to be independent; where only they can turn a verdict, the factor by which the twin would have to err is
said. A number that is the claim itself, written into the catalogue, proves nothing, and *cannot be tested*.
"""


def section(claim: Claim) -> str:
    """One claim."""
    entry = claim.entry
    said_by = "; ".join(f"[{title}]({url})" if url.startswith("http") else title for title, url in cited(entry.source))
    lines = [
        f"\n## {entry.name}\n",
        f"{entry.statement} ({said_by})\n",
        f"**{_capital(claim.verdict.text)}.**\n",
        "| reading | claimed | twin (range) | in samples | verdict |",
        "|---|---:|---:|---:|---|",
    ]
    for each in claim.readings:
        note = f" ({each.entry.note})" if each.entry.note else ""
        share = "" if each.term is None or each.entry.is_premise else f"{each.verdict.holds_frac:.0%}"
        claimed = claimed_said(each.claimed, entry.relation)
        lines.append(f"| {each.entry.name}{note} | {claimed} | {value_said(each)} | {share} | {each.verdict} |")
    answers = answers_of(claim)
    if answers:
        lines += ["", "The twin computed:", ""]
        lines += [f"- `{word}`: {found.scenario.model}, {found.describe()}" for word, found in answers.items()]
    lines += ["", f"What would decide it: {entry.decided_by}"]
    return "\n".join(lines) + "\n"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def page() -> str:
    """The whole page."""
    return HEAD + "".join(section(each) for each in ledger())


def main() -> int:
    """Writes the page."""
    OUT.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
