"""Power: what a step draws, the window over time, caps, ballast, batteries, measured nodes, the verb from outside."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ultratwin
from ultratwin import cli
from ultratwin.errors import ScenarioError
from ultratwin.hardware.system import load_system
from ultratwin.mapping.plan import Plan
from ultratwin.mapping.profile import load_profile
from ultratwin.mapping.recipe import recipe
from ultratwin.mapping.schedules import SCHEDULE_NAMES
from ultratwin.planning.evaluate import Setting
from ultratwin.planning.power.cap import slowed_activity, slowed_setting, with_ballast, with_battery
from ultratwin.planning.power.chip import idle_power_w, limit_power_w, step_energy_j
from ultratwin.planning.power.profile import StepProfile, smoothed, step_profile
from ultratwin.planning.power.question import PowerAnswer, swing_of
from ultratwin.planning.reliability.slowest_rank import slowest_rank
from ultratwin.report.power import chart, write_series
from ultratwin.timing.step import step_times
from ultratwin.validation.power import NODE_POWER
from ultratwin.validation.result import RowResult
from ultratwin.validation.scoreboard import score, signed_error
from ultratwin.validation.truth_file import OWN_TRUTH, read_truth
from ultratwin.workload.load import load_model

LLAMA = "meta-llama/Llama-3.1-8B"
LAYOUT = {"tensor_parallel_size": 8, "pipeline_parallel_size": 1, "micro_batch_size": 1}


def answer(**options: object) -> PowerAnswer:
    """64 chips of Trn2 training Llama 3.1 8B."""
    asked = {"failures": "none", **LAYOUT, **options}
    return ultratwin.power(LLAMA, "trn2.48xlarge", chips=64, **asked).answer  # type: ignore[arg-type]


def setting(model: str = LLAMA) -> Setting:
    """A model on DGX H100."""
    return Setting(
        model=load_model(model), pool=load_system("dgx-h100").pool, recipe=recipe("bf16"),
        profile=load_profile("megatron"),
    )  # fmt: skip


def plan(**sizes: int) -> Plan:
    """A plan of 64 chips."""
    usual = {"tensor_parallel_size": 2, "pipeline_parallel_size": 4, "data_parallel_size": 8, "micro_batch_size": 1,
             "global_batch_size": 256, "seq_length": 8192, "recompute": 0, "zero_stage": 1, "sequence_parallel": 1,
             "schedule": SCHEDULE_NAMES.index("1f1b")}  # fmt: skip
    return Plan(**(usual | sizes))


# a step


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved", "zb-1p", "zb-2p"])
def test_a_profile_holds_the_energy_of_the_closed_form(schedule: str) -> None:
    chunks = 2 if schedule == "interleaved" else 1
    chosen = plan(schedule=SCHEDULE_NAMES.index(schedule), virtual_pipeline_size=chunks)
    asked = setting("openai/gpt3-175b")  # whose stages are nearly equal: the closed form is that of the slowest
    times = step_times(asked.model, asked.pool, chosen, asked.recipe, asked.profile)
    closed_w = float(np.ravel(step_energy_j(times, asked.pool) / times.total_s)[0])
    profile = step_profile(asked, chosen)
    assert profile.step_s == pytest.approx(float(np.ravel(times.total_s)[0]))
    assert profile.mean_w == pytest.approx(closed_w, rel=0.03)
    assert profile.watts.max() <= float(np.ravel(limit_power_w(asked.pool))[0]) * (1 + 1e-9)
    assert profile.watts.min() > idle_power_w(asked.pool)


def test_energy_of_many_steps_is_that_of_one_so_many_times() -> None:
    profile = step_profile(setting(), plan())
    whole = profile.energy_until_j(np.array([profile.step_s * 7.0]))[0]
    assert whole == pytest.approx(7.0 * profile.mean_w * profile.step_s)
    assert np.all(np.diff(profile.energy_until_j(np.linspace(0.0, 3 * profile.step_s, 500))) > 0)


def test_harmonics_of_a_wave_are_its_own() -> None:
    time = np.arange(1000) / 1000
    wave = StepProfile(
        step_s=2.0, pipeline_s=2.0, spread_s=0.0,
        watts=500 + 100 * np.sin(2 * np.pi * 3 * time) + 10 * np.cos(2 * np.pi * time),
    )  # fmt: skip
    assert wave.harmonics(2) == (pytest.approx((0.5, 10.0)), pytest.approx((1.5, 100.0)))


@given(st.lists(st.floats(0, 1e3), min_size=2, max_size=60), st.floats(0.0, 20.0))
@settings(max_examples=60, deadline=None)
def test_smoothing_replicas_keeps_energy_and_never_widens_the_swing(values: list[float], spread: float) -> None:
    found = smoothed(np.array(values), spread)
    assert found.sum() == pytest.approx(sum(values), rel=1e-9, abs=1e-6)
    assert found.max() <= max(values) + 1e-9
    assert found.min() >= min(values) - 1e-9


def test_the_limit_holds_for_a_micro_batch_and_not_for_each_product() -> None:
    asked, chosen = setting(), plan(tensor_parallel_size=1, pipeline_parallel_size=1, data_parallel_size=64)
    times = step_times(asked.model, asked.pool, chosen, asked.recipe, asked.profile)
    mean = float(np.ravel(step_energy_j(times, asked.pool) / times.total_s)[0])
    assert mean <= float(np.ravel(limit_power_w(asked.pool))[0])
    free = slowed_activity("h100-sxm", 1.0) | {"limit_frac": 10.0}
    assert step_energy_j(times, asked.pool, free) > step_energy_j(times, asked.pool)


# the window


def test_a_window_is_its_segments() -> None:
    found = answer(duration_s=300.0, fail_at_s=120.0, recovery="hot", checkpoint_s=60.0)
    assert found.segments[0].start_s == 0.0
    assert found.segments[-1].end_s == 300.0
    assert all(one.end_s == other.start_s for one, other in zip(found.segments, found.segments[1:], strict=False))
    states = [each.state for each in found.segments]
    assert states[states.index("detection") - 1] == "training"
    assert [each for each in states if each not in ("training", "saving")] == [
        "detection", "isolation", "restart", "reload", "warm-up",
    ]  # fmt: skip
    # a failure stops all at once: what follows detection is the idle machine
    down = next(each for each in found.segments if each.state == "restart")
    inside = (found.time_s >= down.start_s) & (found.time_s + 1.0 <= down.end_s)
    assert found.it_w[inside] == pytest.approx(found.state_w["restart"])
    training = found.state_w["training"]
    assert found.failure_w == pytest.approx(training - found.state_w["restart"])


@given(st.floats(0.05, 5.0))
@settings(max_examples=8, deadline=None)
def test_energy_of_a_window_does_not_depend_on_its_bins(resolution_s: float) -> None:
    coarse = answer(duration_s=100.0, checkpoint_s=40.0)
    fine = answer(duration_s=100.0, checkpoint_s=40.0, resolution_s=100.0 / round(100.0 / resolution_s))
    assert fine.it_w.mean() == pytest.approx(coarse.it_w.mean(), rel=1e-9)
    assert swing_of(fine.it_w, 1.0).most_w <= coarse.profile.watts.max() * 64 * (1 + 1e-9)


def test_failures_come_as_often_as_they_should_and_from_the_seed() -> None:
    asked = {"failures": "default", "recovery": "hot", "duration_s": 86400.0 * 10, "resolution_s": 60.0}
    big = [
        ultratwin.power(
            LLAMA, "trn2-ultracluster", chips=16384, global_batch_size=2048, seed=seed, checkpoint_s=600.0,
            **LAYOUT, **asked,
        ).answer
        for seed in (1, 1, 2)
    ]  # fmt: skip
    counts = [sum(each.state == "restart" for each in found.segments) for found in big]
    assert counts[0] == counts[1]
    assert np.array_equal(big[0].it_w, big[1].it_w)
    assert not np.array_equal(big[0].it_w, big[2].it_w)
    expected = big[0].failures_per_day * 10
    assert abs(counts[0] - expected) < 4 * expected**0.5


def test_a_million_chips_are_their_number_times_one() -> None:
    layout = LAYOUT | {"pipeline_parallel_size": 4, "seq_length": 8192}
    asked = {"failures": "none", "checkpoint_s": float("inf"), "duration_s": 20.0}
    found = ultratwin.power(
        LLAMA, "trn3-ultracluster", chips=1_000_000, global_batch_size=62500, **layout, **asked
    ).answer
    per_chip = found.it_w / 1_000_000
    assert per_chip.mean() == pytest.approx(found.profile.mean_w, rel=0.05)
    assert found.swing.mean_w == pytest.approx(found.it_w.mean() + (found.pue - 1) * found.profile.mean_w * 1e6)


# caps and smoothing


@pytest.mark.parametrize("share", [1.2, 0.97, 0.85, 0.7])
def test_a_cap_holds_and_costs_time(share: float) -> None:
    free = answer(checkpoint_s=float("inf"), duration_s=60.0)
    found = answer(checkpoint_s=float("inf"), duration_s=60.0, cap_w=free.swing.most_w * share)
    assert found.cap is not None
    assert found.swing.most_w <= found.cap.cap_w * (1 + 1e-6)
    if share > 1:
        assert found.cap.clock_frac == 1.0
        assert np.array_equal(found.it_w, free.it_w)
    else:
        assert found.swing.most_w > 0.97 * found.cap.cap_w  # and it is used
        assert found.profile.step_s > free.profile.step_s
        # a little slower saves energy; much slower, hosts draw for longer than chips save
        assert (found.cap.energy_frac < 1.0) == (share > 0.8)


def test_a_slower_clock_draws_less_and_stretches_products_alone() -> None:
    asked, chosen = setting(), plan()
    clocks = np.linspace(0.3, 1.0, 8)
    slower = slowed_setting(asked, clocks)
    times = step_times(asked.model, slower.pool, chosen, asked.recipe, asked.profile)
    power = np.ravel(step_energy_j(times, slower.pool, slowed_activity("h100-sxm", clocks)) / times.total_s)
    assert np.all(np.diff(power) > 0)
    parts = times.parts
    assert np.all(np.diff(np.ravel(parts["linear layers"])) < 0)
    assert np.ravel(parts["norms, activations, casts"]) == pytest.approx(
        np.ravel(parts["norms, activations, casts"])[0]
    )


@given(st.lists(st.floats(1.0, 100.0), min_size=3, max_size=80), st.floats(0.5, 50.0), st.floats(0, 100))
@settings(max_examples=60, deadline=None)
def test_a_battery_gives_back_what_it_takes(values: list[float], constant_s: float, start_w: float) -> None:
    load = np.array(values)
    grid, held = with_battery(load, 1.0, constant_s, start_w)
    assert held[-1] == pytest.approx((grid - load).sum(), abs=1e-6)
    assert grid.max() <= max(load.max(), start_w) + 1e-9
    steepest = np.abs(np.diff(np.concatenate([[start_w], load]))).max()
    span = max(load.max(), start_w) - min(load.min(), start_w)
    assert np.abs(np.diff(grid)).max() <= span * -np.expm1(-1.0 / constant_s) + 1e-9
    assert steepest >= 0
    assert with_ballast(load, 40.0).min() >= 40.0


def test_smoothing_lowers_the_ramp_and_says_what_it_needs() -> None:
    found = answer(duration_s=300.0, fail_at_s=100.0, recovery="hot", smoothing_s=20.0, ballast_frac=0.8)
    even = found.smoothing
    assert even is not None
    assert even.after.ramp_w_per_s < 0.2 * even.before.ramp_w_per_s
    assert even.battery_j > 0
    assert even.burnt_j > 0
    assert found.grid_w.min() >= 0.8 * (found.profile.mean_w * 64 * found.pue) * (1 - 1e-9)


def test_a_run_on_every_grid() -> None:
    found = answer(region="eu-north-1")
    carbon = [each.carbon_kg for each in found.regions]
    assert carbon == sorted(carbon)
    assert len(carbon) > 30
    run = found.training.run
    assert run is not None
    here = next(each for each in found.regions if each.name == "eu-north-1")
    assert here.energy_j == pytest.approx(run.energy_j.expected, rel=1e-6)
    assert here.carbon_kg == pytest.approx(run.carbon_kg.expected, rel=1e-6)


# measurements


def test_measured_nodes_are_met() -> None:
    truth = read_truth(OWN_TRUTH / "power.csv")
    board = score(truth)
    nodes = [each for each in board.rows if each.groups["quantity"] == NODE_POWER and each.status == "scored"]
    assert len(nodes) >= 20
    assert statistics.median(abs(signed_error(each)) for each in nodes) < 0.06
    setup = [each for each in board.rows if "set-up" in each.reason]
    assert len(setup) == 2


COLLECTED = ("id", "kind", "chip", "system", "n_accel", "nodes", "workload", "model", "metric", "value", "unit", "note")
MEDIAN = ("power measured", "node power, median over time", "W/node")


def collected(tmp_path: Path, *rows: dict[str, str]) -> list[RowResult]:
    """Rows in the layout of power_cost.csv, scored as a file of somebody else's."""
    kind, metric, unit = MEDIAN
    usual = {"kind": kind, "metric": metric, "unit": unit, "value": "7000", "note": "AC"}
    path = tmp_path / "held.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLLECTED, restval="")
        writer.writeheader()
        writer.writerows(usual | {"id": f"R{at}"} | row for at, row in enumerate(rows))
    board = score(read_truth(path))
    assert board.format.name == "power_cost"
    assert [each["id"] for each in json.loads(board.to_json())["rows"]] == [f"R{at}" for at in range(len(rows))]
    return list(board.rows)


