"""The question that `plan train` asks: which system, how many chips, which layout; within a deadline and a budget.

Every size of every system is searched whole (planning.search); what is kept of each is its Pareto front in step time,
energy and memory, which holds the best layout for every objective under every deadline and budget.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.catalogue import loader
from ultratwin.errors import ScenarioError
from ultratwin.hardware.system import System, load_system, per_rank
from ultratwin.mapping.plan import Plan
from ultratwin.planning.comparison import Ranking, ranking
from ultratwin.planning.front import pareto_front
from ultratwin.planning.run import SECONDS_PER_DAY, chip_price
from ultratwin.planning.search import Found, search
from ultratwin.planning.shortlist import Candidate, Flatness
from ultratwin.planning.training import (
    TrainingAnswer,
    TrainingQuestion,
    answer_training,
    checked_chips,
    training_setting,
)
from ultratwin.planning.workers import mapped
from ultratwin.workload.load import load_model
from ultratwin.workload.model import Model
from ultratwin.workload.parameters import parameter_count

MOST_RANKED: Final = 4
"""Systems that are ranked with probabilities and with what would turn them."""
MOST_SIZES: Final = 64
"""Sizes of one system that a range may stand for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipRange:
    """Sizes from `low` to `high` chips: of each system its units times 2^k and 3 x 2^k."""

    low: int
    high: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanQuestion:
    """What is asked, in the user's words. `training` holds what is equal for all: model, tokens, batch, fixed axes.

    `objectives`: what shall be least, of checks.OBJECTIVES; with two of them the front of both is shown.
    `prices_usd_per_chip_s`: the user's own, by system; `offer`: which public price, the first of OFFERS if empty.
    """

    training: TrainingQuestion
    systems: tuple[str | System, ...]
    chips: ChipRange | tuple[int, ...]
    precisions: tuple[str, ...] = ("bf16",)
    objectives: tuple[str, ...] = ("cost",)
    deadline_s: float = math.inf
    budget_usd: float = math.inf
    offer: str = ""
    prices_usd_per_chip_s: Mapping[str, float] = dataclasses.field(default_factory=dict)
    workers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One way to train: system, size, formats, layout; and what the run takes, expected values.

    `cost_usd` is NaN where no price is known. `headroom_frac`: share of a rank's memory that stays free.
    """

    system_id: str
    chips: int
    precision: str
    candidate: Candidate
    duration_s: float
    cost_usd: float
    energy_j: float
    carbon_kg: float
    headroom_frac: float

    @property
    def plan(self) -> Plan:
        """The layout."""
        return self.candidate.plan

    @property
    def chip_hours(self) -> float:
        """Chip-hours of the run."""
        return self.chips * self.duration_s / 3600

    def value(self, objective: str) -> float:
        """What an objective makes least: seconds, dollars, joules or kilograms; infinite where unknown."""
        value = {
            "time": self.duration_s, "cost": self.cost_usd, "energy": self.energy_j, "carbon": self.carbon_kg,
        }[objective]  # fmt: skip
        return math.inf if math.isnan(value) else value

    def key(self, objective: str) -> tuple[float, float, int, str, str]:
        """Sorts options: by the objective, then time (chip-hours, where no price is known), chips, system, formats."""
        unpriced = objective == "cost" and math.isnan(self.cost_usd)
        second = self.chip_hours if unpriced else self.duration_s
        return self.value(objective), second, self.chips, self.system_id, self.precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One size of one system in one precision: its options (none if nothing can run), fastest first, and its search."""

    system_id: str
    chips: int
    precision: str
    options: tuple[Option, ...]
    flatness: Flatness
    num_candidates: int
    num_feasible: int
    rejected: Mapping[str, int]
    least_memory_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The best option of a system, with its whole run and ranges; `answer` is None where it has no option at all.

    `meets`: within deadline and budget. `price`: which offer the cost is by.
    """

    system: System
    option: Option | None
    question: TrainingQuestion | None
    answer: TrainingAnswer | None
    meets: bool
    price: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanAnswer:
    """The answer: the best of each system, best first, the front over all, and what the search saw.

    `best` is None where nothing meets deadline and budget; `nearest` is then the option that misses them least.
    `ranking`: of the first choices (MOST_RANKED), in their order: how surely it holds, and what would turn it.
    """

    question: PlanQuestion
    model: Model
    tokens: float
    choices: tuple[Choice, ...]
    best: Choice | None
    nearest: Option | None
    ranking: Ranking
    front: tuple[Option, ...]
    sizes: tuple[Size, ...]
    refused: tuple[str, ...]

    @property
    def num_candidates(self) -> int:
        """Layouts evaluated or proved impossible, over all sizes."""
        return sum(each.num_candidates for each in self.sizes)

    @property
    def num_feasible(self) -> int:
        """Layouts that can run, over all sizes."""
        return sum(each.num_feasible for each in self.sizes)

    @property
    def rejected(self) -> dict[str, int]:
        """Layouts that can't run, by reason."""
        counted: Counter[str] = Counter()
        for each in self.sizes:
            counted.update(each.rejected)
        return dict(counted.most_common())

    @property
    def unpriced(self) -> bool:
        """Whether a cost is asked for that no system has."""
        asked = "cost" in self.question.objectives or math.isfinite(self.question.budget_usd)
        known = any(math.isfinite(option.value("cost")) for size in self.sizes for option in size.options)
        return asked and not known

    def size_of(self, option: Option) -> Size:
        """The size that an option is of."""
        return next(
            each
            for each in self.sizes
            if (each.system_id, each.chips, each.precision) == (option.system_id, option.chips, option.precision)
        )


