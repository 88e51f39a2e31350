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


def count_said(value: float) -> str:
    """Tokens or parameters as the field writes them: B is 10^9.

    Example:
        >>> count_said(405.85e9), count_said(15.6e12), count_said(124.4e6), count_said(512)
        ('406B', '15.6T', '124M', '512')
    """
    for scale, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * scale:
            return f"{value / scale:.3g}{letter}"
    return f"{value:.3g}"