def lora(chip: str, n_accel: str, nodes: str, **cells: str) -> dict[str, str]:
    workload = "MLPerf Training v5.1 llama2_70b_lora"
    return {"chip": chip, "n_accel": n_accel, "nodes": nodes, "workload": workload, **cells}


@pytest.mark.parametrize(
    ("row", "low_w", "high_w"),
    [
        (lora("NVIDIA H100 SXM5 80GB", "32", "4"), 6500, 8500),  # a size that no submission has
        (lora("NVIDIA H200-SXM 141GB HBM3e", "8", "1"), 6500, 8500),  # a chip that no row has, in an unknown spelling
        (lora("AMD Instinct MI300X", "8", "1"), 6500, 9000),
        (lora("NVIDIA GB200", "36", "9"), 4 * 1000, 4 * 1800),
        (lora("NVIDIA B300", "8", "1", workload="MLPerf Training v5.1 a_new_benchmark"), 9000, 15000),
        (lora("NVIDIA B200", "1024", "128", workload="MLPerf Training v5.0 llama31_405b"), 8000, 12000),
    ],
    ids=lambda each: " ".join(list(each.values())[:2]) if isinstance(each, dict) else "",
)
def test_nodes_of_unseen_sizes_and_chips_score(
    row: dict[str, str], low_w: float, high_w: float, tmp_path: Path
) -> None:
    first, again = collected(tmp_path, row)[0], collected(tmp_path, row)[0]
    assert first.status == "scored"
    assert first.unit == "W/node"
    assert first.predicted is not None
    assert low_w < first.predicted < high_w
    assert first == again


