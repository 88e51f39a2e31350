"""Requests: laws of arrivals and lengths have the moments they promise, traces say what is wrong with them."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultratwin.errors import ScenarioError
from ultratwin.workload.traffic.arrivals import (
    ARRIVALS,
    AllAtOnce,
    Arrivals,
    ClosedLoop,
    Constant,
    Gamma,
    Poisson,
    Ramp,
    arrivals_of,
)
from ultratwin.workload.traffic.generate import Traffic, generate, resampled
from ultratwin.workload.traffic.lengths import LENGTHS, Empirical, Fixed, Lengths, LogNormal, Uniform, around, up_to
from ultratwin.workload.traffic.prefixes import SharedPrefix
from ultratwin.workload.traffic.replay import at_rate, between, first, mean_rate
from ultratwin.workload.traffic.requests import PrefixHashes, Requests, sorted_requests
from ultratwin.workload.traffic.sessions import Sessions, session_requests
from ultratwin.workload.traffic.traces import TRACE_FORMATS, read_trace, write_requests

EXAMPLES = Path(__file__).parents[1] / "examples" / "traces"

SOME_ARRIVALS: dict[type[Arrivals], Arrivals] = {
    Poisson: Poisson(request_rate=4.0, is_rescaled=False),
    Gamma: Gamma(request_rate=4.0, burstiness=0.25, is_rescaled=False),
    Constant: Constant(request_rate=4.0),
    AllAtOnce: AllAtOnce(),
    ClosedLoop: ClosedLoop(max_concurrency=8),
    Ramp: Ramp(start_rate=1.0, end_rate=9.0),
}
SOME_LENGTHS: dict[type[Lengths], Lengths] = {
    Fixed: Fixed(length=512),
    Uniform: Uniform(low=10, high=90),
    LogNormal: LogNormal(mean=300.0, deviation=400.0, low=4, high=2000),
    Empirical: Empirical(seen=np.array([3, 3, 40, 1000])),
}


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def refused(what: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(ScenarioError) as error:
        what(*arguments, **options)
    return str(error.value)


def file(folder: Path, content: str | bytes, name: str = "trace") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- arrivals


@pytest.mark.parametrize("kind", ARRIVALS, ids=lambda kind: kind.name)
def test_contract_of_every_law_of_arrivals(kind: type[Arrivals]) -> None:
    law = SOME_ARRIVALS[kind]
    times = law.times_s(1000, generator(1))
    assert times.shape == (1000,)
    assert times[0] >= 0
    assert (np.diff(times) >= 0).all()
    assert times.tobytes() == law.times_s(1000, generator(1)).tobytes()
    assert law.times_s(0, generator()).size == 0


@pytest.mark.parametrize("kind", [Poisson, Gamma, Constant])
def test_mean_rates_converge(kind: type[Arrivals]) -> None:
    times = SOME_ARRIVALS[kind].times_s(200_000, generator(2))
    assert times.size / times[-1] == pytest.approx(4.0, rel=0.02)


@settings(max_examples=20, deadline=None)
@given(burstiness=st.floats(0.1, 20), rate=st.floats(0.01, 1000))
def test_burstiness_is_the_spread_of_gaps(burstiness: float, rate: float) -> None:
    gaps = np.diff(Gamma(request_rate=rate, burstiness=burstiness).times_s(40_000, generator(3)))
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness**-0.5, rel=0.08)


def test_gaps_of_poisson_are_exponential() -> None:
    gaps = np.diff(Poisson(request_rate=2.0).times_s(100_000, generator(4)))
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.02)
    assert (gaps > 0.5).mean() == pytest.approx(np.exp(-1.0), abs=0.01)


@given(rate=st.floats(0.001, 1e5), count=st.integers(1, 200), seed=st.integers(0, 9))
def test_rescaled_arrivals_end_when_vllm_bench_ends_them(rate: float, count: int, seed: int) -> None:
    for law in (Poisson(request_rate=rate), Gamma(request_rate=rate, burstiness=0.5), Constant(request_rate=rate)):
        assert law.times_s(count, generator(seed))[-1] == pytest.approx(count / rate)


def test_ramp_goes_from_its_first_rate_to_its_last() -> None:
    steady = Ramp(start_rate=1.0, end_rate=4.0, burstiness=float("inf"))
    gaps = np.diff(steady.times_s(1001, generator()), prepend=0.0)
    assert 1 / gaps[[0, 500, 1000]] == pytest.approx([1.0, 2.5, 4.0])
    growing = dataclasses.replace(steady, strategy="exponential")
    assert growing.rates(1001)[[0, 500, 1000]] == pytest.approx([1.0, 2.0, 4.0])
    assert Ramp(start_rate=2.0, end_rate=2.0).rates(1).tolist() == [2.0]


@pytest.mark.parametrize(
    ("flags", "law"),
    [
        ({}, AllAtOnce()),
        ({"max_concurrency": 16}, ClosedLoop(max_concurrency=16)),
        ({"request_rate": 3.0}, Poisson(request_rate=3.0)),
        ({"request_rate": 3.0, "max_concurrency": 16}, Poisson(request_rate=3.0)),
        ({"request_rate": 3.0, "burstiness": 2.0}, Gamma(request_rate=3.0, burstiness=2.0)),
        ({"request_rate": 3.0, "burstiness": float("inf")}, Constant(request_rate=3.0)),
        ({"ramp_up": Ramp(start_rate=1.0, end_rate=2.0)}, Ramp(start_rate=1.0, end_rate=2.0)),
    ],
)
def test_flags_of_vllm_bench_serve(flags: dict[str, Any], law: Arrivals) -> None:
    assert arrivals_of(**flags) == law


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
@pytest.mark.parametrize("burstiness", [1.0, 0.5, float("inf")])
def test_impossible_rates_are_refused(rate: float, burstiness: float) -> None:
    assert "a finite number above 0" in refused(arrivals_of, request_rate=rate, burstiness=burstiness)


def test_impossible_laws_are_refused() -> None:
    assert "burstiness 0" in refused(Gamma, request_rate=1.0, burstiness=0.0)
    assert "1 or more" in refused(ClosedLoop, max_concurrency=0)
    assert "linear, exponential" in refused(Ramp, start_rate=1.0, end_rate=2.0, strategy="square")
    assert "leave one of them out" in refused(arrivals_of, request_rate=1.0, ramp_up=Ramp(start_rate=1.0, end_rate=2.0))


# --- lengths


@pytest.mark.parametrize("kind", LENGTHS, ids=lambda kind: kind.name)
def test_contract_of_every_law_of_lengths(kind: type[Lengths]) -> None:
    law = SOME_LENGTHS[kind]
    tokens = law.tokens(100_000, generator(1))
    assert tokens.dtype == np.int64
    assert tokens.min() >= 1
    assert tokens.max() <= law.max_tokens
    assert tokens.mean() == pytest.approx(law.mean_tokens, rel=0.02)
    assert tokens.tobytes() == law.tokens(100_000, generator(1)).tobytes()


def test_lognormal_has_the_moments_asked_for() -> None:
    tokens = LogNormal(mean=1000.0, deviation=700.0).tokens(400_000, generator(2))
    assert tokens.mean() == pytest.approx(1000, rel=0.01)
    assert tokens.std() == pytest.approx(700, rel=0.02)
    assert np.median(tokens) == pytest.approx(LogNormal(mean=1000.0, deviation=700.0).median_tokens, rel=0.01)
    assert (LogNormal(mean=80.0, deviation=0.0).tokens(10, generator()) == 80).all()


@given(nominal=st.integers(1, 10**5), ratio=st.floats(0, 0.99))
def test_both_range_ratios_hold_the_nominal_length(nominal: int, ratio: float) -> None:
    wide, lower = around(nominal, ratio), up_to(nominal, ratio)
    assert 1 <= wide.low <= nominal <= wide.high
    assert 1 <= lower.low <= lower.high == nominal
    assert lower.low <= max(nominal * ratio, 1) < lower.low + 1 + 1e-6 * nominal


def test_uniform_reaches_both_ends() -> None:
    assert set(Uniform(low=3, high=5).tokens(100, generator()).tolist()) == {3, 4, 5}


def test_impossible_lengths_are_refused() -> None:
    assert "whole number from 1" in refused(Fixed, length=0)
    assert "lengths from 5 to 4" in refused(Uniform, low=5, high=4)
    assert "range ratio 1" in refused(around, 100, 1.0)
    assert "range ratio -0.1" in refused(up_to, 100, -0.1)
    assert "mean above 0" in refused(LogNormal, mean=0.0, deviation=1.0)
    assert "no lengths" in refused(Empirical, seen=np.array([], np.int64))
    assert "the shortest of -1" in refused(Empirical, seen=np.array([4, -1]))


# --- requests


def test_requests_check_what_they_hold() -> None:
    good: dict[str, Any] = {"arrival_s": [0.0, 1.0], "prompt_tokens": [5, 6], "output_tokens": [1, 2]}
    assert len(Requests(**good)) == 2
    assert "before its forerunner" in refused(Requests, **good | {"arrival_s": [1.0, 0.0]})
    assert "before 0" in refused(Requests, **good | {"arrival_s": [-1.0, 0.0]})
    assert "not finite" in refused(Requests, **good | {"arrival_s": [0.0, np.nan]})
    assert "request 1 has 0 prompt_tokens" in refused(Requests, **good | {"prompt_tokens": [5, 0]})
    assert "not in whole numbers" in refused(Requests, **good | {"output_tokens": [1.5, 2]})
    assert "3 values of output_tokens for 2" in refused(Requests, **good | {"output_tokens": [1, 2, 3]})
    assert "not one line of numbers" in refused(Requests, **good | {"priority": ["high", "low"]})
    assert "think time" in refused(Requests, **good | {"think_s": [0.0, -1.0]})
    hashes = PrefixHashes(offsets=np.array([0, 1]), hashes=np.array([7]), block_tokens=16)
    assert "prefix hashes of 1 requests for 2" in refused(Requests, **good, prefix_hashes=hashes)
    assert "do not cover" in refused(PrefixHashes, offsets=np.array([0, 2]), hashes=np.array([7]), block_tokens=16)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 99), st.lists(st.integers(0, 9), max_size=4)), min_size=1))
def test_sorting_keeps_each_request_together(rows: list[tuple[int, int, list[int]]]) -> None:
    times, tokens, blocks = zip(*rows, strict=True)
    offsets = np.concatenate(([0], np.cumsum([len(each) for each in blocks])))
    hashes = PrefixHashes(
        offsets=offsets, hashes=np.array([each for row in blocks for each in row], np.int64), block_tokens=16
    )
    found = sorted_requests(
        arrival_s=list(map(float, times)), prompt_tokens=tokens, output_tokens=tokens, prefix_hashes=hashes
    )
    assert found.prefix_hashes is not None
    rows_found = [
        (int(time), int(count), found.prefix_hashes.hashes[low:high].tolist())
        for time, count, low, high in zip(
            found.arrival_s,
            found.prompt_tokens,
            found.prefix_hashes.offsets,
            found.prefix_hashes.offsets[1:],
            strict=False,
        )
    ]
    assert rows_found == sorted(rows, key=lambda row: row[0])


# --- generated traffic


def some_traffic(**changes: Any) -> Traffic:
    values: dict[str, Any] = {
        "arrivals": Poisson(request_rate=5.0),
        "prompt": up_to(1000, 0.8),
        "output": up_to(200, 0.8),
        "num_requests": 500,
    }
    return Traffic(**values | changes)


def as_bytes(requests: Requests) -> bytes:
    return b"".join(
        getattr(requests, name).tobytes()
        for name in ("arrival_s", "prompt_tokens", "output_tokens", "session", "think_s")
        if getattr(requests, name) is not None
    )


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert as_bytes(generate(some_traffic(), seed=3)) == as_bytes(generate(some_traffic(), seed=3))
    assert as_bytes(generate(some_traffic(), seed=3)) != as_bytes(generate(some_traffic(), seed=4))
    assert "seed -1" in refused(generate, some_traffic(), seed=-1)


def test_laws_draw_apart() -> None:
    one, other = generate(some_traffic()), generate(some_traffic(arrivals=AllAtOnce(), output=Fixed(length=7)))
    assert (one.prompt_tokens == other.prompt_tokens).all()
    assert np.corrcoef(one.prompt_tokens, one.output_tokens)[0, 1] == pytest.approx(0, abs=0.15)


def test_closed_loops_say_their_concurrency() -> None:
    assert some_traffic(arrivals=ClosedLoop(max_concurrency=8)).max_concurrency == 8
    assert some_traffic().max_concurrency == 0
    assert "0 requests" in refused(some_traffic, num_requests=0)


def test_shared_prefixes_are_in_the_prompts_and_their_hashes() -> None:
    traffic = some_traffic(prefix=SharedPrefix(tokens=100, num_prefixes=3, block_tokens=16))
    found, plain = generate(traffic), generate(some_traffic())
    assert (found.prompt_tokens == plain.prompt_tokens + 100).all()
    assert found.prefix_hashes is not None
    rows = found.prefix_hashes.hashes.reshape(500, 6)  # 100 tokens hold 6 whole blocks
    assert len({tuple(row) for row in rows.tolist()}) == 3
    assert len(set(rows.ravel().tolist())) == 18
    assert traffic.mean_prompt_tokens == traffic.prompt.mean_tokens + 100


def test_resampled_lengths_stay_together() -> None:
    seen = read_trace(EXAMPLES / "mooncake.jsonl").requests
    pairs = set(zip(seen.prompt_tokens.tolist(), seen.output_tokens.tolist(), strict=True))
    once = resampled(seen, Constant(request_rate=2.0))
    assert (once.prompt_tokens == seen.prompt_tokens).all()
    assert once.arrival_s[-1] == len(seen) / 2
    many = resampled(seen, Poisson(request_rate=2.0), 400, seed=1)
    assert {*zip(many.prompt_tokens.tolist(), many.output_tokens.tolist(), strict=True)} == pairs
    assert many.prefix_hashes is not None
    lengths = np.diff(many.prefix_hashes.offsets)
    assert (lengths == -(-many.prompt_tokens // 512)).all()
    few = resampled(seen, AllAtOnce(), len(seen), seed=1)  # without replacement: a permutation
    assert sorted(few.prompt_tokens.tolist()) == sorted(seen.prompt_tokens.tolist())


# --- conversations


def some_sessions(**changes: Any) -> Sessions:
    values: dict[str, Any] = {
        "arrivals": Poisson(request_rate=1.0),
        "num_sessions": 200,
        "turns": Uniform(low=1, high=6),
        "first_prompt": Uniform(low=20, high=400),
        "later_prompt": Uniform(low=5, high=80),
        "output": Uniform(low=10, high=300),
        "system_tokens": 64,
        "think_s": 4.0,
    }
    return Sessions(**values | changes)


def turns_of(requests: Requests) -> dict[int, list[int]]:
    assert requests.session is not None
    found: dict[int, list[int]] = {}
    for index, session in enumerate(requests.session.tolist()):
        found.setdefault(session, []).append(index)
    return found


def blocks_of(requests: Requests, index: int) -> list[int]:
    assert requests.prefix_hashes is not None
    low, high = requests.prefix_hashes.offsets[index : index + 2]
    return list(requests.prefix_hashes.hashes[low:high].tolist())


def test_a_turn_holds_all_that_was_said_before() -> None:
    requests = session_requests(some_sessions(), seed=5)
    assert as_bytes(requests) == as_bytes(session_requests(some_sessions(), seed=5))
    turns = turns_of(requests)
    assert len(turns) == 200
    assert sum(map(len, turns.values())) == len(requests)
    for indices in turns.values():
        for before, after in itertools.pairwise(indices):
            said = requests.prompt_tokens[before] + requests.output_tokens[before]
            assert 5 <= requests.prompt_tokens[after] - said <= 80
            shared = blocks_of(requests, before)
            assert blocks_of(requests, after)[: len(shared)] == shared


def test_conversations_share_the_system_prompt_only() -> None:
    requests = session_requests(some_sessions(), seed=6)
    firsts = [indices[0] for indices in turns_of(requests).values()]
    rows = [blocks_of(requests, index) for index in firsts]
    assert {tuple(row[:4]) for row in rows} == {(0, 1, 2, 3)}
    others = [each for row in rows for each in row[4:]]
    assert len(set(others)) == len(others)


def test_think_times_have_their_mean_and_order_the_arrivals() -> None:
    requests = session_requests(some_sessions(num_sessions=4000), seed=7)
    assert requests.think_s is not None
    later = [index for indices in turns_of(requests).values() for index in indices[1:]]
    assert requests.think_s[later].mean() == pytest.approx(4.0, rel=0.05)
    fixed = session_requests(some_sessions(is_think_fixed=True))
    assert fixed.think_s is not None
    assert set(fixed.think_s.tolist()) == {0.0, 4.0}


def test_conversations_end_before_the_model_is_full() -> None:
    free, limited = session_requests(some_sessions()), session_requests(some_sessions(max_model_len=700))
    assert (limited.prompt_tokens + limited.output_tokens <= 700).all()
    fitting = free.prompt_tokens + free.output_tokens <= 700
    assert fitting.sum() == len(limited)
    assert "no conversation's first turn fits into 50 tokens" in refused(
        session_requests, some_sessions(max_model_len=50)
    )


# --- replay


def test_a_trace_at_another_rate_keeps_its_shape() -> None:
    requests = read_trace(EXAMPLES / "azure.csv").requests
    faster = at_rate(requests, 10 * mean_rate(requests))
    assert mean_rate(faster) == pytest.approx(10 * mean_rate(requests))
    assert faster.arrival_s * 10 == pytest.approx(requests.arrival_s)
    assert "above 0" in refused(at_rate, requests, 0.0)
    assert "can't be stretched" in refused(at_rate, read_trace(EXAMPLES / "lengths.csv").requests, 1.0)


def test_parts_of_a_trace() -> None:
    requests = read_trace(EXAMPLES / "mooncake.jsonl").requests
    assert len(first(requests, 5)) == 5
    assert len(first(requests, 500)) == len(requests)
    middle = float(np.median(requests.arrival_s))
    head, tail = between(requests, 0, middle), between(requests, middle, 1e9)
    assert len(head) + len(tail) == len(requests)
    assert tail.arrival_s[-1] == pytest.approx(requests.arrival_s[-1] - middle)
    assert tail.prefix_hashes is not None
    assert "no request arrives between" in refused(between, requests, 1e8, 1e9)
    assert "0 <= start < end" in refused(between, requests, 5, 5)


# --- traces

EXAMPLE_FORMATS = {
    "azure.csv": "azure-2023",
    "burstgpt.csv": "burstgpt",
    "mooncake.jsonl": "mooncake",
    "lengths.csv": "sharegpt-lengths",
    "requests.csv": "requests",
    "vllm-dataset.jsonl": "vllm-dataset",
    "vllm-result.json": "vllm-result",
}
CSV = "arrival_s,prompt_tokens,output_tokens\n"


@pytest.mark.parametrize(("name", "form"), EXAMPLE_FORMATS.items(), ids=EXAMPLE_FORMATS.values())
def test_content_tells_the_format(name: str, form: str, tmp_path: Path) -> None:
    path = file(tmp_path, (EXAMPLES / name).read_bytes(), "named-like-nothing")
    trace = read_trace(path)
    assert trace.format == form
    assert as_bytes(trace.requests) == as_bytes(read_trace(path, format=form).requests)
    assert len(trace) == 12 - (form in ("burstgpt", "vllm-result"))  # one failed
    assert trace.num_broken == 0
    assert trace.requests.arrival_s[0] == 0
    assert trace.has_times == bool(trace.requests.arrival_s[-1])


def test_every_format_has_a_name_of_its_own() -> None:
    assert len({each.name for each in TRACE_FORMATS}) == len(TRACE_FORMATS)
    assert all(each.about and each.needs for each in TRACE_FORMATS)
    assert "did you mean mooncake" in refused(read_trace, EXAMPLES / "mooncake.jsonl", format="mooncak")


def test_dates_are_read_to_the_nanosecond(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
        "2023-11-16 23:59:59.9999999,1,2\r\n"
        "2023-11-17 00:00:00,3,4\r\n"
        "2023-11-17T00:00:00.25Z,5,6\r\n"
        "2023-11-17 00:00:01.000000+00:00,7,8\r\n"
        "2023-11-17 01:00:01.5+01:00,9,10",
    )
    trace = read_trace(path)
    assert trace.requests.arrival_s == pytest.approx([0.0, 1e-7, 0.2500001, 1.0000001, 1.5000001], abs=1e-12)
    assert trace.requests.output_tokens.tolist() == [2, 4, 6, 8, 10]
    assert trace.notes == ()


@pytest.mark.parametrize(
    "date", ["2023-02-29 00:00:00", "2023-13-01 00:00:00", "2023-11-16 24:00:01", "2023-11-16", "yesterday", "", "1e9"]
)
def test_what_is_no_date_is_a_broken_line(date: str, tmp_path: Path) -> None:
    lines = [f"2023-11-16 18:15:4{i},5,6" for i in range(3)]
    path = file(tmp_path, "\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines, f"{date},5,6"]) + "\n")
    if date == "2023-11-16":  # a day without a time is midnight
        assert len(read_trace(path)) == 4
        return
    trace = read_trace(path)
    assert (len(trace), trace.num_broken) == (3, 1)
    assert trace.broken[0].line == 5
    assert trace.broken[0].reason == f"TIMESTAMP is no date: {date!r}"


@given(
    st.lists(
        st.tuples(st.floats(0, 1e9, allow_nan=False), st.integers(1, 2**40), st.integers(1, 10**6), st.integers(-5, 5)),
        min_size=1,
        max_size=30,
    )
)
@settings(deadline=None)
def test_written_requests_are_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    times, prompts, outputs, priorities = zip(*rows, strict=True)
    requests = sorted_requests(
        arrival_s=np.array(times) - min(times), prompt_tokens=prompts, output_tokens=outputs, priority=priorities
    )
    path = tmp_path_factory.mktemp("traces") / "own.csv"
    write_requests(requests, path)
    again = read_trace(path).requests
    assert as_bytes(again) == as_bytes(requests)
    assert again.priority is not None
    assert again.priority.tolist() == requests.priority.tolist()  # type: ignore[union-attr]


@given(st.lists(st.floats(0, 1e10) | st.integers(0, 2**36).map(float), min_size=1, max_size=20))
@settings(deadline=None)
def test_numbers_are_read_as_python_reads_them(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    path = tmp_path_factory.mktemp("traces") / "numbers.csv"
    styles = [f"{0.0}", *(text for value in values for text in (repr(value), f"{value:.3f}", f" {value:e} "))]
    path.write_text(CSV + "".join(f"{text},1,1\n" for text in styles))
    expected = sorted(map(float, styles))
    assert read_trace(path).requests.arrival_s.tolist() == expected


def test_unsorted_times_are_sorted_with_a_note(tmp_path: Path) -> None:
    trace = read_trace(file(tmp_path, CSV + "5,1,10\n3,2,20\n4,3,30\n"))
    assert trace.requests.arrival_s.tolist() == [0, 1, 2]
    assert trace.requests.output_tokens.tolist() == [20, 30, 10]
    assert trace.notes == ("requests were not in the order of their arrival (1 came before their forerunner): sorted",)


def test_rows_in_any_order_are_the_same_requests(tmp_path: Path) -> None:
    lines = [f"{i / 7},{i + 1},{i * 3 + 1}\n" for i in range(50)]
    mixed = [lines[i] for i in generator().permutation(50)]
    one, other = read_trace(file(tmp_path, CSV + "".join(lines))), read_trace(file(tmp_path, CSV + "".join(mixed)))
    assert as_bytes(one.requests) == as_bytes(other.requests)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_negative_time_is_an_error_with_its_line(form: str, tmp_path: Path) -> None:
    if form == "csv":
        content = CSV + "0,1,1\n\n-0.5,1,1\n"
    else:
        row = {"input_length": 1, "output_length": 1}
        content = "".join(json.dumps({"timestamp": t} | row) + "\n" for t in (0, 1, 2, -500))
    message = refused(read_trace, file(tmp_path, content))
    assert "arrives at -0.5 s, before time 0" in message
    assert "line 4" in message


def test_broken_lines_are_counted_and_the_first_named(tmp_path: Path) -> None:
    bad = ["1,0,5", "2,5,-3", "3,5", "4,5,6,7", "soon,5,6", "5,many,6", "6,5,2.5", "7,5,9e15", "1e300,5,6", "8,,6"]
    good = [f"{i},5,6" for i in range(10)]
    trace = read_trace(file(tmp_path, CSV + "\n".join([*good, *bad]) + "\n"))
    assert (len(trace), trace.num_broken) == (10, 10)
    assert [(each.line, each.reason) for each in trace.broken] == [
        (12, "prompt_tokens is 0 tokens, at least 1 is allowed"),
        (13, "output_tokens is -3 tokens, at least 1 is allowed"),
        (14, "has 2 cells, the header has 3"),
        (15, "has 4 cells, the header has 3"),
        (16, "arrival_s is no number: 'soon'"),
    ]
    assert trace.notes[0].startswith("broken lines, left out: 10 (line 12: prompt_tokens is 0 tokens")
    assert trace.notes[0].endswith("; ...)")
    rest = read_trace(file(tmp_path, CSV + "\n".join([*good, *bad[5:]]) + "\n"))
    assert [each.reason for each in rest.broken] == [
        "prompt_tokens is no number: 'many'",
        "output_tokens 2.5 is no whole number of tokens",
        f"output_tokens 9e+15 is more than {2**40} tokens",
        "arrival_s 1e+300 s is beyond any clock",
        "prompt_tokens is no number: ''",
    ]


def test_further_columns_are_checked_too(tmp_path: Path) -> None:
    header = "arrival_s,prompt_tokens,output_tokens,priority,think_s\n"
    rows = ["0,1,1,-2,0.5", "1,1,1,0,0", "2,1,1,3,2", "3,1,1,1.5,0", "4,1,1,1e21,0", "5,1,1,0,-1"]
    trace = read_trace(file(tmp_path, header + "\n".join(rows)))
    assert trace.requests.priority is not None
    assert trace.requests.priority.tolist() == [-2, 0, 3]
    assert [each.reason for each in trace.broken] == [
        "priority 1.5 is no whole number below 2^53",
        "priority 1e+21 is no whole number below 2^53",
        "think_s -1 s is no time to think",
    ]


def test_more_than_half_broken_is_an_error(tmp_path: Path) -> None:
    half = CSV + "0,1,1\nx,1,1\n"
    assert len(read_trace(file(tmp_path, half))) == 1
    message = refused(read_trace, file(tmp_path, half + "y,1,1\n"))
    assert "2 of 3 lines are broken (line 3: arrival_s is no number: 'x'; line 4" in message
    assert "read as requests" in message


def test_broken_json_lines_are_named(tmp_path: Path) -> None:
    row = {"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}
    lines = [json.dumps(row | {"timestamp": i * 1000}) for i in range(6)]
    lines[1] = lines[1][:30]
    lines[3] = json.dumps(row | {"input_length": "many"})
    lines[4] = json.dumps(row | {"output_length": 0})
    trace = read_trace(file(tmp_path, "\n".join([lines[0], "", *lines[1:]])))
    assert (len(trace), trace.num_broken) == (3, 3)
    assert trace.requests.arrival_s.tolist() == [0, 2, 5]
    assert sorted(each.line for each in trace.broken) == [3, 5, 6]
    assert trace.requests.prefix_hashes is not None
    assert trace.requests.prefix_hashes.offsets.tolist() == [0, 2, 4, 6]


def test_quotes_blanks_and_marks_are_read(tmp_path: Path) -> None:
    content = (
        "\ufeff\n\nTimestamp,Model,Request tokens,Response tokens\r\n"
        '1.0,"GPT-4, turbo",10,5\r\n'
        '"2.0","Größe ""x""","20","6"\r\n'
        "\r\n"
        " 3.0 , ChatGPT , 30 ,7"
    )
    trace = read_trace(file(tmp_path, content))
    assert trace.format == "burstgpt"
    assert trace.requests.prompt_tokens.tolist() == [10, 20, 30]
    assert trace.num_broken == 0


