"""Fleets: replicas with routing, prefill and decode on replicas of their own, autoscaling with warm spares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ultratwin.errors import ScenarioError, unknown_name
from ultratwin.simulation.serving.autoscaling import Autoscaling
from ultratwin.simulation.serving.build import PoolPlan
from ultratwin.simulation.serving.records import BOTH, CLOSED, DECODE, PREFILL, SCALE, Sim
from ultratwin.simulation.serving.routing import RULES
from ultratwin.simulation.serving.served import Served
from ultratwin.simulation.serving.simulate import run_pools
from ultratwin.workload.traffic.requests import Requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """How a prompt's KV cache goes from a prefill to a decode replica.

    kv_bytes_per_token: of a whole replica, all ranks [byte]
    bytes_per_s: bandwidth out of a prefill replica and into a decode replica, per direction [byte/s]
    latency_s: from the first byte sent to the first one received [s]
    """

    kv_bytes_per_token: float
    bytes_per_s: float
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        if self.bytes_per_s <= 0.0:
            raise ScenarioError(f"KV transfer at {self.bytes_per_s:g} byte/s", allowed="more than 0")
        if self.kv_bytes_per_token < 0.0 or self.latency_s < 0.0:
            raise ScenarioError("bytes or latency of a KV transfer are negative", allowed="0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Replicas behind one router.

    replicas: what takes requests, and how many
    decode, transfer: where given, `replicas` compute prompts only, and these decode what is transferred to them
    routing: "round-robin", "least-loaded", "prefix-aware" or "random"
    autoscaling: rule for the number of `replicas`; not together with `decode`
    """

    replicas: PoolPlan
    decode: PoolPlan | None = None
    transfer: Transfer | None = None
    routing: str = "least-loaded"
    autoscaling: Autoscaling | None = None

    def __post_init__(self) -> None:
        if self.routing not in RULES:
            raise unknown_name("routing", self.routing, RULES, error=ScenarioError)
        if (self.decode is None) != (self.transfer is None):
            raise ScenarioError("decode replicas and a KV transfer belong together", hint="give both or neither")
        if self.decode is not None and self.autoscaling is not None:
            raise ScenarioError("autoscaling of a disaggregated fleet", allowed="one or the other")
        if self.autoscaling is not None and self.replicas.limits.pipeline_parallel_size > 1:
            raise ScenarioError("autoscaling of pipeline-parallel replicas", allowed="pipeline_parallel_size 1")


def simulate_fleet(fleet: Fleet, requests: Requests, *, stepwise: bool = False, seed: int = 0) -> Served:
    """Serve requests on a fleet.

    Args:
        fleet: replicas and routing; `concurrency` of the replicas that take requests is that of the whole fleet
        requests: what arrives at the router
        stepwise: simulate every iteration on its own, to check the jumps
        seed: of random routing
    Returns: moments and counts; [replica] runs over prefill replicas, then decode replicas
    Raises: ScenarioError if Numba is missing
    """
    pools = [_pool(fleet.replicas, BOTH if fleet.decode is None else PREFILL, fleet.autoscaling)]
    if fleet.decode is not None:
        pools.append(_pool(fleet.decode, DECODE, None))

    def prepare(sim: Sim) -> None:
        if fleet.transfer is not None:
            sim.total["transfer_token_s"] = fleet.transfer.kv_bytes_per_token / fleet.transfer.bytes_per_s
            sim.total["transfer_s"] = fleet.transfer.latency_s
        if fleet.autoscaling is not None:
            _prepare_scaling(sim, fleet.autoscaling)

    rule = RULES.index(fleet.routing)
    return run_pools(pools, requests, prepare=prepare, rule=rule, stepwise=stepwise, seed=seed)


def _pool(plan: PoolPlan, role: int, autoscaling: Autoscaling | None) -> PoolPlan:
    """A pool with its role, and as many replicas as it can come to have."""
    count = plan.num_replicas if autoscaling is None else autoscaling.max_replicas
    if count < 1:
        raise ScenarioError(f"{count} replicas", allowed="1 or more")
    return PoolPlan(tables=plan.tables, limits=plan.limits, num_replicas=count, role=role)


def _prepare_scaling(sim: Sim, rule: Autoscaling) -> None:
    """Only the least number of replicas and the warm spares are up at the beginning."""
    total: Any = sim.total
    total["scale_every_s"], total["scale_load"] = rule.every_s, rule.requests_per_replica
    total["cold_start_s"], total["warm_start_s"] = rule.cold_start_s, rule.warm_start_s
    total["stabilization_s"], total["least_replicas"] = rule.stabilization_s, rule.min_replicas
    total["started"] = total["accepting"] = total["most_wanted"] = rule.min_replicas
    warm = rule.min_replicas + rule.warm_spares
    sim.replicas["accepting"][rule.min_replicas :] = 0
    sim.replicas["spare"][rule.min_replicas : warm] = 1
    sim.replicas["up"][warm:] = 0
    sim.loads[rule.min_replicas :] = CLOSED
    sim.timers[0], sim.timer_ids[0], total["timers"] = rule.every_s, SCALE, 1