def test_a_row_is_answered_in_its_own_unit(tmp_path: Path) -> None:
    row = lora("NVIDIA B200", "8", "1", value="9629")
    same = [row, row | {"unit": "kW/node", "value": "9.629"}, row | {"unit": "W/accelerator", "value": "1203.625"}]
    run = {"kind": "energy of a run", "chip": "NVIDIA A100 80GB", "model": "Llama 2 70B", "value": "688.1"}
    runs = [
        run | {"metric": "energy at TDP", "unit": "MWh"},
        run | {"metric": "accelerator-hours", "unit": "GPU-h", "value": "1720320"},
    ]
    unseen = {"model": "LLaMA-65B", "value": "1022362", "metric": "accelerator-hours", "unit": "GPU-h"}
    watts, kilowatts, each, energy, hours, searched = collected(tmp_path, *same, *runs, run | unseen)
    said = [found.predicted or 0.0 for found in (watts, kilowatts, each)]
    assert said == pytest.approx([said[0], said[0] / 1000, said[0] / 8])
    assert said[0] > 0
    assert kilowatts.measured == pytest.approx(9.629)
    assert signed_error(watts) == pytest.approx(signed_error(kilowatts)) == pytest.approx(signed_error(each))
    # model cards multiply hours by 400 W
    assert abs(signed_error(searched)) < 0.15
    assert energy.predicted == pytest.approx((hours.predicted or 0.0) * 400e-6)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"kind": "price", "metric": "on demand", "unit": "$/accelerator-hour"}, "rows of kind 'price'"),
        ({"metric": "node power, maximum seen"}, "not predicted: node power, maximum seen, MLPerf Training"),
        ({"kind": "energy of a run", "metric": "energy", "model": "GPT-9"}, "run of 'GPT-9' are not known"),
        ({"chip": "abacus"}, "no chip 'abacus'"),
        ({"value": "much"}, "value is not a number: 'much'"),
        ({"value": "nan"}, "value is not a positive number"),
        ({"n_accel": "1e300"}, "more than 1,000,000"),
        ({"n_accel": "8.5"}, "n_accel is not a whole number"),
        ({"nodes": "3"}, "8 chips don't divide into 3 nodes"),
        ({"unit": "horsepower"}, "node power in 'horsepower', not in W/node"),
        ({"workload": "MLPerf Training v5.0 gpt3"}, "does not fit into memory"),
    ],
)
def test_what_is_not_predicted_says_why(cells: dict[str, str], reason: str, tmp_path: Path) -> None:
    (found,) = collected(tmp_path, lora("NVIDIA H100", "8", "1") | cells)
    assert found.status == "skipped"
    assert reason in found.reason


