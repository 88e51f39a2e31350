"""What a program calls: `ultratwin.train` and its result."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ultratwin.errors import ScenarioError
from ultratwin.hardware.system import System, load_system
from ultratwin.mapping.memory import Memory
from ultratwin.mapping.plan import Plan, Rejected, recompute_index
from ultratwin.mapping.recipe import recipe
from ultratwin.mapping.schedules import schedule_index
from ultratwin.planning.run import SECONDS_PER_DAY, Run
from ultratwin.planning.search import Found
from ultratwin.planning.training import TrainingAnswer, TrainingQuestion, answer_training
from ultratwin.planning.uncertainty import Range
from ultratwin.report.explanation import Explanation, explanation
from ultratwin.report.figures import used_figures
from ultratwin.workload.load import load_model
from ultratwin.workload.model import Model

MOST: Final = 10**9
"""Largest size, chip count or batch that is taken: sums of larger ones leave the integers that arrays hold."""
_NAME: Final = re.compile(r"[\w.+() -]{1,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
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
        if self.answer.run is None:
            raise ScenarioError(
                f"no plan can run: {self.answer.rejected}", hint="ask .feasible first; .rejected says what is missing"
            )
        return self.answer.run

    @property
    def memory(self) -> Memory | None:
        """Memory of the fullest rank by purpose, in bytes."""
        return self.answer.memory

    @property
    def found(self) -> Found | None:
        """The search: runners-up and counts of rejected layouts; None where the layout was given."""
        return self.answer.found

    @property
    def step_time_s(self) -> Range:
        """Seconds of one optimizer step."""
        return self.run.step_s

    @property
    def days(self) -> Range:
        """Days of the whole run, without failures."""
        whole = self.run.duration_s
        return Range(
            low=whole.low / SECONDS_PER_DAY,
            expected=whole.expected / SECONDS_PER_DAY,
            high=whole.high / SECONDS_PER_DAY,
        )

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
    def energy_j(self) -> Range:
        """Joules of the whole run: chips, hosts, network, PUE."""
        return self.run.energy_j

    @property
    def power_w(self) -> Range:
        """Mean watts, before PUE."""
        return self.run.power_w

    @property
    def carbon_kg(self) -> Range:
        """Kilograms of CO2 of the whole run."""
        return self.run.carbon_kg

    @property
    def cost_usd(self) -> Mapping[str, Range]:
        """Dollars of the whole run by offer; empty where no price is public and none was given."""
        return self.run.cost_usd

    def explain(self) -> Explanation:
        """Where the time and the memory go, and every figure used, with its source; `str()` of it is text."""
        formats = recipe(self.answer.precision)
        return explanation(self.answer, formats, used_figures(self.answer, self.question, formats))

    def to_json(self) -> str:
        """The answer as JSON; byte-identical for an equal question, version and catalogue."""
        from ultratwin.report.json import dumped, training_json

        return dumped(training_json(self.question, self.answer, self.explain()))

    def table(self, width: int = 100) -> str:
        """The answer as plain text for a terminal so many columns wide."""
        from ultratwin.report.tables import rendered
        from ultratwin.report.training import training_blocks

        return rendered(training_blocks(self.question, self.answer, self.explain()), width=width)


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
    Returns: the result; a plan that can't run is a result too
    Raises: UltratwinError for bad input
    """
    sizes = {
        "tensor_parallel_size": tensor_parallel_size, "pipeline_parallel_size": pipeline_parallel_size,
        "virtual_pipeline_size": virtual_pipeline_size, "context_parallel_size": context_parallel_size,
        "expert_parallel_size": expert_parallel_size, "expert_tensor_parallel_size": expert_tensor_parallel_size,
        "data_parallel_size": data_parallel_size, "micro_batch_size": micro_batch_size, "zero_stage": zero_stage,
        "shard_size": shard_size,
    }  # fmt: skip
    layout = {name: _counted(name, value, lowest=0 if name == "zero_stage" else 1) for name, value in sizes.items()}
    question = TrainingQuestion(
        model=model,
        system=_named("system", system) if isinstance(system, str) else system,
        chips=_counted("chips", chips),
        tokens=_positive("tokens", tokens),
        precision=precision.lower(),
        framework=_named("framework", framework) if framework else "",
        seq_length=_counted("seq_length", seq_length),
        global_batch_size=_counted("global_batch_size", global_batch_size),
        layout=_layout(layout, sequence_parallel, recompute, schedule),
        region=_named("region", region),
        price_usd_per_chip_s=_price(price_per_chip_hour),
        seed=_counted("seed", seed, lowest=0) or 0,
    )
    return TrainResult(question=question, answer=answer_training(question))


