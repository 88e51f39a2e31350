"""Every published claim on trial: what it may mean, what the twin computes under each reading, and the verdict.

A claim is one file of the catalogue (data/claims). Readings are expressions over figures of the catalogue and results
of scenarios that `train` and `plan serve` answer; the verdict follows from their numbers and ranges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ultratwin.catalogue import loader
from ultratwin.catalogue.facts import Fact
from ultratwin.catalogue.schema import ClaimEntry, ReadingEntry, Scenario
from ultratwin.errors import CatalogueError, unknown_name
from ultratwin.hardware.chip import Array, Number
from ultratwin.planning.claims.sampling import listing, replacing
from ultratwin.planning.claims.scenarios import Answers, NoNumberError
from ultratwin.planning.claims.terms import Draw, Names, Term, term_of
from ultratwin.planning.claims.verdict import ClaimVerdict, ReadingVerdict, claim_verdict, reading_verdict
from ultratwin.planning.sensitivity import UsedFact
from ultratwin.planning.uncertainty import Range

PREMISE: Final = "the number is the claim itself"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One reading on trial.

    `term` and `value` are None where the twin has no number; `used`: the facts that it rests on, by name.
    """

    entry: ReadingEntry
    claimed: Fact
    term: Term | None
    value: Range | None
    verdict: ReadingVerdict
    used: Mapping[str, UsedFact]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim on trial."""

    id: str
    entry: ClaimEntry
    readings: tuple[Reading, ...]
    verdict: ClaimVerdict


def ledger(names: Sequence[str] = (), seed: int = 0) -> tuple[Claim, ...]:
    """Claims on trial: those that are named, by id or alias, or all.

    Raises: CatalogueError for a name that no claim has, or a claim whose expressions do not compute
    """
    answers = Answers(seed)
    wanted = [loader.resolve("claims", each) for each in names] or list(loader.ids("claims"))
    return tuple(judged(each, claim_entry(each), answers) for each in wanted)


def judged(claim_id: str, entry: ClaimEntry, answers: Answers) -> Claim:
    """One claim on trial; `answers` keeps what scenarios gave, for the claims that share them."""
    names = _names(claim_id, entry)
    readings = tuple(_judged(entry, each, names, answers) for each in entry.readings)
    verdict = claim_verdict([(amount_said(each.claimed), each.entry.name, each.verdict) for each in readings])
    return Claim(id=claim_id, entry=entry, readings=readings, verdict=verdict)


def amount_said(claimed: Fact) -> str:
    """What is claimed, in its source's unit: "4.4x", "2.8 PB/s"."""
    number = f"{claimed.value:,.7g}"
    return f"{number}{claimed.unit}" if claimed.unit in ("x", "") else f"{number} {claimed.unit}"


def claim_entry(claim_id: str) -> ClaimEntry:
    """A claim's file."""
    entry = loader.entry("claims", claim_id)
    if not isinstance(entry, ClaimEntry):
        raise CatalogueError(f"{claim_id} is not a claim")
    return entry


def _names(claim_id: str, entry: ClaimEntry) -> Names:
    entries = {}
    for word, text in entry.entries.items():
        kind, _, name = text.partition("/")
        found = loader.resolve(kind, name)
        entries[word] = (f"{kind}/{found}", loader.entry(kind, found).figures)
    return Names(own=(f"claims/{claim_id}", entry.figures), entries=entries, scenarios=entry.scenarios)


def _judged(entry: ClaimEntry, reading: ReadingEntry, names: Names, answers: Answers) -> Reading:
    if reading.claimed not in entry.figures:
        raise unknown_name("claimed figure", reading.claimed, entry.figures)
    claimed, expression = entry.figures[reading.claimed], reading.expression
    try:
        term = term_of(expression, names, Draw(sampler=answers.drawing(""), results=answers.drawn), answers)
    except NoNumberError as error:
        untested = ReadingVerdict(verdict="cannot be tested", holds_frac=math.nan, reason=error.what)
        return Reading(entry=reading, claimed=claimed, term=None, value=None, verdict=untested, used={})
    used = _used(expression, names, answers)

    def with_facts(values: Mapping[str, Array]) -> Array:
        draw = Draw(sampler=replacing(values)(""), results=lambda each: answers.replaced(each, values))
        return term_of(expression, names, draw, answers).samples

    if reading.is_premise:
        verdict = ReadingVerdict(verdict="cannot be tested", holds_frac=math.nan, reason=PREMISE)
    else:
        verdict = reading_verdict(term.samples, claimed, entry.relation, used, with_facts)
    return Reading(entry=reading, claimed=claimed, term=term, value=term.range, verdict=verdict, used=used)


def _used(expression: str, names: Names, answers: Answers) -> dict[str, UsedFact]:
    """Every fact that an expression rests on, by name."""
    used: dict[str, UsedFact] = {}

    def results(scenario: Scenario) -> Mapping[str, Number]:
        found, facts = answers.stated(scenario)
        used.update(facts)
        return found

    term_of(expression, names, Draw(sampler=listing(used)(""), results=results), answers)
    return used