def test_a_window_of_set_up_is_told_by_its_95th_percentile(tmp_path: Path) -> None:
    row = lora("NVIDIA H100", "8", "1", value="2700")
    median, high = collected(tmp_path, row, row | {"metric": "node power, p95 over time", "value": "6800"})
    assert "set-up" in median.reason
    assert "node power, p95" in high.reason


# the slowest rank


def test_waiting_for_the_slowest_rank_is_in_the_step_and_explained() -> None:
    found = [
        slowest_rank(ultratwin.train(LLAMA, "trn2-ultracluster", chips=chips, global_batch_size=2048, **LAYOUT).answer)
        for chips in (64, 1024, 16384)
    ]  # fmt: skip
    for each in found:
        assert each.waiting_frac == pytest.approx(each.spread_frac + each.tail_frac)
        assert 0 <= each.spread_frac <= each.waiting_frac < 0.1
    assert found[0].waiting_frac < found[1].waiting_frac < found[2].waiting_frac
    # 16,384 ranks: 1.24 % x (m(16384) - m(8)), m of normal draws 3.97 and 1.42
    assert found[2].spread_frac == pytest.approx(0.0124 * (3.97 - 1.42) / (1 + 0.0124 * 3.97), rel=0.01)
    with pytest.raises(ScenarioError, match="no plan can run"):
        slowest_rank(ultratwin.train("meta-llama/Llama-3.1-405B", "p5.48xlarge").answer)


