"""Where a claim's number comes from: a tree of figures, results of the twin, and the arithmetic between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ultratwin.catalogue.expressions import computed
from ultratwin.catalogue.facts import Fact
from ultratwin.catalogue.schema import Scenario
from ultratwin.errors import unknown_name
from ultratwin.hardware.chip import Array, Number
from ultratwin.planning.claims.scenarios import UNITS, Answered, Answers, NoNumberError
from ultratwin.planning.uncertainty import Range, Sampler, range_of

SI_UNITS: Final[Mapping[str, str]] = {
    "number": "", "byte": "B", "byte_per_s": "B/s", "flop_per_s": "FLOP/s", "second": "s", "watt": "W",
    "usd_per_s": "USD/s", "hertz": "Hz",
}  # fmt: skip
_BINDS: Final = {"+": 1, "-": 1, "*": 2, "/": 2, "**": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A number of the tree, [1 + sample] in SI, and what it was computed from.

    text: as the expression has it; id: of a catalogue figure (kind/entry/figure), with its `fact`; answer: of a result
    of the twin; sign: of arithmetic, whose operands are the children
    """

    text: str
    values: Number
    unit: str = ""
    id: str = ""
    fact: Fact | None = None
    answer: Answered | None = None
    sign: str = ""
    children: tuple[Term, ...] = ()

    @property
    def samples(self) -> Array:
        """The values as an array, [1 + sample], or [1] where nothing is uncertain."""
        return np.atleast_1d(np.asarray(self.values, dtype=np.float64))

    @property
    def range(self) -> Range:
        """Low, expected, high."""
        samples = self.samples
        return range_of(samples if len(samples) > 1 and np.ptp(samples) > 0 else float(samples[0]))

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Term]]:
        """This term and all below, with their depth."""
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the names of a claim's expressions are: figures by (kind/entry, figures), and scenarios.

    `own`: the claim's file; `entries`, `scenarios`: by the words that it gives them.
    """

    own: tuple[str, Mapping[str, Fact]]
    entries: Mapping[str, tuple[str, Mapping[str, Fact]]]
    scenarios: Mapping[str, Scenario]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One way to give uncertain facts their values: for figures of the catalogue, and in the results of scenarios."""

    sampler: Sampler
    results: Callable[[Scenario], Mapping[str, Number]]


def term_of(expression: str, names: Names, draw: Draw, answers: Answers) -> Term:
    """The tree of an expression, with uncertain facts as they are drawn.

    Raises: NoNumberError where the twin has no number; CatalogueError for a name that there is not
    """
    return computed(
        expression,
        lambda name: _leaf(name, names, draw, answers),
        lambda number: Term(text=f"{number:g}", values=number),
        _joined,
    )


def _leaf(name: str, names: Names, draw: Draw, answers: Answers) -> Term:
    word, dot, key = name.partition(".")
    if not dot:
        return _figure(name, names.own, word, draw)
    if word in names.entries:
        return _figure(name, names.entries[word], key, draw)
    if word not in names.scenarios:
        raise unknown_name("entry or scenario of the claim", word, [*names.entries, *names.scenarios])
    if key not in UNITS:
        raise unknown_name("result of a scenario", key, UNITS)
    scenario = names.scenarios[word]
    answer, results = answers.answer(scenario), draw.results(scenario)
    if key not in results:
        raise NoNumberError(f"no price of {answer.answer.system.id} is public")
    return Term(text=name, values=results[key], unit=UNITS[key], answer=answer)


def _figure(name: str, entry: tuple[str, Mapping[str, Fact]], key: str, draw: Draw) -> Term:
    entry_id, facts = entry
    if key not in facts:
        raise unknown_name(f"figure of {entry_id}", key, facts)
    fact = facts[key]
    # named as the runs of training and serving name it, so that it is drawn alike
    values = draw.sampler.fact(f"{entry_id.partition('/')[2]} {key}", facts, key)
    return Term(text=name, values=values, unit=SI_UNITS[fact.dimension], id=f"{entry_id}/{key}", fact=fact)


def _joined(sign: str, operate: Callable[[Any, Any], Any], left: Term, right: Term) -> Term:
    unit = left.unit if left.unit == right.unit and sign in "+-" else ""
    if sign in "*/" and right.unit == "":
        unit = left.unit
    if sign == "*" and left.unit == "":
        unit = right.unit
    text = f"{_bracketed(left, sign)} {sign} {_bracketed(right, sign, is_right=True)}"
    return Term(text=text, values=operate(left.values, right.values), unit=unit, sign=sign, children=(left, right))


def _bracketed(term: Term, sign: str, *, is_right: bool = False) -> str:
    if not term.sign:
        return term.text
    loose = _BINDS[term.sign] < _BINDS[sign] or (is_right and sign in "-/" and _BINDS[term.sign] == _BINDS[sign])
    return f"({term.text})" if loose else term.text
