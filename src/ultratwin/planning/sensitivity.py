"""What an answer would be if one fact were another: at either end of its range, or a tenth off.

The layout stays as it was chosen. All variants of all facts are candidates of one array call of the run's own formulas
(planning/run.py): a sampler that gives chosen values, instead of random ones, is all that differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.catalogue import loader
from ultratwin.catalogue.facts import Fact
from ultratwin.catalogue.schema import ProfileEntry
from ultratwin.errors import required
from ultratwin.hardware.chip import Array
from ultratwin.mapping.plan import Plan
from ultratwin.mapping.recipe import recipe
from ultratwin.planning.checks import OBJECTIVES, checked_objective
from ultratwin.planning.evaluate import Setting
from ultratwin.planning.run import OFFERS, Outcomes, Run, run_outcomes
from ultratwin.planning.training import TrainingAnswer, TrainingQuestion
from ultratwin.planning.uncertainty import Sampler
from ultratwin.units import to_si

OWN_PRICE: Final = "your price"
"""What planning.run calls the offer that is the user's own price."""
NUDGE_FRAC: Final = 0.1
"""How far facts are moved whose sources state no range."""
_DEPENDS: Final = "only a run that is possible depends on facts"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedFact:
    """A fact that an answer rests on: low, value and high in `unit`, as its source states them.

    `name` tells it from all others: two answers that use the same fact call it the same. `key` is the catalogue's word.
    """

    name: str
    key: str
    unit: str
    low: float
    value: float
    high: float
    status: str
    source: str

    @property
    def si(self) -> float:
        """The value in SI."""
        return to_si(self.value, self.unit)[0]

    @property
    def has_range(self) -> bool:
        """Whether its source leaves it open."""
        return self.low != self.high

    def in_si(self, value: float) -> float:
        """A value in the fact's unit as SI."""
        return to_si(value, self.unit)[0]


def own_error_name(profile_id: str) -> str:
    """What the twin's own error is called: one for each framework profile, as each was fitted for itself."""
    return f"the twin's own error ({profile_id})"


class ListingSampler(Sampler):
    """Remembers every fact that a run asks for, and gives the value that it has."""

    def __init__(self, profile_id: str) -> None:
        super().__init__(num_samples=1)
        self.used: dict[str, UsedFact] = {}
        self._profile_id = profile_id

    def fact(self, name: str, facts: Mapping[str, Fact], key: str) -> Array | float:
        """The fact's value."""
        fact = facts[key]
        self.used[name] = UsedFact(
            name=name,
            key=key,
            unit=fact.unit,
            low=fact.value if fact.low is None else fact.low,
            value=fact.value,
            high=fact.value if fact.high is None else fact.high,
            status=fact.status,
            source=fact.source,
        )
        return fact.si

    def error_factor(self, name: str, spread_frac: float) -> Array:
        """One: no error."""
        stated = _profile_fact(self._profile_id, "step_spread_frac")
        own = own_error_name(self._profile_id)
        self.used[own] = UsedFact(
            name=own,
            key="step_spread_frac",
            unit="x",
            low=1 / (1 + spread_frac),
            value=1.0,
            high=1 + spread_frac,
            status=stated.status if stated else "assumed",
            source=stated.source if stated else "",
        )
        return np.ones(1)

    def spread(self, values: Array | float, top: int = 6) -> tuple[tuple[str, float], ...]:
        """Nothing: no value is drawn."""
        return ()


