"""The question that `serve` asks: a model on a system under a load; what users feel, what it costs, how surely."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.hardware.system import System, per_rank
from ultratwin.mapping.plan import Rejected
from ultratwin.mapping.serving import RUNTIME_BYTES, ServingPlan, activation_bytes, weight_bytes
from ultratwin.planning.serving.mix import BatchLimits, Load
from ultratwin.planning.serving.money import Prices, serving_prices
from ultratwin.planning.serving.nodes import Served
from ultratwin.planning.serving.point import closed_loop, open_load
from ultratwin.planning.serving.question import ServingQuestion, demand_load, serving_setting
from ultratwin.planning.serving.ranges import ServingRanges, serving_ranges
from ultratwin.planning.serving.search import Axes, Plans, replica_sizes, search_plans
from ultratwin.planning.serving.steady_state import SteadyState
from ultratwin.timing.serving import ServingSetting, bound_s, iteration_parts
from ultratwin.timing.serving.iteration import host_s
from ultratwin.workload.model import Model
from ultratwin.workload.parameters import active_parameter_count, parameter_count

if TYPE_CHECKING:
    from ultratwin.planning.serving.simulation import Simulated
    from ultratwin.planning.serving.traffic import Offered


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingMemory:
    """Bytes of the fullest rank; `kv_tokens`: what the KV caches of one replica hold."""

    parts: dict[str, float]
    capacity_bytes: float
    kv_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Iterations:
    """Seconds by cause of two iterations at the steady state, and the physical bound of each.

    decode: all running sequences, nothing else; prefill: one mean prompt alone
    """

    decode: dict[str, float]
    prefill: dict[str, float]
    decode_bound_s: float
    prefill_bound_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingAnswer:
    """The answer: the replica's plan and its steady state, simulated too where asked; or why it can't run.

    chips: of all replicas. `point` is of one replica. `load`, `limits`: what the closed form was given.
    """

    model: Model
    system: System
    setting: ServingSetting
    num_parameters: int
    num_active_parameters: int
    plan: ServingPlan | None
    replicas: int
    chips: int
    load: Load
    limits: BatchLimits | None
    memory: ServingMemory | None
    rejected: Rejected | None
    plans: Plans | None
    point: SteadyState | None
    iterations: Iterations | None
    ranges: ServingRanges | None
    prices: Prices
    simulated: Simulated | None

    @property
    def overloaded(self) -> bool:
        """Whether more is offered than can be served."""
        if self.point is None:
            return False
        return bool(np.ravel(~np.isfinite(self.point.ttft_s))[0])

    @property
    def sustainable_rate(self) -> float:
        """The most requests per second that all replicas serve; NaN where a closed loop was asked about."""
        return math.nan if self.point is None else float(self.point.sustainable_rate[0]) * self.replicas


def answer_serving(question: ServingQuestion) -> ServingAnswer:
    """Answers a serving question.

    Raises: ScenarioError, CatalogueError, ModelError for bad input; what can't run is a value in the answer
    """
    setting, system = serving_setting(question)
    offered = offered_requests(question) if question.demand.trace is not None else None
    load = demand_load(question) if offered is None else offered.load
    plans, plan, limits, rejected = _chosen_plan(question, setting, system, load)
    memory = None if plan is None else serving_memory(setting, plan, limits, load)
    point, two, ranges, simulated = None, None, None, None
    if plan is not None and limits is not None and rejected is None:
        served = Served(setting=setting, load=load, speculation=question.speculation)
        point = steady_state(question, served, plan, limits, offered.request_rate if offered else None)
        two = iterations(setting, plan, load, point)
        ranges = serving_ranges(question, served, system, plan, limits, point)
        if question.is_simulated:
            from ultratwin.planning.serving.simulation import simulated_service

            simulated = simulated_service(question, served, plan, limits, offered or offered_requests(question))
    chips = 0 if plan is None else int(plan.num_ranks) // setting.pool.ranks_per_chip * question.replicas
    return ServingAnswer(
        model=setting.model, system=system, setting=setting, num_parameters=parameter_count(setting.model),
        num_active_parameters=active_parameter_count(setting.model), plan=plan, replicas=question.replicas,
        chips=chips, load=load, limits=limits, memory=memory, rejected=rejected, plans=plans, point=point,
        iterations=two, ranges=ranges, prices=serving_prices(system.id, question.price_usd_per_chip_s),
        simulated=simulated,
    )  # fmt: skip


def offered_requests(question: ServingQuestion) -> Offered:
    """The requests of a demand, read or generated."""
    from ultratwin.planning.serving.traffic import offered

    return offered(question)


def steady_state(
    question: ServingQuestion, served: Served, plan: ServingPlan, limits: BatchLimits, trace_rate: float | None = None
) -> SteadyState:
    """The steady state of one replica; the load is shared evenly among all."""
    demand = question.demand
    rate = demand.request_rate if demand.request_rate is not None else trace_rate
    most = float(np.ravel(limits.most_running(served.load))[0])
    running = max(most if demand.concurrency is None else demand.concurrency / question.replicas, 1e-9)
    if rate is not None and math.isfinite(rate):
        found = open_load(served, plan, limits, rate / question.replicas, demand.burstiness)
        # a client that holds requests back only does so where more would be under way
        if demand.concurrency is None or float(found.running[0]) <= running:
            return found
    return closed_loop(served, plan, limits, running)


def _chosen_plan(
    question: ServingQuestion, setting: ServingSetting, system: System, load: Load
) -> tuple[Plans | None, ServingPlan | None, BatchLimits | None, Rejected | None]:
    """The plan that was given, or the best of all; with its limits, and why it can't run."""
    whole = "tensor_parallel_size" in question.sizes
    ranks = per_rank(setting.pool)
    if whole:
        given = ServingPlan(**dict(question.sizes))
        sizes: tuple[int, ...] = (int(given.num_ranks),)
        fixed = {each.name: getattr(given, each.name) for each in dataclasses.fields(given)}
        _check_ranks(int(given.num_ranks) * question.replicas, system)
    else:
        most = system.max_chips * setting.pool.ranks_per_chip // question.replicas
        sizes = replica_sizes(setting.pool, min(max(ranks.chips_per_node, ranks.domain.size), most))
        fixed = dict(question.sizes)
    longest = load.prompt_tokens + load.output_tokens
    room = question.max_model_len or setting.model.max_seq_length
    if question.demand.trace is None and longest > room:
        longer = "requests are longer than the model takes"
        return None, None, None, Rejected(reason=longer, needed=float(longest), available=float(room), unit="tokens")
    budget = int(setting.engine.max_num_batched_tokens)
    axes = Axes(
        sizes=sizes, fixed=fixed, max_num_seqs=int(setting.engine.max_num_seqs), max_num_batched_tokens=budget,
        memory_utilization_frac=question.memory_utilization_frac,
    )  # fmt: skip
    plans = search_plans(setting, axes, load)
    if not len(plans.num_ranks):
        return plans, ServingPlan(**dict(question.sizes)) if whole else None, None, refusal(setting, plans)
    at = 0 if whole else _best_plan(question, setting, plans, load)
    limits = dataclasses.replace(
        plans.limits, kv_tokens=float(np.asarray(plans.limits.kv_tokens)[at]), max_num_batched_tokens=float(budget)
    )
    return (None if whole else plans), plans.plan.at(at), limits, None


