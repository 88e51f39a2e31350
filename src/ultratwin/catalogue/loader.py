"""Reading the catalogue: one TOML file per entry, checked against the schema, found by id or alias.

Layout: data/<kind>/<id>.toml, and data/sources*.toml. A file is read when it is asked for, and only once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from ultratwin.catalogue import overrides
from ultratwin.catalogue.facts import RANGED, Fact, Source
from ultratwin.catalogue.recomputing import recomputed
from ultratwin.catalogue.schema import ENTRY_TYPES, FIGURES, RELATED, REQUIRED, Entry
from ultratwin.errors import CatalogueError, UnitError, unknown_name

DATA: Final = Path(__file__).parent / "data"


def read_toml(path: Path, kind: type[Any]) -> Any:
    """One TOML file as a strict msgspec type.

    Raises: CatalogueError naming the file and the key
    """
    try:
        return msgspec.toml.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CatalogueError(str(error), where=str(path), hint="see docs/how-to/add-a-chip.md for the layout") from None


@cache
def sources() -> dict[str, Source]:
    """Every source that a fact may name, by id."""
    found: dict[str, Source] = {}
    for path in sorted(DATA.glob("sources*.toml")):
        found |= read_toml(path, dict[str, Source])
    return found


@cache
def ids(kind: str) -> tuple[str, ...]:
    """The ids of all entries of a kind, sorted."""
    return tuple(sorted(path.name.removesuffix(".toml") for path in (DATA / kind).glob("*.toml")))


def entry(kind: str, name: str) -> Entry:
    """One entry by id or alias (neither is case-sensitive), with what is assumed in this context.

    Raises: CatalogueError if nobody has that name, with the nearest one that exists
    """
    return _entry_assumed(kind, name) if overrides.in_force() else stated_entry(kind, name)


@cache
def stated_entry(kind: str, name: str) -> Entry:
    """One entry as its file has it, whatever is assumed.

    Raises: as `entry`
    """
    return load_file(kind, DATA / kind / f"{resolve(kind, name)}.toml")


@overrides.cached
def _entry_assumed(kind: str, name: str) -> Entry:
    found = stated_entry(kind, name)
    assumed = {
        each.figure: each.fact
        for each in overrides.in_force()
        if (each.kind, each.entry) == (kind, resolve(kind, name))
    }
    as_stated, now = related_figures(kind, found, stated=True), related_figures(kind, found)
    figures = recomputed(found.figures, as_stated, assumed, now)
    return msgspec.structs.replace(found, figures=figures)


def related_figures(kind: str, found: Entry, *, stated: bool = False) -> dict[str, Mapping[str, Fact]]:
    """Figures of the entries that one names, by what relates them: those that its expressions may use.

    Args: stated: as the files have them, whatever is assumed
    """
    read = stated_entry if stated else entry
    named = {word: (theirs, getattr(found, word)) for word, theirs in RELATED.get(kind, {}).items()}
    for word, text in getattr(found, "entries", {}).items():
        theirs, _, name = text.partition("/")
        named[word] = (theirs, name)
    return {word: read(theirs, name).figures for word, (theirs, name) in named.items() if name}


@cache
def resolve(kind: str, name: str) -> str:
    """The id that a name or alias stands for.

    Raises: CatalogueError if nobody has that name
    """
    if name in ids(kind):
        return name
    names = _names(kind)
    if name.lower() not in names:
        error = unknown_name(kind.rstrip("s"), name, ids(kind))
        error.hint = (error.hint + "; " if error.hint else "") + f"`ultratwin catalogue {kind}` lists all"
        raise CatalogueError(error.what, allowed=error.allowed, hint=error.hint)
    return names[name.lower()]


@cache
def _names(kind: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for each in ids(kind):
        found = load_file(kind, DATA / kind / f"{each}.toml")
        for spelling in (each, found.name, *found.aliases):
            names.setdefault(spelling.lower(), each)
    return names


@cache
def load_file(kind: str, path: Path) -> Entry:
    """One file, checked: known figures, right dimensions, a source for each, a range where one is due.

    Raises: CatalogueError with all faults of the file
    """
    found: Entry = read_toml(path, ENTRY_TYPES[kind])
    faults = [fault for name, fact in found.figures.items() for fault in _faults(kind, name, fact)]
    faults += [f"figures.{name} is missing" for name in REQUIRED.get(kind, ()) if name not in found.figures]
    if faults:
        raise CatalogueError("; ".join(faults), where=str(path), hint="catalogue/schema.py lists what a file may hold")
    return found


def _faults(kind: str, name: str, fact: Fact) -> list[str]:
    where = f"figures.{name}"
    if name not in FIGURES[kind]:
        return [f"{where} is not a known figure of {kind}"]
    faults = []
    try:
        if fact.dimension != FIGURES[kind][name]:
            faults.append(f"{where} is a {fact.dimension}, expected a {FIGURES[kind][name]}")
    except UnitError as error:
        faults.append(f"{where}: {error.what}")
    faults += [f"{where}: unknown source {each}" for each in fact.source.split() if each not in sources()]
    faults += [
        f"{where}: unknown source {each}"
        for reading in fact.alternatives
        for each in reading.source.split()
        if each not in sources()
    ]
    if not fact.source.split():
        faults.append(f"{where} has no source")
    if fact.status in RANGED and (fact.low is None or fact.high is None):
        faults.append(f"{where} is {fact.status} and needs low and high")
    if fact.low is not None and fact.high is not None and not fact.low <= fact.value <= fact.high:
        faults.append(f"{where}: low <= value <= high does not hold")
    if fact.status == "derived" and not fact.expression:
        faults.append(f"{where} is derived and needs its expression")
    return faults


@cache
def catalogue_hash() -> str:
    """A short hash of every catalogue file: which facts an answer was computed from."""
    digest = hashlib.sha256()
    for path in sorted(DATA.rglob("*.toml")):
        digest.update(path.relative_to(DATA).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
