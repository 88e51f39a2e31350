"""Claims on trial as tables, trees and JSON; every word of it follows from the ledger."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

import ultratwin
from ultratwin.catalogue import loader
from ultratwin.catalogue.facts import Fact
from ultratwin.catalogue.schema import Scenario
from ultratwin.mapping.recipe import recipe
from ultratwin.planning.claims.ledger import Claim, Reading, amount_said
from ultratwin.planning.claims.scenarios import Answered, Trained
from ultratwin.planning.claims.terms import Term
from ultratwin.report.explanation import Explanation, explanation
from ultratwin.report.figures import cited, figure, used_figures
from ultratwin.report.serving_trees import ServingExplanation, serving_explanation
from ultratwin.report.tables import Block, Grid, Lines, Title
from ultratwin.units import format_si, to_si

_ABSENT: Final = "-"
_COLUMNS: Final = ("claim, reading", "claimed", "twin (range)", "verdict")


def ledger_blocks(claims: Sequence[Claim]) -> list[Block]:
    """All claims: each reading with what is claimed, what the twin computes, and its verdict; then each claim's."""
    rows: list[tuple[str, ...]] = []
    for claim in claims:
        rows.append((claim.id, "", "", claim.verdict.verdict))
        rows += [_short_cells(each) for each in claim.readings]
    verdicts = tuple((each.id, each.verdict.text) for each in claims)
    return [
        Grid(title=f"claims on trial: {len(claims)}", columns=_COLUMNS, rows=tuple(rows)),
        Grid(title="verdicts", columns=("claim", "the claim"), rows=verdicts),
        Lines(
            title="more",
            lines=("`ultratwin claims NAME` shows one with its sources; --explain the trees of its numbers",),
        ),
    ]


def claim_blocks(claim: Claim) -> list[Block]:
    """One claim: who says so, its verdict, its readings, what the twin computed, and what would decide it."""
    entry = claim.entry
    sources = tuple(f"{title}{'  ' + url if url else ''}" for title, url in cited(entry.source))
    blocks: list[Block] = [
        Title(text=entry.name, lines=(f"claim: {claim.id}", entry.statement, f"verdict: {claim.verdict.text}")),
        Lines(title="said by", lines=sources),
        Grid(
            title="readings",
            columns=("reading", *_COLUMNS[1:], "in samples"),
            rows=tuple((*_cells(claim, each), _share(each)) for each in claim.readings),
        ),
    ]
    notes = [f"{each.entry.name}: {each.entry.note}" for each in claim.readings if each.entry.note]
    notes += [f"{key}: {fact.note}" for key, fact in entry.figures.items() if fact.note]
    if notes:
        blocks.append(Lines(title="notes", lines=tuple(notes)))
    computed = tuple(f"{word}: {found.describe()}" for word, found in answers_of(claim).items())
    if computed:
        blocks.append(Lines(title="what the twin computed (claims/<id>.toml has the scenarios)", lines=computed))
    blocks.append(Lines(title="what would decide it", lines=(entry.decided_by, *_open_facts(claim))))
    return blocks


def _short_cells(reading: Reading) -> tuple[str, str, str, str]:
    """A reading among many: without what its claim's own table tells too."""
    found = reading.verdict
    verdict = found.verdict if found.verdict == "cannot be tested" else str(found)
    return f"- {reading.entry.name}", amount_said(reading.claimed), value_said(reading), verdict


def _cells(claim: Claim, reading: Reading) -> tuple[str, str, str, str]:
    claimed = claimed_said(reading.claimed, claim.entry.relation)
    return reading.entry.name, claimed, value_said(reading), str(reading.verdict)


def _share(reading: Reading) -> str:
    """In how many of the samples the claim holds."""
    share = reading.verdict.holds_frac
    return _ABSENT if math.isnan(share) else f"{share:.0%}"


def claimed_said(claimed: Fact, relation: str) -> str:
    """What is claimed, in its source's unit, and which numbers that covers."""
    low, high = (claimed.value if end is None else end for end in (claimed.low, claimed.high))
    text = amount_said(claimed)
    if low == high:
        return text
    return f"{text} (from {_plain(low)})" if relation == "at least" else f"{text} ({low:g} to {high:g})"


def value_said(reading: Reading) -> str:
    """What the twin computes, with its range, in the unit of what is claimed."""
    if reading.value is None:
        return _ABSENT
    unit = to_si(1.0, reading.claimed.unit)[0]
    low, expected, high = (each / unit for each in (reading.value.low, reading.value.expected, reading.value.high))
    low_said, said, high_said = (_plain(float(f"{each:.3g}")) for each in (low, expected, high))
    text = f"{said}{reading.claimed.unit}" if reading.claimed.unit == "x" else f"{said} {reading.claimed.unit}"
    return text if low_said == high_said else f"{text} ({low_said} to {high_said})"


def _plain(value: float) -> str:
    """Four digits, without an exponent."""
    return f"{value:.4g}" if abs(value) < 1000 else f"{float(f'{value:.4g}'):,.0f}"


def _open_facts(claim: Claim) -> tuple[str, ...]:
    """The facts that readings hang on, as a measurement would settle them."""
    conditions = {each.fact.name: each for reading in claim.readings for each in reading.verdict.conditions}
    return tuple(
        f"also a measurement of {each.name_said}, which sources leave at {_range_said(each.fact.low, each.fact.high)}"
        f"{' ' + each.fact.unit if each.fact.unit != 'x' else ''}"
        for each in conditions.values()
    )


def _range_said(low: float, high: float) -> str:
    return f"{low:,.4g} to {high:,.4g}"


