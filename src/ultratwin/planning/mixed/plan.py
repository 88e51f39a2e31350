"""The question that `plan serve --pools` asks: how many of which system, which role where, against the best pure one.

The systems are searched together (mixed_search), pure deployments among the mixed ones. Then again with the figures of
every announced system at their worse and at their better ends, for how far the answer rests on them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from ultratwin.catalogue.facts import Fact
from ultratwin.errors import ScenarioError
from ultratwin.hardware.mix import Join, PoolShare, joins_of, no_join
from ultratwin.hardware.system import System
from ultratwin.mapping.serving_formats import on_chip
from ultratwin.planning.mixed.crossover import Segment, price_segments
from ultratwin.planning.mixed.search import MIXED_MODES, Looked, PoolSide, mixed_ways, pool_side
from ultratwin.planning.run import sampled_setting
from ultratwin.planning.serving.deployment import (
    Deployment,
    best_of,
    deployment_of,
    nearest_of,
    plans_worth_combining,
)
from ultratwin.planning.serving.mix import Load
from ultratwin.planning.serving.plan import PlanServingQuestion, offered_load, offered_price, search_setup
from ultratwin.planning.serving.ways import AGGREGATED, DISAGGREGATED, ROUTED, Wanted, Ways
from ultratwin.planning.uncertainty import Sampler
from ultratwin.timing.serving import ServingSetting
from ultratwin.workload.load import load_model
from ultratwin.workload.model import Model

EXPECTED: Final = "as stated"
_READ_MODES: Final = (AGGREGATED, DISAGGREGATED, ROUTED)
"""Modes that are searched again for every reading of announced figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPlanQuestion:
    """What is asked. `plan`: what is equal for all pools, and what shall be least.

    pools: systems with the units that there are of each at most, 0 for as many as can be built
    fabrics: that may join them, all if empty; transfer_dtype: what keys and values travel as, the smaller if empty
    """

    plan: PlanServingQuestion
    pools: tuple[PoolShare, ...]
    fabrics: tuple[str, ...] = ()
    modes: tuple[str, ...] = MIXED_MODES
    transfer_dtype: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The answer under one reading of the announced figures: the best, the best of each system alone, the crossover.

    objective: what was made least
    """

    name: str
    objective: str
    best: Deployment | None
    pure: tuple[tuple[str, Deployment | None], ...]
    segments: tuple[Segment, ...]

    @property
    def gain(self) -> float:
        """The least that a system alone takes of the objective, per request, over what the best of all takes."""
        alone = [amount(option, self.objective) for _, option in self.pure if option is not None]
        return min(alone) / amount(self.best, self.objective) if self.best and alone else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPlanAnswer:
    """The answer. `objective`: what was made least, another than asked where prices are unknown (`notes` says so).

    choices: the best of each mode and assignment of roles, best first; nearest: what misses the objectives least where
    nothing keeps them; readings: the first is of the figures as stated; joins: what joins each pair of systems
    """

    question: MixedPlanQuestion
    model: Model
    load: Load
    objective: str
    best: Deployment | None
    nearest: Deployment | None
    choices: tuple[Deployment, ...]
    readings: tuple[Reading, ...]
    joins: tuple[Join, ...]
    prices: dict[str, float]
    notes: tuple[str, ...]
    num_candidates: int
    num_points: int
    num_deployments: int
    rejected: dict[str, int]

    @property
    def pure(self) -> tuple[tuple[str, Deployment | None], ...]:
        """The best deployment of each system alone."""
        return self.readings[0].pure

    @property
    def gain(self) -> float:
        """What the best pure system takes of the objective over what the best of all takes; NaN where there is none."""
        return self.readings[0].gain


def amount(option: Deployment, objective: str) -> float:
    """Dollars, chips or joules of one request."""
    return option.value(objective) / option.request_rate


def is_pure(option: Deployment) -> bool:
    """Whether all roles lie on one system."""
    return len({role.system_id for role in option.roles}) == 1


def answer_mixed_plan(question: MixedPlanQuestion) -> MixedPlanAnswer:
    """Answers a planning question about systems that are joined.

    Raises: ScenarioError, CatalogueError, ModelError for bad input; what can't be met is a value in the answer
    """
    asked = question.plan.serving
    model = asked.model if isinstance(asked.model, Model) else load_model(asked.model)
    plan = dataclasses.replace(question.plan, serving=dataclasses.replace(asked, model=model))
    question = dataclasses.replace(question, plan=plan)
    load, rate = offered_load(plan.serving)
    joins = pool_joins([each.system for each in question.pools], question.fabrics)
    sides, wanted = _sides(question, load, rate)
    found, thin = _searched(question, sides, joins, wanted)
    objective, notes = _objective(plan.objective, sides)
    stated = _reading(EXPECTED, found, wanted, objective, sides)
    near = [option for ways in found.ways if (option := nearest_of(ways, wanted)) is not None]
    rejected: Counter[str] = Counter()
    for each in sides:
        rejected.update(each.plans.rejected)
    settings = [each.setting for each in sides]
    return MixedPlanAnswer(
        question=question, model=model, load=load, objective=objective, best=stated.best,
        nearest=None if stated.best else min(near, key=lambda each: (each.miss, each.chips), default=None),
        choices=_choices(found.ways, wanted, objective),
        readings=(stated, *_other_readings(question, thin, joins, wanted, stated)),
        joins=tuple(each for pair, several in joins.items() if pair[0] < pair[1] for each in several),
        prices={each.system.id: each.usd_per_chip_s for each in sides}, notes=(*notes, *format_notes(settings)),
        num_candidates=sum(each.plans.num_candidates for each in sides), num_points=found.num_points,
        num_deployments=found.num_deployments, rejected=dict(rejected.most_common()),
    )  # fmt: skip


def pool_joins(systems: Sequence[System], fabrics: Sequence[str]) -> dict[tuple[str, str], tuple[Join, ...]]:
    """What joins each pair of systems, both ways round, and each with itself; pairs that nothing joins are left out.

    Raises: ScenarioError where a system is joined to no other
    """
    found = {(each.id, each.id): joins_of([each, each]) for each in systems}
    for first, second in itertools.permutations(systems, 2):
        if first.id != second.id and (between := joins_of([first, second], fabrics)):
            found[first.id, second.id] = between
    for each in systems:
        if len(systems) > 1 and not any(each.id in pair and len(set(pair)) > 1 for pair in found):
            raise no_join(systems, fabrics)
    return found


def _sides(question: MixedPlanQuestion, load: Load, rate: float | None) -> tuple[list[PoolSide], Wanted]:
    sides = []
    for share in question.pools:
        most = share.chips or share.system.max_chips
        limit = min(most, question.plan.max_chips or most)
        for precision in question.plan.precisions:
            own = dataclasses.replace(question.plan, max_chips=limit)
            setting, axes, wanted = search_setup(own, share.system, precision, load, rate)
            price = offered_price(question.plan, share.system)[0]
            sides.append(pool_side(setting, share.system, axes, wanted, usd_per_chip_s=price, max_chips=limit))
    most = question.plan.max_chips or sum(each.max_chips for each in sides)
    return sides, dataclasses.replace(wanted, max_chips=most)


def _searched(
    question: MixedPlanQuestion, sides: Sequence[PoolSide], joins: Mapping[tuple[str, str], tuple[Join, ...]],
    wanted: Wanted,
) -> tuple[Looked, list[PoolSide]]:  # fmt: skip
    """All plans; then, under more loads, those that are worth combining, which the sides then hold."""
    first = mixed_ways(sides, joins, wanted, question.modes, question.transfer_dtype)
    thin = [some_plans_of(each, first, wanted) for each in sides]
    modes = [mode for mode in question.modes if mode in _READ_MODES]
    again = mixed_ways(thin, joins, wanted, modes, question.transfer_dtype)
    both = Looked(
        ways=(*first.ways, *again.ways), num_points=first.num_points + again.num_points,
        num_deployments=first.num_deployments + again.num_deployments,
    )  # fmt: skip
    return both, thin


def _objective(asked: str, sides: Sequence[PoolSide]) -> tuple[str, list[str]]:
    """What can be made least: dollars only where every price is known."""
    unknown = list(dict.fromkeys(each.system.id for each in sides if math.isnan(each.usd_per_chip_s)))
    if asked != "cost" or not unknown:
        return asked, []
    return "energy", [
        f"no public price of {', '.join(unknown)}: energy is made least instead; --price SYSTEM=USD per chip-hour "
        "compares dollars, and the crossover says at which prices which is cheapest"
    ]


def format_notes(settings: Sequence[ServingSetting]) -> list[str]:
    """Formats that a chip does not multiply, and what it does instead."""
    found = []
    for each in settings:
        formats, chip = each.formats, each.pool.chip
        there = on_chip(formats, chip)
        if there.compute != formats.compute:
            found.append(
                f"{chip.id} does not multiply {formats.compute}: {formats.name} weights are unpacked and multiplied in "
                f"{there.compute} there"
            )
    return list(dict.fromkeys(found))


def best_way(found: Iterable[Ways], wanted: Wanted, objective: str) -> Deployment | None:
    """The deployment that keeps the objectives and takes least of the goal, over several tables."""
    options = [
        deployment_of(ways, wanted, at) for ways in found if (at := best_of(ways.table, wanted, objective)) is not None
    ]
    able = [each for each in options if math.isfinite(each.value(objective))]
    return min(able, key=lambda each: (amount(each, objective), each.chips, each.tpot_s), default=None)


def _places(ways: Ways) -> tuple[str, ...]:
    return tuple(side.system.id for side in ways.sides)


def _reading(name: str, found: Looked, wanted: Wanted, objective: str, sides: Sequence[PoolSide]) -> Reading:
    systems = list(dict.fromkeys(each.system.id for each in sides))
    pure = tuple(
        (each, best_way([ways for ways in found.ways if set(_places(ways)) == {each}], wanted, objective))
        for each in systems
    )
    return Reading(
        name=name, objective=objective, best=best_way(found.ways, wanted, objective), pure=pure,
        segments=price_segments(found.ways, (systems[0], systems[1]), wanted) if len(systems) == 2 else (),
    )  # fmt: skip


def _choices(found: Sequence[Ways], wanted: Wanted, objective: str) -> tuple[Deployment, ...]:
    """The best of each mode and assignment of roles to systems."""
    grouped: dict[tuple[str, tuple[str, ...]], list[Ways]] = {}
    for ways in found:
        grouped.setdefault((ways.mode, _places(ways)), []).append(ways)
    options = [option for several in grouped.values() if (option := best_way(several, wanted, objective)) is not None]
    return tuple(sorted(options, key=lambda each: (amount(each, objective), each.chips, each.mode, each.system_id)))


def _other_readings(
    question: MixedPlanQuestion, thin: Sequence[PoolSide], joins: Mapping[tuple[str, str], tuple[Join, ...]],
    wanted: Wanted, stated: Reading,
) -> list[Reading]:  # fmt: skip
    """The same with an announced system's figures at their ends; only plans that are worth combining are looked at."""
    kept = {*_READ_MODES, stated.best.mode if stated.best else ""}
    modes = [mode for mode in question.modes if mode in kept]
    readings = []
    for share in question.pools:
        if not is_announced(share.system):
            continue
        for end in ENDS:
            moved = [at_end(each, end) if each.system.id == share.system.id else each for each in thin]
            systems = {each.system.id: each.system for each in moved}
            again = {
                pair: joins_of([systems[pair[0]], systems[pair[1]]], question.fabrics if len(set(pair)) > 1 else ())
                for pair in joins
            }
            looked = mixed_ways(moved, again, wanted, modes, question.transfer_dtype)
            name = f"{share.system.id} at its {end} figures"
            readings.append(_reading(name, looked, wanted, stated.objective, moved))
    return readings


