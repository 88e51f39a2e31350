"""Fleets: routing, disaggregation, autoscaling."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from test_serving_simulation import (
    MOMENTS,
    any_limits,
    any_loads,
    assert_possible,
    assert_same,
    fast,
    fixed_tables,
    make_limits,
    make_requests,
    make_tables,
    poisson,
    random_limits,
)
from ultratwin.errors import ScenarioError
from ultratwin.simulation.serving.autoscaling import Autoscaling
from ultratwin.simulation.serving.build import PoolPlan
from ultratwin.simulation.serving.fleet import Fleet, Transfer, simulate_fleet
from ultratwin.simulation.serving.limits import EngineLimits
from ultratwin.simulation.serving.routing import RULES
from ultratwin.simulation.serving.simulate import simulate
from ultratwin.workload.traffic.requests import PrefixHashes, Requests

FAST_LINK = Transfer(kv_bytes_per_token=1000.0, bytes_per_s=1e8, latency_s=1e-4)


def replicas(count: int, limits: EngineLimits | None = None, **tables: Any) -> PoolPlan:
    return PoolPlan(tables=make_tables(**tables), limits=limits or make_limits(), num_replicas=count)


def some_requests(count: int = 120, rate: float = 60.0, seed: int = 2) -> Requests:
    rng = np.random.default_rng(seed)
    return make_requests(poisson(rate, count), rng.integers(1, 90, count), rng.integers(1, 40, count))


@fast
@given(any_loads(), any_limits, st.sampled_from(RULES))
def test_a_fleet_of_one_is_its_replica(requests: Requests, limits: EngineLimits, routing: str) -> None:
    limits = replace(limits, pipeline_parallel_size=1)
    one = simulate_fleet(Fleet(replicas=replicas(1, limits), routing=routing), requests)
    assert_same(one, simulate(make_tables(), limits, requests))


@fast
@given(any_loads(), any_limits, st.sampled_from(RULES), st.integers(1, 4))
def test_fleets_jump_as_they_step(requests: Requests, limits: EngineLimits, routing: str, count: int) -> None:
    fleet = Fleet(replicas=replicas(count, limits), routing=routing)
    jumps, steps = (simulate_fleet(fleet, requests, stepwise=stepwise) for stepwise in (False, True))
    assert_same(jumps, steps)
    assert jumps.replica.tolist() == steps.replica.tolist()
    assert_possible(requests, jumps)


@fast
@given(any_loads(), random_limits, st.integers(1, 3), st.integers(1, 3), st.sampled_from([1e5, 1e7, 1e12]))
def test_disaggregated_fleets_jump_as_they_step(
    requests: Requests, limits: EngineLimits, prefill: int, decode: int, bytes_per_s: float
) -> None:
    link = replace(FAST_LINK, bytes_per_s=bytes_per_s)
    fleet = Fleet(replicas=replicas(prefill, limits), decode=replicas(decode, limits), transfer=link)
    jumps, steps = (simulate_fleet(fleet, requests, stepwise=stepwise) for stepwise in (False, True))
    assert_same(jumps, steps)
    assert_possible(requests, jumps)
    sent = (requests.output_tokens > 1) & ~jumps.rejected
    assert jumps.transferred_tokens == requests.prompt_tokens[sent].sum()


def test_a_lone_disaggregated_request_takes_prefill_transfer_and_decode() -> None:
    link = Transfer(kv_bytes_per_token=1e6, bytes_per_s=1e9, latency_s=0.5)
    fleet = Fleet(replicas=replicas(1), decode=replicas(1), transfer=link)
    request = make_requests([0.0], [50], [10])
    served, together = simulate_fleet(fleet, request), simulate(make_tables(), make_limits(), request)
    assert served.ttft_s[0] == pytest.approx(together.ttft_s[0] + 50 * 1e6 / 1e9 + 0.5)
    assert served.e2e_s[0] - served.ttft_s[0] == pytest.approx(together.e2e_s[0] - together.ttft_s[0])


def test_a_faster_link_is_never_slower() -> None:
    means = []
    for bytes_per_s in (1e5, 1e6, 1e7, 1e9):
        link = replace(FAST_LINK, bytes_per_s=bytes_per_s)
        fleet = Fleet(replicas=replicas(2), decode=replicas(2), transfer=link, routing="round-robin")
        means.append(simulate_fleet(fleet, some_requests()).ttft_s.mean())
    assert (np.diff(means) <= 1e-12).all()


def test_prompts_do_not_disturb_decodes_elsewhere() -> None:
    requests = some_requests(200, 100.0)
    roomy = make_limits(num_kv_blocks=2000, max_num_batched_tokens=128)
    apart = Fleet(replicas=replicas(2, roomy), decode=replicas(2, roomy), transfer=FAST_LINK)
    found, together = simulate_fleet(apart, requests), simulate_fleet(Fleet(replicas=replicas(4, roomy)), requests)
    assert found.itl_quantile_s(0.99) < 0.8 * together.itl_quantile_s(0.99)


def test_each_rule_sends_where_it_says() -> None:
    requests = some_requests(400)
    by_rule = {rule: simulate_fleet(Fleet(replicas=replicas(4), routing=rule), requests, seed=7) for rule in RULES}
    assert by_rule["round-robin"].replica.tolist() == [i % 4 for i in range(400)]
    shares = np.bincount(by_rule["random"].replica, minlength=4)
    assert shares.min() > 60
    assert shares.max() < 140
    assert by_rule["least-loaded"].queue_s.mean() <= by_rule["random"].queue_s.mean()
    assert by_rule["prefix-aware"].replica.tolist() == by_rule["least-loaded"].replica.tolist()  # no hashes
    other = simulate_fleet(Fleet(replicas=replicas(4), routing="random"), requests, seed=8)
    assert other.replica.tolist() != by_rule["random"].replica.tolist()


def test_prompts_go_where_their_beginning_is_cached() -> None:
    count, blocks = 200, 12
    rng = np.random.default_rng(5)
    kinds = rng.integers(0, 6, count)
    hashes = PrefixHashes(
        offsets=np.arange(count + 1) * blocks,
        hashes=np.ravel(kinds[:, None] * 100 + np.arange(blocks)),
        block_tokens=4,
    )
    requests = make_requests(poisson(40.0, count), np.full(count, 50), np.full(count, 5), prefix_hashes=hashes)
    limits = make_limits(prefix_caching=True)
    cached = {
        rule: simulate_fleet(Fleet(replicas=replicas(3, limits), routing=rule), requests).cached_tokens.sum()
        for rule in ("round-robin", "prefix-aware")
    }
    assert cached["prefix-aware"] > 1.3 * cached["round-robin"]


def test_more_replicas_serve_more() -> None:
    requests = make_requests(poisson(350.0, 3000), np.full(3000, 4), np.ones(3000))
    plan = PoolPlan(tables=fixed_tables(0.01), limits=make_limits(max_num_seqs=1), num_replicas=1)
    four = simulate_fleet(Fleet(replicas=replace(plan, num_replicas=4)), requests)
    one = simulate_fleet(Fleet(replicas=plan), requests)
    assert not four.overloaded
    assert one.overloaded
    assert one.sustainable_rate_per_s == pytest.approx(100.0, rel=0.01)


def test_pipeline_stages_share_sequences_and_blocks() -> None:
    limits = make_limits(max_num_seqs=4, num_kv_blocks=120, pipeline_parallel_size=2)
    served = simulate(make_tables(), limits, make_requests(np.zeros(8), np.full(8, 20), np.full(8, 20)))
    assert np.bincount(served.replica).tolist() == [4, 4]
    assert served.replica_s.sum() == pytest.approx(served.finish_s.max())


# ---------------------------------------------------------------- autoscaling

RULE = Autoscaling(
    min_replicas=1, max_replicas=4, requests_per_replica=4.0, every_s=0.5, stabilization_s=2.0, cold_start_s=1.0
)


def burst() -> Requests:
    """Calm, a burst, calm again."""
    arrival = np.concatenate([np.arange(0, 10, 0.5), np.linspace(10, 12, 400), np.arange(12.5, 40, 0.5)])
    return make_requests(arrival, np.full(arrival.size, 40), np.full(arrival.size, 30))


def test_replicas_follow_the_load_and_are_paid_for_while_they_run() -> None:
    scaled = simulate_fleet(Fleet(replicas=replicas(1), autoscaling=RULE), burst())
    assert_possible(burst(), scaled)
    assert scaled.series.replicas.max() == 4
    assert scaled.series.replicas[-1] == 1
    always = simulate_fleet(Fleet(replicas=replicas(4)), burst())
    alone = simulate_fleet(Fleet(replicas=replicas(1)), burst())
    assert alone.replica_s.sum() < scaled.replica_s.sum() < 0.8 * always.replica_s.sum()
    assert always.ttft_s.mean() < scaled.ttft_s.mean() < alone.ttft_s.mean()


def test_warm_spares_are_there_sooner_and_cost_more() -> None:
    cold = simulate_fleet(Fleet(replicas=replicas(1), autoscaling=replace(RULE, cold_start_s=5.0)), burst())
    rule = replace(RULE, cold_start_s=5.0, warm_spares=3, warm_start_s=0.1)
    warm = simulate_fleet(Fleet(replicas=replicas(1), autoscaling=rule), burst())
    assert warm.ttft_s.mean() < cold.ttft_s.mean()
    assert warm.replica_s.sum() > cold.replica_s.sum()


def test_autoscaling_jumps_as_it_steps() -> None:
    fleet = Fleet(replicas=replicas(1), autoscaling=RULE, routing="round-robin")
    jumps, steps = (simulate_fleet(fleet, burst(), stepwise=stepwise) for stepwise in (False, True))
    assert_same(jumps, steps, (*MOMENTS, "replica_s"))


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: Fleet(replicas=replicas(1), routing="rondom"), "did you mean random"),
        (lambda: Fleet(replicas=replicas(1), decode=replicas(1)), "belong together"),
        (
            lambda: Fleet(replicas=replicas(1), decode=replicas(1), transfer=FAST_LINK, autoscaling=RULE),
            "disaggregated",
        ),
        (lambda: simulate_fleet(Fleet(replicas=replicas(0)), some_requests(1)), "0 replicas"),
        (lambda: Transfer(kv_bytes_per_token=1.0, bytes_per_s=0.0), "more than 0"),
        (lambda: replace(RULE, min_replicas=9), "between 9 and 4"),
        (lambda: replace(RULE, warm_spares=4), "0 to 3"),
    ],
)
def test_fleets_that_make_no_sense(build: Any, text: str) -> None:
    with pytest.raises(ScenarioError, match=text):
        build()
