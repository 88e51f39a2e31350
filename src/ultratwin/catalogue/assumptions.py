"""Assuming another value of a figure, inside the range that its sources leave: `--assume`, `ultratwin.assuming`.

>>> from ultratwin.catalogue import loader
>>> with assuming({"trainium4.memory_bytes": "432GiB"}):
...     loader.entry("chips", "trainium4").figures["memory_bytes"].value
432.0
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import msgspec

from ultratwin.catalogue import loader
from ultratwin.catalogue.facts import Fact
from ultratwin.catalogue.overrides import Override, in_force, overriding
from ultratwin.catalogue.schema import ENTRY_TYPES, FIGURES
from ultratwin.errors import CatalogueError, ScenarioError, UnitError
from ultratwin.units import parse, to_si

KINDS: Final = tuple(kind for kind in ENTRY_TYPES if kind not in ("models", "diffusion"))
"""Kinds of entries whose figures may be assumed: not what a model is."""
_SLACK_FRAC: Final = 1e-9
_WHOLE: Final = ("num_", "chips_per_node", "domain_size", "max_chips", "max_hops", "block_size", "max_num_")
"""Beginnings of the names of figures that are counts."""


@contextmanager
def assuming(assumptions: Mapping[str, str | float]) -> Iterator[None]:
    """Answers inside the `with` block rest on other values of some figures; everything that follows is recomputed.

    Args: assumptions: "entry.figure" (or "kind/entry.figure") -> a quantity such as "432GiB"; a number is in SI
    Raises: ScenarioError or CatalogueError for an unknown figure, or a value outside the range that its sources leave

    Read answers inside the block too: what they print names the assumptions that are in force.
    """
    with overriding(tuple(override(key, value) for key, value in assumptions.items())):
        yield


def parsed(texts: Iterable[str]) -> dict[str, str]:
    """key=value texts as a mapping; several may stand in one text, separated by commas.

    Raises: ScenarioError for a text without =
    """
    found: dict[str, str] = {}
    for each in (part.strip() for text in texts for part in text.split(",") if part.strip()):
        key, equals, value = each.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise ScenarioError(
                f'"{each[:80]}" is no assumption', where="--assume",
                allowed="ENTRY.FIGURE=VALUE, such as trainium4.memory_bytes=432GiB",
            )  # fmt: skip
        found[key.strip()] = value.strip()
    return found


def override(key: str, value: str | float) -> Override:
    """A figure with the value that is assumed instead.

    Raises: as `assuming`
    """
    kind, entry, figure = _found(key)
    stated = loader.stated_entry(kind, entry).figures[figure]
    si = _quantity(key, value, FIGURES[kind][figure])
    low, high = stated.range_si
    slack = _SLACK_FRAC * max(abs(low), abs(high))
    if not low - slack <= si <= high + slack:
        _refuse(key, value, stated)
    if kind == "claims" and figure.startswith("claimed"):
        raise ScenarioError(f"{key} is what was claimed", where="--assume", allowed="figures that a verdict rests on")
    if figure.startswith(_WHOLE) and si != int(si):
        raise ScenarioError(f"{key} = {value} is not a whole number", where="--assume", allowed=_range(stated))
    amount = si / to_si(1.0, stated.unit)[0]
    said = f"assumed; the catalogue has {stated.value:g} {stated.unit}".rstrip() + f" ({stated.status})"
    fact = msgspec.structs.replace(
        stated, value=amount, low=amount, high=amount, status="assumed", expression="", alternatives=(),
        preferred_because="", note="; ".join(filter(None, [said, stated.note])),
    )  # fmt: skip
    return Override(kind=kind, entry=entry, figure=figure, fact=fact, stated=stated)


def assumed_json() -> list[dict[str, Any]]:
    """What is assumed in this context, as JSON objects."""
    return [
        {
            "id": f"{each.kind}/{each.entry}/{each.figure}", "value": each.fact.value, "unit": each.fact.unit,
            "si": each.fact.si, "stated": each.stated.value, "stated_status": each.stated.status,
            "low": _ends(each.stated)[0], "high": _ends(each.stated)[1],
        }
        for each in in_force()
    ]  # fmt: skip


def assumed_lines() -> tuple[str, ...]:
    """What is assumed in this context, a line each."""
    return tuple(
        f"{each.kind}/{each.entry}/{each.figure} = {each.fact.value:,.6g} {each.fact.unit}".rstrip()
        + f" instead of {each.stated.value:,.6g} ({_range(each.stated)}, {each.stated.status})"
        for each in in_force()
    )


def _quantity(key: str, value: str | float, dimension: str) -> float:
    try:
        return parse(value, dimension, where=key)
    except UnitError as error:
        if error.where:
            raise
        raise UnitError(f'"{value}": {error.what}', where=key, allowed=error.allowed) from None


def _refuse(key: str, value: str | float, stated: Fact) -> NoReturn:
    if stated.low is None and stated.high is None:
        raise ScenarioError(
            f"{key} is {stated.status} without a range: {stated.value:g} {stated.unit}".rstrip(), where="--assume",
            allowed="figures whose sources leave a range", hint="a file of your own can hold another chip or system",
        )  # fmt: skip
    raise ScenarioError(
        f"{key} = {value} lies outside its range", where="--assume", allowed=_range(stated),
        hint=f"the catalogue has {stated.value:g} {stated.unit} ({stated.status})",
    )  # fmt: skip


def _ends(fact: Fact) -> tuple[float, float]:
    return fact.value if fact.low is None else fact.low, fact.value if fact.high is None else fact.high


def _range(fact: Fact) -> str:
    low, high = _ends(fact)
    return f"{low:,.6g} to {high:,.6g} {fact.unit}".rstrip()


def _found(key: str) -> tuple[str, str, str]:
    """Kind, id of the entry, and figure that a key stands for.

    Raises: ScenarioError if there is none, or several
    """
    name, dot, figure = key.rpartition(".")
    if not dot or "/" in figure:  # as explanations print it: kind/entry/figure
        name, dot, figure = key.rpartition("/")
    prefix, slash, rest = name.partition("/")
    kinds, name = ((prefix,), rest) if slash and prefix in ENTRY_TYPES else (KINDS, name)
    if not dot or not name:
        raise ScenarioError(
            f'"{key[:80]}" names no figure', where="--assume", allowed="ENTRY.FIGURE, such as trainium4.memory_bytes"
        )
    entries = [(kind, entry) for kind in kinds if kind in KINDS and (entry := _entry(kind, name)) is not None]
    if not entries:
        _unknown_entry(name)
    holding = [(kind, entry, figure) for kind, entry in entries if figure in loader.entry(kind, entry).figures]
    if not holding:
        _unknown_figure(name, figure, entries)
    if len(holding) > 1:
        raise ScenarioError(
            f'"{key}" is a figure of several entries', where="--assume",
            allowed=", ".join(f"{kind}/{entry}.{figure}" for kind, entry, _ in holding),
        )  # fmt: skip
    return holding[0]


def _entry(kind: str, name: str) -> str | None:
    try:
        return loader.resolve(kind, name)
    except CatalogueError:
        return None


def _unknown_entry(name: str) -> NoReturn:
    known = [each for kind in KINDS for each in loader.ids(kind)]
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    raise ScenarioError(
        f'nothing in the catalogue is called "{name[:80]}"', where="--assume",
        hint=(f"did you mean {' or '.join(near)}? " if near else "") + "`ultratwin catalogue` lists all",
    )  # fmt: skip


def _unknown_figure(name: str, figure: str, entries: Iterable[tuple[str, str]]) -> NoReturn:
    facts = {key: fact for kind, entry in entries for key, fact in loader.entry(kind, entry).figures.items()}
    ranged = [key for key, fact in facts.items() if fact.low is not None and fact.low != fact.high]
    near = difflib.get_close_matches(figure, list(facts), n=3, cutoff=0.4)
    raise ScenarioError(
        f'{name} has no figure "{figure[:80]}"', where="--assume", allowed=", ".join(ranged) or "none has a range",
        hint=f"did you mean {' or '.join(near)}?" if near else "",
    )  # fmt: skip