class ReplacingSampler(Sampler):
    """Gives some facts other values, [variant]; all others have the value that they have, in every variant."""

    def __init__(self, values: Mapping[str, Array], profile_id: str) -> None:
        super().__init__(num_samples=1)
        self._values = values
        self._profile_id = profile_id
        self._num_variants = max((len(each) for each in values.values()), default=1)

    def between(self, name: str, low: float, value: float, high: float) -> Array | float:
        """The fact's other values, or its own one."""
        found = self._values.get(name)
        return np.full(self._num_variants, value) if found is None else found

    def error_factor(self, name: str, spread_frac: float) -> Array:
        """The error's other values, or one."""
        own = own_error_name(self._profile_id)
        return np.asarray(self.between(own, 1.0, 1.0, 1.0))

    def spread(self, values: Array | float, top: int = 6) -> tuple[tuple[str, float], ...]:
        """Nothing: no value is drawn."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """The results with one fact alone at its lower and at its upper end, by objective, in SI (s, USD, J, kg).

    `low` and `high` are the ends that were tried, in the fact's unit.
    """

    fact: UsedFact
    low: float
    high: float
    at_low: Mapping[str, float]
    at_high: Mapping[str, float]

    def swing(self, objective: str) -> float:
        """How far apart the results are."""
        return abs(self.at_high[objective] - self.at_low[objective]) if objective in self.at_low else 0.0

    def elasticity(self, objective: str) -> float:
        """Per cent of the result for a per cent of the fact: the slope of its logarithm between the ends."""
        if min(self.at_low[objective], self.at_high[objective], self.low, self.high) <= 0 or self.low == self.high:
            return 0.0
        return float(np.log(self.at_high[objective] / self.at_low[objective]) / np.log(self.high / self.low))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tornado:
    """What an answer depends on.

    `expected` has the results with every fact at its value, by objective (no cost where no price is known; `offer` says
    whose price). `ranges`: facts with a range, at its ends. `nudged`: every fact, a tenth below and above its value.
    Both are sorted by their swing in the question's objective, largest first; facts that change nothing are left out.
    """

    objective: str
    offer: str
    expected: Mapping[str, float]
    ranges: tuple[Bar, ...]
    nudged: tuple[Bar, ...]

    def sorted_ranges(self, objective: str) -> tuple[Bar, ...]:
        """Facts with a range by their swing in any objective."""
        return _sorted(self.ranges, objective)

    def sorted_nudged(self, objective: str) -> tuple[Bar, ...]:
        """All facts by what a tenth of them does to any objective."""
        return _sorted(self.nudged, objective)


def sensitivity(answer: TrainingAnswer, question: TrainingQuestion, offer: str = "") -> Tornado:
    """What each fact alone does to the time, cost, energy and carbon of a run; the layout stays.

    Args:
        answer: with a run; question: whose region, price and objective
        offer: whose price counts; the first known of OFFERS where left out
    Returns: the tornado
    Raises: ScenarioError if the answer has no run
    """
    used = used_facts(answer, question)
    ends = [(fact, fact.low, fact.high) for fact in used.values() if fact.has_range]
    below, above = 1 - NUDGE_FRAC, 1 + NUDGE_FRAC
    nudged = [(fact, fact.value * below, fact.value * above) for fact in used.values()]
    objective = checked_objective(question.objective)
    expected, bars = _bars(answer, question, [*ends, *nudged], offer)
    return Tornado(
        objective=objective,
        offer=chosen_offer(run_of(answer), offer),
        expected=expected,
        ranges=_sorted(bars[: len(ends)], objective),
        nudged=_sorted(bars[len(ends) :], objective),
    )


def _bars(
    answer: TrainingAnswer, question: TrainingQuestion, tried: Sequence[tuple[UsedFact, float, float]], offer: str
) -> tuple[dict[str, float], list[Bar]]:
    """Expected results, and a bar for each fact: one array call with variant 0 expected and two variants for each."""
    values: dict[str, Array] = {}
    for at, (fact, low, high) in enumerate(tried):
        column = values.setdefault(fact.name, np.full(1 + 2 * len(tried), fact.si))
        column[1 + 2 * at], column[2 + 2 * at] = fact.in_si(low), fact.in_si(high)
    results = results_with(answer, question, values, offer)
    expected = {objective: float(each[0]) for objective, each in results.items()}
    return expected, [
        Bar(
            fact=fact,
            low=low,
            high=high,
            at_low={objective: float(each[1 + 2 * at]) for objective, each in results.items()},
            at_high={objective: float(each[2 + 2 * at]) for objective, each in results.items()},
        )
        for at, (fact, low, high) in enumerate(tried)
    ]


def _sorted(bars: Sequence[Bar], objective: str) -> tuple[Bar, ...]:
    ranked = sorted(bars, key=lambda bar: (-bar.swing(objective), bar.fact.name))
    return tuple(bar for bar in ranked if any(bar.swing(each) > 0 for each in OBJECTIVES))


def used_facts(answer: TrainingAnswer, question: TrainingQuestion) -> dict[str, UsedFact]:
    """Every fact that a run rests on, by name: rates, latencies, power, site, price, the twin's own error.

    Raises: ScenarioError if the answer has no run
    """
    listing = ListingSampler(answer.profile.id)
    outcomes_of(answer, question, listing)
    used = dict(listing.used)
    if question.price_usd_per_chip_s is not None:
        name = _own_price_name(answer, question)
        price = question.price_usd_per_chip_s * 3600
        used[name] = UsedFact(
            name=name, key="price_per_chip_hour", unit="USD/h", low=price, value=price, high=price, status="assumed",
            source="",
        )  # fmt: skip
    return used


def results_with(
    answer: TrainingAnswer, question: TrainingQuestion, values: Mapping[str, Array], offer: str = ""
) -> dict[str, Array]:
    """Time, cost, energy and carbon of a run with some facts replaced.

    Args:
        answer: with a run; question: whose region and price
        values: name of a fact -> its other values in SI, [variant]
        offer: whose price counts; the first known of OFFERS where left out
    Returns: by objective, [variant]; no cost where no price is known
    """
    sampler = ReplacingSampler(values, answer.profile.id)
    outcomes = outcomes_of(
        answer, question, sampler, price_usd_per_chip_s=values.get(_own_price_name(answer, question))
    )
    count = max((len(each) for each in values.values()), default=1)
    found = by_objective(outcomes, chosen_offer(run_of(answer), offer))
    return {name: np.broadcast_to(each, (count,)) for name, each in found.items()}


def outcomes_of(
    answer: TrainingAnswer, question: TrainingQuestion, sampler: Sampler, *,
    price_usd_per_chip_s: Array | None = None,
) -> Outcomes:  # fmt: skip
    """An answered run once more, with the facts as a sampler gives them.

    Raises: ScenarioError if the answer has no run
    """
    plan = plan_of(answer)
    price = question.price_usd_per_chip_s if price_usd_per_chip_s is None else price_usd_per_chip_s
    setting = Setting(
        model=answer.model, pool=answer.system.pool, recipe=recipe(answer.precision), profile=answer.profile
    )
    region = loader.resolve("regions", question.region)
    return run_outcomes(
        setting, answer.system, plan, sampler, tokens=answer.tokens, region=region, price_usd_per_chip_s=price
    )


def by_objective(outcomes: Outcomes, offer: str) -> dict[str, Array]:
    """The results that objectives are about: s, USD at an offer, J, kg; no cost where there is no offer."""
    found = {
        "time": outcomes.duration_s,
        "cost": outcomes.cost_usd.get(offer),
        "energy": outcomes.energy_j,
        "carbon": outcomes.carbon_kg,
    }
    return {name: np.atleast_1d(each) for name, each in found.items() if each is not None}


def chosen_offer(run: Run, wanted: str = "") -> str:
    """The offer whose price counts: the user's own, the wanted one, or the first known of OFFERS; empty if unknown."""
    if OWN_PRICE in run.cost_usd:
        return OWN_PRICE
    if wanted:
        return wanted if wanted in run.cost_usd else ""
    return next((offer for offer in OFFERS if offer in run.cost_usd), "")


def run_of(answer: TrainingAnswer) -> Run:
    """The run of an answer.

    Raises: ScenarioError if no plan can run
    """
    return required(answer.run, f"no plan can run: {answer.rejected}", hint=_DEPENDS)


def plan_of(answer: TrainingAnswer) -> Plan:
    """The plan of an answer.

    Raises: ScenarioError if no plan can run
    """
    return required(answer.plan, f"no plan can run: {answer.rejected}", hint=_DEPENDS)


def _own_price_name(answer: TrainingAnswer, question: TrainingQuestion) -> str:
    """Of a user's own price: two prices of one system are two facts."""
    return f"{answer.system.id} your price of {(question.price_usd_per_chip_s or 0.0) * 3600:g} USD/h"


def _profile_fact(profile_id: str, key: str) -> Fact | None:
    """A constant from the entry of the profile's chain that states it."""
    name = profile_id
    while name:
        entry = loader.entry("profiles", name)
        if key in entry.figures:
            return entry.figures[key]
        name = entry.based_on if isinstance(entry, ProfileEntry) else ""
    return None
