"""Verdicts, from numbers alone: of a reading by its samples against what is claimed, of a claim by its readings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ultratwin.catalogue.facts import Fact
from ultratwin.hardware.chip import Array
from ultratwin.planning.claims.sampling import OWN_ERROR
from ultratwin.planning.sensitivity import UsedFact
from ultratwin.planning.uncertainty import NUM_SAMPLES

Verdict = Literal["holds", "holds only if", "does not hold", "cannot be tested"]
SURE_FRAC: Final = 0.95
"""Share of samples that must agree for a verdict without an if."""
WithFacts = Callable[[Mapping[str, Array]], Array]
"""The number of a reading with some facts replaced, [1 + NUM_SAMPLES]; in the first, every fact has its value."""
MOST_CONDITIONS: Final = 2
"""Facts that are named as deciding a reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A fact that decides a reading alone, all others at their values: what it must be for the claim to hold.

    `least` and `most` are in the fact's unit; None: no limit inside its range. holds_frac: of the range.
    """

    fact: UsedFact
    least: float | None
    most: float | None
    holds_frac: float

    @property
    def factor(self) -> float:
        """By what the fact must change for the other verdict, up or down."""
        ends = [each / self.fact.value for each in (self.least, self.most) if each]
        return min((max(each, 1 / each) for each in ends), default=0.0)

    @property
    def name_said(self) -> str:
        """The fact as `--assume` spells it, where it is one of the catalogue."""
        entry, blank, key = self.fact.name.rpartition(" ")
        return f"{entry}.{key}" if blank and key == self.fact.key and " " not in entry else self.fact.name

    def __str__(self) -> str:
        unit = {"x": "x", "": ""}.get(self.fact.unit, f" {self.fact.unit}")
        least, most = (None if end is None else f"{float(f'{end:.4g}'):,.10g}{unit}" for end in (self.least, self.most))
        if least and most:
            return f"{self.name_said} is between {least} and {most}"
        return f"{self.name_said} is at least {least}" if least else f"{self.name_said} is at most {most}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingVerdict:
    """A reading's verdict.

    holds_frac: share of samples in which the claim holds; conditions: figures that decide it, each alone, the likeliest
    first; unless_factor: by what the twin itself must err for the other verdict, 0 if it can't; reason: why it can't be
    tested
    """

    verdict: Verdict
    holds_frac: float
    conditions: tuple[Condition, ...] = ()
    unless_factor: float = 0.0
    reason: str = ""

    def __str__(self) -> str:
        if self.verdict == "cannot be tested":
            return f"cannot be tested: {self.reason}"
        if self.verdict == "holds only if":
            return f"holds only if {self.condition}"
        doubt = f", unless the twin errs {self.unless_factor:.3g}x" if self.unless_factor else ""
        return self.verdict + doubt

    @property
    def condition(self) -> str:
        """What must be the case for it to hold."""
        ways = [str(each) for each in self.conditions]
        if not ways and self.unless_factor:
            ways.append(f"the twin errs less than {self.unless_factor:.3g}x")
        return " or ".join(ways) or f"several figures lie well ({self.holds_frac:.0%} of samples)"


def satisfied(values: Array, claimed: Fact, relation: str) -> NDArray[np.bool_]:
    """Whether numbers are what is claimed: at least its low end, or within its ends. Shapes follow `values`."""
    low, high = claimed.range_si
    slack = 1e-9 * max(abs(low), abs(high))
    reached = np.asarray(values) >= low - slack
    return reached if relation == "at least" else reached & (np.asarray(values) <= high + slack)


def reading_verdict(
    values: Array, claimed: Fact, relation: str, used: Mapping[str, UsedFact], with_facts: WithFacts
) -> ReadingVerdict:
    """The verdict of a reading.

    Args:
        values: [1 + sample], the first one expected, or [1] where nothing is uncertain
        claimed, relation: as of `satisfied`; used: facts that the number rests on
        with_facts: the number with some facts replaced, [1 + NUM_SAMPLES]
    """
    holds = satisfied(values, claimed, relation)
    share = float(np.mean(holds[1:])) if len(holds) > 1 else float(holds[0])
    if holds[0] and share >= SURE_FRAC:
        return ReadingVerdict(verdict="holds", holds_frac=share)
    if not holds[0] and share <= 1 - SURE_FRAC:
        return ReadingVerdict(verdict="does not hold", holds_frac=share)
    figures, own = [], 0.0
    for fact in _deciding([each for each in used.values() if each.has_range], claimed, relation, with_facts):
        tried = _along(fact, NUM_SAMPLES)
        numbers = with_facts({fact.name: np.concatenate([[fact.si], tried])})
        condition = _condition(fact, tried, satisfied(_spread(numbers), claimed, relation)[1:])
        if condition is not None and fact.key != OWN_ERROR:
            figures.append(condition)
        elif condition is not None:
            own = min(own or condition.factor, condition.factor)
    figures.sort(key=lambda each: (-each.holds_frac, each.fact.name))
    conditional = bool(holds[0]) or bool(figures)
    return ReadingVerdict(
        verdict="holds only if" if conditional else "does not hold", holds_frac=share,
        conditions=tuple(figures[:MOST_CONDITIONS]), unless_factor=own,
    )  # fmt: skip


def _deciding(facts: Sequence[UsedFact], claimed: Fact, relation: str, with_facts: WithFacts) -> list[UsedFact]:
    """The facts that alone, all others at their values, make a reading hold and fail along their ranges.

    All are tried in one call: each fact has some of the variants to itself.
    """
    if not facts:
        return []
    each = NUM_SAMPLES // len(facts)
    values = {}
    for at, fact in enumerate(facts):
        column = np.full(1 + NUM_SAMPLES, fact.si)
        column[1 + at * each : 1 + (at + 1) * each] = _along(fact, each)
        values[fact.name] = column
    holds = satisfied(_spread(with_facts(values)), claimed, relation)
    blocks = [holds[1 + at * each : 1 + (at + 1) * each] for at in range(len(facts))]
    return [fact for fact, block in zip(facts, blocks, strict=True) if np.any(block != holds[0])]


def _along(fact: UsedFact, count: int) -> Array:
    """Values from one end of a fact's range to the other, in SI; of the twin's own error, in equal factors."""
    steps = np.geomspace if fact.key == OWN_ERROR else np.linspace
    return np.asarray(steps(fact.in_si(fact.low), fact.in_si(fact.high), count))


def _spread(numbers: Array) -> Array:
    return np.broadcast_to(numbers, (1 + NUM_SAMPLES,))


def _condition(fact: UsedFact, grid: Array, holds: NDArray[np.bool_]) -> Condition | None:
    """Where along a fact's range a reading holds; None if the fact alone does not change that."""
    if holds.all() or not holds.any():
        return None
    per_unit = fact.in_si(1.0)
    first, last = np.flatnonzero(holds)[[0, -1]]
    least = None if first == 0 else float(grid[first - 1] + grid[first]) / 2 / per_unit
    most = None if last == len(grid) - 1 else float(grid[last] + grid[last + 1]) / 2 / per_unit
    return Condition(fact=fact, least=least, most=most, holds_frac=float(np.mean(holds)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimVerdict:
    """A claim's verdict, and under which of its readings and conditions."""

    verdict: Verdict
    text: str


def claim_verdict(readings: Sequence[tuple[str, str, ReadingVerdict]]) -> ClaimVerdict:
    """The verdict of a claim by its readings, each with what is claimed ("4x") and its name.

    A claim of several numbers has a verdict for each of them. Readings that can't be tested count where no other can.
    Example:
        >>> held, missed = (ReadingVerdict(verdict=each, holds_frac=1.0) for each in ("holds", "does not hold"))
        >>> claim_verdict([("4x", "peaks", held), ("4x", "training", missed)]).text
        'holds only if it means peaks'
        >>> claim_verdict([("3x", "peaks", held), ("6x", "peaks", missed)])
        ClaimVerdict(verdict='holds only if', text='3x: holds; 6x: does not hold')
    """
    numbers = list(dict.fromkeys(claimed for claimed, _, _ in readings))
    parts = {each: _part_verdict([(n, v) for claimed, n, v in readings if claimed == each]) for each in numbers}
    kinds = {each.verdict for each in parts.values()}
    text = "; ".join(f"{claimed}: {each.text}" for claimed, each in parts.items())
    if len(parts) == 1:
        text = parts[numbers[0]].text
    tested = kinds - {"cannot be tested"} or kinds
    return ClaimVerdict(verdict=next(iter(tested)) if len(tested) == 1 else "holds only if", text=text)


def _part_verdict(readings: Sequence[tuple[str, ReadingVerdict]]) -> ClaimVerdict:
    tested = [(name, each) for name, each in readings if each.verdict != "cannot be tested"]
    if not tested:
        reasons = dict.fromkeys(each.reason for _, each in readings)
        return ClaimVerdict(verdict="cannot be tested", text="cannot be tested: " + "; ".join(reasons))
    holding = [name for name, each in tested if each.verdict == "holds"]
    depending = [(name, each) for name, each in tested if each.verdict == "holds only if"]
    if len(holding) == len(tested):
        return ClaimVerdict(verdict="holds", text="holds")
    if not holding and not depending:
        return ClaimVerdict(verdict="does not hold", text="does not hold")
    ways = holding + [f"{name}, if {each.condition}" for name, each in depending]
    return ClaimVerdict(verdict="holds only if", text="holds only if it means " + "; or ".join(ways))
