"""A serving question with every request simulated: tables of the plan, limits of the engine, the event loop."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ultratwin.mapping.serving import ServingPlan
from ultratwin.planning.serving.mix import BatchLimits
from ultratwin.planning.serving.nodes import Served, draft_s
from ultratwin.planning.serving.question import ServingQuestion
from ultratwin.planning.serving.request_times import RequestTimes
from ultratwin.planning.serving.traffic import Offered
from ultratwin.simulation.serving.build import PoolPlan
from ultratwin.simulation.serving.fleet import Fleet, Transfer, simulate_fleet
from ultratwin.simulation.serving.limits import EngineLimits
from ultratwin.simulation.serving.served import Served as Outcome
from ultratwin.simulation.serving.simulate import simulate
from ultratwin.timing.serving import IterationTables, iteration_tables
from ultratwin.timing.serving.iteration import head_s
from ultratwin.workload.traffic.requests import Requests

DEFAULT_ROUTING: Final = "least-loaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What the simulation of a service found.

    times: of the requests that were answered; outcome: everything else that the event loop knows
    sustainable_rate: the most requests per second, where more were offered; infinite where none had to wait
    """

    times: RequestTimes
    outcome: Outcome
    duration_s: float
    energy_j: float
    overloaded: bool
    sustainable_rate: float
    num_rejected: int
    notes: tuple[str, ...]


def simulated_service(
    question: ServingQuestion, served: Served, plan: ServingPlan, limits: BatchLimits, offered: Offered
) -> Simulated:
    """Simulates every request of a question.

    Args:
        question: for routing, replicas and seed; served, plan, limits: of a replica; offered: what arrives
    """
    requests = offered.requests
    longest = int((requests.prompt_tokens + requests.output_tokens).max())
    bounds = engine_limits(question, served, plan, limits, requests)
    tables = plan_tables(served, plan, bounds, longest)
    if question.replicas == 1:
        return _simulated(simulate(tables, bounds, requests, seed=question.seed), offered)
    fleet = Fleet(
        replicas=PoolPlan(tables=tables, limits=bounds, num_replicas=question.replicas),
        routing=question.routing or DEFAULT_ROUTING,
    )
    return _simulated(simulate_fleet(fleet, requests, seed=question.seed), offered)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Replicas of one role: what they are told, how many there are."""

    plan: ServingPlan
    limits: BatchLimits
    replicas: int


def simulated_disaggregation(
    question: ServingQuestion, served: Served, prefill: Side, decode: Side, transfer: Transfer, offered: Offered
) -> Simulated:
    """Simulates every request of a question on prefill and decode replicas apart."""
    requests = offered.requests
    longest = int((requests.prompt_tokens + requests.output_tokens).max())
    pools = []
    for side in (prefill, decode):
        bounds = engine_limits(question, served, side.plan, side.limits, requests)
        tables = plan_tables(served, side.plan, bounds, longest)
        pools.append(PoolPlan(tables=tables, limits=bounds, num_replicas=side.replicas))
    fleet = Fleet(replicas=pools[0], decode=pools[1], transfer=transfer, routing=question.routing or DEFAULT_ROUTING)
    return _simulated(simulate_fleet(fleet, requests, seed=question.seed), offered)


def engine_limits(
    question: ServingQuestion, served: Served, plan: ServingPlan, limits: BatchLimits, requests: Requests
) -> EngineLimits:
    """The engine's limits as its scheduler knows them; no more sequences than requests and blocks can ever make."""
    engine, block = served.setting.engine, int(np.ravel(limits.block_size)[0])
    blocks = int(float(np.ravel(limits.kv_tokens)[0]) // block)
    budget = int(np.ravel(limits.max_num_batched_tokens)[0])
    stages = int(plan.pipeline_parallel_size)
    sequences = min(int(np.ravel(limits.max_num_seqs)[0]), len(requests) + stages, budget)
    return EngineLimits(
        max_num_seqs=max(sequences, stages),
        max_num_batched_tokens=budget,
        num_kv_blocks=max(blocks, 1),
        block_size=block,
        max_model_len=question.max_model_len or served.setting.model.max_seq_length,
        policy=engine.policy,
        prefix_caching=question.prefix_caching,
        pipeline_parallel_size=stages,
        concurrency=question.demand.concurrency or 0,
    )


def plan_tables(served: Served, plan: ServingPlan, limits: EngineLimits, longest: int) -> IterationTables:
    """Tables of one replica, with drafts where there are any."""
    drafts, stages = served.speculation, int(plan.pipeline_parallel_size)
    tables = iteration_tables(
        served.setting, plan, max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=max(limits.max_num_batched_tokens, limits.max_num_seqs * int(drafts.computed)),
        max_context=min(longest, limits.max_model_len) + 1,
    )  # fmt: skip
    if stages > 1:
        # as many engines take turns on the stages: each draws its part of what all chips do
        joules = ("token_j", "sample_j", "decode_attention_j", "prefill_attention_j")
        shared: dict[str, Any] = {name: getattr(tables, name) / stages for name in joules}
        tables = dataclasses.replace(tables, **shared)
    if not drafts.num_tokens:
        return tables
    sequences = np.arange(limits.max_num_seqs + 1, dtype=np.float64)
    draft = np.where(sequences > 0, np.asarray(draft_s(served.setting, plan, sequences, drafts)), 0.0)
    sample = np.asarray(head_s(served.setting, plan, sequences * drafts.computed))
    per_sample = np.divide(tables.sample_j, tables.sample_s, out=np.zeros_like(sample), where=tables.sample_s > 0)
    changed: dict[str, Any] = {
        "draft_s": draft, "sample_s": sample, "sample_j": sample * per_sample,
        "decode_tokens_per_sequence": drafts.computed, "accepted_tokens": drafts.accepted,
    }  # fmt: skip
    return dataclasses.replace(tables, **changed)


def _simulated(outcome: Outcome, offered: Offered) -> Simulated:
    done = np.isfinite(outcome.finish_s) & np.isfinite(outcome.first_token_s)
    times = RequestTimes(
        arrival_s=outcome.arrival_s[done],
        first_token_s=outcome.first_token_s[done],
        finish_s=outcome.finish_s[done],
        prompt_tokens=outcome.prompt_tokens[done],
        output_tokens=outcome.output_tokens[done],
        num_failed=int((~done).sum()),
        gap_s=outcome.gap_seconds,
        gap_count=outcome.gap_counts.astype(np.float64),
    )
    return Simulated(
        times=times,
        outcome=outcome,
        duration_s=outcome.duration_s,
        energy_j=float(outcome.energy_j.sum()),
        overloaded=outcome.overloaded,
        sustainable_rate=outcome.sustainable_rate_per_s,
        num_rejected=int(outcome.rejected.sum()),
        notes=offered.notes,
    )
