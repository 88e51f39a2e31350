"""What follows from an assumption: figures whose expressions name an assumed one, and their ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from ultratwin.catalogue.expressions import evaluate, names
from ultratwin.catalogue.facts import Fact
from ultratwin.units import to_si

Related = Mapping[str, Mapping[str, Fact]]
_SAME_FRAC: Final = 0.01
"""How near a stated end of a range lies to what the expression gives at the ends of its figures, if that is its
origin: ends are written rounded."""


def recomputed(
    stated: Mapping[str, Fact], stated_related: Related, assumed: Mapping[str, Fact], related: Related
) -> dict[str, Fact]:
    """Figures of an entry with some assumed, and with everything that follows from them.

    A range that came from the range of a figure that is now assumed shrinks with it; what else leaves a figure open
    stays.
    Args:
        stated, stated_related: the entry's figures and those that its expressions may use, as the files have them
        assumed: of this entry; related: as stated_related, with what is assumed of those entries
    """
    found = dict(stated) | dict(assumed)
    for _ in stated:  # each pass settles what rests on figures that are settled
        before = dict(found)
        for key, fact in stated.items():
            if fact.expression and key not in assumed:
                found[key] = _following(fact, (stated, stated_related), (found, related))
        if found == before:
            break
    return found


def _following(fact: Fact, stated: tuple[Mapping[str, Fact], Related], now: tuple[Mapping[str, Fact], Related]) -> Fact:
    """A figure as its expression gives it now; the figure itself if nothing that it names has changed."""
    old, new = evaluate(fact.expression, *stated), evaluate(fact.expression, *now)
    old_ends, new_ends = _ends(fact.expression, *stated), _ends(fact.expression, *now)
    if (old, old_ends) == (new, new_ends):
        return fact
    unit = to_si(1.0, fact.unit)[0]
    value = new / unit
    changes = {"value": value, "note": "; ".join(filter(None, ["follows from what is assumed", fact.note]))}
    if fact.low is None or fact.high is None:
        return msgspec.structs.replace(fact, **changes)
    ends = []
    for stated_end, was, is_now, chosen in zip(fact.range_si, old_ends, new_ends, (min, max), strict=True):
        from_figures = math.isclose(stated_end, was, rel_tol=_SAME_FRAC)
        ends.append((is_now if from_figures else chosen(stated_end, new)) / unit)
    low, high = min(ends[0], value), max(ends[1], value)
    return msgspec.structs.replace(fact, low=low, high=high, **changes)


def _ends(expression: str, figures: Mapping[str, Fact], related: Related) -> tuple[float, float]:
    """The least and the most of an expression with all that it names at one end of their ranges."""
    values = []
    for end in (0, 1):
        at_end = {key: _fixed(fact, end) for key, fact in figures.items() if key in names(expression)}
        theirs = {word: {key: _fixed(fact, end) for key, fact in each.items()} for word, each in related.items()}
        values.append(evaluate(expression, dict(figures) | at_end, theirs))
    return min(values), max(values)


def _fixed(fact: Fact, end: int) -> Fact:
    stated = (fact.low, fact.high)[end]
    return fact if stated is None else msgspec.structs.replace(fact, value=stated)
