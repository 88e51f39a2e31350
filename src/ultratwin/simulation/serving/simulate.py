"""Simulations of one replica and of fleets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ultratwin.simulation.serving.build import PoolPlan, build
from ultratwin.simulation.serving.limits import EngineLimits
from ultratwin.simulation.serving.records import GAP_LEAST_S, GAP_RATIO, REJECTED, Sim
from ultratwin.simulation.serving.served import Series, Served, moments
from ultratwin.timing.serving.tables import IterationTables
from ultratwin.workload.traffic.requests import Requests


def simulate(
    tables: IterationTables, limits: EngineLimits, requests: Requests, *, stepwise: bool = False, seed: int = 0
) -> Served:
    """Serve requests on one replica.

    Args:
        tables: seconds and joules of its iterations
        limits: of its scheduler and KV cache
        requests: what arrives
        stepwise: simulate every iteration on its own, to check the jumps
        seed: not used by one replica with one engine; pipeline stages take the least loaded
    Returns: moments and counts
    Raises: ScenarioError if Numba is missing
    """
    return run_pools([PoolPlan(tables=tables, limits=limits)], requests, rule=1, stepwise=stepwise, seed=seed)


def run_pools(
    pools: Sequence[PoolPlan], requests: Requests, *, prepare: Callable[[Sim], None] | None = None, **options: Any
) -> Served:
    """Serve requests on pools of replicas; the first takes what arrives, a second one decodes what it has prefilled.

    `prepare` changes the records before the first event; `options` are those of `build`.
    """
    sim = build(pools, requests, **options)
    if prepare is not None:
        prepare(sim)
    if len(requests):
        _event_loop()(sim)
    return _served(sim, pools)


@lru_cache(maxsize=1)
def _event_loop() -> Callable[[Sim], None]:
    from ultratwin.simulation.serving.loop import runner

    return runner()


def _served(sim: Sim, pools: Sequence[PoolPlan]) -> Served:
    """Records as an answer."""
    requests, replicas, total = sim.requests, sim.replicas, sim.total[0]
    rejected = requests["state"] == REJECTED
    end_s = float(total["time_s"])
    idle_w = sim.pools["idle_w"][replicas["pool"]]
    share = np.array([pool.limits.pipeline_parallel_size for pool in pools])[replicas["pool"]]
    paid = (replicas["paid_s"] + np.where(replicas["up"] == 1, end_s - replicas["up_s"], 0.0)) / share
    return Served(
        arrival_s=requests["arrival_s"].copy(),
        scheduled_s=moments(requests["scheduled_s"]),
        first_token_s=moments(requests["first_token_s"]),
        finish_s=moments(requests["finish_s"]),
        max_gap_s=requests["max_gap_s"].copy(),
        rejected=rejected,
        cached_tokens=np.maximum(requests["cached"], 0),
        num_preemptions=requests["preemptions"].astype(np.int64),
        replica=requests["replica"].astype(np.int64),
        prompt_tokens=requests["prompt"].copy(),
        output_tokens=requests["output"].copy(),
        gap_seconds=np.asarray(GAP_LEAST_S * GAP_RATIO ** (np.arange(len(sim.gap_bins)) - 0.5), np.float64),
        gap_counts=sim.gap_bins,
        iterations=replicas["iterations"].copy(),
        busy_s=replicas["busy_s"].copy(),
        energy_j=replicas["energy_j"] + idle_w * np.maximum(paid - replicas["busy_s"] / share, 0.0),
        replica_s=paid,
        prefilled_tokens=int(total["prefilled"]),
        transferred_tokens=int(total["transferred_tokens"]),
        queued_at_last_arrival=int(total["queued_at_last_arrival"]),
        backlog_s=float(total["backlog_s"]),
        backlog_finished=int(total["backlog_finished"]),
        series=_series(sim),
    )


def _series(sim: Sim) -> Series:
    """The samples as columns."""
    rows = sim.series[: int(sim.total[0]["samples"])]
    blocks = float((sim.pools["num_blocks"] * sim.pools["count"]).sum())
    elapsed = np.diff(rows[:, 0], prepend=0.0)
    tokens = np.diff(rows[:, 4], prepend=0.0)
    return Series(
        time_s=rows[:, 0].copy(),
        waiting=rows[:, 1].copy(),
        running=rows[:, 2].copy(),
        kv_usage_frac=rows[:, 3] / blocks,
        tokens_per_s=np.divide(tokens, elapsed, out=np.zeros_like(tokens), where=elapsed > 0.0),
        replicas=rows[:, 5].copy(),
    )
