"""What an answer depends on: every bar is a run of its own, and all of them come out of one array call."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import ultratwin
from ultratwin.catalogue.facts import Fact
from ultratwin.errors import ScenarioError
from ultratwin.hardware.system import System, load_system
from ultratwin.planning.run import run_outcomes
from ultratwin.planning.sensitivity import Tornado, UsedFact, results_with, sensitivity, used_facts
from ultratwin.report.json import dumped
from ultratwin.report.sensitivity import nudged_block, tornado_block, tornado_json
from ultratwin.report.tables import rendered

LAYOUT = {"tensor_parallel_size": 8, "pipeline_parallel_size": 2, "micro_batch_size": 1, "global_batch_size": 64}


def asked(system: str | System = "trn2.48xlarge", **more: object) -> ultratwin.TrainResult:
    return ultratwin.train("llama3.1-8b", system, chips=64, tokens=1e12, **(LAYOUT | more))  # type: ignore[arg-type]


def tornado_of(result: ultratwin.TrainResult) -> Tornado:
    return sensitivity(result.answer, result.question)


@pytest.fixture(scope="module")
def result() -> ultratwin.TrainResult:
    return asked()


@pytest.fixture(scope="module")
def tornado(result: ultratwin.TrainResult) -> Tornado:
    return tornado_of(result)


def test_expected_is_the_answer(result: ultratwin.TrainResult, tornado: Tornado) -> None:
    run = result.run
    assert tornado.offer == next(iter(run.cost_usd))
    assert tornado.expected["time"] == pytest.approx(run.duration_s.expected, rel=1e-12)
    assert tornado.expected["cost"] == pytest.approx(run.cost_usd[tornado.offer].expected, rel=1e-12)
    assert tornado.expected["energy"] == pytest.approx(run.energy_j.expected, rel=1e-12)
    assert tornado.expected["carbon"] == pytest.approx(run.carbon_kg.expected, rel=1e-12)


def test_every_bar_is_a_run_with_that_fact_replaced(result: ultratwin.TrainResult, tornado: Tornado) -> None:
    assert len(tornado.ranges) >= 8
    assert len(tornado.nudged) >= 12
    for bar in (*tornado.ranges, *tornado.nudged):
        for value, found in ((bar.low, bar.at_low), (bar.high, bar.at_high)):
            alone = results_with(result.answer, result.question, {bar.fact.name: np.array([bar.fact.in_si(value)])})
            assert {name: float(each[0]) for name, each in alone.items()} == pytest.approx(found, rel=1e-9)


def with_fact(system: System, key: str, value: float) -> System:
    """A system of the user's own that differs from a catalogued one in one rate, fact and value alike."""
    fact = system.facts[key]
    changed = Fact(value=value, unit=fact.unit, status="measured", source=fact.source)
    pool = system.pool
    pool = dataclasses.replace(pool, domain=dataclasses.replace(pool.domain, bytes_per_s=changed.si))
    return dataclasses.replace(system, pools=(pool,), facts=dict(system.facts) | {key: changed})


def test_a_bar_is_what_train_says_of_such_a_system(result: ultratwin.TrainResult, tornado: Tornado) -> None:
    """The chart against the front door: a system whose links are a tenth slower, asked as a user would."""
    (bar,) = [bar for bar in tornado.nudged if bar.fact.key == "scale_up_bytes_per_s"]
    slower = asked(with_fact(load_system("trn2.48xlarge"), "scale_up_bytes_per_s", bar.low))
    assert bar.at_low["time"] > result.run.duration_s.expected
    assert slower.run.duration_s.expected == pytest.approx(bar.at_low["time"], rel=1e-9)
    assert slower.run.energy_j.expected == pytest.approx(bar.at_low["energy"], rel=1e-9)