# from outside


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = cli.DONE) -> str:
    assert cli.run(["power", LLAMA, "--system", "trn2.48xlarge", "--chips", "64", *words]) == code
    out, err = capsys.readouterr()
    return err if code == cli.BAD_INPUT else out


def test_the_verb_prints_a_chart_and_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    series = tmp_path / "power.csv"
    out = said(capsys, "--cap", "60kW", "--smoothing", "30s", "--series", str(series))
    for word in ("the window: MW of the site", "swing", "ramp per s", "cap of 60 kW", "battery holds", "eu-north-1"):
        assert word in out, word
    lines = series.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "time_s,it_w,site_w,grid_w"
    assert len(lines) == 601
    data = json.loads(said(capsys, "--json", "--duration", "10s", "--resolution", "100ms"))
    assert len(data["series"]["site_w"]) == 100
    assert data["swing"]["most_w"] <= data["step"]["swing"]["most_w"] * (1 + 1e-9)
    assert said(capsys, "--json", "--duration", "10s") == said(capsys, "--json", "--duration", "10s")


def test_a_series_for_perfetto(tmp_path: Path) -> None:
    found = answer(duration_s=20.0)
    write_series(found, tmp_path / "power.json")
    trace = json.loads((tmp_path / "power.json").read_text(encoding="utf-8"))
    counters = [each for each in trace["traceEvents"] if each["ph"] == "C" and each["name"] == "site_w"]
    assert len(counters) == 20 + len(found.profile.watts)
    with pytest.raises(ScenarioError, match="can't write"):
        write_series(found, tmp_path / "nowhere" / "power.csv")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--cap", "10kW"), "is below what 64 idle chips draw"),
        (("--cap", "34kW"), "or more: training at 25%"),
        (("--duration", "0s"), "a window of 0 s"),
        (("--region", "mars"), 'unknown region "mars"'),
        (("--resolution", "20min"), "no longer than the window"),
        (("--fail-at", "11min"), "within the window"),
        (("--ballast", "120%"), "0 to 100 %"),
        (("--series", "power.xlsx"), ".csv or .json"),
        (("--checkpoint", "0s"), "above 0, auto or none"),
    ],
)
def test_bad_input_is_explained(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], complaint: str) -> None:
    assert complaint in said(capsys, *words, code=cli.BAD_INPUT)


def test_what_fits_nowhere_draws_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["power", "meta-llama/Llama-3.1-405B", "--system", "p5.48xlarge"]) == cli.NOTHING_FEASIBLE
    assert "nothing can run" in capsys.readouterr().out


def test_a_chart_has_one_column_for_each_part() -> None:
    lines = chart(np.array([1e6] * 72 + [4e6] * 72), 100.0)
    assert lines[0].count("█") == 36
    assert lines[-3].count("█") == 72
