"""Charts as SVG, readable on light and dark backgrounds: lines over two axes.

A page shows them as images; colours follow the reader's scheme. Text is text, so that it can be searched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 760
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 20, 62, 58
_PLOT_HEIGHT: Final = 320
_COLOURS: Final = (
    ("#0969da", "#4493f8"), ("#bc4c00", "#f0883e"), ("#1a7f37", "#3fb950"), ("#8250df", "#ab7df8"),
    ("#57606a", "#9198a1"),
)  # fmt: skip
"""Of a series, on a light and on a dark background."""


def _style() -> str:
    """Rules for both schemes."""
    rules = []
    for which, ink, soft in ((0, "#24292f", "#57606a"), (1, "#e6edf3", "#9198a1")):
        each = [f"text {{ fill: {ink}; }} .small {{ fill: {soft}; }} .axis, .mark, .grid {{ stroke: {soft}; }}"]
        each += [
            f".line.s{at} {{ stroke: {pair[which]}; }} .dot.s{at} {{ fill: {pair[which]}; }}"
            for at, pair in enumerate(_COLOURS)
        ]
        rules.append("\n  ".join(each))
    return f"""<style>
  text {{ font: 13px system-ui, sans-serif; }} .title {{ font-size: 16px; font-weight: 600; }}
  .small {{ font-size: 12px; }} .grid {{ stroke-opacity: .25; }} .mark {{ stroke-dasharray: 5 4; }}
  .line {{ fill: none; stroke-width: 2; }}
  {rules[0]}
  @media (prefers-color-scheme: dark) {{
  {rules[1]}
  }}
</style>"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points of one line, in order. `dashed`: a comparison rather than an answer."""

    name: str
    points: tuple[tuple[float, float], ...]
    dashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What an axis is called, its unit in the name, and whether it is logarithmic."""

    label: str
    log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Numbers to pixels between two ends, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def __call__(self, value: float) -> float:
        """Where a value lies."""
        share = (self._of(value) - self._of(self.low)) / (self._of(self.high) - self._of(self.low))
        return round(self.start + share * (self.end - self.start), 2)

    def _of(self, value: float) -> float:
        return math.log10(value) if self.log else value


def ticks(low: float, high: float, *, log: bool) -> list[float]:
    """Round numbers that cover a range: 1, 2, 5 and tens of them.

    Example:
        >>> ticks(0.0, 9.0, log=False)
        [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
        >>> ticks(3.0, 60.0, log=True)
        [2.0, 5.0, 10.0, 20.0, 50.0, 100.0]
    """
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1
        every = [digit * 10.0**power for power in range(first, last + 1) for digit in (1, 2, 5)]
        at_least = max((each for each in every if each <= low * (1 + 1e-9)), default=every[0])
        # a range of one number still needs two ends
        at_most = min((each for each in every if each >= high * (1 - 1e-9) and each > at_least), default=every[-1])
        return [each for each in every if at_least <= each <= at_most]
    rough = (high - low) / 5 or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    return [round(at * step, 10) for at in range(first, math.ceil(high / step - 1e-9) + 1)]


def said(value: float) -> str:
    """A tick's label."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:g}"


def line_chart(
    title: str, subtitle: str, x: Axis, y: Axis, series: Sequence[Series], *, marks: Sequence[tuple[str, float]] = ()
) -> str:
    """Lines with dots over two axes; `marks` are horizontal lines with a name, such as real time.

    Returns: the SVG
    Raises: ValueError if there is nothing to show, or a logarithmic axis meets zero
    """
    points = [point for each in series for point in each.points]
    if not points:
        raise ValueError("no points")
    heights = [point[1] for point in points] + [value for _, value in marks]
    across = _scale([point[0] for point in points], x, _LEFT, WIDTH - _RIGHT)
    legend = 20 * math.ceil(len(series) / 3)
    top = _TOP + legend
    up = _scale(heights, y, top + _PLOT_HEIGHT, top)
    parts = [*_frame(title, subtitle), *_legend(series), *_grid(across, up, x, y)]
    for name, value in marks:
        at = up(value)
        parts.append(f'<line class="mark" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="small" x="{WIDTH - _RIGHT}" y="{at - 5}" text-anchor="end">{escape(name)}</text>')
    for number, each in enumerate(series):
        path = " ".join(f"{across(one)},{up(other)}" for one, other in each.points)
        dash = ' stroke-dasharray="6 4"' if each.dashed else ""
        parts.append(f'<polyline class="line s{number % 5}" points="{path}"{dash}/>')
        if not each.dashed:
            parts += [
                f'<circle class="dot s{number % 5}" cx="{across(one)}" cy="{up(other)}" r="3.5"/>'
                for one, other in each.points
            ]
    return _document(parts, top + _PLOT_HEIGHT + _BOTTOM, title)


def _scale(values: Sequence[float], axis: Axis, start: float, end: float) -> Scale:
    low, high = min(values), max(values)
    if axis.log and low <= 0:
        raise ValueError(f"{axis.label} is {low:g} on a logarithmic axis")
    found = ticks(low if axis.log else min(low, 0.0), high, log=axis.log)
    return Scale(low=found[0], high=found[-1], start=start, end=end, log=axis.log)


def _grid(across: Scale, up: Scale, x: Axis, y: Axis) -> list[str]:
    bottom, top, right = up.start, up.end, across.end
    parts = []
    for value in ticks(across.low, across.high, log=x.log):
        at = across(value)
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{top}" y2="{bottom}"/>')
        parts.append(f'<text class="small" x="{at}" y="{bottom + 18}" text-anchor="middle">{said(value)}</text>')
    for value in ticks(up.low, up.high, log=y.log):
        at = up(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="small" x="{_LEFT - 8}" y="{at + 4}" text-anchor="end">{said(value)}</text>')
    parts.append(f'<path class="axis" fill="none" d="M{_LEFT},{top}V{bottom}H{right}"/>')
    parts.append(f'<text x="{(_LEFT + right) / 2}" y="{bottom + 42}" text-anchor="middle">{escape(x.label)}</text>')
    middle = (top + bottom) / 2
    turned = f'transform="rotate(-90 18 {middle})"'
    parts.append(f'<text x="18" y="{middle}" text-anchor="middle" {turned}>{escape(y.label)}</text>')
    return parts


def _legend(series: Sequence[Series]) -> list[str]:
    parts, column = [], (WIDTH - _LEFT - _RIGHT) / 3
    for number, each in enumerate(series):
        left, top = _LEFT + column * (number % 3), _TOP + 2 + 20 * (number // 3)
        dash = ' stroke-dasharray="6 4"' if each.dashed else ""
        parts.append(
            f'<line class="line s{number % 5}" x1="{left}" x2="{left + 22}" y1="{top - 4}" y2="{top - 4}"{dash}/>'
        )
        parts.append(f'<text class="small" x="{left + 28}" y="{top}">{escape(each.name)}</text>')
    return parts


def _frame(title: str, subtitle: str) -> list[str]:
    return [
        f'<text class="title" x="{_RIGHT}" y="26">{escape(title)}</text>',
        f'<text class="small" x="{_RIGHT}" y="45">{escape(subtitle)}</text>',
    ]


def _document(parts: Sequence[str], height: float, title: str) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", _style(), *parts, "</svg>"]) + "\n"
