"""Schedules task by task: their orders, the events that follow, and the closed forms that these must agree with."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ultratwin
from ultratwin.errors import ScenarioError
from ultratwin.mapping.recipe import recipe
from ultratwin.mapping.schedules import SCHEDULES, Schedule, StageTimes
from ultratwin.mapping.schedules.schedule import (
    BACKWARD,
    FORWARD,
    INPUT_GRADIENT,
    JOINED_FORWARD,
    WEIGHT_GRADIENT,
)
from ultratwin.simulation import step as simulation
from ultratwin.simulation.pipeline import TaskTimes, Timeline, pipeline_timeline
from ultratwin.timing import step

BY_NAME = {schedule.name: schedule for schedule in SCHEDULES}
EXACT = ("gpipe", "1f1b", "interleaved")
NAMES = st.sampled_from(sorted(BY_NAME))
SECONDS = st.floats(0.01, 10.0)


def even(schedule: Schedule, stages: int) -> int:
    return stages + stages % 2 if schedule.name == "dualpipe" else stages


def num_chunks(schedule: Schedule, stages: int, chunks: int) -> int:
    return 1 + max(int(path[1].max()) for path in schedule.paths(stages, chunks))


def equal_times(
    schedule: Schedule, stages: int, chunks: int, forward: float, backward: float, weight: float
) -> TaskTimes:
    """Tasks of stages that are alike; a chunk takes its share of a stage."""
    one = np.ones((stages, num_chunks(schedule, stages, chunks))) / schedule.passes(chunks)
    return TaskTimes(forward_s=forward * one, backward_s=backward * one, weight_s=weight * one)


def equal(name: str, stages: int, micro_batches: int, seconds: tuple[float, float, float], chunks: int = 1) -> Timeline:
    schedule = BY_NAME[name]
    return pipeline_timeline(schedule, equal_times(schedule, stages, chunks, *seconds), micro_batches, chunks)


def closed_bubble_s(
    name: str, stages: int, micro_batches: int, seconds: tuple[float, float, float], chunks: int = 1
) -> float:
    forward, backward, weight = seconds
    both = forward + backward
    stage = StageTimes(slowest_s=both, mean_s=both, forward_s=forward, weight_s=weight)
    return float(BY_NAME[name].bubble_time_s(stage, stages, micro_batches, chunks))


@given(name=NAMES, stages=st.integers(1, 9), micro_batches=st.integers(1, 25), chunks=st.integers(1, 4))
def test_every_stage_does_every_task_once(name: str, stages: int, micro_batches: int, chunks: int) -> None:
    schedule = BY_NAME[name]
    stages = even(schedule, stages)
    for stage in range(stages):
        mine = {
            (chunk, micro_batch)
            for path in schedule.paths(stages, chunks)
            for where, chunk in path.T.tolist()
            if where == stage
            for micro_batch in range(micro_batches)
        }
        if name == "dualpipe":
            mine = {(chunk, micro_batch) for chunk, micro_batch in mine if micro_batch % 2 == chunk}
        tasks = schedule.tasks(stage, stages, micro_batches, chunks)
        kinds: dict[tuple[int, int], list[int]] = {}
        for kind, micro_batch, chunk in tasks.T.tolist():
            kinds.setdefault((chunk, micro_batch), []).append(FORWARD if kind == JOINED_FORWARD else kind)
        assert kinds.keys() == mine
        for done in kinds.values():
            assert done in ([FORWARD, BACKWARD], [FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT])


@given(name=NAMES, stages=st.integers(1, 8), micro_batches=st.integers(1, 20), chunks=st.integers(1, 3), data=st.data())
@settings(max_examples=150, deadline=None)
def test_events_obey_order_dependencies_and_bounds(
    name: str, stages: int, micro_batches: int, chunks: int, data: st.DataObject
) -> None:
    schedule = BY_NAME[name]
    stages = even(schedule, stages)
    shape = (stages, num_chunks(schedule, stages, chunks))
    draw = np.random.default_rng(data.draw(st.integers(0, 10_000))).uniform(0.1, 3.0, (3, *shape))
    hop_s = data.draw(st.sampled_from([0.0, 0.25]))
    times = TaskTimes(forward_s=draw[0], backward_s=draw[1] + draw[2], weight_s=draw[2], hop_s=hop_s)
    found = pipeline_timeline(schedule, times, micro_batches, chunks)
    ends: dict[tuple[bool, int, int, int], float] = {}
    starts: dict[tuple[bool, int, int, int], float] = {}
    for stage, line in enumerate(found.stages):
        assert (line.start_s[1:] >= line.end_s[:-1] - 1e-9).all()
        assert line.end_s - line.start_s == pytest.approx(times.by_kind[line.kind, stage, line.chunk])
        for kind, micro_batch, chunk, start, end in zip(
            line.kind, line.micro_batch, line.chunk, line.start_s, line.end_s, strict=True
        ):
            if kind != WEIGHT_GRADIENT:
                key = (kind in (BACKWARD, INPUT_GRADIENT), stage, int(chunk), int(micro_batch))
                starts[key], ends[key] = start, end
    for path in schedule.paths(stages, chunks):
        places = path.T.tolist()
        for one, other in itertools.pairwise(places):
            hop = hop_s if one[0] != other[0] else 0.0
            for micro_batch in range(micro_batches):
                if (False, *one, micro_batch) in ends:
                    assert starts[False, *other, micro_batch] >= ends[False, *one, micro_batch] + hop - 1e-9
                    assert starts[True, *one, micro_batch] >= ends[True, *other, micro_batch] + hop - 1e-9
    # never shorter than the busiest stage, or than one micro-batch all the way there and back
    assert found.step_s >= max(line.busy_s for line in found.stages) - 1e-9
    ways = [path for path, lane in zip(schedule.paths(stages, chunks), range(2), strict=False) if micro_batches > lane]
    back = times.backward_s - (times.weight_s if name.startswith("zb") else 0.0)
    if name != "dualpipe":
        moves = sum(int((path[0, 1:] != path[0, :-1]).sum()) for path in ways)
        least = sum(float((times.forward_s + back)[path[0], path[1]].sum()) for path in ways) + 2 * moves * hop_s
        assert found.span_s >= least - 1e-9
    assert found.span_s >= found.step_s - 1e-9


@given(
    name=st.sampled_from(EXACT), stages=st.integers(1, 12), groups=st.integers(1, 4), chunks=st.integers(1, 5),
    forward=SECONDS, backward=SECONDS,
)  # fmt: skip
@settings(deadline=None)
def test_equal_stages_give_the_closed_form(
    name: str, stages: int, groups: int, chunks: int, forward: float, backward: float
) -> None:
    chunks = chunks if name == "interleaved" else 1
    seconds = (forward, backward, backward / 3)
    found = equal(name, stages, groups * stages, seconds, chunks)
    expected = groups * stages * (forward + backward) + closed_bubble_s(name, stages, groups * stages, seconds, chunks)
    assert found.step_s == found.span_s == pytest.approx(expected, rel=1e-9)


@given(micro_batches=st.integers(1, 40), stages=st.integers(1, 10), forward=SECONDS, backward=SECONDS)
@settings(deadline=None)
def test_any_number_of_micro_batches_gives_the_closed_form(
    micro_batches: int, stages: int, forward: float, backward: float
) -> None:
    seconds = (forward, backward, 0.0)
    for name in ("gpipe", "1f1b"):
        expected = micro_batches * (forward + backward) + closed_bubble_s(name, stages, micro_batches, seconds)
        assert equal(name, stages, micro_batches, seconds).step_s == pytest.approx(expected, rel=1e-9)


@given(
    stages=st.integers(2, 9), groups=st.integers(3, 5), forward=SECONDS, inputs=SECONDS,
    weight_frac=st.floats(0.0, 1.0),
)  # fmt: skip
@settings(deadline=None)
def test_zero_bubble_tables_hold_while_weight_gradients_are_the_shortest(
    stages: int, groups: int, forward: float, inputs: float, weight_frac: float
) -> None:
    """Table 1 of arXiv 2401.10241 is exact there. ZB-V has no table; its fixed order lies little above the formula."""
    weight = weight_frac * min(forward, inputs)
    seconds = (forward, inputs + weight, weight)
    micro_batches = groups * stages
    for name in ("zb-1p", "zb-2p"):
        expected = closed_bubble_s(name, stages, micro_batches, seconds)
        assert equal(name, stages, micro_batches, seconds).bubble_s == pytest.approx(expected, rel=1e-9, abs=1e-6)
    closed = closed_bubble_s("zb-v", stages, micro_batches, seconds)
    most = (stages - 1) * (max(forward, inputs) - weight)
    assert closed - 1e-6 <= equal("zb-v", stages, micro_batches, seconds).bubble_s <= most + 1e-6


@given(
    stages=st.integers(2, 9), micro_batches=st.integers(1, 30), forward=SECONDS, inputs=SECONDS,
    weight_frac=st.floats(0.0, 1.0),
)  # fmt: skip
@settings(deadline=None)
def test_short_steps_idle_more_than_the_tables_say(
    stages: int, micro_batches: int, forward: float, inputs: float, weight_frac: float
) -> None:
    """The tables need p (ZB-1p) or 2 p - 1 (ZB-2p) micro-batches; with fewer, what there is fills less of the way."""
    weight = weight_frac * min(forward, inputs)
    seconds = (forward, inputs + weight, weight)
    for name in ("zb-1p", "zb-2p"):
        table = closed_bubble_s(name, stages, 100, seconds)
        short = (stages - 1) * (forward + inputs) - (micro_batches - 1) * weight
        found = equal(name, stages, micro_batches, seconds).bubble_s
        assert found == pytest.approx(max(table, short), rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("stages", [2, 4, 8, 12])
def test_dualpipe_is_its_table(stages: int) -> None:
    """Table 2 of arXiv 2412.19437, exact for equal forward, input- and weight-gradient times, near it otherwise."""
    assert equal("dualpipe", stages, 3 * stages, (1.0, 2.0, 1.0)).bubble_s == pytest.approx(stages - 2)
    for seconds in ((1.0, 2.0, 0.8), (1.0, 2.0, 0.5), (1.0, 1.6, 0.6)):
        expected = closed_bubble_s("dualpipe", stages, 3 * stages, seconds)
        found = equal("dualpipe", stages, 3 * stages, seconds).bubble_s
        assert 0.84 * expected - 1e-9 <= found <= expected + 1e-9


def test_zero_bubble_has_none_where_the_paper_says_so() -> None:
    for name in ("zb-2p", "zb-v"):
        found = equal(name, 4, 12, (1.0, 2.0, 1.0))
        assert found.bubble_s == pytest.approx(0.0)
        # the next step begins before the last stage has ended this one
        assert found.span_s > found.step_s


@given(name=NAMES, stages=st.integers(2, 8), groups=st.integers(3, 4), chunks=st.integers(2, 4))
@settings(deadline=None)
def test_every_stage_holds_what_the_memory_model_says(name: str, stages: int, groups: int, chunks: int) -> None:
    schedule = BY_NAME[name]
    stages = even(schedule, stages)
    chunks = chunks if name == "interleaved" else 1
    found = equal(name, stages, groups * stages, (1.0, 2.0, 1.0), chunks)
    passes = schedule.passes(chunks)
    for stage, held in enumerate(found.stages):
        said = float(schedule.micro_batches_in_flight(stage, stages, groups * stages, chunks))
        assert int(held.in_flight.max()) / passes == pytest.approx(said), stage


@given(name=NAMES, slow=st.integers(0, 5), extra=st.floats(0.0, 2.0))
@settings(deadline=None)
def test_a_slower_stage_is_never_faster(name: str, slow: int, extra: float) -> None:
    schedule = BY_NAME[name]
    times = equal_times(schedule, 6, 1, 1.0, 2.0, 1.0)
    slower = times.forward_s.copy()
    slower[slow] += extra
    one, other = (
        pipeline_timeline(
            schedule, TaskTimes(forward_s=forward, backward_s=times.backward_s, weight_s=times.weight_s), 18
        )
        for forward in (times.forward_s, slower)
    )
    assert other.span_s >= one.span_s - 1e-9


@given(stages=st.integers(3, 8), micro_batches=st.integers(8, 30), slow_s=st.floats(3.0, 6.0), data=st.data())
@settings(deadline=None)
def test_one_slow_stage_is_as_the_explanation_says(
    stages: int, micro_batches: int, slow_s: float, data: st.DataObject
) -> None:
    """GPipe's exact time is (m - 1) t_max + sum of t, the closed form counts t_max - t_mean more; 1F1B fills better."""
    slow = data.draw(st.integers(0, stages - 1))
    total = np.full((stages, 1), 3.0)
    total[slow] = slow_s
    times = TaskTimes(forward_s=total / 3, backward_s=2 * total / 3, weight_s=total / 3)
    found = pipeline_timeline(BY_NAME["gpipe"], times, micro_batches).step_s
    assert found == pytest.approx((micro_batches - 1) * slow_s + total.sum())
    closed = micro_batches * slow_s + (stages - 1) * float(total.mean())
    assert closed - found == pytest.approx(slow_s - float(total.mean()))
    one_by_one = pipeline_timeline(BY_NAME["1f1b"], times, micro_batches).step_s
    assert max(micro_batches * slow_s, float(total.sum())) - 1e-9 <= one_by_one <= found + 1e-9


