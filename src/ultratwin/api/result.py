"""What all results have in common: blocks for the terminal, text, JSON."""

from __future__ import annotations

from typing import Any, TypeVar

from ultratwin.errors import ScenarioError
from ultratwin.report.tables import Block

_Value = TypeVar("_Value")


class Result:
    """An answer that can be shown. Variants say what its blocks and its JSON objects are."""

    __slots__ = ()

    def blocks(self) -> list[Block]:
        """The answer as blocks of a table."""
        raise NotImplementedError

    def as_dict(self) -> dict[str, Any]:
        """The answer as JSON objects."""
        raise NotImplementedError

    def to_json(self) -> str:
        """The answer as JSON; byte-identical for an equal question, version and catalogue."""
        from ultratwin.report.json import dumped

        return dumped(self.as_dict())

    def table(self, width: int = 110) -> str:
        """The answer as plain text for a terminal so many columns wide."""
        from ultratwin.report.tables import rendered

        return rendered(self.blocks(), width=width)


def required(value: _Value | None, missing: str, hint: str = "ask .feasible first") -> _Value:
    """A figure that an answer may lack.

    Raises: ScenarioError where it does: `missing` says what
    """
    if value is None:
        raise ScenarioError(missing, hint=hint)
    return value
