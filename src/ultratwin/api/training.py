"""What a program calls to train: `ultratwin.train`, `ultratwin.plan_train` and their results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ultratwin.api.result import Result, RunResult
from ultratwin.catalogue.assumptions import assuming
from ultratwin.errors import ScenarioError, required, unknown_name
from ultratwin.hardware.system import System, load_system
from ultratwin.mapping.memory import Memory
from ultratwin.mapping.plan import Plan, Rejected
from ultratwin.mapping.recipe import recipe
from ultratwin.planning.checks import (
    checked_amount,
    checked_count,
    checked_name,
    checked_objective,
    checked_offer,
    checked_systems,
    layout_indices,
    prices_usd_per_chip_s,
)
from ultratwin.planning.checks import price_usd_per_chip_s as per_second
from ultratwin.planning.plan_training import ChipRange, Choice, Option, PlanAnswer, PlanQuestion, answer_plan
from ultratwin.planning.run import Run
from ultratwin.planning.search import Found
from ultratwin.planning.sensitivity import Tornado, sensitivity
from ultratwin.planning.training import TrainingAnswer, TrainingQuestion, answer_training
from ultratwin.planning.uncertainty import Range
from ultratwin.report.explanation import Explanation, explanation
from ultratwin.report.figures import used_figures
from ultratwin.report.tables import Block
from ultratwin.workload.load import load_model
from ultratwin.workload.model import Model

if TYPE_CHECKING:
    from ultratwin.planning.reliability.run import ReliableRun


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult(RunResult):
    """What a training run takes; or, where `feasible` is false, why it can't run.

    Ranges have `.low`, `.expected`, `.high`. Figures of a run raise ScenarioError where there is none: ask `feasible`.
    """

    question: TrainingQuestion
    answer: TrainingAnswer

    @property
    def feasible(self) -> bool:
        """Whether a plan can run."""
        return self.answer.run is not None

    @property
    def rejected(self) -> Rejected | None:
        """Why nothing can run, with what was needed and what there is; None if a plan can."""
        return self.answer.rejected

    @property
    def plan(self) -> Plan | None:
        """The layout: the one that was given, or the fastest."""
        return self.answer.plan

    @property
    def run(self) -> Run:
        """The whole run.

        Raises: ScenarioError if no plan can run
        """
        return required(
            self.answer.run,
            f"no plan can run: {self.answer.rejected}",
            hint="ask .feasible first; .rejected says what is missing",
        )

    @property
    def memory(self) -> Memory | None:
        """Memory of the fullest rank by purpose, in bytes."""
        return self.answer.memory

    @property
    def found(self) -> Found | None:
        """The search: runners-up and counts of rejected layouts; None where the layout was given."""
        return self.answer.found

    @property
    def mfu(self) -> Range:
        """Model FLOP utilisation against the chips' dense peak, 0 to 1."""
        return self.run.mfu

    @property
    def tokens_per_s(self) -> Range:
        """Tokens per second of the whole system."""
        return self.run.tokens_per_s

    @property
    def chip_hours(self) -> Range:
        """Chip-hours of the whole run."""
        return self.run.chip_hours

    @property
    def power_w(self) -> Range:
        """Mean watts, before PUE."""
        return self.run.power_w

    @property
    def carbon_kg(self) -> Range:
        """Kilograms of CO2 of the whole run."""
        return self.run.carbon_kg

    def explain(self) -> Explanation:
        """Where the time and the memory go, and every figure used, with its source; `str()` of it is text."""
        formats = recipe(self.answer.precision)
        return explanation(self.answer, formats, used_figures(self.answer, self.question, formats))

    def sensitivity(self, offer: str = "") -> Tornado:
        """What each fact alone does to time, cost, energy and carbon: at the ends of its range, and a tenth off.

        Raises: ScenarioError if no plan can run
        """
        return sensitivity(self.answer, self.question, offer)

    def until_done(self, **options: Any) -> ReliableRun:
        """The whole run with everything that fails on the way.

        Args: options: fields of planning.reliable_run.ReliabilityOptions, such as recovery="hot", spares_frac=0.02
        Raises: ScenarioError for bad options, or if no plan can run
        """
        from ultratwin.planning.reliability.model import answer_until_done
        from ultratwin.planning.reliability.run import ReliabilityOptions

        return answer_until_done(self.answer, self.question, ReliabilityOptions(seed=self.question.seed, **options))

    def as_dict(self, until_done: ReliableRun | None = None) -> dict[str, Any]:
        """The answer as JSON objects, with a run until it is done if given."""
        from ultratwin.report.json import training_json
        from ultratwin.report.reliability import reliability_json

        tornado = self.sensitivity() if self.feasible else None
        found = training_json(self.question, self.answer, self.explain(), tornado)
        return found if until_done is None else found | {"until_done": reliability_json(until_done)}

    def blocks(self) -> list[Block]:
        """The answer as blocks of a table."""
        from ultratwin.report.training import training_blocks

        return training_blocks(self.question, self.answer, self.explain())


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanResult(Result):
    """Which system, size and layout to rent; or, where `feasible` is false, what comes nearest."""

    answer: PlanAnswer

    @property
    def feasible(self) -> bool:
        """Whether anything meets deadline and budget."""
        return self.answer.best is not None

    @property
    def best(self) -> Option:
        """The best option of all.

        Raises: ScenarioError if nothing meets what was asked
        """
        if self.answer.best is None or self.answer.best.option is None:
            raise ScenarioError("nothing meets deadline and budget")
        return self.answer.best.option

    @property
    def nearest(self) -> Option | None:
        """What misses deadline and budget least; None if the best meets them, or nothing can run at all."""
        return self.answer.nearest

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The best of each system with its ranges, best first."""
        return self.answer.choices

    @property
    def front(self) -> tuple[Option, ...]:
        """What nothing beats: in the two objectives, or in time, cost, energy, chips and free memory."""
        return self.answer.front

    def best_result(self) -> TrainResult:
        """The best option as `train` answers it, with its breakdown.

        Raises: ScenarioError if nothing meets what was asked
        """
        choice = self.answer.best
        if choice is None or choice.question is None or choice.answer is None:
            raise ScenarioError("nothing meets deadline and budget")
        return TrainResult(question=choice.question, answer=choice.answer)

    def blocks(self) -> list[Block]:
        """The answer as blocks of a table."""
        from ultratwin.report.plan import plan_blocks

        return plan_blocks(self.answer)

    def as_dict(self) -> dict[str, Any]:
        """The answer as JSON objects."""
        from ultratwin.report.plan import plan_answer_json

        return plan_answer_json(self.answer)


def plan_train(
    model: str | Path | Model,
    systems: Sequence[str | System],
    *,
    chips: Sequence[int] | range,
    tokens: float | None = None,
    objectives: Sequence[str] = ("cost",),
    deadline_s: float | None = None,
    budget_usd: float | None = None,
    precisions: Sequence[str] = ("bf16",),
    offer: str = "",
    prices_per_chip_hour: Mapping[str, float] | None = None,
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> PlanResult:
    """Which system, how many chips and which layout train a model best; every layout of every size is evaluated.

    Args:
        model: catalogue name, path of a config.json, hub id, or a Model
        systems: catalogue names or Systems; "all" stands for the whole catalogue
        chips: a range stands for units times 2^k and 3 x 2^k in it, else the sizes themselves
        tokens: of the whole run; 20 per parameter where left out
        objectives: one or two of "time", "cost", "energy", "carbon"
        deadline_s, budget_usd: what the run may take and cost at most
        precisions: number formats to try
        offer: which public price; prices_per_chip_hour: your own, by system [USD]
        workers: processes, 0 for one per core; progress: is told how many sizes are done, of how many
        options: as of `train`: framework, seq_length, global_batch_size, axes of the layout, region, seed
    Returns: the result; what can't be met is a result too
    Raises: UltratwinError for bad input
    """
    for name in objectives:
        checked_objective(name)
    if not 1 <= len(objectives) <= 2 or len(set(objectives)) < len(objectives):
        raise ScenarioError(f"objectives are {', '.join(objectives) or 'none'}", allowed="one, or two different ones")
    checked_offer(offer)
    named = checked_systems(systems)
    prices = prices_usd_per_chip_s(prices_per_chip_hour)
    sizes = chips if isinstance(chips, range) else [checked_count("chips", each) or 0 for each in chips]
    question = PlanQuestion(
        training=training_question(model, "", None, {**options, "tokens": tokens}),
        systems=named,
        chips=ChipRange(low=sizes[0], high=sizes[-1]) if isinstance(sizes, range) else tuple(sizes),
        precisions=tuple(recipe(each.lower()).name for each in precisions),
        objectives=tuple(objectives),
        deadline_s=math.inf if deadline_s is None else checked_amount("deadline", deadline_s) or math.inf,
        budget_usd=math.inf if budget_usd is None else checked_amount("budget", budget_usd) or math.inf,
        offer=offer,
        prices_usd_per_chip_s=prices,
        workers=checked_count("workers", workers, lowest=0) or 0,
    )
    return PlanResult(answer=answer_plan(question, progress))


def train(
    model: str | Path | Model,
    system: str | System,
    *,
    chips: int | None = None,
    tokens: float | None = None,
    precision: str = "bf16",
    framework: str | None = None,
    seq_length: int | None = None,
    global_batch_size: int | None = None,
    tensor_parallel_size: int | None = None,
    pipeline_parallel_size: int | None = None,
    virtual_pipeline_size: int | None = None,
    context_parallel_size: int | None = None,
    expert_parallel_size: int | None = None,
    expert_tensor_parallel_size: int | None = None,
    data_parallel_size: int | None = None,
    micro_batch_size: int | None = None,
    zero_stage: int | None = None,
    shard_size: int | None = None,
    sequence_parallel: bool | None = None,
    recompute: str | None = None,
    schedule: str | None = None,
    region: str = "world",
    price_per_chip_hour: float | None = None,
    objective: str = "time",
    seed: int = 0,
) -> TrainResult:
    """What training a model on a system takes: time, chips, energy, money, and how sure that is.

    The layout is searched unless tensor, pipeline and micro-batch sizes are given; axes that are given stay fixed.
    Args:
        model: catalogue name, path of a config.json, hub id, or a Model
        system: catalogue name, or a System
        chips: how many; one unit of the system where left out
        tokens: of the whole run; 20 per parameter where left out
        precision: bf16, fp16, fp8, fp8-block, mxfp8, mxfp4, nvfp4
        framework: a profile of the catalogue; the usual one of the chip family where left out
        seq_length, global_batch_size, micro_batch_size: in tokens and sequences
        *_parallel_size, virtual_pipeline_size, shard_size, zero_stage: sizes of the layout's axes
        recompute: "none", "selective" or "full"; schedule: "gpipe", "1f1b", "interleaved", ...
        region: whose grid and PUE; price_per_chip_hour: your own price [USD]; seed: of the ranges' samples
        objective: what the best layout makes least: "time" (and cost), or "energy" (and carbon)
    Returns: the result; a plan that can't run is a result too
    Raises: UltratwinError for bad input
    """
    options = {
        "tokens": tokens, "precision": precision, "framework": framework, "seq_length": seq_length,
        "global_batch_size": global_batch_size, "tensor_parallel_size": tensor_parallel_size,
        "pipeline_parallel_size": pipeline_parallel_size, "virtual_pipeline_size": virtual_pipeline_size,
        "context_parallel_size": context_parallel_size, "expert_parallel_size": expert_parallel_size,
        "expert_tensor_parallel_size": expert_tensor_parallel_size, "data_parallel_size": data_parallel_size,
        "micro_batch_size": micro_batch_size, "zero_stage": zero_stage, "shard_size": shard_size,
        "sequence_parallel": sequence_parallel, "recompute": recompute, "schedule": schedule, "region": region,
        "price_per_chip_hour": price_per_chip_hour, "seed": seed, "objective": objective,
    }  # fmt: skip
    named = checked_name("system", system) if isinstance(system, str) else system
    question = training_question(model, named, checked_count("chips", chips), options)
    return TrainResult(question=question, answer=answer_training(question))


_SIZES: Final = (
    "tensor_parallel_size", "pipeline_parallel_size", "virtual_pipeline_size", "context_parallel_size",
    "expert_parallel_size", "expert_tensor_parallel_size", "data_parallel_size", "micro_batch_size", "zero_stage",
    "shard_size",
)  # fmt: skip


def training_question(
    model: str | Path | Model, system: str | System, chips: int | None, options: Mapping[str, Any]
) -> TrainingQuestion:
    """The question that the options of `train` make, checked.

    Raises: ScenarioError for a value out of range or an option that `train` doesn't have
    """
    known = {
        *_SIZES, "tokens", "precision", "framework", "seq_length", "global_batch_size", "sequence_parallel",
        "recompute", "schedule", "region", "price_per_chip_hour", "seed", "objective",
    }  # fmt: skip
    for name in options.keys() - known:
        raise unknown_name("option", name, sorted(known), error=ScenarioError)
    given = options.get
    sizes = {name: checked_count(name, given(name), lowest=0 if name == "zero_stage" else 1) for name in _SIZES}
    framework = given("framework")
    return TrainingQuestion(
        model=model,
        system=system,
        chips=chips,
        tokens=checked_amount("tokens", given("tokens")),
        precision=(given("precision") or "bf16").lower(),
        framework=checked_name("framework", framework) if framework else "",
        seq_length=checked_count("seq_length", given("seq_length")),
        global_batch_size=checked_count("global_batch_size", given("global_batch_size")),
        layout=layout_indices(sizes, given("sequence_parallel"), given("recompute"), given("schedule")),
        region=checked_name("region", given("region") or "world"),
        price_usd_per_chip_s=per_second(given("price_per_chip_hour")),
        objective=checked_objective(given("objective") or "time"),
        seed=checked_count("seed", given("seed"), lowest=0) or 0,
    )


__all__ = [
    "Explanation", "PlanResult", "Range", "TrainResult", "assuming", "load_model", "load_system", "plan_train", "train",
    "training_question",
]  # fmt: skip
