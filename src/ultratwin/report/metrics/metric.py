"""What a metric is: a name, a formula, where it is read from, and how it is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ultratwin.planning.run import Run
from ultratwin.planning.uncertainty import Range


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure of a training run.

    `tag` is its name in JSON and Python, with its SI unit; `label` what people call it; `formula` how it is computed.
    `unit` and `scale` say it in the unit that people use: printed value = SI value / scale.
    """

    tag: str
    label: str
    formula: str
    unit: str
    scale: float
    read: Callable[[Run], Range]


def scaled(value: Range, factor: float) -> Range:
    """A range times a number."""
    return Range(low=value.low * factor, expected=value.expected * factor, high=value.high * factor)


def said(value: float) -> str:
    """A number to three digits, thousands separated.

    Example:
        >>> said(0.12345), said(1234567.0), said(25.39), said(0.0)
        ('0.123', '1,234,567', '25.4', '0')
        >>> said(5.0), said(99.96)
        ('5.00', '100')
    """
    if value == 0 or abs(value) >= 1e15:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"