def test_lines_across_blocks_keep_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ultratwin.workload.traffic.traces.source.BLOCK_BYTES", 50)
    lines = [f"{i},{i + 1},{i + 2}" for i in range(100)]
    lines[70] = "broken"
    trace = read_trace(file(tmp_path, CSV + "\n".join(lines)))
    assert trace.broken[0].line == 72
    kept = [i for i in range(100) if i != 70]
    assert trace.requests.prompt_tokens.tolist() == [i + 1 for i in kept]


def test_failed_requests_are_left_out_with_a_note() -> None:
    assert read_trace(EXAMPLES / "burstgpt.csv").notes == ("requests that failed (no tokens generated), left out: 1",)


def test_lengths_without_times_say_so() -> None:
    trace = read_trace(EXAMPLES / "lengths.csv")
    assert not trace.has_times
    assert "does not say when requests arrive" in trace.notes[0]


def test_text_is_refused_or_estimated_with_a_note(tmp_path: Path) -> None:
    assert "text without token counts" in refused(read_trace, EXAMPLES / "sharegpt.json")
    trace = read_trace(EXAMPLES / "sharegpt.json", chars_per_token=4.0)
    assert trace.format == "sharegpt"
    assert "estimates: text at 4 characters per token" in trace.notes[0]
    assert trace.requests.prompt_tokens[0] == -(-len("How long does a kettle take to boil?") // 4)
    assert "above 0" in refused(read_trace, EXAMPLES / "sharegpt.json", chars_per_token=-1.0)
    dataset = file(
        tmp_path, '{"prompt": "four score", "output_tokens": 3}\n{"prompt": [1, 2, 3], "output_tokens": 3}\n'
    )
    assert "text without token counts" in refused(read_trace, dataset)
    assert read_trace(dataset, chars_per_token=5.0).requests.prompt_tokens.tolist() == [2, 3]


def test_hashes_that_do_not_fit_their_blocks_are_explained(tmp_path: Path) -> None:
    rows = [{"timestamp": i, "input_length": 64, "output_length": 1, "hash_ids": [0, 1, 2, 3]} for i in range(3)]
    path = file(tmp_path, "".join(json.dumps(row) + "\n" for row in rows))
    message = refused(read_trace, path)
    assert "more hashes than blocks of 512 tokens" in message
    assert "16 would fit" in message
    found = read_trace(path, block_tokens=16).requests.prefix_hashes
    assert found is not None
    assert found.block_tokens == 16


def test_wide_hashes_keep_blocks_apart(tmp_path: Path) -> None:
    row = {"timestamp": 0, "input_length": 1500, "output_length": 1}
    ids = [[2**64 - 1, 2**64 - 2, 5], [2**64 - 1, 2**63 + 7, 5]]
    trace = read_trace(file(tmp_path, "".join(json.dumps(row | {"hash_ids": each}) + "\n" for each in ids)))
    hashes = trace.requests.prefix_hashes
    assert hashes is not None
    assert (hashes.hashes[:3] == hashes.hashes[3:]).tolist() == [True, False, True]
    assert read_trace(file(tmp_path, json.dumps(row) + "\n")).requests.prefix_hashes is None


@given(
    name=st.sampled_from([*EXAMPLE_FORMATS, "sharegpt.json"]),
    place=st.floats(0, 1),
    cut=st.integers(0, 60),
    extra=st.binary(max_size=12) | st.sampled_from([b",", b"\n", b'"', b"-", b"1e99", b"[", b"}", b"\r", b"9" * 40]),
)
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, place: float, cut: int, extra: bytes
) -> None:
    data = (EXAMPLES / name).read_bytes()
    at = int(place * len(data))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data[:at] + extra + data[at + cut :])
    with contextlib.suppress(ScenarioError):
        assert 1 <= len(read_trace(path, chars_per_token=4.0)) <= 200


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the trace is empty"),
        (b"\xef\xbb\xbf \n\n", "the trace is empty"),
        (CSV.encode(), "the file holds no requests"),
        (b"\xff\xfea\0,\0", "UTF-16"),
        (b"\x1f\x8b\x08\0", "packed (gzip)"),
        (CSV.encode() + b"0,1,1\n1,\xe9,1\n", "byte 0xe9 is not UTF-8"),
        (b"arrival_s,prompt_tokens\n0,1\n", "the nearest format, requests, needs output_tokens"),
        (b"TIMESTAMP,ContextTokens\n0,1\n", "the nearest format, azure-2023, needs GeneratedTokens"),
        (b"arrival_s;prompt_tokens;output_tokens\n0;1;1\n", "commas, not semicolons"),
        (b"a,b,c\n1,2,3\n", "its columns are 'a, b, c'"),
        (b"arrival_s,arrival_s,prompt_tokens,output_tokens\n", "columns appear twice: arrival_s"),
        (b'{"question": "why?"}\n', "its keys are 'question'"),
        (b'{"timestamp": 0, "input_length": 5}\n', "needs output_length"),
        (b'{"prompt": "why?"}\n', "as output_tokens"),
        (b"[1, 2", "its keys are"),
        (b'{"total_input_tokens": 5, "total_output_tokens": 6}\n', "--save-detailed"),
        (b'{"input_lens": [1, 2], "output_lens": [1]}', "2 input_lens, 1 output_lens"),
        (b'{"input_lens": [1], "output_lens": [1]}\n' * 2, "no single result"),
        (b'[{"conversations": [{"value": "a"}', "not JSON"),
        (b"[" * 100_000, "no known trace"),
        (b"\0" * 5000, "no known trace"),
    ],
)
def test_files_that_are_no_trace_are_explained(content: bytes, says: str, tmp_path: Path) -> None:
    message = refused(read_trace, file(tmp_path, content), chars_per_token=4.0)
    assert says in message
    assert str(tmp_path) in message


