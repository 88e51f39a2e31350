"""Scenarios against each other: where time, energy and money differ, who wins, how surely, and what would turn it.

Samples are paired: a fact that two scenarios share (a region's PUE, a profile's own error) has the same value in both
in every sample, so that what they have in common does not blur what tells them apart.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from ultratwin.hardware.chip import Array
from ultratwin.planning.checks import checked_objective
from ultratwin.planning.power.chip import cause_power_w
from ultratwin.planning.run import Run
from ultratwin.planning.sensitivity import (
    UsedFact,
    by_objective,
    chosen_offer,
    outcomes_of,
    own_error_name,
    results_with,
    run_of,
    used_facts,
)
from ultratwin.planning.training import TrainingAnswer, TrainingQuestion
from ultratwin.planning.uncertainty import Range, Sampler
from ultratwin.timing.step import CAUSES

NUM_PAIRED_SAMPLES: Final = 1024
MOST_FACTOR: Final = 10.0
"""A fact that would have to change more than this, up or down, is no reason to doubt a ranking."""
_GRID_POINTS: Final = 24
_SECTIONS: Final = 64
_ROUNDS: Final = 4
_TIE_FRAC: Final = 1e-12
_KEPT_BITS: Final = 46


class PairedSampler(Sampler):
    """Draws each fact's column from its name and the seed, whatever was drawn before: equal names, equal columns."""

    def __init__(self, seed: int, profile_id: str, num_samples: int = NUM_PAIRED_SAMPLES) -> None:
        super().__init__(seed, num_samples)
        self._seed = seed
        self._profile_id = profile_id

    def _draw_for(self, name: str) -> None:
        digest = hashlib.sha256(name.encode()).digest()
        self._random = np.random.default_rng([self._seed, int.from_bytes(digest[:8], "big")])

    def between(self, name: str, low: float, value: float, high: float) -> Array | float:
        """As of Sampler, from the name's own column."""
        self._draw_for(name)
        return super().between(name, low, value, high)

    def error_factor(self, name: str, spread_frac: float) -> Array:
        """As of Sampler, from the profile's own column."""
        self._draw_for(own_error_name(self._profile_id))
        return super().error_factor(name, spread_frac)

    def spread(self, values: Array | float, top: int = 6) -> tuple[tuple[str, float], ...]:
        """Nothing: nobody asks."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A question with a name, answered."""

    name: str
    question: TrainingQuestion
    answer: TrainingAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """What each scenario spends, by cause: seconds of the run, joules, or dollars at the offer that counts.

    `amounts` are [scenario][cause], None for a scenario that can't run or has no price; `base` is the first that
    has any. All amounts lie on one grid of 2^-46 of the largest total, so that they and their differences
    sum exactly.
    """

    kind: str
    unit: str
    causes: tuple[str, ...]
    amounts: tuple[tuple[float, ...] | None, ...]
    base: int

    def total(self, scenario: int) -> float | None:
        """What a scenario spends in all."""
        amounts = self.amounts[scenario]
        return None if amounts is None else sum(amounts)

    def differences(self, scenario: int) -> tuple[float, ...] | None:
        """What a scenario spends more than the first, by cause; the sum is the difference of the totals."""
        amounts, base = self.amounts[scenario], self.amounts[self.base]
        if amounts is None or base is None:
            return None
        return tuple(one - other for one, other in zip(amounts, base, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """One fact that would turn the order of two scenarios if it alone had another value.

    `needed` is in the fact's unit, `factor` times its value: the nearest such value. `is_open`: it lies inside the
    range that the fact's source leaves. `scenarios`: whose fact it is, as places in the list that was ranked.
    """

    fact: UsedFact
    scenarios: tuple[int, ...]
    needed: float
    factor: float
    is_open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two neighbours of a ranking.

    `holds_frac`: the share of samples in which their order holds; ties count half. `flips`: what would turn it,
    the least change first; facts that can't within a factor of ten are left out.
    """

    better: int
    worse: int
    holds_frac: float
    is_tie: bool
    flips: tuple[Flip, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A scenario of a ranking: its value in SI, and the share of samples in which it is the best."""

    scenario: int
    value: Range
    best_frac: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Scenarios by an objective, best first; `holds_frac` is the share of samples in which the whole order holds.

    `unranked` holds those without a run or without a price, with the reason.
    """

    objective: str
    places: tuple[Place, ...]
    holds_frac: float
    pairs: tuple[Pair, ...]
    unranked: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Scenarios side by side; `offers` are those whose prices count, empty where no price is known."""

    scenarios: tuple[Scenario, ...]
    offers: tuple[str, ...]
    splits: tuple[Split, ...]
    ranking: Ranking


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is ranked: an answer, its question, and the offer whose price is wanted."""

    answer: TrainingAnswer
    question: TrainingQuestion
    offer: str

    def value(self, objective: str) -> Range:
        """The objective, with its range."""
        run = run_of(self.answer)
        if objective == "cost":
            return run.cost_usd[chosen_offer(run, self.offer)]
        return {"time": run.duration_s, "energy": run.energy_j, "carbon": run.carbon_kg}[objective]

    def samples(self, objective: str, seed: int) -> Array:
        """The objective in every paired sample, the expected value left out."""
        outcomes = outcomes_of(self.answer, self.question, PairedSampler(seed, self.answer.profile.id))
        found = by_objective(outcomes, chosen_offer(run_of(self.answer), self.offer))[objective]
        return np.broadcast_to(found, (1 + NUM_PAIRED_SAMPLES,))[1:]

    def facts(self) -> dict[str, UsedFact]:
        """Every fact that it rests on."""
        return used_facts(self.answer, self.question)

    def results(self, objective: str, values: Mapping[str, Array]) -> Array:
        """The objective with some facts replaced, [variant]."""
        return results_with(self.answer, self.question, values, self.offer)[objective]


def compared(scenarios: Sequence[Scenario], objective: str = "time", offer: str = "") -> Comparison:
    """Where scenarios differ, and how they rank.

    Args:
        scenarios: answered; those that can't run stay, as columns without figures
        objective: "time", "cost", "energy" or "carbon"
        offer: the public price that counts, such as "on_demand"; the first known of OFFERS where left out
    Raises: ScenarioError for an unknown objective
    """
    answers = [each.answer for each in scenarios]
    runs = [each.run for each in answers]
    offers = [chosen_offer(run, offer) if run else "" for run in runs]
    paid = list(zip(runs, offers, strict=True))
    splits = [
        _split("time", "s", [_seconds(run) if run else None for run in runs]),
        _split("energy", "J", [_joules(each) if each.run else None for each in answers]),
        _split("cost", "USD", [_dollars(run, each) if run and each else None for run, each in paid]),
    ]
    return Comparison(
        scenarios=tuple(scenarios),
        offers=tuple(offers),
        splits=tuple(each for each in splits if each is not None),
        ranking=ranking(answers, [each.question for each in scenarios], objective, [offer] * len(answers)),
    )


def _seconds(run: Run) -> dict[str, float]:
    return {cause: run.parts.get(cause, 0.0) * run.num_steps for cause in CAUSES}


def _joules(answer: TrainingAnswer) -> dict[str, float]:
    """The energy of the run by what the chips do while it is drawn: in proportion to power x seconds."""
    run = run_of(answer)
    power = cause_power_w(answer.system.pool)
    drawn = {cause: float(np.ravel(power[cause])[0]) * run.parts.get(cause, 0.0) for cause in CAUSES}
    return _scaled(drawn, run.energy_j.expected)


def _dollars(run: Run, offer: str) -> dict[str, float]:
    """The cost at an offer by cause: in proportion to seconds, as chips are paid by the hour."""
    return _scaled(_seconds(run), run.cost_usd[offer].expected)


def _scaled(parts: dict[str, float], total: float) -> dict[str, float]:
    whole = sum(parts.values())
    return {cause: part / whole * total if whole else 0.0 for cause, part in parts.items()}


def _split(kind: str, unit: str, spent: Sequence[dict[str, float] | None]) -> Split | None:
    """A split, the causes that differ most first; None where no scenario spends anything."""
    known = [each for each in spent if each is not None]
    largest = max((sum(each.values()) for each in known), default=0.0)
    if largest <= 0:
        return None
    grid = math.ldexp(1.0, math.frexp(largest)[1] - _KEPT_BITS)
    rounded = [each and {cause: round(part / grid) * grid for cause, part in each.items()} for each in spent]
    base = next(at for at, each in enumerate(rounded) if each is not None)
    first = rounded[base] or {}

    def weight(cause: str) -> tuple[float, float]:
        values = [each[cause] for each in rounded if each is not None]
        return -max(abs(value - first[cause]) for value in values), -max(values)

    causes = sorted((cause for cause in CAUSES if any(each and each[cause] for each in rounded)), key=weight)
    amounts = tuple(None if each is None else tuple(each[cause] for cause in causes) for each in rounded)
    return Split(kind=kind, unit=unit, causes=tuple(causes), amounts=amounts, base=base)


def ranking(
    answers: Sequence[TrainingAnswer], questions: Sequence[TrainingQuestion], objective: str, offers: Sequence[str] = ()
) -> Ranking:
    """Answers by an objective, with the probability of their order and the facts that would turn it.

    Args:
        answers, questions: of the same scenarios
        objective: "time", "cost", "energy" or "carbon"; the least is best
        offers: of each answer the public price that counts; the first known of OFFERS where empty or left out
    Returns: the ranking; equal ones keep the order in which they were given
    Raises: ScenarioError for an unknown objective
    """
    checked_objective(objective)
    wanted = list(offers) or [""] * len(answers)
    entries = [_Entry(*each) for each in zip(answers, questions, wanted, strict=True)]
    reasons = [_unranked(entry, objective) for entry in entries]
    values = {at: entry.value(objective) for at, entry in enumerate(entries) if not reasons[at]}
    order = sorted(values, key=lambda at: values[at].expected)
    seed = questions[0].seed if questions else 0  # one seed for all: what they share is drawn alike
    samples = {at: entries[at].samples(objective, seed) for at in order}
    best = _best_shares([samples[at] for at in order])
    orders = [_order_holds(samples[one], samples[two]) for one, two in pairwise(order)]
    pairs = tuple(
        _pair(entries, objective, both, float(np.mean(held)))
        for both, held in zip(pairwise(order), orders, strict=True)
    )
    return Ranking(
        objective=objective,
        places=tuple(
            Place(scenario=at, value=values[at], best_frac=share) for at, share in zip(order, best, strict=True)
        ),
        holds_frac=float(np.mean(np.prod(orders, axis=0))) if orders else 1.0,
        pairs=pairs,
        unranked=tuple((at, reason) for at, reason in enumerate(reasons) if reason),
    )


def _unranked(entry: _Entry, objective: str) -> str:
    """Why a scenario has no place in a ranking; empty if it has one."""
    if entry.answer.run is None:
        return f"can't run: {entry.answer.rejected}"
    if objective == "cost" and not chosen_offer(entry.answer.run, entry.offer):
        what = f"{entry.offer.replace('_', ' ')} price" if entry.offer else "price"
        return f"no public {what}, and none given"
    return ""


def _order_holds(one: Array, two: Array) -> Array:
    """1 where one is less than two, 1/2 where they are equal, 0 where not, [sample]."""
    near = np.abs(one - two) <= _TIE_FRAC * np.abs(two)
    return np.where(near, 0.5, (one < two) * 1.0)


def _best_shares(samples: Sequence[Array]) -> list[float]:
    """Share of samples in which each scenario is the least; those that tie share it."""
    if not samples:
        return []
    every = np.stack(samples)
    least = every <= every.min(axis=0) * (1 + _TIE_FRAC)
    return [float(each) for each in np.mean(least / least.sum(axis=0), axis=1)]


def _pair(entries: Sequence[_Entry], objective: str, order: tuple[int, int], holds_frac: float) -> Pair:
    better, worse = (entries[at] for at in order)
    used = better.facts(), worse.facts()

    def lost(factors: Mapping[str, Array]) -> Array:
        """How much more the better one is than the worse one, [variant], with facts times factors."""
        one, two = (
            entry.results(objective, {name: facts[name].si * each for name, each in factors.items() if name in facts})
            for entry, facts in zip((better, worse), used, strict=True)
        )
        return np.asarray(one - two)

    lead, least = -float(lost({})[0]), better.value(objective).expected
    is_tie = lead <= _TIE_FRAC * least
    every = used[1] | used[0]
    flips = []
    for name, factor in ({} if is_tie else _turning_factors(lost, sorted(every))).items():
        fact = every[name]
        needed = fact.value * factor
        if _is_possible(fact, needed):
            owners = tuple(at for at, facts in zip(order, used, strict=True) if name in facts)
            is_open = fact.low <= needed <= fact.high
            flips.append(Flip(fact=fact, scenarios=owners, needed=needed, factor=factor, is_open=is_open))
    flips.sort(key=lambda flip: (abs(math.log(flip.factor)), flip.fact.name))
    return Pair(better=order[0], worse=order[1], holds_frac=holds_frac, is_tie=is_tie, flips=tuple(flips))


def _is_possible(fact: UsedFact, value: float) -> bool:
    """A PUE is at least 1, a share at most 1, whatever would turn a ranking."""
    return not (fact.key == "pue" and value < 1) and not (fact.key.endswith("_frac") and fact.unit == "" and value > 1)


def _turning_factors(lost: Callable[[Mapping[str, Array]], Array], names: Sequence[str]) -> dict[str, float]:
    """The factor nearest to 1 by which each fact alone turns an order; facts that can't are left out.

    A grid of factors up to MOST_FACTOR finds the first step that turns it, up and down; sections of it find where.
    Both try all facts at once, as so many variants of one array.
    Args:
        lost: for factors of facts [variant], a number that is above 0 where the order has turned [variant]
        names: of the facts
    """
    steps = np.linspace(0.0, math.log(MOST_FACTOR), _GRID_POINTS + 1)
    sides = [(name, sign) for name in names for sign in (1.0, -1.0)]
    signs = np.array([sign for _, sign in sides])
    turned = _tried(lost, sides, signs[:, None] * steps[None, :]) > 0
    can = np.flatnonzero(turned.any(axis=1))
    if not len(can):
        return {}
    sides, signs = [sides[at] for at in can], signs[can]
    first = turned[can].argmax(axis=1)
    near, far = steps[np.maximum(first - 1, 0)], steps[first]
    for _ in range(_ROUNDS):
        inside = near[:, None] + (far - near)[:, None] * np.linspace(0.0, 1.0, _SECTIONS + 1)[None, :]
        turned = _tried(lost, sides, signs[:, None] * inside) > 0
        turned[:, -1] = True  # known from the round before, whatever rounding says
        first = np.maximum(turned.argmax(axis=1), 1)
        rows = np.arange(len(sides))
        near, far = inside[rows, first - 1], inside[rows, first]
    found: dict[str, float] = {}
    for (name, sign), distance in sorted(zip(sides, far, strict=True), key=lambda each: float(each[1])):
        found.setdefault(name, math.exp(sign * float(distance)))
    return found


def _tried(
    lost: Callable[[Mapping[str, Array]], Array], sides: Sequence[tuple[str, float]], logs: Array
) -> Array:  # fmt: skip
    """`lost` with each side's fact alone times exp(logs), [side, point]."""
    count = logs.shape[1]
    factors: dict[str, Array] = {}
    for at, (name, _) in enumerate(sides):
        column = factors.setdefault(name, np.ones(logs.size))
        column[at * count : (at + 1) * count] = np.exp(logs[at])
    return np.broadcast_to(lost(factors), (logs.size,)).reshape(logs.shape)