def answers_of(claim: Claim) -> dict[str, Answered]:
    """The answers that a claim's readings use, by the words that it gives their scenarios."""
    found: dict[str, Answered] = {}
    for reading in claim.readings:
        for _, term in reading.term.walk() if reading.term else ():
            if term.answer is not None:
                found.setdefault(term.text.partition(".")[0], term.answer)
    return found


def explained(claims: Sequence[Claim]) -> str:
    """The trees of every reading's number, the twin's own trees of the answers in it, and the sources."""
    lines: list[str] = []
    used: set[str] = set()
    answers: dict[str, Answered] = {}
    for claim in claims:
        lines += [claim.entry.name, ""]
        for reading in claim.readings:
            lines += [f"  {reading.entry.name}: {value_said(reading)}, {reading.verdict}"]
            if reading.term is not None:
                lines += [f"    {each}" for each in tree_lines(reading.term)]
                facts = [term.fact for _, term in reading.term.walk() if term.fact is not None]
                used |= {each for fact in facts for each in fact.source.split()}
            lines.append("")
        answers |= {found.describe(): found for found in answers_of(claim).values()}
    for text, found in answers.items():
        lines += [text, *(f"  {line}" for line in str(reasons_of(found)).splitlines()), ""]
    lines.append("sources")
    lines += [f"  [{each}] {title}  {url}".rstrip() for each in sorted(used) for title, url in cited(each)]
    return "\n".join(lines)


def reasons_of(found: Answered) -> Explanation | ServingExplanation:
    """Why an answer of the twin is what it is, as its own verb explains it."""
    if isinstance(found, Trained):
        formats = recipe(found.answer.precision)
        return explanation(found.answer, formats, used_figures(found.answer, found.question, formats))
    return serving_explanation(found.question, found.answer)


def tree_lines(term: Term) -> list[str]:
    """A number's tree: what it is computed from, with ranges, statuses and sources."""
    width = max(2 * depth + len(each.text) for depth, each in term.walk())
    lines = []
    for depth, each in term.walk():
        label = "  " * depth + each.text
        lines.append(f"{label:<{width}}  {_amount(each)}{_origin(each)}".rstrip())
    return lines


def _amount(term: Term) -> str:
    found = term.range
    texts = [_number(each, term.unit) for each in (found.low, found.expected, found.high)]
    return texts[1] if texts[0] == texts[2] else f"{texts[1]} ({texts[0]} to {texts[2]})"


def _number(value: float, unit: str) -> str:
    if unit in ("", "tokens/J", "tokens/USD") or value == 0:
        return f"{value:,.4g} {unit}".rstrip()
    return format_si(value, unit, digits=4) if abs(value) >= 1 else f"{value:.4g} {unit}"


def _origin(term: Term) -> str:
    if term.fact is not None:
        cites = " ".join(f"[{each}]" for each in term.fact.source.split())
        return f"  {term.id} [{term.fact.status}] {cites}"
    return f"  {term.answer.describe()}" if term.answer is not None else ""


def claims_json(claims: Sequence[Claim]) -> dict[str, Any]:
    """The ledger as JSON objects; `inputs` are the figures that the twin's answers in it rest on, each once."""
    reasons = {found.scenario: reasons_of(found) for each in claims for found in answers_of(each).values()}
    inputs = {key: figure for each in reasons.values() for key, figure in each.inputs.items()}
    return {
        "verb": "claims",
        "version": ultratwin.__version__,
        "catalogue_hash": loader.catalogue_hash(),
        "claims": [_claim_json(each, reasons) for each in claims],
        "inputs": [each.as_dict() for each in inputs.values()],
    }


def _claim_json(claim: Claim, reasons: Mapping[Scenario, Explanation | ServingExplanation]) -> dict[str, Any]:
    entry = claim.entry
    scenarios = {}
    for word, found in answers_of(claim).items():
        trees = reasons[found.scenario].as_dict()
        del trees["inputs"]
        scenarios[word] = msgspec.to_builtins(found.scenario) | {"answer": found.describe()} | trees
    return {
        "id": claim.id,
        "name": entry.name,
        "statement": entry.statement,
        "sources": _sources(entry.source),
        "verdict": claim.verdict.verdict,
        "text": claim.verdict.text,
        "decided_by": entry.decided_by,
        "readings": [_reading_json(claim, each) for each in claim.readings],
        "scenarios": scenarios,
    }


def _reading_json(claim: Claim, reading: Reading) -> dict[str, Any]:
    low, high = reading.claimed.range_si
    return {
        "name": reading.entry.name,
        "note": reading.entry.note,
        "expression": reading.entry.expression,
        "relation": claim.entry.relation,
        "claimed": {"value": reading.claimed.si, "low": low, "high": high, "unit": reading.claimed.unit,
                    "sources": _sources(reading.claimed.source)},
        "value": reading.value,
        "verdict": reading.verdict.verdict,
        "text": str(reading.verdict),
        "holds_frac": reading.verdict.holds_frac,
        "unless_factor": reading.verdict.unless_factor,
        "conditions": [
            {"fact": each.name_said, "unit": each.fact.unit, "least": each.least, "most": each.most}
            for each in reading.verdict.conditions
        ],
        "tree": None if reading.term is None else _term_json(reading.term),
        "facts": [dataclasses.asdict(each) for each in reading.used.values()],
    }  # fmt: skip


def _term_json(term: Term) -> dict[str, Any]:
    found: dict[str, Any] = {"text": term.text, "value": term.range, "unit": term.unit}
    if term.fact is not None:
        found["figure"] = figure(term.id, term.fact).as_dict()
    if term.answer is not None:
        found["answer"] = term.answer.describe()
    if term.children:
        found |= {"sign": term.sign, "children": [_term_json(each) for each in term.children]}
    return found


def _sources(ids: str) -> list[dict[str, str]]:
    return [{"title": title, "url": url} for title, url in cited(ids)]
