"""The question that `plan serve` asks: which system, how many chips, split and batched how, for a load.

Every split of every replica size of every system is looked at under every load it can take (serving_search), and as
many replicas as the load needs are deployed (serving_deployment). The best is then simulated, request by request.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.errors import UltratwinError
from ultratwin.hardware.system import System, load_system, per_rank
from ultratwin.planning.front import pareto_front, thinned
from ultratwin.planning.run import chip_price
from ultratwin.planning.serving.bounds import Bound, objective_bounds
from ultratwin.planning.serving.deployment import SHOWN_FRONT, Deployed, Deployment, deployments
from ultratwin.planning.serving.mix import Load
from ultratwin.planning.serving.question import ServingQuestion, demand_load, serving_setting
from ultratwin.planning.serving.search import Axes, hundredths, replica_sizes, search_plans
from ultratwin.planning.serving.verification import Verification, verified
from ultratwin.planning.serving.ways import MODES, Wanted
from ultratwin.planning.workers import mapped
from ultratwin.timing.serving import ServingSetting
from ultratwin.workload.load import load_model
from ultratwin.workload.model import Model

MOST_REPLICA_RANKS: Final = 144
"""Largest replica that is searched, where the chips allow it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanServingQuestion:
    """What is asked. `serving` holds what is equal for all: model, demand, objectives, engine, fixed sizes.

    objective: "cost", "chips" or "energy"; modes: of serving_deployment.MODES; max_chips: that may be used at most
    prices_usd_per_chip_s: the user's own, by system; offer: which public price, the first of OFFERS if empty
    verify: whether the best is simulated
    """

    serving: ServingQuestion
    systems: tuple[str | System, ...]
    precisions: tuple[str, ...] = ("bf16",)
    objective: str = "cost"
    modes: tuple[str, ...] = MODES
    max_chips: int | None = None
    offer: str = ""
    prices_usd_per_chip_s: Mapping[str, float] = dataclasses.field(default_factory=dict)
    verify: bool = True
    workers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemSearch:
    """One system in one format: its deployments and the bounds of its objectives, or why it was refused."""

    system_id: str
    precision: str
    deployed: Deployed | None
    bounds: tuple[Bound, ...]
    price: str
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanServingAnswer:
    """The answer: the best of each system, best first; the front over all; what physics forbids.

    `best` is None where nothing keeps the objectives; `nearest` is then what misses them least.
    verification: the best simulated, request by request; None if not asked for
    """

    question: PlanServingQuestion
    model: Model
    load: Load
    choices: tuple[Deployment, ...]
    best: Deployment | None
    nearest: Deployment | None
    front: tuple[Deployment, ...]
    by_attainment: tuple[tuple[float, Deployment | None], ...]
    bounds: tuple[Bound, ...]
    searches: tuple[SystemSearch, ...]
    verification: Verification | None

    @property
    def num_points(self) -> int:
        """Steady states computed."""
        return sum(each.deployed.num_points for each in self.searches if each.deployed)

    @property
    def rejected(self) -> dict[str, int]:
        """Layouts of a replica that can't run, by reason."""
        counted: Counter[str] = Counter()
        for each in self.searches:
            if each.deployed:
                counted.update(each.deployed.rejected)
        return dict(counted.most_common())

    @property
    def num_candidates(self) -> int:
        """Layouts of a replica looked at."""
        return sum(each.deployed.num_candidates for each in self.searches if each.deployed)


def answer_plan_serving(
    question: PlanServingQuestion, progress: Callable[[int, int], None] = lambda done, total: None
) -> PlanServingAnswer:
    """Answers a planning question about serving.

    Raises: ScenarioError, CatalogueError, ModelError for bad input; what can't be met is a value in the answer
    """
    asked = question.serving
    model = asked.model if isinstance(asked.model, Model) else load_model(asked.model)
    question = dataclasses.replace(question, serving=dataclasses.replace(asked, model=model))
    systems = [each if isinstance(each, System) else load_system(each) for each in question.systems]
    load, rate = offered_load(question.serving)
    tasks = [(question, system, precision, load, rate) for system in systems for precision in question.precisions]
    searches = mapped(search_system, tasks, workers=question.workers, progress=progress)
    options = [option for each in searches if (option := _option_of(each, question.objective)) is not None]
    options.sort(key=lambda each: _rank(each, question.objective))
    met = [each for each in options if each.meets and math.isfinite(each.value(question.objective))]
    close = [each.deployed.nearest for each in searches if each.deployed and each.deployed.nearest]
    best, verification = met[0] if met else None, None
    if best is not None and question.verify:
        verification = verified(question.serving, best, load, rate, question.max_chips)
        best = verification.deployment
    nearest = min(close, key=lambda each: (each.miss, each.chips), default=None)
    return PlanServingAnswer(
        question=question, model=model, load=load, choices=_by_system([best, *options] if best else options), best=best,
        nearest=None if best else nearest, front=_front(searches), by_attainment=_by_attainment(searches),
        bounds=_bounds(searches), searches=tuple(searches), verification=verification,
    )  # fmt: skip