def _layout(
    sizes: Mapping[str, int | None], sequence_parallel: bool | None, recompute: str | None, schedule: str | None
) -> dict[str, int]:
    """What of the layout is given, names as the indices that a plan holds."""
    layout = {name: value for name, value in sizes.items() if value is not None}
    if layout.get("zero_stage", 0) > 3:
        raise ScenarioError(f"zero_stage is {layout['zero_stage']}", allowed="0, 1, 2 or 3")
    whole = {"tensor_parallel_size", "pipeline_parallel_size", "micro_batch_size"} <= layout.keys()
    if "data_parallel_size" in layout and not whole:  # a search derives it from the chips
        raise ScenarioError(
            "data_parallel_size alone does not fix a layout", hint="give tensor, pipeline and micro-batch sizes too"
        )
    if sequence_parallel is not None:
        layout["sequence_parallel"] = int(sequence_parallel)
    if recompute is not None:
        layout["recompute"] = recompute_index(recompute)
    if schedule is not None:
        layout["schedule"] = schedule_index(schedule)
    return layout


def _counted(name: str, value: Any, *, lowest: int = 1) -> int | None:
    """A whole number in range.

    Raises: ScenarioError otherwise
    """
    if value is None:
        return None
    allowed = f"a whole number from {lowest} to {MOST:,}"
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or int_of(value) is None:
        raise ScenarioError(f"{name} is {value!r}", allowed=allowed)
    if not lowest <= value <= MOST:
        shown = (
            f"{value:,}" if abs(value) < 1e30 else f"{float(value):g}" if abs(value) < 1e300 else "beyond all measure"
        )
        raise ScenarioError(f"{name} is {shown}", allowed=allowed)
    return int(value)


def int_of(value: float) -> int | None:
    """The whole number that a value is; None if it is not one.

    Example:
        >>> int_of(512.0), int_of(1.5)
        (512, None)
    """
    if isinstance(value, int):
        return value
    return int(value) if math.isfinite(value) and value == int(value) else None


def _positive(name: str, value: float | None) -> float | None:
    if value is not None and not 0 < value < 1e24:
        raise ScenarioError(f"{name} is {value:g}", allowed="above 0, below 1e24", hint="for example 15.6T")
    return value


def _price(usd_per_hour: float | None) -> float | None:
    if usd_per_hour is None:
        return None
    if not 0 <= usd_per_hour < 1e9:
        raise ScenarioError(f"price_per_chip_hour is {usd_per_hour:g} USD", allowed="0 or more, below 1e9")
    return usd_per_hour / 3600


def _named(kind: str, name: str) -> str:
    """A name that can be looked up: catalogue names become file names, so paths are refused."""
    if not _NAME.fullmatch(name):
        shown = name if len(name) <= 60 else name[:57] + "..."
        raise ScenarioError(
            f"{kind} {shown!r} is no name", allowed="letters, digits, dots, dashes and blanks",
            hint=f"`ultratwin catalogue {kind if kind != 'framework' else 'profile'}s` lists all",
        )  # fmt: skip
    return name


__all__ = ["Explanation", "Range", "TrainResult", "load_model", "load_system", "train"]
