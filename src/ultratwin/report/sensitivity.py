"""What an answer depends on, as a two-sided chart and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ultratwin.planning.sensitivity import NUDGE_FRAC, Bar, Tornado
from ultratwin.report.figures import cited
from ultratwin.report.metrics import said
from ultratwin.report.tables import TwoSided

NOUNS: Final[Mapping[str, str]] = {"time": "duration", "cost": "cost", "energy": "energy", "carbon": "CO2"}
"""What each objective is about."""
_SMALLEST_FRAC: Final = 5e-4
_MOST_ROWS: Final = 12


def tornado_block(tornado: Tornado, objective: str) -> TwoSided:
    """A chart of the facts whose sources leave a range: the result at either end, every other fact at its value."""
    noun = NOUNS[objective]
    title = (
        f"{noun}{_offer(tornado, objective)}: change with each figure alone at the low and the high end of its range"
    )
    return _chart(title, tornado, tornado.sorted_ranges(objective), objective)


def nudged_block(tornado: Tornado, objective: str) -> TwoSided:
    """A chart of all facts, whether their sources leave a range or not: the result with each a tenth off."""
    title = f"{NOUNS[objective]}{_offer(tornado, objective)}: change with each figure alone {NUDGE_FRAC * 100:g} % off"
    return _chart(title, tornado, tornado.sorted_nudged(objective), objective)


def tornado_json(tornado: Tornado) -> dict[str, Any]:
    """A tornado as JSON objects: SI results by objective, ends in the unit of each fact."""
    return {
        "objective": tornado.objective,
        "offer": tornado.offer,
        "expected": dict(tornado.expected),
        "ranges": [_bar_json(bar) for bar in tornado.ranges],
        "nudged": [
            _bar_json(bar) | {"elasticity": {each: bar.elasticity(each) for each in bar.at_low}}
            for bar in tornado.nudged
        ],
    }


def _offer(tornado: Tornado, objective: str) -> str:
    return f" ({tornado.offer.replace('_', ' ')})" if objective == "cost" and tornado.offer else ""


def _chart(title: str, tornado: Tornado, bars: Sequence[Bar], objective: str) -> TwoSided:
    expected = tornado.expected.get(objective)
    if expected is None:
        return TwoSided(title=f"{NOUNS[objective]}: no price is public, and none was given", rows=())
    shown = [bar for bar in bars if bar.swing(objective) > _SMALLEST_FRAC * expected][:_MOST_ROWS]
    widest = max((_reach(bar, objective, expected) for bar in shown), default=1.0)
    return TwoSided(title=title, rows=tuple(_row(bar, objective, expected, widest) for bar in shown))


def _reach(bar: Bar, objective: str, expected: float) -> float:
    return max(abs(bar.at_low[objective] / expected - 1), abs(bar.at_high[objective] / expected - 1))


def _row(bar: Bar, objective: str, expected: float, widest: float) -> tuple[str, str, float, float, str]:
    """The end of the fact that gives less to the left, the other one to the right."""
    ends = sorted(
        ((bar.at_low[objective] / expected - 1, bar.low), (bar.at_high[objective] / expected - 1, bar.high)),
        key=lambda end: end[0],
    )
    (less, left), (more, right) = ends
    lengths = max(-less, 0.0) / widest, max(more, 0.0) / widest
    unit = f" {bar.fact.unit}".rstrip()
    return (
        bar.fact.name,
        f"at {said(left)}{unit}  {_change(less)}",
        *lengths,
        f"{_change(more)}  at {said(right)}{unit}",
    )


def _change(frac: float) -> str:
    return f"{frac:+.1%}" if abs(frac) >= _SMALLEST_FRAC else "0.0%"


def _bar_json(bar: Bar) -> dict[str, Any]:
    return {
        "fact": bar.fact.name,
        "unit": bar.fact.unit,
        "value": bar.fact.value,
        "low": bar.low,
        "high": bar.high,
        "status": bar.fact.status,
        "sources": [{"title": title, "url": url} for title, url in cited(bar.fact.source)],
        "at_low": dict(bar.at_low),
        "at_high": dict(bar.at_high),
    }