def test_all_facts_are_one_array_call(result: ultratwin.TrainResult, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call lists the facts, one evaluates all their ends: not a loop of runs."""
    calls = []

    def counted(*arguments: object, **more: object) -> object:
        calls.append(1)
        return run_outcomes(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("ultratwin.planning.sensitivity.run_outcomes", counted)
    tornado_of(result)
    assert len(calls) == 2


@pytest.mark.parametrize("objective", ["time", "cost", "energy", "carbon"])
def test_bars_are_sorted_by_swing(tornado: Tornado, objective: str) -> None:
    for bars in (tornado.sorted_ranges(objective), tornado.sorted_nudged(objective)):
        swings = [bar.swing(objective) for bar in bars]
        assert swings == sorted(swings, reverse=True)
    assert tornado.ranges == tornado.sorted_ranges("time")


def test_ranges_are_the_facts_own(tornado: Tornado) -> None:
    for bar in tornado.ranges:
        assert (bar.low, bar.high) == (bar.fact.low, bar.fact.high)
        assert bar.low <= bar.fact.value <= bar.high
        assert bar.fact.source
    for bar in tornado.nudged:
        assert (bar.low, bar.high) == pytest.approx((0.9 * bar.fact.value, 1.1 * bar.fact.value))


def test_what_depends_on_what(tornado: Tornado) -> None:
    """Physics: money is proportional to its price, CO2 to the grid's, power tells nothing about time."""
    by_key = {bar.fact.key: bar for bar in tornado.nudged if bar.fact.key != "spot"}
    price = by_key["on_demand"]
    assert tornado.offer == "on_demand"
    assert price.elasticity("cost") == pytest.approx(1.0)
    assert price.elasticity("time") == price.elasticity("energy") == 0.0
    assert by_key["carbon_kg_per_j"].elasticity("carbon") == pytest.approx(1.0)
    assert by_key["carbon_kg_per_j"].swing("energy") == 0.0
    assert by_key["pue"].elasticity("energy") == pytest.approx(1.0)
    assert by_key["tdp_w"].swing("time") == 0.0
    assert 0.3 < by_key["tdp_w"].elasticity("energy") < 1
    assert by_key["step_spread_frac"].elasticity("time") == pytest.approx(1.0)
    assert -1 < by_key["array_bf16_flop_per_s"].elasticity("time") < -0.3
    assert by_key["memory_bytes_per_s"].elasticity("time") < 0


def test_prices_of_other_offers_change_nothing(tornado: Tornado) -> None:
    assert not [bar for bar in (*tornado.ranges, *tornado.nudged) if bar.fact.key == "capacity_block"]


def test_own_price_is_a_fact_too() -> None:
    tornado = tornado_of(asked("trn3-gen2-ultraserver", price_per_chip_hour=4.0))
    assert tornado.offer == "your price"
    (bar,) = [bar for bar in tornado.nudged if bar.fact.key == "price_per_chip_hour"]
    assert bar.fact.value == pytest.approx(4.0)
    assert bar.at_high["cost"] == pytest.approx(1.1 * tornado.expected["cost"])


def test_an_offer_of_the_users_choice(result: ultratwin.TrainResult) -> None:
    tornado = sensitivity(result.answer, result.question, "on_demand")
    assert tornado.offer == "on_demand"
    assert tornado.expected["cost"] == pytest.approx(result.run.cost_usd["on_demand"].expected, rel=1e-12)
    assert "(on demand)" in tornado_block(tornado, "cost").title


def test_without_a_price_there_is_no_cost() -> None:
    tornado = tornado_of(asked("trn3-gen2-ultraserver"))
    assert "cost" not in tornado.expected
    assert all("cost" not in bar.at_low for bar in tornado.ranges)
    assert "no price" in rendered([tornado_block(tornado, "cost")])


def test_region_by_another_name_is_the_same_fact() -> None:
    one, two = (used_facts(each.answer, each.question) for each in (asked(region="world"), asked(region="global")))
    assert one.keys() == two.keys()


def test_an_answer_without_a_run_is_refused() -> None:
    result = ultratwin.train("meta-llama/Llama-3.1-405B", "trn2.48xlarge", chips=16)
    assert not result.feasible
    with pytest.raises(ScenarioError, match="no plan can run"):
        tornado_of(result)


def test_facts_speak_their_own_unit() -> None:
    fact = UsedFact(name="a", key="a", unit="GB/s", low=1.0, value=2.0, high=2.0, status="published", source="somebody")
    assert fact.si == 2e9
    assert fact.in_si(3) == 3e9
    assert fact.has_range


def test_chart(tornado: Tornado) -> None:
    text = rendered([tornado_block(tornado, "energy"), nudged_block(tornado, "energy")], width=110)
    lines = [line for line in text.splitlines() if "|" in line]
    (pue,) = [line for line in lines if line.strip().startswith("PUE") and "1.04" in line]
    assert "at 1.04" in pue.split("|")[0]
    assert "at 1.63" in pue.split("|")[1]
    assert pue.split("|")[1].count("█") > pue.split("|")[0].count("█") > 0
    assert len({line.index("|") for line in lines[: len(tornado.ranges)] if line.strip()}) == 1, "one middle line"
    assert all(len(line) <= 110 for line in text.splitlines())


@pytest.mark.parametrize("width", [40, 80, 200])
def test_chart_fits(tornado: Tornado, width: int) -> None:
    text = rendered([tornado_block(tornado, "time")], width=width)
    assert "|" in text


def test_json_is_the_same_twice(result: ultratwin.TrainResult, tornado: Tornado) -> None:
    text = dumped(tornado_json(tornado))
    assert text == dumped(tornado_json(tornado_of(result)))
    data = json.loads(text)
    assert {"fact", "unit", "value", "low", "high", "at_low", "at_high", "sources"} <= data["ranges"][0].keys()
    assert data["nudged"][0]["elasticity"]["time"] == pytest.approx(1.0)
    assert all(bar["sources"] for bar in data["ranges"])
