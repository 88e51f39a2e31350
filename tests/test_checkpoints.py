"""Checkpoints: intervals by formula and by search, tiers and their stores, sizes, what does not fit."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultratwin.errors import ScenarioError
from ultratwin.hardware.failures import Exponential, Layout, PartClass, load_rates, load_recovery, machine_parts
from ultratwin.hardware.storage import TIERS, load_storage, usual_storage
from ultratwin.hardware.system import load_system
from ultratwin.planning.reliability.model import (
    ReliabilityOptions,
    answer_until_done,
    checkpoint_bytes,
    saved_tier,
)
from ultratwin.planning.training import TrainingAnswer, TrainingQuestion, answer_training
from ultratwin.simulation.reliability.closed_form import (
    daly_interval_s,
    exact_interval_s,
    progress_rate,
    run_time_s,
    with_best_intervals,
    young_interval_s,
)
from ultratwin.simulation.reliability.records import NO_SAVES, RunModel, SavedTier
from ultratwin.simulation.reliability.simulate import simulate_runs

COSTS = st.floats(0.1, 500.0)
MTBFS = st.floats(600.0, 1e6)


def run_on(
    chips: int, *names: str, recovery: str = "automatic", work_s: float = 3e6, size_bytes: float = 5e12
) -> RunModel:
    """A run of so many H100 with the given tiers, their intervals chosen."""
    layout = Layout(chips=chips, chips_per_node=8, chips_per_rack=32, unit_chips=8)
    storage = usual_storage(layout.nodes, 8)
    return with_best_intervals(
        RunModel(
            work_s=work_s, parts=machine_parts(load_rates("h100-sxm"), layout),
            tiers=tuple(saved_tier(storage, name, size_bytes, nodes=layout.nodes, chips=chips) for name in names),
            recovery=load_recovery(recovery), spare_nodes=layout.nodes,
        )
    )  # fmt: skip


# formulas


@given(save=COSTS, mtbf=MTBFS)
def test_the_exact_interval_is_the_best_of_the_exact_time(save: float, mtbf: float) -> None:
    best = exact_interval_s(save, mtbf)

    def per_work(interval: float) -> float:
        return math.expm1((interval + save) / mtbf) / interval

    assert per_work(best) <= min(per_work(0.98 * best), per_work(1.02 * best))


@given(save=COSTS, mtbf=MTBFS)
def test_daly_lies_between_young_and_the_exact_optimum(save: float, mtbf: float) -> None:
    exact = exact_interval_s(save, mtbf)
    if save < 0.1 * mtbf:
        assert daly_interval_s(save, mtbf) == pytest.approx(exact, rel=2e-3)
        assert abs(daly_interval_s(save, mtbf) - exact) <= abs(young_interval_s(save, mtbf) - exact) + 1e-9 * exact


def test_daly_saves_once_a_failure_where_saves_are_dear() -> None:
    assert daly_interval_s(300.0, 100.0) == 100.0


@pytest.mark.parametrize("formula", [young_interval_s, daly_interval_s, exact_interval_s])
@pytest.mark.parametrize(("save", "mtbf"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (math.nan, 1.0)])
def test_formulas_refuse_what_is_not_above_zero(formula, save: float, mtbf: float) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ScenarioError, match="above 0"):
        formula(save, mtbf)


@given(save=COSTS, mtbf=MTBFS, share=st.floats(0.05, 3.0), restart=st.floats(0.0, 600.0))
def test_the_rate_of_progress_is_dalys_for_one_tier(save: float, mtbf: float, share: float, restart: float) -> None:
    interval = share * exact_interval_s(save, mtbf)
    tier = SavedTier(
        name="store", interval_s=interval, stall_s=save, latency_s=0.0, reload_s=0.0, survives_node=True,
        survives_rack=True, keeps_history=True,
    )  # fmt: skip
    recovery = dataclasses.replace(
        load_recovery("hot"), detection_s=0.0, isolation_s=0.0, restart_s=restart, warm_up_s=0.0
    )
    part = PartClass(name="chip", law=Exponential(rate_per_s=1 / mtbf), num_parts=1.0, nodes_lost=0)
    run = RunModel(work_s=1e4 * interval, parts=(part,), tiers=(tier,), recovery=recovery)
    # without the piece after the last save, which the rate of a long run has no place for
    daly = run_time_s(1e4 * interval, interval, save, restart, mtbf)
    assert 1 / progress_rate(run) == pytest.approx(daly / (1e4 * interval), rel=2e-3)


# the search for intervals


@pytest.mark.parametrize("names", [("store",), ("peer", "store"), ("nvme", "store"), ("peer", "nvme", "store")])
@pytest.mark.parametrize("chips", [1024, 16384])
def test_the_rate_of_progress_is_what_runs_do(chips: int, names: tuple[str, ...]) -> None:
    run = run_on(chips, *names, work_s=1.5e6)
    samples = simulate_runs(run, num_runs=60)
    assert run.work_s / samples.wall_s.mean() == pytest.approx(progress_rate(run), rel=0.01)


@pytest.mark.parametrize("recovery", ["automatic", "hot"])
def test_the_best_interval_beats_its_neighbours(recovery: str) -> None:
    run = run_on(16384, "store", recovery=recovery, work_s=2e6)
    best = run.tiers[0].interval_s
    ends = {}
    for factor in (1 / 4, 1.0, 4.0):
        tier = dataclasses.replace(run.tiers[0], interval_s=factor * best)
        ends[factor] = simulate_runs(dataclasses.replace(run, tiers=(tier,)), num_runs=100).wall_s.mean()
    assert ends[1.0] < min(ends[1 / 4], ends[4.0])
    for factor in (0.9, 1.1):
        tier = dataclasses.replace(run.tiers[0], interval_s=factor * best)
        assert progress_rate(dataclasses.replace(run, tiers=(tier,))) < progress_rate(run)


def test_no_pair_of_intervals_on_a_grid_beats_the_one_that_was_found() -> None:
    run = run_on(16384, "peer", "store")
    best = progress_rate(run)
    for first in np.geomspace(20, 5000, 12):
        for second in np.geomspace(60, 50_000, 12):
            tiers = (
                dataclasses.replace(run.tiers[0], interval_s=float(first)),
                dataclasses.replace(run.tiers[1], interval_s=float(second)),
            )
            assert progress_rate(dataclasses.replace(run, tiers=tiers)) <= best * (1 + 1e-6)


def test_a_single_class_gets_the_exact_interval() -> None:
    run = run_on(1024, "store")
    part = PartClass(name="chip", law=Exponential(rate_per_s=1e-4), num_parts=1.0, nodes_lost=0)
    tier = dataclasses.replace(run.tiers[0], latency_s=0.0, stall_s=30.0)
    found = with_best_intervals(dataclasses.replace(run, parts=(part,), tiers=(tier,)))
    assert found.tiers[0].interval_s == pytest.approx(exact_interval_s(30.0, 1e4), rel=1e-4)


def test_without_failures_nothing_is_saved() -> None:
    run = with_best_intervals(dataclasses.replace(run_on(1024, "peer", "store"), parts=()))
    assert [tier.interval_s for tier in run.tiers] == [NO_SAVES, NO_SAVES]
    assert with_best_intervals(run, 600.0).tiers[0].interval_s == 600.0


def test_a_given_interval_stays_and_none_is_shorter_than_a_write() -> None:
    run = run_on(16384, "store")
    assert with_best_intervals(run, 3600.0).tiers[0].interval_s == 3600.0
    assert with_best_intervals(run, 0.01).tiers[0].interval_s == run.tiers[0].latency_s


# tiers


def test_tiers_from_fast_and_fragile_to_slow_and_safe() -> None:
    storage = load_storage(load_system("p5.48xlarge"), 2048)
    assert tuple(each.name for each in storage.tiers) == TIERS
    writes = [each.write_time_s(5e12, 2048) for each in storage.tiers]
    assert writes == sorted(writes)
    assert [each.survives_node for each in storage.tiers] == [True, False, True]
    assert [each.survives_rack for each in storage.tiers] == [False, False, True]


def test_write_times_by_hand() -> None:
    store = usual_storage(10, 8).tier("store")
    # ten nodes write 1.2 GB/s each; a thousand would, but the store takes 250 GB/s in all
    assert store.write_time_s(12e9, 10) == pytest.approx(1.0)
    assert store.write_time_s(250e9, 1000) == pytest.approx(1.0)
    with pytest.raises(ScenarioError, match="peer, nvme, store"):
        usual_storage(10, 8).tier("tape")


@settings(max_examples=30)
@given(size=st.floats(1e9, 1e14), nodes=st.integers(1, 4096), name=st.sampled_from(TIERS))
def test_asynchronous_saves_stall_less_and_one_replica_writes_longer(size: float, nodes: int, name: str) -> None:
    storage = usual_storage(nodes, 8)

    def tier(**more: float) -> SavedTier:
        return saved_tier(storage, name, size, nodes=nodes, chips=8 * nodes, **more)  # type: ignore[arg-type]

    assert tier().stall_s < tier(asynchronous=False).stall_s
    assert tier(asynchronous=False).latency_s == 0.0
    assert tier(asynchronous=False).stall_s == pytest.approx(tier().stall_s + tier().latency_s)
    assert tier(writing_frac=0.125).stall_s >= tier().stall_s
    assert tier(writing_frac=0.125).latency_s >= tier().latency_s


# answers


@pytest.fixture(scope="module")
def asked() -> tuple[TrainingAnswer, TrainingQuestion]:
    question = TrainingQuestion(
        model="llama-3.1-405b", system="p5.48xlarge", chips=8192, tokens=1e12, global_batch_size=1024, seq_length=8192,
        layout={"tensor_parallel_size": 8, "pipeline_parallel_size": 16, "micro_batch_size": 1, "recompute": 2},
    )  # fmt: skip
    return answer_training(question), question


def test_a_checkpoint_is_the_state_that_ranks_hold(asked: tuple[TrainingAnswer, TrainingQuestion]) -> None:
    answer, _ = asked
    size = checkpoint_bytes(answer)
    assert size == pytest.approx(14 * answer.num_parameters)  # weights in 16 bit; master copy and two momenta in 32
    assert answer.memory is not None
    assert answer.plan is not None
    parts = answer.memory.parts
    replica = 8 * 16  # ranks that hold one copy of the weights; the optimizer state is sharded over all
    held = float(np.ravel(parts["weights"])[0]) * replica + float(np.ravel(parts["optimizer state"])[0]) * 8192
    assert size <= held < 1.2 * size  # the fullest rank holds more than the mean


def test_asked_for_tiers_are_used_and_better_ones_are_named(asked: tuple[TrainingAnswer, TrainingQuestion]) -> None:
    found = answer_until_done(*asked, ReliabilityOptions(tiers=("store",), num_runs=20))
    assert [tier.name for tier in found.checkpointing.tiers] == ["store"]
    assert next(each.name for each in found.tier_choices if each.chosen) == "store"
    best = answer_until_done(*asked, ReliabilityOptions(num_runs=20))
    assert max(best.tier_choices, key=lambda each: each.ettr).ettr == pytest.approx(
        next(each for each in best.tier_choices if each.chosen).ettr, rel=1e-5
    )


def test_waiting_for_the_store_costs(asked: tuple[TrainingAnswer, TrainingQuestion]) -> None:
    def ettr(**more: bool) -> float:
        options = ReliabilityOptions(tiers=("store",), num_runs=60, **more)  # type: ignore[arg-type]
        return answer_until_done(*asked, options).ettr.p50

    assert ettr() > ettr(asynchronous=False) > ettr(asynchronous=False, sharded=False)


def test_a_checkpoint_larger_than_its_store_is_refused(asked: tuple[TrainingAnswer, TrainingQuestion]) -> None:
    answer, question = asked
    huge = dataclasses.replace(answer, num_parameters=10**15)
    with pytest.raises(ScenarioError, match="larger than its store"):
        answer_until_done(huge, question)
    large = dataclasses.replace(answer, num_parameters=30 * 10**12)  # too large for hosts, not for the store
    found = answer_until_done(large, question, ReliabilityOptions(num_runs=5))
    assert any("peer holds" in note for note in found.checkpointing.notes)
    with pytest.raises(ScenarioError, match="tier peer"):
        answer_until_done(large, question, ReliabilityOptions(tiers=("peer", "store")))


def test_young_and_daly_are_reported_beside_the_choice(asked: tuple[TrainingAnswer, TrainingQuestion]) -> None:
    found = answer_until_done(*asked, ReliabilityOptions(tiers=("store",), num_runs=5)).checkpointing
    assert found.tiers[0].interval_s == pytest.approx(found.exact_s, rel=0.02)
    assert found.exact_s < found.young_s < 1.1 * found.exact_s
    assert found.daly_s == pytest.approx(found.exact_s, rel=0.01)


def test_an_interval_that_no_save_can_keep_is_said_so(asked: tuple[TrainingAnswer, TrainingQuestion]) -> None:
    found = answer_until_done(*asked, ReliabilityOptions(tiers=("store",), checkpoint_s=1.0, num_runs=5)).checkpointing
    assert found.tiers[0].interval_s == found.tiers[0].latency_s > 1.0
    assert any("one begins every" in note for note in found.notes)
