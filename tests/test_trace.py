"""The trace of a step: what trace readers ask of the format, and that it shows the step that was predicted."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import ultratwin
from ultratwin.errors import ScenarioError
from ultratwin.mapping.schedules import SCHEDULE_NAMES
from ultratwin.report.perfetto import answer_trace, write_trace

TICK_US = 0.125
Event = dict[str, Any]


@cache
def answer(name: str, **_: object) -> Any:
    layouts: dict[str, dict[str, Any]] = {
        "alone": {"pipeline_parallel_size": 1, "tensor_parallel_size": 8, "zero_stage": 3},
        "interleaved": {"pipeline_parallel_size": 4, "virtual_pipeline_size": 2, "schedule": "interleaved"},
        "experts": {"pipeline_parallel_size": 4, "expert_parallel_size": 8, "context_parallel_size": 2},
        "long": {"pipeline_parallel_size": 8, "global_batch_size": 2048},
        "unequal": {"pipeline_parallel_size": 5, "chips": 40},
    }
    layout = {"tensor_parallel_size": 2, "micro_batch_size": 1, "global_batch_size": 64, "chips": 64}
    layout |= layouts.get(name, {"pipeline_parallel_size": 4, "schedule": name})
    model = "mistralai/Mixtral-8x7B-v0.1" if name == "experts" else "llama3.1-8b"
    return ultratwin.train(model, "p5.48xlarge", seq_length=2048, **layout).answer


@cache
def trace(name: str, budget: int = 200_000) -> dict[str, Any]:
    return answer_trace(answer(name), budget=budget)


def slices(events: list[Event]) -> dict[tuple[int, int], list[Event]]:
    """Slices of each lane in order, an outer one before those inside it."""
    lanes: dict[tuple[int, int], list[Event]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            lanes[event["pid"], event["tid"]].append(event)
    for lane in lanes.values():
        lane.sort(key=lambda each: (each["ts"], -each["dur"]))
    return lanes


def names(events: list[Event], kind: str) -> dict[int, str]:
    key = "pid" if kind == "process_name" else "tid"
    return {event[key]: event["args"]["name"] for event in events if event["ph"] == "M" and event["name"] == kind}


CASES = [("alone", 200_000), ("experts", 200_000), ("unequal", 200_000), ("long", 50_000), ("long", 3_000)] + [
    (name, 200_000) for name in SCHEDULE_NAMES
]


@pytest.mark.parametrize(("name", "budget"), CASES)
def test_structure(name: str, budget: int) -> None:
    found = trace(name, budget)
    events: list[Event] = json.loads(json.dumps(found, allow_nan=False))["traceEvents"]
    assert len(events) <= 1.1 * budget + 2_000
    assert {event["ph"] for event in events} <= {"X", "M", "C"}
    processes, threads = names(events, "process_name"), names(events, "thread_name")
    for event in events:
        if event["ph"] == "M":
            continue
        assert event["ts"] >= 0
        # eighths are exact in every reader
        assert event["ts"] * 8 == int(event["ts"] * 8)
        assert event["pid"] in processes
        assert event["tid"] in threads
    for lane in slices(events).values():
        stack: list[tuple[float, float]] = []
        for event in lane:
            begin, end = event["ts"], event["ts"] + event["dur"]
            assert event["dur"] > 0
            while stack and stack[-1][1] <= begin:
                stack.pop()
            assert not stack or end <= stack[-1][1], (event, stack[-1])
            stack.append((begin, end))
    # a thread belongs to one process, as readers name threads by their number alone
    owners = {(event["tid"], event["pid"]) for event in events if event["ph"] == "X"}
    assert len({tid for tid, _ in owners}) == len(owners)
    assert not {tid for tid, _ in owners} & set(processes)


@pytest.mark.parametrize(("name", "budget"), CASES)
def test_arrows_join_slices(name: str, budget: int) -> None:
    events = trace(name, budget)["traceEvents"]
    ends: dict[str, dict[str, Event]] = defaultdict(dict)
    for event in events:
        for end in ("flow_in", "flow_out"):
            if end in event:
                assert event["ph"] == "X"
                assert end not in ends[event["bind_id"]]
                ends[event["bind_id"]][end] = event
    assert bool(ends) == (name != "alone")
    for arrow in ends.values():
        sent, taken = arrow["flow_out"], arrow["flow_in"]
        assert sent["pid"] != taken["pid"]
        assert sent["ts"] + sent["dur"] <= taken["ts"] + TICK_US
        what, number = sent["name"].removeprefix("send ").split(" mb ")
        assert taken["args"]["micro-batch"] == int(number)
        assert taken["name"].startswith("forward") == (what == "activations")


@pytest.mark.parametrize("name", ["alone", "unequal", "long", *SCHEDULE_NAMES])
def test_the_trace_is_as_long_as_the_step(name: str) -> None:
    found = trace(name, 50_000 if name == "long" else 200_000)
    about, events = found["otherData"], found["traceEvents"]
    lanes = slices(events)
    stages = names(events, "process_name")
    begin = {pid: min(e["ts"] for (p, _), lane in lanes.items() for e in lane if p == pid) for pid in stages}
    end = {pid: max(e["ts"] + e["dur"] for (p, _), lane in lanes.items() for e in lane if p == pid) for pid in stages}
    longest = max(end[pid] - begin[pid] for pid in stages)
    assert longest == pytest.approx(about["step_s"] * 1e6, abs=TICK_US)
    assert max(end.values()) == pytest.approx((about["step_s"] + about["later_stages_end_s"]) * 1e6, abs=2 * TICK_US)
    assert about["step_s"] - about["closed_form_step_s"] == pytest.approx(about["difference_s"])
    if name == "alone":
        assert abs(about["difference_frac"]) < 1e-12
    elif name != "dualpipe":
        assert abs(about["difference_frac"]) < 0.06


def test_slices_inside_a_task_fill_it() -> None:
    for name in ("alone", "interleaved", "zb-2p"):
        lanes = slices(trace(name)["traceEvents"])
        tasks = [(lane, each) for lane, every in lanes.items() for each in every if "micro-batch" in each["args"]]
        assert tasks
        for lane, task in tasks[:40]:
            until = task["ts"] + task["dur"]
            inside = [e for e in lanes[lane] if task["ts"] <= e["ts"] < until and e["name"].startswith("layer ")]
            filled = sum(each["dur"] for each in inside)
            filled += sum(
                each["dur"]
                for each in lanes[lane]
                if task["ts"] <= each["ts"] < until and each is not task and each not in inside
                and not any(i["ts"] <= each["ts"] < i["ts"] + i["dur"] for i in inside)
            )  # fmt: skip
            assert filled == pytest.approx(task["dur"], abs=2 * TICK_US)


def test_ranks_that_are_alike_are_one_process() -> None:
    events = trace("1f1b")["traceEvents"]
    found = list(names(events, "process_name").values())
    assert found == [
        "the step",
        *(f"stage {stage} of 4: ranks {16 * stage}-{16 * stage + 15} (16 alike)" for stage in range(4)),
    ]
    assert {"compute", "tensor-parallel communication", "pipeline hand-over"} <= set(
        names(events, "thread_name").values()
    )
    orders = [event["args"]["sort_index"] for event in events if event["name"] == "process_sort_index"]
    assert orders == sorted(orders)


def test_lanes_are_those_of_the_layout() -> None:
    lanes = set(names(trace("experts")["traceEvents"], "thread_name").values())
    assert {"context-parallel communication", "expert-parallel communication"} <= lanes
    assert "pipeline hand-over" not in set(names(trace("alone")["traceEvents"], "thread_name").values())
    sharding = [each for each in trace("alone")["traceEvents"] if each["name"] == "weight sharding communication"]
    assert {each["args"]["bound by"].split(" network")[0] for each in sharding} == {"scale-out"}
    assert all(each["args"]["payload_bytes"] > 0 for each in sharding if "seconds in all" in each["args"])


def test_counters_follow_the_schedule_and_the_memory_model() -> None:
    events = trace("1f1b")["traceEvents"]
    flying: dict[int, list[float]] = defaultdict(list)
    held: dict[int, list[float]] = defaultdict(list)
    for event in sorted((e for e in events if e["ph"] == "C"), key=lambda each: each["ts"]):
        (flying if event["name"] == "micro-batches" else held)[event["pid"]].append(next(iter(event["args"].values())))
    assert [max(each) for each in flying.values()] == [4, 3, 2, 1]
    assert [each[-1] for each in flying.values()] == [0, 0, 0, 0]
    memory = answer("1f1b").memory
    assert max(held[100]) == pytest.approx(sum(float(v[0]) for v in memory.stages[0].values()) / 2**30, abs=1e-5)


def test_a_long_step_is_cut_in_the_middle_and_says_so() -> None:
    full, cut = trace("long", 50_000), trace("long", 3_000)
    assert len(full["traceEvents"]) > 8 * len(cut["traceEvents"])
    about = cut["otherData"]
    gaps = [event for event in cut["traceEvents"] if "not drawn" in event["name"]]
    assert len(gaps) == 8
    assert sum(event["args"]["tasks"] for event in gaps) == about["tasks left out, one slice per stage instead"] > 0
    kept = ("tasks drawn layer by layer", "tasks drawn by cause", "tasks drawn as one slice")
    assert sum(about[key] for key in kept) + sum(gap["args"]["tasks"] for gap in gaps) == about["tasks"]
    # what is drawn is drawn where it was
    where = {(e["pid"], e["name"]): e["ts"] for e in full["traceEvents"] if "micro-batch" in e.get("args", {})}
    for event in cut["traceEvents"]:
        if "micro-batch" in event.get("args", {}) and (event["pid"], event["name"]) in where:
            assert event["ts"] == where[event["pid"], event["name"]]


def test_the_same_answer_gives_the_same_bytes(tmp_path: Path) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    write_trace(one, answer_trace(answer("zb-1p")))
    write_trace(other, answer_trace(answer("zb-1p")))
    assert one.read_bytes() == other.read_bytes()
    read = json.loads(one.read_text(encoding="utf-8"))
    assert read == json.loads(json.dumps(trace("zb-1p")))
    assert Counter(event["ph"] for event in read["traceEvents"])["X"] > 100


def test_unwritable_paths_are_bad_input(tmp_path: Path) -> None:
    for path in (tmp_path / "no folder" / "step.json", tmp_path):
        with pytest.raises(ScenarioError, match="can't write the trace") as error:
            write_trace(path, {"traceEvents": []})
        assert "--trace" in str(error.value)


def test_no_plan_no_trace() -> None:
    nothing = ultratwin.train(
        "meta-llama/Llama-3.1-405B", "p5.48xlarge", chips=8, tensor_parallel_size=8, pipeline_parallel_size=1,
        micro_batch_size=1, global_batch_size=8,
    )  # fmt: skip
    with pytest.raises(ScenarioError, match="no plan can run"):
        answer_trace(nothing.answer)