def answer_plan(question: PlanQuestion, progress: Callable[[int, int], None] = lambda done, total: None) -> PlanAnswer:
    """Answers a planning question.

    Args:
        question: what is asked; progress: is told how many sizes are done, of how many
    Raises: ScenarioError, CatalogueError, ModelError for bad input; what can't be met is a value in the answer
    """
    asked = question.training
    model = asked.model if isinstance(asked.model, Model) else load_model(asked.model)
    tokens = asked.tokens or 20.0 * parameter_count(model)
    training = dataclasses.replace(asked, model=model, tokens=tokens)
    question = dataclasses.replace(question, training=training)
    systems = [each if isinstance(each, System) else load_system(each) for each in question.systems]
    tasks: list[tuple[PlanQuestion, System, int, str]] = []
    refused: list[str] = []
    for system in systems:
        sizes = sizes_of(system, question.chips)
        if not sizes:
            refused.append(f"{system.id}: no size of it lies in the asked range (units of {system.unit_chips:,} chips "
                           f"up to {system.max_chips:,})")  # fmt: skip
        tasks += [(question, system, chips, precision) for precision in question.precisions for chips in sizes]
    found = mapped(_searched, tasks, workers=question.workers, progress=progress)
    return _answered(question, model, tokens, systems, found, tuple(refused))


def sizes_of(system: System, chips: ChipRange | tuple[int, ...]) -> tuple[int, ...]:
    """The sizes of a system that are tried, ascending.

    A range stands for units (at least nodes) times 2^k and 3 x 2^k; sizes named one by one must be held by the system.
    """
    if not isinstance(chips, ChipRange):
        return tuple(sorted({size for size in chips if _holds(system, size)}))
    node = min(system.pool.chips_per_node, system.unit_chips)
    sizes = {system.unit_chips}
    for base in (node, system.unit_chips):
        sizes |= {base * factor * 2**power for factor in (1, 3) for power in range(40)}
    fitting = sorted(size for size in sizes if chips.low <= size <= min(chips.high, system.max_chips))
    whole = [size for size in fitting if size % system.unit_chips == 0 or size < system.unit_chips]
    return tuple(size for size in whole if _holds(system, size))[:MOST_SIZES]


def _holds(system: System, chips: int) -> bool:
    try:
        return checked_chips(system, chips) == chips
    except ScenarioError:
        return False


def _searched(task: tuple[PlanQuestion, System, int, str]) -> Size:
    """One size of one system: its search, and the run that each plan of the front makes."""
    question, system, chips, precision = task
    training = dataclasses.replace(question.training, system=system, chips=chips, precision=precision)
    setting, fixed, ranks = training_setting(training)
    goal = question.objectives[0]
    found: Found = search(setting, ranks, fixed, objective=goal)
    capacity = float(np.ravel(per_rank(system.pool).chip.memory_bytes)[0])
    rate, _ = offered_price(question, system)
    return Size(
        system_id=system.id,
        chips=chips,
        precision=precision,
        options=tuple(_option(question, system, chips, precision, each, rate, capacity) for each in found.front),
        flatness=found.flatness,
        num_candidates=found.num_candidates,
        num_feasible=found.num_feasible,
        rejected=found.rejected,
        least_memory_bytes=found.least_memory_bytes,
    )


def _option(
    question: PlanQuestion, system: System, chips: int, precision: str, candidate: Candidate, rate_usd_per_s: float,
    capacity_bytes: float,
) -> Option:  # fmt: skip
    """What a run under one plan takes: as planning.run does, expected values only."""
    plan = candidate.plan
    num_steps = math.ceil((question.training.tokens or 0.0) / (int(plan.global_batch_size) * int(plan.seq_length)))
    region = loader.entry("regions", question.training.region).figures
    energy = chips * candidate.energy_j * num_steps * region["pue"].si
    duration = candidate.step_s * num_steps
    return Option(
        system_id=system.id,
        chips=chips,
        precision=precision,
        candidate=candidate,
        duration_s=duration,
        cost_usd=rate_usd_per_s * chips * duration,
        energy_j=energy,
        carbon_kg=energy * region["carbon_kg_per_j"].si,
        headroom_frac=1.0 - candidate.memory_bytes / capacity_bytes,
    )