def uneven_frac(name: str, micro_batches: int, slow: int, extra_frac: float) -> float:
    """Events over the closed form, less one: eight stages, one of them slower."""
    schedule, stages, chunks = BY_NAME[name], 8, 2 if name == "interleaved" else 1
    factor = np.ones(stages)
    factor[slow] += extra_frac
    times = equal_times(schedule, stages, chunks, 1.0, 2.0, 1.0)
    scale = np.zeros(times.forward_s.shape)
    for path in schedule.paths(stages, chunks):
        # DualPipe's second chunk holds the layers of the mirrored stage
        scale[path[0], path[1]] = factor if name == "dualpipe" else factor[path[0]]
    found = pipeline_timeline(
        schedule,
        TaskTimes(
            forward_s=times.forward_s * scale, backward_s=times.backward_s * scale, weight_s=times.weight_s * scale
        ),
        micro_batches, chunks,
    )  # fmt: skip
    mean = 3.0 * float(factor.mean())
    stage = StageTimes(slowest_s=3.0 * factor.max(), mean_s=mean, forward_s=mean / 3, weight_s=mean / 3)
    bubble = float(schedule.bubble_time_s(stage, stages, micro_batches, chunks))
    return found.step_s / (micro_batches * float(stage.slowest_s) + bubble) - 1