def offered_load(asked: ServingQuestion) -> tuple[Load, float | None]:
    """The mean request, and how many come a second; None where as many as can be served are asked about."""
    if asked.demand.trace is not None:
        from ultratwin.planning.serving.traffic import offered

        found = offered(asked)
        return found.load, found.request_rate
    rate = asked.demand.request_rate
    return demand_load(asked), rate if rate is not None and math.isfinite(rate) else None


def search_system(task: tuple[PlanServingQuestion, System, str, Load, float | None]) -> SystemSearch:
    """One system in one format: its deployments."""
    question, system, precision, load, rate = task
    _, offer = offered_price(question, system)
    try:
        setting, axes, wanted = search_setup(question, system, precision, load, rate)
        found = deployments(setting, system, axes, wanted, question.modes)
        plans = search_plans(setting, axes, load)
        bounds: tuple[Bound, ...] = ()
        if len(plans.num_ranks):
            asked = question.serving
            bounds = objective_bounds(setting, system.id, plans.plan, load, asked.speculation, asked.slos)
        return SystemSearch(system_id=system.id, precision=precision, deployed=found, bounds=bounds, price=offer)
    except UltratwinError as error:
        if len(question.systems) == 1:
            raise
        return SystemSearch(
            system_id=system.id, precision=precision, deployed=None, bounds=(), price=offer, refused=error.what
        )


def search_setup(
    question: PlanServingQuestion, system: System, precision: str, load: Load, rate: float | None
) -> tuple[ServingSetting, Axes, Wanted]:
    """One system in one format: the setting, what a search of it is free in, and what is wanted of it."""
    asked = dataclasses.replace(question.serving, system=system, precision=precision)
    setting, _ = serving_setting(asked)
    ranks = per_rank(setting.pool)
    most = min(question.max_chips or system.max_chips, system.max_chips)
    largest = min(most * setting.pool.ranks_per_chip, max(ranks.chips_per_node, ranks.domain.size), MOST_REPLICA_RANKS)
    axes = Axes(
        sizes=_sizes(asked, replica_sizes(setting.pool, largest)), fixed=dict(asked.sizes),
        max_num_seqs=asked.max_num_seqs, max_num_batched_tokens=asked.max_num_batched_tokens,
        memory_utilization_frac=asked.memory_utilization_frac,
    )  # fmt: skip
    wanted = Wanted(
        load=load, speculation=asked.speculation, slos=asked.slos, request_rate=rate,
        burstiness=asked.demand.burstiness, usd_per_chip_s=offered_price(question, system)[0], max_chips=most,
        objective=question.objective,
    )  # fmt: skip
    return setting, axes, wanted


def _sizes(asked: ServingQuestion, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Replica sizes that fixed sizes of the plan divide."""
    unit = math.prod(
        asked.sizes.get(name, 1)
        for name in ("tensor_parallel_size", "pipeline_parallel_size", "attention_data_parallel_size")
    )
    kept = tuple(each for each in sizes if each % unit == 0)
    return kept or (unit,)


def offered_price(question: PlanServingQuestion, system: System) -> tuple[float, str]:
    """USD per chip and second, NaN where unknown, and which offer it is."""
    own = question.prices_usd_per_chip_s.get(system.id, question.serving.price_usd_per_chip_s)
    return chip_price(system.id, own, question.offer)


def _option_of(search: SystemSearch, goal: str) -> Deployment | None:
    if search.deployed is None:
        return None
    return search.deployed.best.get(goal) or search.deployed.nearest


def _rank(option: Deployment, goal: str) -> tuple[bool, float, float, float, str]:
    """Sorts deployments: what keeps the objectives first, then the goal (per request), then chips."""
    per = option.value(goal) / max(option.request_rate, 1e-300)
    return not option.meets, option.miss if not option.meets else per, option.chips, option.tpot_s, option.system_id


def _by_system(options: Sequence[Deployment]) -> tuple[Deployment, ...]:
    """The first of each system."""
    return tuple(
        {each.system_id: each for each in reversed(options)}[name]
        for name in dict.fromkeys(e.system_id for e in options)
    )


def _front(searches: Sequence[SystemSearch]) -> tuple[Deployment, ...]:
    """What nothing beats in tokens per second and chip, tokens per second and user, over all systems."""
    options = [each for search in searches if search.deployed for each in search.deployed.front]
    if not options:
        return ()
    slow = hundredths(np.array([each.tpot_s for each in options]))
    front = pareto_front(np.stack([slow, np.array([-each.tokens_per_s_per_chip for each in options])]))
    return tuple(options[int(at)] for at in thinned(front, SHOWN_FRONT))


def _by_attainment(searches: Sequence[SystemSearch]) -> tuple[tuple[float, Deployment | None], ...]:
    """The fewest chips over all systems, by the share of requests that must keep the objectives."""
    rows: dict[float, Deployment | None] = {}
    for search in searches:
        for share, option in search.deployed.by_attainment if search.deployed else ():
            known = rows.get(share)
            rows[share] = option if known is None or (option and option.chips < known.chips) else known
    return tuple(sorted(rows.items()))


def _bounds(searches: Sequence[SystemSearch]) -> tuple[Bound, ...]:
    """For each objective the system that physics slows least."""
    best: dict[str, Bound] = {}
    for each in (bound for search in searches for bound in search.bounds):
        if each.objective not in best or each.least_s < best[each.objective].least_s:
            best[each.objective] = each
    return tuple(best.values())