def _best_plan(question: ServingQuestion, setting: ServingSetting, plans: Plans, load: Load) -> int:
    """The plan that serves the demand and keeps the objectives with the fewest chips; else the fastest for users."""
    from ultratwin.planning.serving.choice import objective_misses

    served = Served(setting=setting, load=load, speculation=question.speculation)
    demand, replicas = question.demand, question.replicas
    if demand.request_rate is not None and math.isfinite(demand.request_rate):
        rates = np.full(len(plans.num_ranks), demand.request_rate / replicas)
        state = open_load(served, plans.plan, plans.limits, rates, demand.burstiness)
    else:
        asked = np.full(len(plans.num_ranks), (demand.concurrency or np.inf) / replicas)
        running = np.minimum(asked, np.maximum(plans.limits.most_running(load), 1e-9))
        state = closed_loop(served, plans.plan, plans.limits, running)
    missed = objective_misses(state, question.slos, load)
    speed = -state.request_rate if demand.request_rate is None else state.e2e_s
    per_chip = plans.num_ranks / np.maximum(state.request_rate, 1e-300)
    if demand.request_rate is None and question.slos:
        order = np.lexsort((per_chip, missed))
    elif demand.request_rate is None:
        order = np.lexsort((plans.num_ranks, per_chip))
    else:
        order = np.lexsort((speed, plans.num_ranks, missed))
    return int(order[0])


