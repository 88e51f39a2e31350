"""What a program calls about serving: `ultratwin.serve`, `ultratwin.plan_serve` and their results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ultratwin.api.result import ExplainedResult, Result
from ultratwin.catalogue import loader
from ultratwin.errors import ScenarioError, required, unknown_name
from ultratwin.hardware.system import System
from ultratwin.mapping.plan import Rejected
from ultratwin.mapping.serving import ServingPlan
from ultratwin.mapping.serving_formats import serving_formats
from ultratwin.planning.checks import checked_count, checked_name, checked_offer, checked_systems, prices_usd_per_chip_s
from ultratwin.planning.checks import price_usd_per_chip_s as per_second
from ultratwin.planning.serving.answer import ServingAnswer, answer_serving
from ultratwin.planning.serving.mix import Speculation
from ultratwin.planning.serving.question import (
    DEFAULT_OUTPUT,
    DEFAULT_PROMPT,
    FIDELITIES,
    Demand,
    ServingQuestion,
)
from ultratwin.planning.serving.ranges import ServingRanges
from ultratwin.planning.serving.slo import ATTAINMENT, parse_slos
from ultratwin.planning.serving.steady_state import SteadyState
from ultratwin.planning.uncertainty import Range
from ultratwin.report.serving_trees import ServingExplanation, serving_explanation
from ultratwin.report.tables import Block
from ultratwin.simulation.serving.routing import RULES
from ultratwin.workload.load import load_model
from ultratwin.workload.model import Model

if TYPE_CHECKING:
    from ultratwin.planning.serving.bounds import Bound
    from ultratwin.planning.serving.deployment import Deployment
    from ultratwin.planning.serving.plan import PlanServingAnswer

_MOST_TOKENS: Final = 2**30
AUTO: Final = "auto"
"""The format that a checkpoint is stored in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeResult(ExplainedResult):
    """What users of a served model feel; or, where `feasible` is false, why it can't run.

    Ranges have `.low`, `.expected`, `.high`. Figures raise ScenarioError where there is none: ask `feasible`.
    """

    question: ServingQuestion
    answer: ServingAnswer

    @property
    def feasible(self) -> bool:
        """Whether the model runs, and all that is offered can be served."""
        simulated = self.answer.simulated
        flooded = self.answer.overloaded if simulated is None else simulated.overloaded
        return self.answer.point is not None and not flooded

    @property
    def rejected(self) -> Rejected | None:
        """Why nothing can run; None if something does."""
        return self.answer.rejected

    @property
    def plan(self) -> ServingPlan | None:
        """How a replica is split: as given, or the best."""
        return self.answer.plan

    @property
    def ranges(self) -> ServingRanges:
        """All figures of the steady state with their ranges.

        Raises: ScenarioError if nothing can run
        """
        return required(
            self.answer.ranges,
            f"nothing can run: {self.answer.rejected}",
            hint="ask .feasible first; .rejected says what is missing",
        )

    @property
    def point(self) -> SteadyState | None:
        """The steady state of one replica, with percentiles: `.ttft_at(0.99)`."""
        return self.answer.point

    @property
    def ttft_s(self) -> Range:
        """Time to first token, mean over requests."""
        return self.ranges.ttft_s

    @property
    def tpot_s(self) -> Range:
        """Time per output token after the first, mean over requests."""
        return self.ranges.tpot_s

    @property
    def output_tokens_per_s(self) -> float:
        """Output tokens per second of all replicas, expected."""
        return self.ranges.output_tokens_per_s.expected * self.answer.replicas

    @property
    def sustainable_rate(self) -> float:
        """The most requests per second that can be served; NaN where a closed loop was asked about."""
        return self.answer.sustainable_rate

    def explain(self) -> ServingExplanation:
        """Where the time of two iterations and the memory go, and every figure used, with its source."""
        return serving_explanation(self.question, self.answer)

    def blocks(self) -> list[Block]:
        """The answer as blocks of a table."""
        from ultratwin.report.serving import serving_blocks

        return serving_blocks(self.question, self.answer, self.explain())

    def as_dict(self) -> dict[str, Any]:
        """The answer as JSON objects."""
        from ultratwin.report.serving import serving_json

        return serving_json(self.question, self.answer, self.explain())