def some_plans_of(side: PoolSide, found: Looked, wanted: Wanted) -> PoolSide:
    """A side with the plans that are worth combining."""
    ways = [each for each in found.ways if each.mode in _READ_MODES]
    return dataclasses.replace(side, plans=plans_worth_combining(side.setting, side.plans, ways, wanted))


ENDS: Final = ("low", "high")


def is_announced(system: System) -> bool:
    """Whether rates of a system's chips or links are only announced."""
    links = [fact for key, fact in system.facts.items() if key.startswith("scale_")]
    return any(each.status == "announced" for each in (*links, *system.pool.chip.facts.values()))


class EndSampler(Sampler):
    """Every figure with a range at its worse ("low") or better end: rates low, latencies high; or the other way."""

    def __init__(self, end: str) -> None:
        super().__init__(num_samples=1)
        self._end = end

    def fact(self, name: str, facts: Mapping[str, Fact], key: str) -> float:
        low, high = facts[key].range_si
        return low if (self._end == "low") != key.endswith("latency_s") else high


def at_end(side: PoolSide, end: str) -> PoolSide:
    """A side whose chip and links have their figures at one end."""
    setting = cast("ServingSetting", sampled_setting(cast("Any", side.setting), side.system, EndSampler(end)))
    return dataclasses.replace(side, setting=setting, system=dataclasses.replace(side.system, pools=(setting.pool,)))


def checked_pools(pools: Sequence[PoolShare]) -> tuple[PoolShare, ...]:
    """Pools of which each system is one.

    Raises: ScenarioError for none, or one system twice
    """
    names = [each.system.id for each in pools]
    if not names:
        raise ScenarioError("no pools are given", where="--pools", allowed="SYSTEM[:UNITS],SYSTEM[:UNITS]")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ScenarioError(
            f"{twice[0]} is given twice", where="--pools", allowed="each system once", hint="add up its units"
        )
    return tuple(pools)
