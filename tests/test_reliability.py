"""Failures: laws, machines, whole runs by Monte Carlo against formulas, answers, validation rows, jitter."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultratwin.errors import ScenarioError
from ultratwin.hardware.failures import (
    LAWS,
    SECONDS_PER_YEAR,
    Exponential,
    FailureLaw,
    Layout,
    PartClass,
    PerJob,
    Recovery,
    Weibull,
    interruptions_per_s,
    load_rates,
    load_recovery,
    machine_parts,
    read_failures_file,
)
from ultratwin.planning.reliability.model import ReliabilityOptions, ReliableRun, answer_until_done
from ultratwin.planning.training import TrainingAnswer, TrainingQuestion, answer_training
from ultratwin.report.json import dumped
from ultratwin.report.reliability import badput, finish_date, reliability_blocks, reliability_json
from ultratwin.report.tables import rendered
from ultratwin.simulation.reliability.closed_form import progress_rate, run_time_s
from ultratwin.simulation.reliability.records import CAUSES, Elastic, RunModel, SavedTier, part_rows, rate_table
from ultratwin.simulation.reliability.simulate import RunSamples, simulate_runs
from ultratwin.timing.jitter import NOISES, Jitter, load_jitter, sampled_slowdown
from ultratwin.validation.reliability import predict_rows
from ultratwin.validation.truth_file import OWN_TRUTH

NO_TIME = Recovery(
    name="none", detection_s=0.0, silent_detection_s=0.0, isolation_s=0.0, restart_s=0.0, warm_up_s=0.0, resize_s=0.0,
    reset_s=0.0, replacement_s=0.0, replacement_frac=0.0,
)  # fmt: skip
STORE = SavedTier(
    name="store", interval_s=500.0, stall_s=20.0, latency_s=0.0, reload_s=0.0, survives_node=True, survives_rack=True,
    keeps_history=True,
)  # fmt: skip
PEER = dataclasses.replace(STORE, name="peer", survives_rack=False, keeps_history=False)


def part(mtbf_s: float, **more: object) -> PartClass:
    """One class of parts that fails once in so many seconds."""
    given_ = {"name": "chip", "nodes_lost": 0} | more
    return PartClass(law=Exponential(rate_per_s=1.0 / mtbf_s), num_parts=1.0, **given_)  # type: ignore[arg-type]


def model(*parts: PartClass, work_s: float = 1e6, **more: object) -> RunModel:
    """A run of a million seconds unless told otherwise."""
    given_ = {"tiers": (STORE,), "recovery": NO_TIME} | more
    return RunModel(work_s=work_s, parts=parts, **given_)  # type: ignore[arg-type]


def error_of_mean(samples: RunSamples) -> float:
    return float(samples.wall_s.std() / math.sqrt(len(samples.wall_s)))


# laws and machines


@pytest.mark.parametrize("law", LAWS, ids=lambda each: each.__name__)
def test_every_law_counts_up_from_zero(law: type[FailureLaw]) -> None:
    more = {Exponential: {}, Weibull: {"shape": 0.7}, PerJob: {"chips": 64.0, "full_chips": 1024.0}}[law]
    found = law(rate_per_s=1e-6, **more)  # type: ignore[call-arg]
    ages = np.array([0.0, 1e3, 1e6, 1e9])
    counts = np.asarray(found.expected_failures(ages))
    assert counts[0] == 0.0
    assert np.all(np.diff(counts) > 0)
    assert float(found.expected_failures(1e6)) == pytest.approx(counts[2])


def test_infant_mortality_fails_early() -> None:
    new = Weibull(rate_per_s=1e-6, shape=0.5)
    old = Exponential(rate_per_s=1e-6)
    assert new.expected_failures(SECONDS_PER_YEAR) == pytest.approx(old.expected_failures(SECONDS_PER_YEAR))
    assert new.expected_failures(0.01 * SECONDS_PER_YEAR) == pytest.approx(
        10 * float(old.expected_failures(0.01 * SECONDS_PER_YEAR))
    )


def test_hosts_of_other_sizes_share_what_does_not_grow_with_their_chips() -> None:
    """Rates are of hosts of 8: a host of 4 fails more than half as often, one of 16 less than twice."""
    rates = load_rates("trainium3")
    fixed, eight = rates.expected("host_fixed_frac"), rates.expected("host_per_year")

    def yearly(chips: int) -> float:
        layout = Layout(chips=chips * 10, chips_per_node=chips, chips_per_rack=32, unit_chips=chips)
        (host,) = (each for each in machine_parts(rates, layout) if each.name == "host")
        return float(host.expected_failures(SECONDS_PER_YEAR)) / 10

    assert yearly(8) == pytest.approx(eight)
    assert yearly(4) == pytest.approx(eight * (1 + fixed) / 2)
    assert yearly(16) == pytest.approx(eight * (2 - fixed))
    assert load_rates("tpu-v4").expected("host_chips") == 4


def test_software_does_not_grow_with_the_machine() -> None:
    def law(chips: float) -> float:
        return float(PerJob(rate_per_s=1.0, chips=chips, full_chips=1024.0).expected_failures(1.0))

    assert [law(chips) for chips in (8, 1024, 16384, 10**6)] == [8 / 1024, 1.0, 1.0, 1.0]


def test_a_machine_ten_times_as_large_has_ten_times_the_parts_and_the_same_classes() -> None:
    rates = load_rates("h100-sxm")

    def parts(chips: int) -> tuple[PartClass, ...]:
        return machine_parts(rates, Layout(chips=chips, chips_per_node=8, chips_per_rack=32, unit_chips=8))

    small, large = parts(1024), parts(10240)
    assert part_rows(small).shape == part_rows(large).shape  # a run costs what its failures cost, not its chips
    for one, other in zip(small, large, strict=True):
        assert other.num_parts == (one.num_parts if one.name == "software" else 10 * one.num_parts)


def test_part_rates_of_a_node_sum_to_the_published_rate() -> None:
    # RSC-1 and RSC-2: 6.5 and 2.34 failures of 1000 node-days, 16 and 8 thousand GPUs
    layout = Layout(chips=8, chips_per_node=8, chips_per_rack=32, unit_chips=8)
    node = ("chip", "memory of a chip", "host", "NIC", "switch or cable")
    parts = tuple(each for each in machine_parts(load_rates("a100-80-sxm"), layout) if each.name in node)
    assert interruptions_per_s(parts) * 86400e3 == pytest.approx((2 * 6.5 + 2.34) / 3, rel=1e-3)


# files of rates


def test_a_file_of_rates_and_times(tmp_path: Path) -> None:
    path = tmp_path / "rates.toml"
    path.write_text('chip_per_year = 0.5\nsoftware_per_day = [0.5, 1, 2]\ndetection_s = "30s"\nrestart_s = "2min"\n')
    rates, recovery = read_failures_file(path, load_rates("h100-sxm"), load_recovery("automatic"))
    assert rates.figures["chip_per_year"] == (0.5, 0.5, 0.5)
    assert rates.figures["software_per_day"] == (0.5, 1.0, 2.0)
    assert (recovery.detection_s, recovery.restart_s) == (30.0, 120.0)
    assert rates.figures["host_per_year"] == load_rates("h100-sxm").figures["host_per_year"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("chip_per_year = -1", "above 0"),
        ("chip_per_year = 0", "above 0"),
        ("host_fixed_frac = 2", "up to 1"),
        ("chip_per_year = [1, 2]", "low, value, high"),
        ("chip_per_year = [3, 2, 1]", "low, value, high"),
        ("chip_per_year = nan", "low, value, high"),
        ("chip_per_year = true", "low, value, high"),
        ("chp_per_year = 1", "did you mean chip_per_year"),
        ('detection_s = "-5s"', "0 to 10 years"),
        ('detection_s = "5GB"', "not a second"),
        ("detection_s = []", "such as"),
        ("replacement_frac = 1.5", "0 to 1"),
        ("chip_per_year = ", "not TOML"),
    ],
)
def test_a_broken_file_is_explained(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "rates.toml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=said) as found:
        read_failures_file(path, load_rates("h100-sxm"), load_recovery("automatic"))
    assert str(path) in str(found.value)


def test_a_missing_file_and_an_unknown_recovery() -> None:
    with pytest.raises(ScenarioError, match="can't read"):
        read_failures_file(Path("/nowhere/rates.toml"), load_rates("h100-sxm"), load_recovery("automatic"))
    with pytest.raises(ScenarioError, match="automatic, hot, manual"):
        load_recovery("magic")


# whole runs


def test_without_failures_a_run_is_the_plain_run() -> None:
    samples = simulate_runs(model(tiers=(dataclasses.replace(STORE, interval_s=1e18),)), num_runs=3)
    assert samples.end_s.tolist() == [1e6] * 3
    saving = simulate_runs(model(), num_runs=1)
    assert saving.end_s[0] == pytest.approx(1e6 + (1e6 / 500 - 1) * 20)


@settings(max_examples=12, deadline=None)
@given(mtbf=st.floats(800, 20_000), interval=st.floats(100, 3_000), stall=st.floats(0, 60), restart=st.floats(0, 600))
def test_monte_carlo_is_the_closed_form(mtbf: float, interval: float, stall: float, restart: float) -> None:
    work = 150_000.0
    run = model(
        part(mtbf), work_s=work, tiers=(dataclasses.replace(STORE, interval_s=interval, stall_s=stall),),
        recovery=dataclasses.replace(NO_TIME, restart_s=restart),
    )  # fmt: skip
    expected = run_time_s(work, interval, stall, restart, mtbf)
    if expected > 0.3 * run.horizon_s:
        return  # runs are given up, so their mean is no mean
    samples = simulate_runs(run, num_runs=1500, seed=7)
    assert samples.wall_s.mean() == pytest.approx(expected, abs=4.5 * error_of_mean(samples) + 1e-9)


def test_wall_time_is_its_causes_and_training_is_the_work() -> None:
    parts = (
        part(2_000.0), part(9_000.0, name="host", nodes_lost=1),
        part(50_000.0, name="rack", nodes_lost=4, rack_wide=True),
        part(80_000.0, name="silent", nodes_lost=1, silent=True),
    )  # fmt: skip
    tiers = (dataclasses.replace(PEER, interval_s=100.0, stall_s=2.0), dataclasses.replace(STORE, latency_s=50.0))
    run = model(*parts, work_s=3e5, tiers=tiers, recovery=load_recovery("hot"), spare_nodes=40)
    samples = simulate_runs(run, num_runs=200)
    assert samples.finished_frac == 1.0
    assert samples.seconds.sum(axis=1) == pytest.approx(samples.end_s)
    assert samples.seconds[:, CAUSES.index("training")] == pytest.approx(3e5)
    assert np.all(samples.seconds >= -1e-6)
    assert math.fsum(samples.shares().values()) == pytest.approx(1.0)


def test_seeds_reproduce_bytes_and_runs_do_not_depend_on_their_number() -> None:
    run = model(part(3_000.0), part(9_000.0, name="host", nodes_lost=1), recovery=load_recovery("hot"), spare_nodes=500)
    one, other = (simulate_runs(run, num_runs=50, seed=3, sampled_rates=False) for _ in range(2))
    assert one.end_s.tobytes() == other.end_s.tobytes()
    assert one.seconds.tobytes() == other.seconds.tobytes()
    assert simulate_runs(run, num_runs=20, seed=3).end_s.tobytes() == one.end_s[:20].tobytes()
    assert simulate_runs(run, num_runs=50, seed=4).end_s.tobytes() != one.end_s.tobytes()


@given(order=st.permutations(range(4)))
@settings(max_examples=8, deadline=None)
def test_the_order_of_parts_changes_nothing(order: list[int]) -> None:
    parts = [
        part(3_000.0), part(9_000.0, name="host", nodes_lost=1, low=0.5, high=2.0), part(20_000.0, name="NIC"),
        part(70_000.0, name="rack", nodes_lost=4, rack_wide=True, high=3.0),
    ]  # fmt: skip
    base = model(*parts, work_s=1e5, recovery=load_recovery("hot"), spare_nodes=99)
    turned = model(*(parts[i] for i in order), work_s=1e5, recovery=load_recovery("hot"), spare_nodes=99)
    found = [simulate_runs(each, num_runs=30, sampled_rates=True).seconds.tobytes() for each in (base, turned)]
    assert found[0] == found[1]


@settings(max_examples=8, deadline=None)
@given(mtbf=st.floats(2_000, 20_000), factor=st.floats(1.2, 4))
def test_more_failures_are_never_faster(mtbf: float, factor: float) -> None:
    fewer, more = (
        simulate_runs(model(part(each), work_s=2e5, recovery=load_recovery("hot")), num_runs=400)
        for each in (mtbf, mtbf / factor)
    )
    assert more.wall_s.mean() > fewer.wall_s.mean() - 3 * error_of_mean(fewer)


@settings(max_examples=8, deadline=None)
@given(spares=st.integers(0, 12), more=st.integers(1, 12))
def test_more_spares_are_never_slower(spares: int, more: int) -> None:
    run = model(part(30_000.0, nodes_lost=1), work_s=1e6, recovery=load_recovery("hot"), spare_nodes=spares)
    few = simulate_runs(run, num_runs=300)
    many = simulate_runs(dataclasses.replace(run, spare_nodes=spares + more), num_runs=300)
    assert many.wall_s.mean() <= few.wall_s.mean() + 3 * error_of_mean(few)


def test_without_spares_a_run_waits_for_repairs() -> None:
    recovery = dataclasses.replace(NO_TIME, reset_s=1_000.0)
    run = model(
        part(1e4, nodes_lost=1), work_s=2e5, recovery=recovery, tiers=(dataclasses.replace(STORE, stall_s=0.0),)
    )
    alone = simulate_runs(run, num_runs=500)
    waiting = alone.seconds[:, CAUSES.index("waiting for spares")]
    assert waiting.mean() == pytest.approx(1_000.0 * alone.failures.mean(), rel=1e-6)
    with_spares = simulate_runs(dataclasses.replace(run, spare_nodes=20), num_runs=500)
    assert with_spares.seconds[:, CAUSES.index("waiting for spares")].max() == 0.0


def test_failures_come_as_often_as_their_law_says() -> None:
    horizon_s = 2e6
    law = Weibull(rate_per_s=5e-5, shape=0.6, reference_s=horizon_s)
    wearing = PartClass(name="chip", law=law, num_parts=1.0, nodes_lost=0)
    run = model(wearing, work_s=2e6, tiers=(dataclasses.replace(STORE, interval_s=1.0, stall_s=0.0),))
    samples = simulate_runs(run, num_runs=2000)
    count = samples.failures[:, 0]
    expected = float(law.expected_failures(samples.end_s.mean()))
    assert count.mean() == pytest.approx(expected, abs=4 * math.sqrt(expected / 2000) + 0.01 * expected)
    edges, rates = rate_table((wearing,), run.horizon_s)
    assert np.all(np.diff(rates[:, 0]) < 0)
    assert rate_table((part(10.0),), 1e6)[0].tolist() == [0.0]
    assert len(edges) == len(rates)


def test_a_lost_rack_takes_the_checkpoints_of_its_peers() -> None:
    tiers = (dataclasses.replace(PEER, interval_s=60.0, stall_s=0.0), dataclasses.replace(STORE, interval_s=6_000.0))
    again = CAUSES.index("work done again")

    def lost(**more: object) -> float:
        run = model(part(20_000.0, nodes_lost=1, **more), work_s=1e6, tiers=tiers, spare_nodes=10)
        samples = simulate_runs(run, num_runs=300)
        return float(samples.seconds[:, again].sum() / samples.failures.sum())

    assert lost() == pytest.approx(30.0, rel=0.05)
    assert lost(rack_wide=True) == pytest.approx(3_000.0, rel=0.15)


def test_silent_corruption_rolls_back_behind_its_detection() -> None:
    recovery = dataclasses.replace(NO_TIME, silent_detection_s=5_000.0)
    run = model(part(50_000.0, silent=True), recovery=recovery, tiers=(dataclasses.replace(STORE, stall_s=0.0),))
    samples = simulate_runs(run, num_runs=300)
    each = samples.seconds[:, CAUSES.index("work spoilt silently")].sum() / samples.failures.sum()
    assert each == pytest.approx(5_000.0 + 250.0, rel=0.03)
    assert samples.seconds[:, CAUSES.index("work done again")].sum() == 0.0


def test_planned_stops_cost_their_time_and_no_work() -> None:
    stops = model(maintenance_every_s=1e5, maintenance_s=3_600.0, tiers=(dataclasses.replace(STORE, interval_s=1e18),))
    samples = simulate_runs(stops, num_runs=1)
    assert samples.end_s[0] == pytest.approx(1e6 + 9 * 3_600.0)


def test_an_elastic_run_goes_on_where_another_waits() -> None:
    recovery = dataclasses.replace(load_recovery("hot"), replacement_s=50_000.0, replacement_frac=1.0)
    rigid = model(part(20_000.0, nodes_lost=1), work_s=5e5, recovery=recovery)
    elastic = dataclasses.replace(
        rigid, elastic=Elastic(replicas=32, least_replicas=16, nodes_per_replica=1, step_s=10.0)
    )
    one, other = simulate_runs(rigid, num_runs=100), simulate_runs(elastic, num_runs=100)
    assert other.wall_s.mean() < 0.7 * one.wall_s.mean()
    slower = other.shares()["fewer replicas"]
    # 2.5 nodes are missing of 32 on average
    assert slower == pytest.approx(2.5 / 32, rel=0.15)
    assert other.seconds[:, CAUSES.index("training")] == pytest.approx(5e5)


def test_a_hopeless_run_is_given_up() -> None:
    run = model(part(60.0), work_s=1e5, recovery=dataclasses.replace(NO_TIME, restart_s=600.0))
    samples = simulate_runs(run, num_runs=5)
    assert samples.finished_frac == 0.0
    assert samples.wall_s == pytest.approx(run.horizon_s)
    assert progress_rate(run) < 0.01


@pytest.mark.parametrize(
    "wrong",
    [
        {"work_s": 0.0}, {"work_s": math.inf}, {"tiers": ()}, {"spare_nodes": -1},
        {"tiers": (dataclasses.replace(STORE, interval_s=0.0),)},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_runs_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ScenarioError):
        simulate_runs(dataclasses.replace(model(part(1e4)), **wrong))  # type: ignore[arg-type]


# answers


@pytest.fixture(scope="module")
def asked() -> tuple[TrainingAnswer, TrainingQuestion]:
    question = TrainingQuestion(
        model="llama-3.1-405b", system="p5.48xlarge", chips=8192, tokens=2e12, global_batch_size=1024, seq_length=8192,
        layout={"tensor_parallel_size": 8, "pipeline_parallel_size": 16, "micro_batch_size": 1, "recompute": 2},
    )  # fmt: skip
    return answer_training(question), question


@pytest.fixture(scope="module")
def done(asked: tuple[TrainingAnswer, TrainingQuestion]) -> ReliableRun:
    return answer_until_done(*asked, ReliabilityOptions(num_runs=200))


def test_an_answer_holds_together(done: ReliableRun, asked: tuple[TrainingAnswer, TrainingQuestion]) -> None:
    run = asked[0].run
    assert run is not None
    assert done.finishes
    assert done.ideal_s == run.duration_s.expected
    assert done.ideal_s < done.duration_s.p10 <= done.duration_s.p50 <= done.duration_s.p90
    assert 0.8 < done.ettr.p10 <= done.ettr.p50 <= done.ettr.p90 < 1.0
    assert math.fsum(done.failures_per_day.values()) == pytest.approx(86400.0 / done.mtbf_s)
    assert math.fsum(done.shares.values()) == pytest.approx(1.0)
    assert done.losses_usd["on_demand"] > 0
    assert done.losses_j > 0
    for choices in (done.tier_choices, done.interval_choices, done.spare_choices, done.unit_choices):
        assert sum(each.chosen for each in choices) == 1
    chosen = next(each for each in done.spare_choices if each.chosen)
    assert chosen.chip_hours == min(each.chip_hours for each in done.spare_choices)
    tree = badput(done)
    assert sum(child.value for child in tree.children) == tree.value


def test_an_answer_without_failures_is_the_answer_of_train(asked: tuple[TrainingAnswer, TrainingQuestion]) -> None:
    run = asked[0].run
    assert run is not None
    plain = answer_until_done(*asked, ReliabilityOptions(failures="none", num_runs=10))
    assert plain.duration_s.p50 == plain.duration_s.p90 == run.duration_s.expected
    assert plain.cost_usd["on_demand"].p50 == run.cost_usd["on_demand"].expected
    assert plain.energy_j.p50 == pytest.approx(run.energy_j.expected)
    assert plain.spare_chips == 0
    assert math.isinf(plain.mtbf_s)
    assert "nothing fails" in rendered(reliability_blocks(plain))


def test_the_same_question_gives_the_same_json(asked: tuple[TrainingAnswer, TrainingQuestion]) -> None:
    options = ReliabilityOptions(num_runs=20, spares_frac=0.02, seed=5)
    one, other = (dumped(reliability_json(answer_until_done(*asked, options))) for _ in range(2))
    assert one == other
    assert '"finishes": true' in one


def test_the_table_says_when_and_why(done: ReliableRun) -> None:
    text = rendered(reliability_blocks(done, datetime.date(2027, 1, 1)))
    for words in ("what breaks", "software", "effective training time", "finish", "2027-", "Young advises", "spares"):
        assert words in text
    assert finish_date(datetime.date(2027, 1, 1), 86400.0 * 1.5) == datetime.date(2027, 1, 3)
    assert finish_date(datetime.date(2027, 1, 1), math.inf) is None


def test_better_recovery_is_better(asked: tuple[TrainingAnswer, TrainingQuestion]) -> None:
    ettr = [
        answer_until_done(*asked, ReliabilityOptions(recovery=name, num_runs=50)).ettr.p50
        for name in ("manual", "automatic", "hot")
    ]
    assert ettr == sorted(ettr)


def test_a_run_that_never_ends_names_the_largest_that_would(
    asked: tuple[TrainingAnswer, TrainingQuestion], tmp_path: Path
) -> None:
    path = tmp_path / "rates.toml"
    path.write_text("chip_per_year = 100\n")
    options = ReliabilityOptions(failures=path, num_runs=20, spares_frac=0.5)
    never = answer_until_done(*asked, options)
    assert not never.finishes
    assert 0 < never.largest_chips < 8192
    assert f"{never.largest_chips:,} chips" in rendered(reliability_blocks(never))
    assert '"finishes": false' in dumped(reliability_json(never))
    assert [each.name for each in never.remedies] == ["--recovery hot", "--elastic", "--recovery hot --elastic"]
    path.write_text("chip_per_year = 400000\nsoftware_per_day = 100000\n")
    assert answer_until_done(*asked, options).largest_chips == 0


def test_a_run_that_hardly_gets_on_is_decided_by_a_few_runs(asked: tuple[TrainingAnswer, TrainingQuestion]) -> None:
    """On a borderline machine most runs would be given up: it says so, and does not simulate a thousand of them."""
    work_s = asked[0].run.duration_s.expected if asked[0].run else 0.0
    options = ReliabilityOptions(maintenance_every_s=work_s / 50, maintenance_s=work_s / 5, num_runs=1000)
    slow = answer_until_done(*asked, options)  # a share of 1/11 is left for training
    assert not slow.finishes
    assert slow.num_runs < 1000
    assert "never ends" in rendered(reliability_blocks(slow))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"spares_frac": 1.01}, "0 to 100 %"),
        ({"spares_frac": -0.1}, "0 to 100 %"),
        ({"spares_frac": math.nan}, "0 to 100 %"),
        ({"checkpoint_s": 0.0}, "above 0"),
        ({"checkpoint_s": -60.0}, "above 0"),
        ({"failure_unit": "blade"}, "node, domain, rack"),
        ({"tiers": ("tape",)}, "peer, nvme, store"),
        ({"tiers": ()}, "twice, or none"),
        ({"tiers": ("store", "store")}, "twice, or none"),
        ({"least_replicas_frac": 0.0}, "up to 1"),
        ({"maintenance_s": 60.0}, "how often"),
        ({"num_runs": 0}, "1 to 100,000"),
        ({"recovery": "none"}, "automatic"),
        ({"failures": "missing.toml"}, "can't read"),
    ],
)
def test_bad_options_are_explained(
    asked: tuple[TrainingAnswer, TrainingQuestion], options: dict[str, object], said: str
) -> None:
    with pytest.raises(ScenarioError, match=said):
        answer_until_done(*asked, ReliabilityOptions(**options))  # type: ignore[arg-type]


def test_what_cannot_run_cannot_fail() -> None:
    question = TrainingQuestion(model="llama-3.1-405b", system="p5.48xlarge", chips=8)
    with pytest.raises(ScenarioError, match="no plan can run"):
        answer_until_done(answer_training(question), question)


# published rows


def row(**cells: str) -> dict[str, str]:
    base = {"id": "x", "category": "interruptions", "system": "", "operator": "", "chip": "NVIDIA H100", "period": ""}
    return base | {"n_accel": "16384", "unit": "", "value_kind": "measured", "value": "1", "source": "s"} | cells


def test_own_rows_are_predicted() -> None:
    with (OWN_TRUTH / "reliability.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {each.id: each for each in predict_rows(rows)}
    assert len(found) == len(rows)
    scored = [each for each in found.values() if each.status == "scored"]
    assert len(scored) >= 20

    def error(row_id: str) -> float:
        each = found[row_id]
        assert each.predicted is not None
        assert each.measured is not None
        return abs(each.predicted / each.measured - 1)

    sizes = [each["id"] for each in rows if each["system"] == "RSC" and each["role"] != "constant"]
    assert len(sizes) == 3
    assert max(error(each) for each in sizes) < 0.25
    llama = [each for each in rows if "405B" in each["system"]]
    assert all(each["role"] == "" for each in llama)  # no constant comes from them
    inside = [
        each for each in scored
        if each.low is not None and each.high is not None and each.measured is not None
        and each.low <= each.measured <= each.high
    ]  # fmt: skip
    assert len(inside) >= 0.6 * len(scored)


def test_rows_are_read_by_what_they_say() -> None:
    rows = [
        row(id="a", metric="job mean time to interrupt", unit="h"),
        row(id="b", metric="job mean time to interrupt", unit="min"),
        row(id="c", metric="interruptions, unexpected", period="54 days, 2024"),
        row(id="d", metric="interruptions, unexpected", period="2024-01-01 to 2024-01-28"),
        row(id="e", metric="goodput", unit="%", value=">90"),
        row(id="f", metric="checkpoint size", unit="TB", system="a 100B model", n_accel=""),
    ]
    a, b, c, d, e, f = predict_rows(rows)
    assert b.predicted == pytest.approx(60 * a.predicted)  # type: ignore[operator]
    assert c.predicted == pytest.approx(2 * d.predicted)  # type: ignore[operator]
    # nothing fails while the job is down for its last failure
    course = load_recovery("automatic")
    down_s = course.detection_s + course.isolation_s + course.restart_s + course.warm_up_s
    assert c.predicted == pytest.approx(54 * 24 / (a.predicted + down_s / 3600))  # type: ignore[operator]
    assert e.measured == 90.0
    assert f.predicted == pytest.approx(1.4)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"metric": "job mean time to interrupt", "unit": "h", "n_accel": ""}, "how many chips"),
        ({"metric": "job mean time to interrupt", "unit": "kg"}, "is no time"),
        ({"metric": "job mean time to interrupt", "unit": "h", "chip": "abacus"}, "no chip"),
        ({"metric": "job mean time to interrupt", "unit": "h", "value": "often"}, "not a number"),
        ({"metric": "job mean time to interrupt", "unit": "h", "role": "constant"}, "a constant"),
        ({"metric": "interruptions, unexpected", "period": "weeks"}, "how many days"),
        ({"metric": "colour of the rack"}, "no such figure"),
        ({"metric": "goodput", "unit": "requests"}, "is no share"),
        ({"metric": "checkpoint size", "unit": "TB"}, "how large the model"),
    ],
)
def test_rows_that_cannot_be_predicted_say_why(cells: dict[str, str], reason: str) -> None:
    (found,) = predict_rows([row(**cells)])
    assert found.status == "skipped"
    assert reason in found.reason


# jitter


@pytest.mark.parametrize("noise", NOISES, ids=lambda each: each.__name__)
@pytest.mark.parametrize("ranks", [1, 2, 48, 1000])
def test_the_expected_maximum_is_what_sampling_gives(noise: type, ranks: int) -> None:
    jitter = Jitter(chip_frac=0.0, noise_frac=0.01, noise=noise())
    mean, error = sampled_slowdown(jitter, ranks, num_steps=200, num_machines=40)
    assert float(jitter.slowdown(ranks)) == pytest.approx(mean, abs=4.5 * error)


def test_chips_and_noise_together_are_what_sampling_gives() -> None:
    mean, error = sampled_slowdown(load_jitter(), 384, num_machines=200)
    assert float(load_jitter().slowdown(384)) == pytest.approx(mean, abs=4.5 * error)


def test_more_ranks_are_never_faster_and_one_rank_waits_for_nobody() -> None:
    ranks = np.array([1.0, 8.0, 1e3, 1e6])
    slow = np.asarray(load_jitter().slowdown(ranks))
    assert slow[0] == pytest.approx(1.0, abs=1e-9)
    assert np.all(np.diff(slow) > 0)
    assert slow[3] - 1 < 2 * (slow[2] - 1)  # it grows with the root of a logarithm
    assert np.all(np.asarray(load_jitter().slowdown(ranks, barriers=100)) >= slow)
    with pytest.raises(ScenarioError, match="1 or more"):
        load_jitter().slowdown(0)
    with pytest.raises(ScenarioError, match="barriers"):
        load_jitter().slowdown(8, barriers=0)