def serve(model: str | Path | Model, system: str | System, **options: Any) -> ServeResult:
    """What serving a model on a system feels like: TTFT, TPOT, throughput, cost, energy, and how sure that is.

    The split of a replica is chosen unless its tensor-parallel size is given.
    Args:
        model: catalogue name, path of a config.json, hub id, or a Model
        system: catalogue name, or a System
        options: as of `serving_question`
    Returns: the result; what can't run, or can't serve what is offered, is a result too
    Raises: UltratwinError for bad input
    """
    question = serving_question(model, system, **options)
    return ServeResult(question=question, answer=answer_serving(question))


def serving_question(
    model: str | Path | Model,
    system: str | System,
    *,
    tensor_parallel_size: int | None = None,
    pipeline_parallel_size: int | None = None,
    data_parallel_size: int | None = None,
    expert_parallel_size: int | None = None,
    enable_expert_parallel: bool = False,
    precision: str = AUTO,
    kv_cache_dtype: str = "auto",
    engine: str | None = None,
    isl: float = DEFAULT_PROMPT,
    osl: float = DEFAULT_OUTPUT,
    range_ratio: float = 0.0,
    prefix_len: int = 0,
    trace: str | Path | None = None,
    trace_format: str = "",
    request_rate: float | None = None,
    concurrency: int | None = None,
    num_prompts: int | None = None,
    burstiness: float = 1.0,
    max_num_seqs: int | None = None,
    max_num_batched_tokens: int | None = None,
    block_size: int | None = None,
    max_model_len: int | None = None,
    memory_utilization: float | None = None,
    enable_prefix_caching: bool = False,
    speculative_tokens: int = 0,
    acceptance_rate: float = 0.0,
    replicas: int = 1,
    routing: str = "",
    goodput: str | Iterable[str] = (),
    attainment: float = ATTAINMENT,
    fidelity: str = "",
    region: str = "world",
    price_per_chip_hour: float | None = None,
    seed: int = 0,
    is_planned: bool = False,
) -> ServingQuestion:
    """A question about serving, checked.

    Args:
        *_parallel_size: of a replica; data: attention groups that share the experts; the rest is chosen
        enable_expert_parallel: experts lie whole on all ranks of a replica, as vLLM's flag
        precision, kv_cache_dtype: number formats, "auto" that of the checkpoint
        engine: vllm, sglang, tensorrt-llm, atom, nxd-inference
        isl, osl: tokens of a prompt and of an answer; range_ratio: lengths lie evenly within that share of them
        prefix_len: tokens that all prompts begin with, beside isl
        trace, trace_format: a file of requests instead
        request_rate: requests per second; concurrency: requests under way; neither: as many as can run
        num_prompts: requests that are simulated; burstiness: of arrivals, 1 is Poisson
        max_num_seqs ... memory_utilization: limits of the engine where they are not its own
        speculative_tokens, acceptance_rate: drafted per step, and how likely each is accepted
        replicas, routing: of the service; goodput: objectives such as "ttft:1000 tpot:30" [ms]; attainment: share of
            requests that must keep them
        fidelity: "analytic" or "event"; region: whose PUE; price_per_chip_hour: your own [USD]; seed: of all chance
        is_planned: the system is chosen later
    Raises: ScenarioError for bad input
    """
    for name, tokens in (("isl", isl), ("osl", osl)):
        if not 1 <= tokens <= _MOST_TOKENS:
            raise ScenarioError(f"{name} is {tokens:g} tokens", allowed=f"1 to {_MOST_TOKENS:,}")
    for name, value, low, high in (
        ("range_ratio", range_ratio, 0.0, 0.999), ("acceptance_rate", acceptance_rate, 0.0, 1.0),
        ("burstiness", burstiness, 1e-6, 1e9), ("attainment", attainment, 1e-9, 1.0),
        ("memory_utilization", memory_utilization, 0.01, 1.0),
    ):  # fmt: skip
        if value is not None and not low <= value <= high:
            raise ScenarioError(f"{name} is {value:g}", allowed=f"{low:g} to {high:g}")
    if request_rate is not None and not request_rate > 0:
        raise ScenarioError(f"request_rate is {request_rate:g} requests/s", allowed="above 0, or inf")
    for kind, word, known in (("fidelity", fidelity, FIDELITIES), ("routing", routing, RULES)):
        if word and word not in known:
            raise unknown_name(kind, word, known, error=ScenarioError)
    precision = own_precision(model, precision)
    sizes = {
        "tensor_parallel_size": tensor_parallel_size, "pipeline_parallel_size": pipeline_parallel_size,
        "attention_data_parallel_size": data_parallel_size, "expert_parallel_size": expert_parallel_size,
    }  # fmt: skip
    given = {name: size for name, value in sizes.items() if (size := checked_count(name, value)) is not None}
    if enable_expert_parallel and "tensor_parallel_size" in given:
        given["expert_parallel_size"] = given["tensor_parallel_size"] * given.get("attention_data_parallel_size", 1)
    return ServingQuestion(
        model=model,
        system=checked_name("system", system) if isinstance(system, str) and not is_planned else system,
        demand=Demand(
            prompt_tokens=isl, output_tokens=osl, range_frac=range_ratio,
            prefix_tokens=checked_count("prefix_len", prefix_len, lowest=0) or 0, request_rate=request_rate,
            concurrency=checked_count("concurrency", concurrency),
            num_prompts=checked_count("num_prompts", num_prompts),
            burstiness=burstiness, trace=None if trace is None else Path(trace), trace_format=trace_format,
        ),
        sizes=given, precision=precision, kv_cache_dtype=kv_cache_dtype.lower(),
        engine="" if engine is None else loader.resolve("engines", checked_name("engine", engine)),
        max_num_seqs=checked_count("max_num_seqs", max_num_seqs),
        max_num_batched_tokens=checked_count("max_num_batched_tokens", max_num_batched_tokens),
        block_size=checked_count("block_size", block_size), max_model_len=checked_count("max_model_len", max_model_len),
        memory_utilization_frac=memory_utilization, prefix_caching=enable_prefix_caching,
        speculation=Speculation(
            num_tokens=checked_count("speculative_tokens", speculative_tokens, lowest=0) or 0,
            acceptance_rate=acceptance_rate,
        ),
        replicas=checked_count("replicas", replicas) or 1, routing=routing,
        slos=parse_slos(goodput, attainment=attainment), fidelity=fidelity,
        region=loader.resolve("regions", region), price_usd_per_chip_s=per_second(price_per_chip_hour),
        seed=checked_count("seed", seed, lowest=0) or 0,
    )  # fmt: skip


