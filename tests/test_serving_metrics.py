"""Metrics of serving are those of the field: vLLM's names and definitions, numpy's percentiles, goodput by request."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultratwin.errors import ScenarioError
from ultratwin.planning.serving.request_times import (
    RequestTimes,
    Sample,
    answered,
    e2el_s,
    itl_sample,
    statistics,
    times_of,
    tpot_s,
    ttft_s,
)
from ultratwin.planning.serving.slo import (
    Slo,
    attained_frac,
    good_requests,
    is_kept,
    parse_slos,
    unreachable,
    verdicts,
    within,
)
from ultratwin.report.metrics.serving import REQUEST_METRICS, RUN_METRICS, ServingRun, vllm_detail, vllm_fields


def some_times(seed: int = 0, count: int = 40, **changes: Any) -> RequestTimes:
    generator = np.random.default_rng(seed)
    arrival = np.sort(generator.uniform(0, 10, count))
    first = arrival + generator.exponential(0.4, count)
    output = generator.integers(1, 50, count)
    values: dict[str, Any] = {
        "arrival_s": arrival,
        "first_token_s": first,
        "finish_s": first + (output - 1) * generator.uniform(0.01, 0.05, count),
        "prompt_tokens": generator.integers(1, 1000, count),
        "output_tokens": output,
    }
    return RequestTimes(**values | changes)


def three() -> RequestTimes:
    """Worked by hand: TTFT 0.5, 1, 2 s; TPOT 0.1 s, none, 0.2 s; E2EL 1.5, 1, 3 s."""
    return RequestTimes(
        arrival_s=np.array([0.0, 1.0, 2.0]),
        first_token_s=np.array([0.5, 2.0, 4.0]),
        finish_s=np.array([1.5, 2.0, 5.0]),
        prompt_tokens=np.array([100, 200, 300]),
        output_tokens=np.array([11, 1, 6]),
        num_failed=1,
    )


def three_run(**changes: Any) -> ServingRun:
    values: dict[str, Any] = {"times": three(), "duration_s": 5.0, "num_chips": 8, "energy_j": 90.0}
    return ServingRun(**values | changes)


def run_values(run: ServingRun) -> dict[str, float | None]:
    return {metric.tag: metric.read(run) for metric in RUN_METRICS}


def test_times_of_a_request_worked_by_hand() -> None:
    times = three()
    assert ttft_s(times).tolist() == [0.5, 1.0, 2.0]
    assert e2el_s(times).tolist() == [1.5, 1.0, 3.0]
    assert tpot_s(times) == pytest.approx([0.1, 0.0, 0.2])


def test_run_metrics_worked_by_hand() -> None:
    run = three_run(usd_per_chip_hour=9.0, slos=parse_slos("ttft:1000 tpot:150"))
    values = run_values(run)
    assert values["requests_per_s"] == 3 / 5
    assert values["good_requests_per_s"] == 2 / 5  # the third waits 2 s
    assert values["attained_frac"] == 2 / 4  # one failed
    assert values["output_tokens_per_s"] == 18 / 5
    assert values["tokens_per_s"] == 618 / 5
    assert values["output_tokens_per_s_per_chip"] == pytest.approx(18 / 5 / 8)
    assert values["tokens_per_s_per_chip"] == pytest.approx(618 / 5 / 8)
    bill = 8 * 5 / 3600 * 9.0
    assert values["usd_per_million_input_tokens"] == pytest.approx(bill / 600 * 1e6)
    assert values["usd_per_million_output_tokens"] == pytest.approx(bill / 18 * 1e6)
    assert values["usd_per_million_tokens"] == pytest.approx(bill / 618 * 1e6)
    assert values["j_per_output_token"] == 5.0
    assert values["j_per_token"] == pytest.approx(90 / 618)
    assert values["mean_concurrency"] == pytest.approx(5.5 / 5)
    assert values["peak_concurrency"] == 2  # 1 to 1.5 s; at 2 s one ends before the next comes


def test_request_metrics_worked_by_hand() -> None:
    values = {metric.tag: statistics(metric.read(three_run())).mean for metric in REQUEST_METRICS}
    assert values["ttft_s"] == pytest.approx(3.5 / 3)
    assert values["tpot_s"] == pytest.approx(0.15)  # an answer of one token has none
    assert values["itl_s"] == pytest.approx((10 * 0.1 + 5 * 0.2) / 15)
    assert values["e2el_s"] == pytest.approx(5.5 / 3)
    assert values["normalized_latency_s"] == pytest.approx((1.5 / 11 + 1.0 + 3.0 / 6) / 3)
    assert values["output_tokens_per_s_per_user"] == pytest.approx((10 + 5) / 2)


@pytest.mark.parametrize("metric", [*REQUEST_METRICS, *RUN_METRICS], ids=lambda metric: metric.tag)
def test_contract_of_every_metric(metric: Any) -> None:
    assert metric.label
    assert metric.formula
    assert metric.unit
    assert metric.scale > 0
    empty = some_times(count=0)
    bare = ServingRun(times=empty, duration_s=0.0)
    full = ServingRun(
        times=some_times(), duration_s=20.0, energy_j=1e3, usd_per_chip_hour=2.0, slos=parse_slos("ttft:500")
    )
    shuffled = dataclasses.replace(full, times=permuted(full.times))
    if metric in RUN_METRICS:
        assert metric.read(bare) is None or not metric.read(bare) > 0
        assert math.isfinite(metric.read(full))
        assert metric.read(shuffled) == pytest.approx(metric.read(full))
    else:
        assert math.isnan(statistics(metric.read(bare)).mean)
        ours, theirs = statistics(metric.read(full)), statistics(metric.read(shuffled))
        assert 0 < ours.mean < math.inf
        assert theirs.mean == pytest.approx(ours.mean)
        assert theirs.percentiles == pytest.approx(ours.percentiles)


def permuted(times: RequestTimes) -> RequestTimes:
    order = np.random.default_rng(1).permutation(len(times))
    names = ("arrival_s", "first_token_s", "finish_s", "prompt_tokens", "output_tokens")
    return dataclasses.replace(times, **{name: getattr(times, name)[order] for name in names})


def test_tags_and_fields_are_unique() -> None:
    tags = [metric.tag for metric in (*REQUEST_METRICS, *RUN_METRICS)]
    fields = [metric.field for metric in (*REQUEST_METRICS, *RUN_METRICS) if metric.field]
    assert len(set(tags)) == len(tags)
    assert len(set(fields)) == len(fields)


def test_names_are_those_of_vllm() -> None:
    fields = vllm_fields(three_run(slos=parse_slos("ttft:1000 tpot:150")), (99, 99.9))
    for name in ("request_throughput", "output_throughput", "total_token_throughput", "max_concurrent_requests"):
        assert fields[name] > 0
    assert (fields["completed"], fields["failed"], fields["duration"]) == (3, 1, 5.0)
    assert (fields["total_input_tokens"], fields["total_output_tokens"]) == (600, 18)
    assert fields["request_goodput"] == 0.4
    assert fields["mean_ttft_ms"] == pytest.approx(3500 / 3)
    assert fields["median_tpot_ms"] == pytest.approx(150)
    assert fields["std_tpot_ms"] == pytest.approx(50)
    assert fields["p99_e2el_ms"] == pytest.approx(np.percentile([1500, 1000, 3000], 99))
    assert fields["p99.9_ttft_ms"] == pytest.approx(np.percentile([500, 1000, 2000], 99.9))
    assert "p99_itl_ms" in fields


def test_a_run_without_answers_is_zeros_as_in_vllm() -> None:
    fields = vllm_fields(ServingRun(times=some_times(count=0), duration_s=1.0))
    assert fields["mean_ttft_ms"] == 0.0
    assert fields["request_throughput"] == 0.0
    assert fields["request_goodput"] is None


def test_detail_holds_each_request() -> None:
    detail = vllm_detail(three_run())
    assert detail["ttfts"] == [0.5, 1.0, 2.0]
    assert detail["input_lens"] == [100, 200, 300]
    assert {len(values) for values in detail.values()} == {3}


def test_unfinished_requests_have_failed() -> None:
    times = answered(
        arrival_s=np.array([0.0, 1.0, 2.0]),
        first_token_s=np.array([1.0, np.nan, 3.0]),
        finish_s=np.array([2.0, np.nan, np.inf]),
        prompt_tokens=[1, 2, 3],
        output_tokens=[2, 2, 2],
    )
    assert (len(times), times.num_failed) == (1, 2)


def test_a_simulations_gaps_come_along() -> None:
    served: Any = SimpleNamespace(
        arrival_s=np.array([0.0, 1.0]), first_token_s=np.array([1.0, np.nan]), finish_s=np.array([3.0, np.nan]),
        prompt_tokens=np.array([5, 6]), output_tokens=np.array([5, 6]),
        gap_seconds=np.array([0.2, 1.4]), gap_counts=np.array([3, 1]),
    )  # fmt: skip
    times = times_of(served)
    assert (len(times), times.num_failed) == (1, 1)
    assert statistics(itl_sample(times)).mean == pytest.approx(tpot_s(times)[0])


def test_times_of_unequal_length_are_refused() -> None:
    with pytest.raises(ScenarioError, match="not of one length"):
        some_times(finish_s=np.zeros(3))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.lists(st.floats(0, 100), min_size=1, max_size=5))
def test_percentiles_are_numpys(values: list[float], percentiles: list[float]) -> None:
    found = statistics(Sample(values=np.array(values)), percentiles)
    for percentile in percentiles:
        assert found.percentiles[percentile] == pytest.approx(np.percentile(values, percentile))
    assert found.std == pytest.approx(np.std(values), abs=1e-6)


@given(st.lists(st.tuples(st.floats(0, 1e3), st.integers(0, 5)), min_size=1, max_size=30), st.floats(0, 100))
def test_counts_are_repetitions(pairs: list[tuple[float, int]], percentile: float) -> None:
    values, counts = np.array([value for value, _ in pairs]), np.array([float(count) for _, count in pairs])
    repeated = np.repeat(values, counts.astype(int))
    found = statistics(Sample(values=values, counts=counts), (percentile,))
    if not repeated.size:
        assert math.isnan(found.mean)
        return
    assert found.mean == pytest.approx(repeated.mean())
    assert found.std == pytest.approx(repeated.std(), abs=1e-6)
    assert found.percentiles[percentile] == pytest.approx(np.percentile(repeated, percentile), abs=1e-9)


def test_known_gaps_are_taken_as_they_are() -> None:
    times = some_times(gap_s=np.array([0.01, 0.5]), gap_count=np.array([99.0, 1.0]))
    found = statistics(itl_sample(times), (99.5,))
    assert found.mean == pytest.approx(0.0149)
    assert found.percentiles[50.0] == 0.01
    assert found.percentiles[99.5] > 0.01


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(1, 3000), st.floats(1, 100))
def test_goodput_is_at_most_throughput_and_falls_with_stricter_limits(seed: int, ttft: float, tpot: float) -> None:
    times = some_times(seed)
    loose, strict = parse_slos(f"ttft:{ttft} tpot:{tpot}"), parse_slos(f"ttft:{ttft / 2} tpot:{tpot}")
    good, fewer = good_requests(loose, times), good_requests(strict, times)
    assert (fewer <= good).all()
    by_hand = [
        t <= ttft / 1e3 and p <= tpot / 1e3 for t, p in zip(ttft_s(times), tpot_s(times), strict=True)
    ]  # fmt: skip
    assert good.tolist() == by_hand


def test_an_answer_of_one_token_keeps_any_tpot() -> None:
    assert good_requests(parse_slos("tpot:0.001"), three()).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ttft:1000 tpot:30", [("ttft", 1.0, ""), ("tpot", 0.03, "")]),
        ("ttft:1000,tpot:30", [("ttft", 1.0, ""), ("tpot", 0.03, "")]),
        ("e2el:5s", [("e2el", 5.0, "")]),
        ("e2e:2min", [("e2el", 120.0, "")]),
        ("p99:ttft:1000", [("ttft", 1.0, "p99")]),
        ("P99.9:TTFT:250ms", [("ttft", 0.25, "p99.9")]),
        ("p99_ttft_ms:1000", [("ttft", 1.0, "p99")]),
        ("mean:itl:20 median:tpot:15", [("itl", 0.02, "mean"), ("tpot", 0.015, "median")]),
        ("ttft:1000 p50:ttft:200", [("ttft", 1.0, ""), ("ttft", 0.2, "p50")]),
        ("", []),
    ],
)
def test_objectives_are_read(text: str, expected: list[tuple[str, float, str]]) -> None:
    found = [(slo.metric, slo.limit_s, slo.statistic) for slo in parse_slos(text).each]
    assert found == [(metric, pytest.approx(limit), statistic) for metric, limit, statistic in expected]


def test_objectives_come_as_a_list_of_words() -> None:
    assert parse_slos(["ttft:1000", "tpot:30"]) == parse_slos("ttft:1000 tpot:30")


@given(
    st.lists(
        st.builds(
            Slo,
            metric=st.sampled_from(["ttft", "tpot", "e2el"]),
            limit_s=st.integers(1, 10**6).map(lambda ms: ms / 1e3),
            statistic=st.sampled_from(["", "mean", "median", "p50", "p99", "p99.9"]),
        ),
        max_size=6,
        unique_by=lambda slo: slo.name,
    )
)
def test_objectives_survive_being_written(each: list[Slo]) -> None:
    text = " ".join(map(str, each))
    again = parse_slos(text)
    assert [slo.name for slo in again.each] == [slo.name for slo in each]
    assert [slo.limit_s for slo in again.each] == pytest.approx([slo.limit_s for slo in each])
    assert str(again) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ttft", "is no objective"),
        ("ttft:", "is no objective"),
        (":5", "is no objective"),
        ("p50:p99:ttft:5", "is no objective"),
        ("ttfft:1000", "did you mean ttft"),
        ("ttft:soon", '"soon" is no time'),
        ("ttft:5GB", "is no time"),
        ("ttft:0", "finite time above 0"),
        ("ttft:-5", "finite time above 0"),
        ("ttft:inf", "finite time above 0"),
        ("ttft:nan", "finite time above 0"),
        ("p101:ttft:5", 'unknown statistic "p101"'),
        ("best:ttft:5", 'unknown statistic "best"'),
        ("itl:20", "ask for a statistic, such as p99:itl:20"),
        ("ttft:5 ttft:6", "two objectives for ttft"),
    ],
)
def test_wrong_objectives_are_explained(text: str, says: str) -> None:
    with pytest.raises(ScenarioError) as error:
        parse_slos(text)
    assert says in str(error.value)


@pytest.mark.parametrize("attainment", [0.0, 1.5, -1.0, math.nan])
def test_attainment_is_a_share(attainment: float) -> None:
    with pytest.raises(ScenarioError, match="attainment"):
        parse_slos("ttft:5", attainment=attainment)


def test_a_run_keeps_its_objectives_by_share() -> None:
    times = three()  # two of four sent are good
    assert is_kept(parse_slos("ttft:1000 tpot:150", attainment=0.5), times)
    assert not is_kept(parse_slos("ttft:1000 tpot:150", attainment=0.51), times)
    assert attained_frac(parse_slos("ttft:1000"), times) == 0.5


def test_a_run_keeps_statistics() -> None:
    times = three()
    assert is_kept(parse_slos("median:ttft:1000"), times)
    assert not is_kept(parse_slos("p99:ttft:1000"), times)
    kept, lost, share = verdicts(parse_slos("mean:ttft:1200 p90:e2el:2s ttft:2000", attainment=0.75), times)
    assert (kept.is_kept, lost.is_kept, share.is_kept) == (True, False, True)
    assert kept.value_s == pytest.approx(3.5 / 3)
    assert lost.value_s == pytest.approx(np.percentile([1.5, 1.0, 3.0], 90))
    assert lost.share == pytest.approx(2 / 3)
    assert share.share == 0.75


def test_no_answer_keeps_no_objective() -> None:
    empty = some_times(count=0)
    assert not is_kept(parse_slos("ttft:1000"), empty)
    assert not is_kept(parse_slos("p99:ttft:1000"), empty)
    assert is_kept(parse_slos(""), empty)


def test_candidates_are_judged_as_an_array() -> None:
    slos = parse_slos("ttft:1000 p99:tpot:30")
    values = {"ttft": np.array([0.5, 2.0, np.nan]), "p99_tpot": np.array([0.03, 0.01, 0.01]), "tpot": np.full(3, 9.0)}
    assert within(slos, values).tolist() == [True, False, False]
    with pytest.raises(ScenarioError, match="nothing is predicted for the objective e2el"):
        within(parse_slos("e2el:5"), values)


def test_a_bound_above_the_limit_of_all_candidates_names_the_objective() -> None:
    slos = parse_slos("ttft:100 p99:tpot:5 e2el:1000")
    bounds = {"ttft": np.array([0.2, 0.05]), "tpot": np.array([0.006, 0.0051])}
    assert [slo.name for slo in unreachable(slos, bounds)] == ["p99_tpot"]


def test_percentiles_outside_their_range_are_refused() -> None:
    with pytest.raises(ScenarioError, match="from 0 to 100"):
        statistics(Sample(values=np.ones(3)), (101,))
