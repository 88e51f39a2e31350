"""Reading cells of a truth row: numbers and words, with a reason where one is missing or broken."""

from __future__ import annotations

import math

Row = dict[str, str]


class Skip(Exception):
    """A row that lacks what a prediction needs; its text is the reason."""


def number(row: Row, key: str, default: float | None = None) -> float:
    """A positive, finite number of a row; zero only where there is a default.

    Raises: Skip if it is missing (and has no default) or broken
    """
    text = (row.get(key) or "").strip()
    if not text:
        if default is None:
            raise Skip(f"{key} is empty")
        return default
    try:
        value = float(text)
    except ValueError:
        raise Skip(f"{key} is not a number: {text[:40]!r}") from None
    if not math.isfinite(value) or value < 0 or (value == 0 and default is None):
        raise Skip(f"{key} is not a positive number: {text[:40]!r}")
    return value


def integer(row: Row, key: str, default: int | None = None) -> int:
    """A positive whole number of a row.

    Raises: Skip if it is missing (and has no default) or broken
    """
    value = number(row, key, None if default is None else float(default))
    if value != int(value):
        raise Skip(f"{key} is not a whole number: {value:g}")
    return int(value)


def word(row: Row, key: str, default: str = "") -> str:
    """A text of a row, without blanks around it."""
    return (row.get(key) or "").strip() or default


def row_id(row: Row, line: int) -> str:
    """The row's own id, or its line number (the header is line 1)."""
    return word(row, "id") or str(line)