def own_precision(model: str | Path | Model, precision: str) -> str:
    """A number format by name; "auto" is the format of the checkpoint.

    Raises: ScenarioError for an unknown format, ModelError for an unknown model
    """
    if precision.lower() != AUTO:
        return serving_formats(precision).name
    known = model if isinstance(model, Model) else load_model(model)
    return known.stored_format or "bf16"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanServeResult(Result):
    """What to deploy; or, where `feasible` is false, what comes nearest and what physics forbids."""

    answer: PlanServingAnswer

    @property
    def feasible(self) -> bool:
        """Whether anything keeps the objectives."""
        return self.answer.best is not None

    @property
    def best(self) -> Deployment:
        """The best deployment of all.

        Raises: ScenarioError if nothing keeps the objectives
        """
        return required(self.answer.best, "nothing keeps the objectives")

    @property
    def nearest(self) -> Deployment | None:
        """What misses the objectives least; None if the best keeps them, or nothing can run at all."""
        return self.answer.nearest

    @property
    def choices(self) -> tuple[Deployment, ...]:
        """The best of each system, best first."""
        return self.answer.choices

    @property
    def front(self) -> tuple[Deployment, ...]:
        """What nothing beats in tokens per second and chip, and tokens per second and user."""
        return self.answer.front

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """For each objective the least that physics allows, and whether that forbids it."""
        return self.answer.bounds

    def blocks(self) -> list[Block]:
        """The answer as blocks of a table."""
        from ultratwin.report.plan_serving import plan_serving_blocks

        return plan_serving_blocks(self.answer)

    def as_dict(self) -> dict[str, Any]:
        """The answer as JSON objects."""
        from ultratwin.report.plan_serving import plan_serving_json

        return plan_serving_json(self.answer)