def test_the_table_of_unequal_stages_is_what_comes_out() -> None:
    page = (Path(__file__).parents[1] / "docs/explanation/pipeline-events.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \| ([^|]+%) \| ([^|]+%) \|$", page, re.MULTILINE)
    assert len(rows) == 7
    for names, micro_batches, *cells in rows:
        for name in names.replace("interleaved, 2 chunks", "interleaved").lower().split(", "):
            for extra_frac, cell in zip((0.1, 0.5), cells, strict=True):
                shown = [float(each.removesuffix(" %")) for each in cell.split(", ")]
                found = [100 * uneven_frac(name, int(micro_batches), slow, extra_frac) for slow in (0, 4, 7)]
                assert found == pytest.approx(shown, abs=0.0501), (name, micro_batches, extra_frac)


def test_hops_delay_a_pipeline_there_and_back() -> None:
    times = equal_times(BY_NAME["gpipe"], 4, 1, 1.0, 2.0, 1.0)
    late = TaskTimes(forward_s=times.forward_s, backward_s=times.backward_s, weight_s=times.weight_s, hop_s=0.5)
    found = [pipeline_timeline(BY_NAME["gpipe"], each, 8).step_s for each in (times, late)]
    assert found[1] - found[0] == pytest.approx(2 * 3 * 0.5)


