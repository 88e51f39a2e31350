"""Rows as simulations: limits and iteration tables of their workers, and the times of their requests."""

from __future__ import annotations

from math import gcd
from typing import Final

import numpy as np

from ultratwin.hardware.system import per_rank
from ultratwin.mapping.serving import ServingPlan, kv_capacity_tokens
from ultratwin.simulation.serving.build import PoolPlan
from ultratwin.simulation.serving.fleet import Fleet, Transfer, simulate_fleet
from ultratwin.simulation.serving.limits import EngineLimits
from ultratwin.simulation.serving.served import Served
from ultratwin.simulation.serving.simulate import simulate
from ultratwin.timing.serving import IterationTables, ServingSetting, iteration_tables
from ultratwin.validation.rows import Skip
from ultratwin.validation.serving_load import SEED
from ultratwin.validation.serving_metrics import Times
from ultratwin.validation.serving_rows import ServingRun, Side
from ultratwin.workload.kv_cache import kv_bytes_per_token
from ultratwin.workload.traffic.requests import Requests

MAX_STATIC_TOKENS: Final = 32_768
"""A static batch with more prompt tokens than these is computed in several passes: no activations are larger."""
WIDEST_FRAC: Final = 0.97
"""Share of the memory that people give an engine where its default is too little for the weights."""
Tables = dict[object, IterationTables]


class CannotRun(Exception):
    """A row that the twin says its chips can't serve; its text is the reason."""


def machine(run: ServingRun) -> tuple[object, ...]:
    """What the times of a run's iterations depend on beside its plan, hashable."""
    pool = run.pool
    return (run.model, pool.chip.id, pool.domain, pool.fabric, pool.ranks_per_chip, run.formats, run.engine)


def equal_shares(run: ServingRun) -> int:
    """Into how many equal, independent parts a run's workers and load fall."""
    if run.prefill is None:
        return run.decode.workers
    return gcd(run.prefill.workers, run.decode.workers)


def served_times(run: ServingRun, tables: Tables, requests: Requests) -> Times:
    """Simulated times of requests on one of the equal shares of a run: a replica, or prefill and decode workers.

    Raises: CannotRun, Skip
    """
    if run.prefill is not None:
        return times_of(_disaggregated(run, run.prefill, tables, requests), requests)
    limits = engine_limits(run, run.decode, requests)
    served = simulate(_table(run, run.decode, limits, requests, tables), limits, requests, seed=SEED)
    return times_of(served, requests)


def _disaggregated(run: ServingRun, prefill: Side, tables: Tables, requests: Requests) -> Served:
    """Prompts on workers of their own, whose keys and values go to the decode workers over the ranks' links."""
    shares, ranks = equal_shares(run), per_rank(run.pool)
    pools = []
    for side in (prefill, run.decode):
        limits = engine_limits(run, side, requests)
        pools.append(
            PoolPlan(
                tables=_table(run, side, limits, requests, tables), limits=limits, num_replicas=side.workers // shares
            )
        )
    inside = sum(side.workers * int(_plan(side).num_ranks) for side in (prefill, run.decode)) <= ranks.domain.size
    link = ranks.domain if inside else ranks.fabric
    senders = min(int(_plan(side).num_ranks) for side in (prefill, run.decode))
    transfer = Transfer(
        kv_bytes_per_token=kv_bytes_per_token(run.model, run.formats.kv_bytes),
        bytes_per_s=max(senders * float(np.ravel(link.bytes_per_s)[0]), 1.0),
        latency_s=float(np.ravel(link.latency_s)[0]) + float(run.engine.handover_s),
    )
    fleet = Fleet(replicas=pools[0], decode=pools[1], transfer=transfer)
    return simulate_fleet(fleet, requests, seed=SEED)


def _plan(side: Side) -> ServingPlan:
    """A side's plan.

    Raises: Skip where the row states none
    """
    if side.plan is None:
        raise Skip("tp is empty")
    return side.plan


