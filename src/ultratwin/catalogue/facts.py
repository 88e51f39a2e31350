"""A figure is a fact, not a number: value, unit, status, source, range (design D2)."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from ultratwin import units

Status = Literal["published", "announced", "measured", "derived", "estimated", "assumed"]
STATUSES: tuple[str, ...] = get_args(Status)
RANGED: frozenset[str] = frozenset({"announced", "estimated", "assumed"})
"""Statuses whose facts must carry low and high."""


class Reading(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Another source's value of the same figure, kept beside the preferred one."""

    value: float
    unit: str
    status: Status
    source: str
    note: str = ""


class Fact(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One figure: what a source says, in the unit that it uses.

    `source` is one or more ids of sources.toml, separated by blanks. `low` and `high` are in `unit`.
    A derived fact carries the `expression` over other figures of its file (or numbers) that gives it, in SI.
    """

    value: float
    unit: str
    status: Status
    source: str
    low: float | None = None
    high: float | None = None
    note: str = ""
    expression: str = ""
    alternatives: tuple[Reading, ...] = ()
    preferred_because: str = ""

    @property
    def si(self) -> float:
        """The value in SI."""
        return units.to_si(self.value, self.unit)[0]

    @property
    def dimension(self) -> str:
        """What the unit measures: byte, byte_per_s, flop_per_s, second, ..."""
        return units.to_si(self.value, self.unit)[1]

    @property
    def range_si(self) -> tuple[float, float]:
        """Low and high in SI; the value itself twice where the file states no range."""
        ends = [self.value if self.low is None else self.low, self.value if self.high is None else self.high]
        low, high = (units.to_si(end, self.unit)[0] for end in ends)
        return low, high


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a figure was read, and when."""

    title: str
    url: str = ""
    accessed: str = ""
    note: str = ""