def test_dualpipe_needs_an_even_number_of_stages() -> None:
    with pytest.raises(ValueError, match="even"):
        BY_NAME["dualpipe"].tasks(0, 3, 8, 1)


def simulated(**layout: object) -> simulation.SimulatedStep:
    options = {"micro_batch_size": 1, "global_batch_size": 64, "tensor_parallel_size": 2, "chips": 64} | layout
    answer = ultratwin.train("llama3.1-8b", "p5.48xlarge", **options).answer  # type: ignore[arg-type]
    assert answer.plan is not None
    return simulation.simulated_step(
        answer.model, answer.system.pool, answer.plan, recipe(answer.precision), answer.profile
    )


def test_a_step_without_a_pipeline_is_the_closed_form() -> None:
    for recompute in ("none", "selective", "full"):
        for zero_stage in (1, 3):
            found = simulated(pipeline_parallel_size=1, recompute=recompute, zero_stage=zero_stage)
            assert found.difference_s == pytest.approx(0.0, abs=1e-12 * found.total_s)


@pytest.mark.parametrize("schedule", ["1f1b", "interleaved", "zb-1p"])
def test_equal_stages_make_the_step_of_the_closed_form(schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without embedding and head all stages are alike: the step is the closed form's to the last digits."""
    whole = step.layer_times

    def bare(*args: object) -> object:
        found = whole(*args)  # type: ignore[arg-type]
        nothing = 0.0 * np.asarray(found.head)
        return dataclasses.replace(found, embedding=nothing, head=nothing)

    monkeypatch.setattr(step, "layer_times", bare)
    layout = {"schedule": schedule, "pipeline_parallel_size": 4, "virtual_pipeline_size": 2}
    found = simulated(**(layout if schedule == "interleaved" else layout | {"virtual_pipeline_size": 1}))
    assert found.timeline.bubble_s > 0
    assert found.difference_s == pytest.approx(0.0, abs=1e-12 * found.total_s)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_tasks_are_their_pieces(name: str) -> None:
    found = simulated(pipeline_parallel_size=4, schedule=name, virtual_pipeline_size=2 if name == "interleaved" else 1)
    assert float(found.tasks.layers.sum()) == 32 * (2 if name == "dualpipe" else 1)
    seconds = found.tasks.task_times().by_kind
    for stage, line in enumerate(found.timeline.stages):
        for kind, chunk in sorted({(int(kind), int(chunk)) for kind, chunk in zip(line.kind, line.chunk, strict=True)}):
            pieces = found.tasks.pieces(kind, stage, chunk)
            assert sum(piece.shown_s for piece in pieces) == pytest.approx(seconds[kind, stage, chunk], rel=1e-12)
            assert all(piece.all_s >= piece.shown_s - 1e-15 and piece.shown_s >= 0 for piece in pieces)
    assert found.total_s >= found.timeline.step_s
    assert found.total_s == pytest.approx(found.timeline.step_s + sum(piece.shown_s for piece in found.after))


def test_dualpipe_on_odd_stages_is_bad_input() -> None:
    answer = ultratwin.train(
        "llama3.1-8b", "p5.48xlarge", chips=24, tensor_parallel_size=8, pipeline_parallel_size=3, micro_batch_size=1,
        global_batch_size=24, schedule="1f1b",
    ).answer  # fmt: skip
    assert answer.plan is not None
    plan = dataclasses.replace(answer.plan, schedule=list(BY_NAME).index("dualpipe"))
    with pytest.raises(ScenarioError, match="even"):
        simulation.simulated_step(answer.model, answer.system.pool, plan, recipe("bf16"), answer.profile)
