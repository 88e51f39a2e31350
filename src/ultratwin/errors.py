"""Every error that Ultratwin raises on purpose.

    UltratwinError              bad input; the command line prints it and exits with code 2
    ├── UnitError               a quantity that does not parse, or has the wrong dimension
    ├── CatalogueError          a catalogue file that breaks its schema, or an unknown name
    ├── ModelError              a config.json that is unreadable, incomplete or impossible
    ├── ScenarioError           a question that contradicts itself (sizes that don't multiply out, ...)
    └── TruthError              a file of measurements that can't be read

A plan that cannot run is not an error: it is a `Rejected` value (ultratwin.mapping.plan).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TypeVar

_Value = TypeVar("_Value")


class UltratwinError(Exception):
    """Bad input: what is wrong, where it came from, what is allowed, what to do."""

    def __init__(self, what: str, *, where: str = "", allowed: str = "", hint: str = "") -> None:
        self.what, self.where, self.allowed, self.hint = what, where, allowed, hint
        lines = [f"{what} ({where})" if where else what]
        if allowed:
            lines.append(f"allowed: {allowed}")
        if hint:
            lines.append(f"hint: {hint}")
        super().__init__("\n".join(lines))


class UnitError(UltratwinError):
    """A quantity that does not parse, or has the wrong dimension."""


class CatalogueError(UltratwinError):
    """A catalogue file that breaks its schema, or a name that the catalogue does not know."""


class ModelError(UltratwinError):
    """A model description that is unreadable, incomplete or impossible."""


class ScenarioError(UltratwinError):
    """A question that contradicts itself, or a value outside what a formula holds for."""


class TruthError(UltratwinError):
    """A file of measurements that can't be read."""


def unknown_name(
    kind: str, name: str, known: Iterable[str], *, error: type[UltratwinError] = CatalogueError, where: str = ""
) -> UltratwinError:
    """The error for a name that is not in a list, with the nearest match as the hint.

    Example:
        >>> print(unknown_name("chip", "trainum3", ["trainium3", "h100-sxm"]))
        unknown chip "trainum3"
        allowed: trainium3, h100-sxm
        hint: did you mean trainium3?
    """
    names = list(known)
    near = difflib.get_close_matches(name.lower(), [n.lower() for n in names], n=1, cutoff=0.5)
    original = {n.lower(): n for n in names}
    shown = ", ".join(names[:40]) + (f", ... ({len(names)} in all)" if len(names) > 40 else "")
    hint = f"did you mean {original[near[0]]}?" if near else ""
    return error(f'unknown {kind} "{name}"', where=where, allowed=shown, hint=hint)


def required(value: _Value | None, missing: str, hint: str = "ask .feasible first") -> _Value:
    """A figure that an answer may lack.

    Raises: ScenarioError where it does: `missing` says what
    """
    if value is None:
        raise ScenarioError(missing, hint=hint)
    return value