def offered_price(question: PlanQuestion, system: System) -> tuple[float, str]:
    """USD per chip and second, NaN where unknown, and which offer it is."""
    return chip_price(system.id, _own_price(question, system), question.offer)


def _own_price(question: PlanQuestion, system: System) -> float | None:
    return question.prices_usd_per_chip_s.get(system.id, question.training.price_usd_per_chip_s)


def _answered(
    question: PlanQuestion, model: Model, tokens: float, systems: Sequence[System], sizes: Sequence[Size],
    refused: tuple[str, ...],
) -> PlanAnswer:  # fmt: skip
    goal = question.objectives[0]
    everything = [option for size in sizes for option in size.options]
    choices = [
        _choice(question, system, [each for each in everything if each.system_id == system.id]) for system in systems
    ]
    choices.sort(
        key=lambda each: (_miss(question, each.option), each.option.key(goal)) if each.option else (math.inf, ())
    )
    best = choices[0] if choices and choices[0].meets and math.isfinite(_value(choices[0], goal)) else None
    allowed = [each for each in everything if _meets(question, each)]
    nearest = min(everything, key=lambda each: (_miss(question, each), each.key(goal)), default=None)
    return PlanAnswer(
        question=question,
        model=model,
        tokens=tokens,
        choices=tuple(choices),
        best=best,
        nearest=None if best else nearest,
        ranking=_ranking(ranked_choices(choices), goal),
        front=_front(question, allowed),
        sizes=tuple(sizes),
        refused=refused,
    )


def ranked_choices(choices: Sequence[Choice]) -> list[Choice]:
    """The choices that are ranked against each other: the first ones that can run."""
    return [each for each in choices if each.answer is not None][:MOST_RANKED]


def _ranking(choices: Sequence[Choice], objective: str) -> Ranking:
    answers = [each.answer for each in choices if each.answer is not None]
    questions = [each.question for each in choices if each.question is not None]
    return ranking(answers, questions, objective, [each.price for each in choices])


def _value(choice: Choice, objective: str) -> float:
    return choice.option.value(objective) if choice.option else math.inf


def _meets(question: PlanQuestion, option: Option) -> bool:
    within = option.duration_s <= question.deadline_s
    return within and (math.isinf(question.budget_usd) or option.value("cost") <= question.budget_usd)


def _miss(question: PlanQuestion, option: Option) -> float:
    """By what factor an option misses the worse of deadline and budget; an unknown cost misses any budget."""
    over_time = option.duration_s / question.deadline_s
    over_budget = option.value("cost") / question.budget_usd if math.isfinite(question.budget_usd) else 0.0
    return max(over_time, over_budget, 1.0)


def _choice(question: PlanQuestion, system: System, options: Sequence[Option]) -> Choice:
    """The best option of a system that meets deadline and budget; else the one that misses them least."""
    goal = question.objectives[0]
    price = offered_price(question, system)[1]
    if not options:
        return Choice(system=system, option=None, question=None, answer=None, meets=False, price=price)
    option = min(options, key=lambda each: (_miss(question, each), each.key(goal)))
    asked = training_question(question, system, option)
    return Choice(
        system=system,
        option=option,
        question=asked,
        answer=answer_training(asked),
        meets=_meets(question, option),
        price=price,
    )


def training_question(question: PlanQuestion, system: System, option: Option) -> TrainingQuestion:
    """The question that `train` would be asked about an option: its layout given whole."""
    layout = {each.name: int(getattr(option.plan, each.name)) for each in dataclasses.fields(Plan)}
    seq, batch = layout.pop("seq_length"), layout.pop("global_batch_size")
    if not layout["shard_size"]:
        del layout["shard_size"]
    return dataclasses.replace(
        question.training, system=system, chips=option.chips, precision=option.precision, layout=layout,
        seq_length=seq, global_batch_size=batch, price_usd_per_chip_s=_own_price(question, system),
        objective=question.objectives[0],
    )  # fmt: skip


def _front(question: PlanQuestion, options: Sequence[Option]) -> tuple[Option, ...]:
    """Options that no other beats: in the two objectives, or in time, cost, energy, chips and memory headroom."""
    if not options:
        return ()
    if len(question.objectives) > 1:
        rows = [[each.value(goal) for goal in question.objectives] for each in options]
    else:
        priced = any(math.isfinite(each.value("cost")) for each in options)
        rows = [
            [
                each.duration_s, each.value("cost") if priced else 0.0, each.energy_j, float(each.chips),
                1.0 - each.headroom_frac,
            ]
            for each in options
        ]  # fmt: skip
    return tuple(options[at] for at in pareto_front(np.array(rows).T))


__all__ = [
    "SECONDS_PER_DAY",
    "ChipRange",
    "Choice",
    "Option",
    "PlanAnswer",
    "PlanQuestion",
    "Size",
    "answer_plan",
    "offered_price",
    "ranked_choices",
    "sizes_of",
    "training_question",
]  # fmt: skip
