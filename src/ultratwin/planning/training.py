"""The question that `train` asks: a model, a system, so many chips and tokens; with a layout, or with all of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ultratwin.errors import ScenarioError
from ultratwin.hardware.system import System, load_system, per_rank
from ultratwin.mapping.feasible import rejection
from ultratwin.mapping.memory import Memory
from ultratwin.mapping.plan import Plan, Rejected
from ultratwin.mapping.profile import Profile, load_profile
from ultratwin.mapping.recipe import recipe
from ultratwin.mapping.schedules import SCHEDULE_NAMES
from ultratwin.planning.evaluate import Setting, evaluate, plan_memory
from ultratwin.planning.run import Run, training_run
from ultratwin.planning.search import Found, search
from ultratwin.workload.load import load_model
from ultratwin.workload.model import Model
from ultratwin.workload.parameters import active_parameter_count, parameter_count

DEFAULT_PROFILES: Final = {
    "neuron": "neuronx",
    "nvidia": "megatron",
    "amd": "megatron",
    "tpu": "maxtext",
    "gaudi": "megatron",
}
"""The framework that a chip family is usually trained with, by family."""
LAYOUT_AXES: Final = (
    "tensor_parallel_size", "pipeline_parallel_size", "virtual_pipeline_size", "context_parallel_size",
    "expert_parallel_size", "expert_tensor_parallel_size", "data_parallel_size", "zero_stage", "micro_batch_size",
)  # fmt: skip
_BATCH_TOKENS: Final = ((15e9, 4e6), (150e9, 8e6), (math.inf, 16e6))
"""Tokens of a global batch by model size, where none is given: Llama 3 trained 8B and 70B with 4M to 8M, 405B with 16M
(arXiv 2407.21783 section 3.4.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingQuestion:
    """What is asked, in the user's words: names, sizes, None where the twin shall choose."""

    model: str | Path | Model
    system: str | System
    chips: int | None = None
    tokens: float | None = None
    precision: str = "bf16"
    framework: str = ""
    seq_length: int | None = None
    global_batch_size: int | None = None
    layout: Mapping[str, int] = dataclasses.field(default_factory=dict)
    region: str = "world"
    price_usd_per_chip_s: float | None = None
    objective: str = "time"
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingAnswer:
    """The answer: the plan and its run, or why none can run.

    `run` is None where nothing is feasible; `rejected` says why. A layout given whole keeps its plan and memory
    even then, and has no `found`.
    """

    model: Model
    system: System
    profile: Profile
    precision: str
    chips: int
    tokens: float
    num_parameters: int
    num_active_parameters: int
    plan: Plan | None
    run: Run | None
    memory: Memory | None
    memory_capacity_bytes: float
    rejected: Rejected | None
    found: Found | None


def answer_training(question: TrainingQuestion) -> TrainingAnswer:
    """Answers a training question.

    Raises: ScenarioError, CatalogueError, ModelError for bad input; a plan that can't run is a value in the answer
    """
    setting, fixed, ranks = training_setting(question)
    model, system = setting.model, _system(question)
    chips = ranks // system.pool.ranks_per_chip
    whole = {"tensor_parallel_size", "pipeline_parallel_size", "micro_batch_size"} <= fixed.keys()
    found, plan, rejected = None, None, None
    if whole:
        plan, rejected = _given_plan(setting, fixed, ranks)
    else:
        found = search(setting, ranks, fixed, objective=question.objective)
        plan = found.plans[0] if found.plans else None
        rejected = None if plan else _no_plan(found, system)
    tokens = question.tokens or 20.0 * parameter_count(model)
    run = None
    if plan is not None and rejected is None:
        run = training_run(
            setting, system, plan, tokens=tokens, region=question.region,
            price_usd_per_chip_s=question.price_usd_per_chip_s, seed=question.seed,
        )  # fmt: skip
    return TrainingAnswer(
        model=model,
        system=system,
        profile=setting.profile,
        precision=question.precision,
        chips=chips,
        tokens=tokens,
        num_parameters=parameter_count(model),
        num_active_parameters=active_parameter_count(model),
        plan=plan,
        run=run,
        memory=None if plan is None else plan_memory(model, setting.recipe, setting.profile, plan),
        memory_capacity_bytes=float(per_rank(system.pool).chip.memory_bytes),
        rejected=rejected,
        found=found,
    )


def training_setting(question: TrainingQuestion) -> tuple[Setting, dict[str, int], int]:
    """What a question is about: model, pool, formats and framework; the axes that are fixed; the number of ranks."""
    model = question.model if isinstance(question.model, Model) else load_model(question.model)
    system = _system(question)
    ranks = checked_chips(system, question.chips) * system.pool.ranks_per_chip
    setting = Setting(
        model=model,
        pool=system.pool,
        recipe=recipe(question.precision),
        profile=load_profile(question.framework or DEFAULT_PROFILES.get(system.pool.chip.family, "generic")),
    )
    return setting, fixed_axes(question, model, ranks), ranks


def _system(question: TrainingQuestion) -> System:
    return question.system if isinstance(question.system, System) else load_system(question.system)


def checked_chips(system: System, chips: int | None) -> int:
    """The number of chips, whole nodes of what the system can hold; one unit where none is given.

    Raises: ScenarioError for a number that the system can't hold or that splits a node
    """
    count = system.unit_chips if chips is None else chips
    node = min(system.pool.chips_per_node, system.unit_chips)
    if count < 1 or count > system.max_chips:
        raise ScenarioError(
            f"{count:,} chips of {system.id}", where="--chips", allowed=f"1 to {system.max_chips:,}",
            hint="`ultratwin catalogue systems` lists larger ones",
        )  # fmt: skip
    if count > node and count % node:
        raise ScenarioError(
            f"{count:,} chips of {system.id} split a node", where="--chips", allowed=f"multiples of {node}",
            hint=f"try {count // node * node:,} or {(count // node + 1) * node:,}",
        )  # fmt: skip
    return count


def default_batch(model: Model, seq_length: int, ranks: int) -> int:
    """Sequences of a global batch where none is given: the usual tokens of a batch for the model's size.

    Rounded so that data parallelism may use every factor of the ranks: their odd part times a power of two.
    """
    tokens = next(tokens for limit, tokens in _BATCH_TOKENS if parameter_count(model) < limit)
    odd = ranks
    while odd % 2 == 0:
        odd //= 2
    wanted = max(tokens / seq_length / odd, 1.0)
    return int(odd * 2 ** max(round(math.log2(wanted)), 0))


def fixed_axes(question: TrainingQuestion, model: Model, ranks: int) -> dict[str, int]:
    """What the search may not vary: the given axes, batch and sequence length."""
    for name, value in question.layout.items():
        if value < (0 if name in ("zero_stage", "recompute", "sequence_parallel", "schedule", "shard_size") else 1):
            raise ScenarioError(f"{name} is {value}", allowed="1 or more")
    seq = question.seq_length or min(model.max_seq_length, 8192)
    batch = question.global_batch_size or default_batch(model, seq, ranks)
    for name, value in (("seq_length", seq), ("global_batch_size", batch)):
        if value < 1:
            raise ScenarioError(f"{name} is {value}", allowed="1 or more")
    return {**question.layout, "seq_length": seq, "global_batch_size": batch}


def _given_plan(setting: Setting, fixed: Mapping[str, int], ranks: int) -> tuple[Plan, Rejected | None]:
    """The plan of a layout that is given whole; what it leaves open has the usual default.

    Raises: ScenarioError if the sizes don't multiply out to the chips
    """
    values = {"recompute": 0, "zero_stage": 1} | dict(fixed)
    used = values["tensor_parallel_size"] * values["pipeline_parallel_size"] * values.get("context_parallel_size", 1)
    data = values.setdefault("data_parallel_size", max(ranks // used, 1))
    if used * data != ranks:
        raise ScenarioError(
            f"tensor x pipeline x context x data parallel = {used} x {data} = {used * data}, not the {ranks} ranks",
            hint="leave out data_parallel_size, or change --chips",
        )
    values.setdefault("sequence_parallel", int(values["tensor_parallel_size"] > 1))
    interleaved = values.get("virtual_pipeline_size", 1) > 1
    values.setdefault("schedule", SCHEDULE_NAMES.index("interleaved" if interleaved else "1f1b"))
    plan = Plan(**values)
    result = evaluate(setting, plan, ranks)
    code = int(result.codes[0])
    return plan, rejection(code, result.memory, per_rank(setting.pool)) if code else None


def _no_plan(found: Found, system: System) -> Rejected:
    capacity = float(per_rank(system.pool).chip.memory_bytes)
    reason = next(iter(found.rejected), "no combination of sizes divides the chips")
    if math.isfinite(found.least_memory_bytes) and found.least_memory_bytes > capacity:
        return Rejected(
            reason="no layout fits into memory; the leanest",
            needed=found.least_memory_bytes / 2**30,
            available=capacity / 2**30,
            unit="GiB per rank",
        )
    return Rejected(reason=f"no layout is feasible; most often: {reason}")