def times_of(served: Served, requests: Requests) -> Times:
    """The times of requests that were served.

    Raises: CannotRun if none was
    """
    kept = ~served.rejected
    if not kept.any():
        raise CannotRun("no request fits into the KV cache")
    sent, finish = served.arrival_s[kept], served.finish_s[kept]
    seen = served.gap_counts > 0
    return Times(
        sent_s=sent,
        first_s=served.first_token_s[kept],
        finish_s=finish,
        prompt_tokens=requests.prompt_tokens[kept].astype(np.float64),
        output_tokens=requests.output_tokens[kept].astype(np.float64),
        duration_s=float(finish.max() - sent.min()),
        energy_j=float(served.energy_j.sum()),
        gap_s=served.gap_seconds[seen],
        gap_count=served.gap_counts[seen].astype(np.float64),
    )


def engine_limits(run: ServingRun, side: Side, requests: Requests) -> EngineLimits:
    """What a worker's engine may do at once: as the row states it, else the engine's defaults and what memory holds.

    Raises: CannotRun if the weights don't fit
    """
    limits, engine, load, plan = run.limits, run.engine, run.load, _plan(side)
    groups = int(plan.attention_data_parallel_size)
    sequences = limits.max_num_seqs or int(engine.max_num_seqs) * groups
    budget = limits.max_num_batched_tokens or int(engine.max_num_batched_tokens) * groups
    if load.kind == "static":
        sequences = max(sequences, load.concurrency)
        budget = max(budget, min(load.concurrency * int(requests.prompt_tokens.max()), MAX_STATIC_TOKENS))
    in_flight = -(-load.concurrency // side.workers)
    if load.kind == "closed" and not limits.max_num_seqs:
        sequences = max(sequences, in_flight)  # nobody asks for more at once than the server was started for
    sequences = max(min(sequences, in_flight or len(requests), len(requests)), 1)
    block = limits.block_size or int(engine.block_size)
    blocks = limits.num_kv_blocks
    for used in (limits.memory_utilization_frac or None, WIDEST_FRAC):
        if blocks < 1:
            held = kv_capacity_tokens(
                run.model, per_rank(run.pool).chip, run.formats, plan, engine, memory_utilization_frac=used,
                max_num_batched_tokens=budget / groups,
            )  # fmt: skip
            blocks = int(float(np.ravel(held)[0]) * groups) // block
    if blocks < 1:
        raise CannotRun("the model does not fit on the chips")
    return EngineLimits(
        max_num_seqs=sequences,
        max_num_batched_tokens=max(budget, sequences),
        num_kv_blocks=blocks,
        block_size=block,
        policy="static" if load.kind == "static" else engine.policy,
        prefix_caching=limits.prefix_caching and load.shared is not None,
        pipeline_parallel_size=int(plan.pipeline_parallel_size),
        concurrency=max(round(load.concurrency / equal_shares(run)), 1) if load.kind == "closed" else 0,
    )


def _table(run: ServingRun, side: Side, limits: EngineLimits, requests: Requests, tables: Tables) -> IterationTables:
    """Iteration tables of a side's plan; runs of like lengths share them."""
    longest = int((requests.prompt_tokens + requests.output_tokens).max())
    sequences, budget = _size(limits.max_num_seqs, 256), _size(limits.max_num_batched_tokens, 8192)
    context = _size(longest, 4096)
    plan = _plan(side)
    key = (*machine(run), plan, sequences, budget, context)
    if key not in tables:
        tables[key] = iteration_tables(
            ServingSetting(model=run.model, pool=run.pool, formats=run.formats, engine=run.engine), plan,
            max_num_seqs=sequences, max_num_batched_tokens=budget, max_context=context,
        )  # fmt: skip
    return tables[key]


def _size(asked: int, least: int) -> int:
    """The next power of two, so that few sizes occur."""
    return max(1 << (asked - 1).bit_length(), least)
