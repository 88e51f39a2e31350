"""`plan train`: the best of every system within deadline and budget, and what comes nearest where nothing is."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

import ultratwin
from ultratwin import ScenarioError, cli
from ultratwin.hardware.system import load_system
from ultratwin.planning.plan_training import ChipRange, sizes_of
from ultratwin.planning.search import search
from ultratwin.planning.training import training_setting

SYSTEMS = ("trn2.48xlarge", "p5.48xlarge", "trn3-gen2-ultraserver")
DAY = 86400.0


def planned(**options: Any) -> ultratwin.PlanResult:
    asked: dict[str, Any] = {"chips": [64, 288], "tokens": 1e12, "workers": 1} | options
    return ultratwin.plan_train("meta-llama/Llama-3.1-8B", SYSTEMS, **asked)


def test_each_choice_is_what_train_says_of_it() -> None:
    result = planned(deadline_s=200 * DAY)
    assert len(result.choices) == 3
    for choice in result.choices:
        assert choice.option is not None
        assert choice.answer is not None
        run = choice.answer.run
        assert run is not None
        assert run.duration_s.expected == pytest.approx(choice.option.duration_s, rel=1e-9)
        assert run.energy_j.expected == pytest.approx(choice.option.energy_j, rel=1e-9)
        assert run.carbon_kg.expected == pytest.approx(choice.option.carbon_kg, rel=1e-9)
        if choice.price:
            assert run.cost_usd[choice.price].expected == pytest.approx(choice.option.cost_usd, rel=1e-9)
        else:
            assert math.isnan(choice.option.cost_usd)
    assert result.best_result().plan == result.best.plan


@pytest.mark.parametrize("objective", ["time", "cost", "energy", "carbon"])
@pytest.mark.parametrize("deadline_days", [10.0, 40.0, 1000.0])
def test_the_best_is_the_least_of_all_that_meet_the_deadline(objective: str, deadline_days: float) -> None:
    result = planned(objectives=(objective,), deadline_s=deadline_days * DAY)
    everything = [option for size in result.answer.sizes for option in size.options]
    meeting = [each for each in everything if each.duration_s <= deadline_days * DAY]
    finite = [each.value(objective) for each in meeting if math.isfinite(each.value(objective))]
    assert result.feasible == bool(finite)
    if finite:
        assert result.best.value(objective) == min(finite)
    else:
        assert result.nearest is not None
        assert result.nearest.duration_s == min(each.duration_s for each in everything)


def test_a_deadline_that_the_most_frugal_plan_misses_takes_the_most_frugal_of_those_that_keep_it() -> None:
    # what is kept of a size is its front: it must hold the best layout under every deadline
    choice = planned(objectives=("energy",), chips=[288]).choices[-1]
    assert choice.question is not None
    asked = dataclasses.replace(choice.question, layout={})
    setting, fixed, ranks = training_setting(asked)
    front = search(setting, ranks, fixed).front
    times = sorted(each.step_s for each in front)
    limit = times[len(times) // 2]
    within = [each for each in front if each.step_s <= limit]
    assert min(each.energy_j for each in within) <= min(each.energy_j for each in front if each.step_s == times[0])


def test_budget_and_deadline_together() -> None:
    free = planned()
    cost = free.best.cost_usd
    assert planned(budget_usd=cost * 1.001).best == free.best
    short = planned(budget_usd=cost * 0.5)
    assert not short.feasible
    assert short.nearest is not None
    assert short.nearest.cost_usd == pytest.approx(cost)
    with pytest.raises(ScenarioError, match="nothing meets"):
        short.best_result()


def test_the_front_is_not_beaten_in_both_objectives() -> None:
    result = planned(objectives=("cost", "time"))
    everything = [option for size in result.answer.sizes for option in size.options if option.value("cost") < math.inf]
    for one in result.front:
        assert not any(
            other.cost_usd <= one.cost_usd and other.duration_s <= one.duration_s
            and (other.cost_usd < one.cost_usd or other.duration_s < one.duration_s)
            for other in everything
        )  # fmt: skip
    assert {min(everything, key=lambda each: each.duration_s).duration_s} <= {each.duration_s for each in result.front}


def test_own_prices_decide() -> None:
    cheap = planned(prices_per_chip_hour={"trn3-gen2-ultraserver": 0.001})
    assert cheap.best.system_id == "trn3-gen2-ultraserver"
    assert cheap.best.cost_usd == pytest.approx(0.001 * cheap.best.chip_hours)
    assert "your price" in cheap.table()


def test_the_answer_is_the_same_whatever_computes_it() -> None:
    one, two = (planned(chips=range(64, 1025), workers=workers) for workers in (1, 2))
    assert one.to_json() == two.to_json()
    data = json.loads(one.to_json())
    assert data["feasible"]
    assert data["search"]["num_candidates"] == data["search"]["num_feasible"] + sum(data["search"]["rejected"].values())
    assert data["systems"][0]["ranges"]["duration_s"]["low"] <= data["best"]["duration_s"]


def test_sizes_of_a_range_are_whole_units_that_the_system_holds() -> None:
    system = load_system("trn3-gen2-ultraserver")
    sizes = sizes_of(system, ChipRange(low=100, high=10_000))
    assert sizes == (128, 144, 288, 432, 576, 864, 1152, 1728, 2304, 3456, 4608, 6912, 9216)
    assert sizes_of(system, ChipRange(low=10, high=100)) != ()
    assert sizes_of(system, ChipRange(low=10**8, high=10**9)) == ()
    assert sizes_of(system, (144, 145, 10**9)) == (144,)


def shell(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.run(["plan", "train", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


ASKED = ("llama3.1-8b", "--tokens", "1T", "--chips", "64,128", "--systems", "trn2.48xlarge,p5.48xlarge")


def test_from_the_shell(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = shell(capsys, *ASKED, "--deadline", "400d", "--budget", "120M", "--objective", "cost,time")
    assert (code, err) == (0, "")
    for word in (
        "best of each system",
        "trn2.48xlarge",
        "p5.48xlarge",
        "how flat the optimum is",
        "front:",
        "evaluated",
    ):
        assert word in out, word


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (("--deadline", "1s"), ("nothing meets", "nearest", "fastest")),
        (("--budget", "1 USD"), ("nothing meets", "cheapest")),
        (("--deadline", "1s", "--budget", "1"), ("nothing meets", "too slow, too dear")),
    ],
)
def test_what_cannot_be_met_shows_the_nearest_and_ends_with_1(
    capsys: pytest.CaptureFixture[str], limits: tuple[str, ...], words: tuple[str, ...]
) -> None:
    code, out, err = shell(capsys, *ASKED, *limits)
    assert (code, err) == (1, "")
    for word in words:
        assert word in out
    code, out, _ = shell(capsys, *ASKED, *limits, "--json")
    data = json.loads(out)
    assert (code, data["feasible"], data["best"]) == (1, False, None)
    assert data["nearest"]["plan"]["num_ranks"] in (64, 128)


def test_a_model_that_fits_nowhere_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = shell(capsys, "deepseek-ai/DeepSeek-V3", "--systems", "p4d.24xlarge", "--chips", "8")
    assert code == 1
    assert "nothing can run" in out
    assert "memory" in out


def test_no_public_price_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = shell(capsys, "llama3.1-8b", "--systems", "trn3-gen2-ultraserver", "--chips", "144")
    assert code == 1
    assert "--price SYSTEM=USD" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--systems", "trn2.48xlarge,nope", "--chips", "64"), 'unknown system "nope"'),
        (("--systems", ",", "--chips", "64"), "no system is named"),
        (("--systems", "trn2.48xlarge", "--chips", "64:16"), '"64:16" is no range'),
        (("--systems", "trn2.48xlarge", "--chips", "many"), '"many"'),
        (("--systems", "trn2.48xlarge", "--chips", "-4"), "chips is -4"),
        (("--systems", "trn2.48xlarge", "--chips", "64", "--objective", "joy"), 'unknown objective "joy"'),
        (("--systems", "trn2.48xlarge", "--chips", "64", "--objective", "cost,time,energy"), "one, or two"),
        (("--systems", "trn2.48xlarge", "--chips", "64", "--deadline", "60 GB"), "60 GB"),
        (("--systems", "trn2.48xlarge", "--chips", "64", "--deadline", "-1d"), "deadline"),
        (("--systems", "trn2.48xlarge", "--chips", "64", "--budget", "0"), "budget"),
        (("--systems", "trn2.48xlarge", "--chips", "64", "--offer", "gift"), 'unknown offer "gift"'),
        (("--systems", "trn2.48xlarge", "--chips", "64", "--price", "trn2.48xlarge"), "is no price"),
        (("--systems", "trn2.48xlarge", "--chips", "64", "--precision", "fp7"), 'unknown precision "fp7"'),
        (("--systems", "trn2.48xlarge", "--chips", "64", "--workers", "-1"), "workers is -1"),
    ],
)
def test_bad_input(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str) -> None:
    code, out, err = shell(capsys, "llama3.1-8b", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
