"""What the scoreboard says about one published measurement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["scored", "rejected", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """One row: prediction, measurement and 90 % range in `unit`, or why there is none.

    `id` is the row's own, or its line number (the header is line 1) where it has none. `groups` are the labels that
    the scoreboard groups by: source, chip, dtype, kind.
    """

    id: str
    metric: str
    unit: str
    status: Verdict
    predicted: float | None = None
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    groups: dict[str, str] = field(default_factory=dict)