def plan_serve(
    model: str | Path | Model,
    systems: Sequence[str | System],
    *,
    objective: str = "cost",
    precisions: Sequence[str] = (AUTO,),
    modes: Sequence[str] = ("aggregated", "disaggregated"),
    max_chips: int | None = None,
    offer: str = "",
    prices_per_chip_hour: Mapping[str, float] | None = None,
    verify: bool = True,
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> PlanServeResult:
    """What to deploy for a load under objectives: every split, batch and size of every system is looked at.

    Args:
        model: catalogue name, path of a config.json, hub id, or a Model
        systems: catalogue names or Systems; "all" stands for the whole catalogue
        objective: what shall be least: "cost", "chips" or "energy"
        precisions: number formats to try; modes: "aggregated", "disaggregated"
        max_chips: that may be used; offer: which public price; prices_per_chip_hour: your own, by system [USD]
        verify: whether the best is simulated; workers: processes, 0 for one per core
        progress: is told how many systems are done, of how many
        options: as of `serving_question`: isl, osl, request_rate, goodput, engine, fixed sizes, ...
    Returns: the result; what can't be met is a result too
    Raises: UltratwinError for bad input
    """
    from ultratwin.planning.serving.plan import PlanServingQuestion, answer_plan_serving
    from ultratwin.planning.serving.ways import MODES

    check_choices(objective, precisions, modes, MODES, offer)
    named = checked_systems(systems)
    prices = prices_usd_per_chip_s(prices_per_chip_hour)
    question = PlanServingQuestion(
        serving=serving_question(model, "", **options, is_planned=True),
        systems=named,
        precisions=tuple(dict.fromkeys(own_precision(model, each) for each in precisions)),
        objective=objective,
        modes=tuple(modes),
        max_chips=checked_count("max_chips", max_chips),
        offer=offer,
        prices_usd_per_chip_s=prices,
        verify=verify,
        workers=checked_count("workers", workers, lowest=0) or 0,
    )
    return PlanServeResult(answer=answer_plan_serving(question, progress))


def check_choices(
    objective: str, precisions: Sequence[str], modes: Sequence[str], known_modes: Sequence[str], offer: str
) -> None:
    """Checks what `plan_serve` and `plan_serve_mixed` choose among.

    Raises: ScenarioError for an unknown word, or where nothing is left to choose from
    """
    from ultratwin.planning.serving.deployment import OBJECTIVES

    if objective not in OBJECTIVES:
        raise unknown_name("objective", objective, OBJECTIVES, error=ScenarioError)
    for mode in modes:
        if mode not in known_modes:
            raise unknown_name("mode", mode, known_modes, error=ScenarioError)
    checked_offer(offer)
    if not precisions or not modes:
        raise ScenarioError("no precision or no mode is named", hint="leave them out for the usual ones")