def _check_ranks(ranks: int, system: System) -> None:
    most = system.max_chips * system.pool.ranks_per_chip
    if ranks > most:
        raise ScenarioError(
            f"the replicas take {ranks:,} ranks", where=system.id, allowed=f"at most {most:,}",
            hint="smaller --tensor-parallel-size or --pipeline-parallel-size, or fewer --replicas",
        )  # fmt: skip


def refusal(setting: ServingSetting, plans: Plans) -> Rejected:
    """Why no plan can run: what the leanest one lacks, or the commonest reason."""
    capacity = float(np.ravel(per_rank(setting.pool).chip.memory_bytes)[0])
    reason = next(iter(plans.rejected), "no split of the ranks was tried")
    if math.isfinite(plans.least_bytes) and plans.least_bytes > 0:
        usable = capacity * setting.engine.memory_utilization_frac
        return Rejected(
            reason=reason, needed=(usable + plans.least_bytes) / 2**30, available=usable / 2**30, unit="GiB per rank"
        )
    return Rejected(reason=reason)


def serving_memory(setting: ServingSetting, plan: ServingPlan, limits: BatchLimits | None, load: Load) -> ServingMemory:
    """What fills the fullest rank's memory; the KV cache takes what the engine's share leaves."""
    chip, formats = per_rank(setting.pool).chip, setting.formats
    capacity = float(np.ravel(chip.memory_bytes)[0])
    tokens = float(np.ravel(setting.engine.max_num_batched_tokens)[0]) / plan.attention_data_parallel_size
    parts = {
        "weights": float(np.ravel(weight_bytes(setting.model, formats, plan))[0]),
        "activations": float(np.ravel(activation_bytes(setting.model, formats, plan, tokens))[0]),
        "runtime": RUNTIME_BYTES,
    }
    tokens_kept = 0.0 if limits is None else float(np.ravel(limits.kv_tokens)[0])
    used = setting.engine.memory_utilization_frac * capacity
    if limits is not None:
        parts["KV cache"] = max(used - sum(parts.values()), 0.0)
    return ServingMemory(parts=parts, capacity_bytes=capacity, kv_tokens=tokens_kept)


def iterations(setting: ServingSetting, plan: ServingPlan, load: Load, point: SteadyState) -> Iterations:
    """Two iterations at the steady state: all that decode, and a prompt alone."""
    running = float(np.ravel(point.decoding)[0])
    prompt = float(np.ravel(point.mix.chunk)[0])
    context = float(np.ravel(load.decode_context)[0])
    cached = float(np.ravel(load.cached_tokens)[0])
    decode = iteration_parts(setting, plan, tokens=running, decode_sequences=running, decode_context=context)
    prefill = iteration_parts(setting, plan, tokens=prompt, prefill_tokens=prompt, prefill_context=cached, samples=1.0)
    bounds = [
        bound_s(setting, plan, tokens=running, decode_sequences=running, decode_context=context),
        bound_s(setting, plan, tokens=prompt),
    ]
    return Iterations(
        decode=_with_host(setting, plan, decode, running),
        prefill=_with_host(setting, plan, prefill, 1.0),
        decode_bound_s=float(np.ravel(bounds[0])[0]),
        prefill_bound_s=float(np.ravel(bounds[1])[0]),
    )


def _with_host(
    setting: ServingSetting, plan: ServingPlan, parts: Mapping[str, object], sequences: float
) -> dict[str, float]:
    """Parts as numbers, and what of the host's time shows."""
    found = {name: float(np.ravel(np.asarray(value))[0]) for name, value in parts.items()}
    host = float(np.ravel(host_s(setting.engine, plan, sequences))[0])
    device = sum(found.values())
    found["host"] = max(host - device, 0.0) if setting.engine.overlaps_host else host
    return found