def test_a_missing_file_or_a_folder_is_explained(tmp_path: Path) -> None:
    assert "No such file" in refused(read_trace, tmp_path / "none.csv")
    assert "not a file" in refused(read_trace, tmp_path)
    assert "can't read" in refused(read_trace, "a\0b")


def test_a_named_format_needs_its_columns() -> None:
    message = refused(read_trace, EXAMPLES / "azure.csv", format="burstgpt")
    assert "needs Timestamp, Request tokens, Response tokens; found: TIMESTAMP" in message


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = CSV + "".join(f"{i},5,6\n" for i in range(30_000))
    writer = threading.Thread(target=pipe.write_text, args=(content,))
    writer.start()
    assert len(read_trace(pipe)) == 30_000
    writer.join()


def test_requests_with_hashes_are_not_written(tmp_path: Path) -> None:
    requests = read_trace(EXAMPLES / "mooncake.jsonl").requests
    assert "can't be written" in refused(write_requests, requests, tmp_path / "x.csv")
    plain = dataclasses.replace(requests, prefix_hashes=None)
    assert "can't write" in refused(write_requests, plain, tmp_path / "none" / "x.csv")


def test_a_long_trace_is_read_fast(tmp_path: Path) -> None:
    """300,000 rows take some 0.3 s of CPU; a reader that goes row by row takes longer than 2.5 s."""
    row = "2023-11-16 18:15:46.6805900,374,44\r\n"
    path = file(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens\r\n" + row * 300_000)
    start = time.process_time()
    assert len(read_trace(path)) == 300_000
    assert time.process_time() - start < 2.5
