"""`plan serve`: what is searched, what is chosen, what physics forbids; the verb outside in."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultratwin.api.serving import PlanServeResult, plan_serve
from ultratwin.cli import run
from ultratwin.errors import UltratwinError
from ultratwin.hardware.mix import own_joins
from ultratwin.hardware.system import load_system
from ultratwin.mapping.engine import load_engine
from ultratwin.mapping.serving import ServingPlan
from ultratwin.mapping.serving_formats import serving_formats
from ultratwin.planning.serving.choice import objective_misses, predicted_s
from ultratwin.planning.serving.deployment import OBJECTIVES, deployments
from ultratwin.planning.serving.loads import whole_replicas
from ultratwin.planning.serving.mix import Load, Speculation
from ultratwin.planning.serving.nodes import Served
from ultratwin.planning.serving.point import open_load
from ultratwin.planning.serving.search import Axes, replica_sizes, search_plans, search_points, some_plans
from ultratwin.planning.serving.slo import parse_slos
from ultratwin.planning.serving.steady_state import SteadyState
from ultratwin.planning.serving.transfer import hand_over_s
from ultratwin.planning.serving.verification import transfer_of
from ultratwin.planning.serving.ways import DISAGGREGATED, SPARE_FRAC, Wanted, rented_chips, replicas_needed, role_loads
from ultratwin.timing.serving import ServingSetting, bound_s
from ultratwin.workload.load import load_model

LOAD = Load(prompt_tokens=4000.0, output_tokens=500.0)
SLOS = "ttft:1000 tpot:30"


@cache
def setting(model: str = "llama3.1-70b", system: str = "p5en.48xlarge", fmt: str = "fp8") -> ServingSetting:
    pool = load_system(system).pool
    return ServingSetting(model=load_model(model), pool=pool, formats=serving_formats(fmt), engine=load_engine("vllm"))


def wanted(**changed: Any) -> Wanted:
    values: dict[str, Any] = {
        "load": LOAD, "speculation": Speculation(), "slos": parse_slos(SLOS), "request_rate": 20.0, "burstiness": 1.0,
        "usd_per_chip_s": 0.001, "max_chips": 10**6, "objective": "cost",
    }  # fmt: skip
    return Wanted(**values | changed)


@cache
def planned(**options: Any) -> PlanServeResult:
    chosen: dict[str, Any] = {
        "precisions": ("fp8",), "isl": 4000, "osl": 500, "request_rate": 20.0, "goodput": SLOS, "verify": False,
    }  # fmt: skip
    systems = options.pop("systems", "p5en.48xlarge").split(",")
    return plan_serve(options.pop("model", "llama3.1-70b"), systems, **chosen | options)


class TestSearch:
    """Every split, counted."""

    def test_sizes_of_a_node(self) -> None:
        assert replica_sizes(load_system("p5en.48xlarge").pool, 8) == (1, 2, 3, 4, 6, 8)
        assert 72 in replica_sizes(load_system("gb200-nvl72").pool, 72)

    def test_nothing_is_lost(self) -> None:
        """Every combination can run or is counted under one reason."""
        for model, system, fmt, most in (
            ("llama3.1-70b", "p5en.48xlarge", "bf16", 8),
            ("deepseek-v3", "gb200-nvl72", "fp8-block", 72),
            ("gpt-oss-120b", "trn2.48xlarge", "bf16", 16),
        ):
            base = setting(model, system, fmt)
            plans = search_plans(base, Axes(sizes=replica_sizes(base.pool, most)), LOAD)
            assert len(plans.num_ranks) + sum(plans.rejected.values()) == plans.num_candidates
            assert len(plans.num_ranks) > 0

    def test_fixed_sizes_stay(self) -> None:
        base = setting()
        plans = search_plans(base, Axes(sizes=(4, 8), fixed={"tensor_parallel_size": 4}), LOAD)
        assert set(np.asarray(plans.plan.tensor_parallel_size).tolist()) == {4}

    def test_full_search_is_fast_and_wide(self) -> None:
        """Ten times aiconfigurator's 183 points, in a fraction of its seconds."""
        base = setting()
        deployments(base, load_system("p5en.48xlarge"), Axes(sizes=(8,)), wanted(), ("aggregated",))
        start = time.perf_counter()
        found = deployments(
            base, load_system("p5en.48xlarge"), Axes(sizes=replica_sizes(base.pool, 8)), wanted(), ("aggregated",)
        )
        assert time.perf_counter() - start < 2.0
        assert found.num_points >= 1830

    def test_points_are_what_one_replica_does(self) -> None:
        base = setting()
        plans = search_plans(base, Axes(sizes=(8,), fixed={"tensor_parallel_size": 8}), LOAD)
        points = search_points(base, plans, LOAD, Speculation())
        rate = points.state.request_rate.reshape(-1, len(plans.num_ranks))
        # where prompts no longer fit into one iteration it falls a little
        assert (np.diff(rate, axis=0) > -0.05 * rate[1:]).all()


class TestDeployments:
    """Replicas for a load."""

    @given(st.floats(0.01, 1e5), st.floats(0.01, 1e4))
    def test_enough_replicas_and_no_more(self, rate: float, load: float) -> None:
        found = float(replicas_needed(np.array([rate]), load)[0])
        assert found * rate >= load
        assert found == 1 or (found - 1) * rate < load * 1.021

    @settings(max_examples=8, deadline=None)
    @given(st.sampled_from(["p5en.48xlarge", "trn2.48xlarge"]), st.floats(1.0, 300.0), st.sampled_from([25, 50, 100]))
    def test_replicas_sustain_their_load_and_fewer_would_not_do(self, system: str, rate: float, tpot: int) -> None:
        base = setting("llama3.1-8b", system, "bf16")
        asked = wanted(request_rate=rate, slos=parse_slos(f"ttft:1000 tpot:{tpot}"), objective="chips")
        found = deployments(base, load_system(system), Axes(sizes=(1, 2, 4, 8)), asked, ("aggregated",)).best["chips"]
        (role,) = found.roles

        def alone(count: int) -> SteadyState:
            """One of so many replicas, solved for its very load."""
            axes = Axes(sizes=(1, 2, 4, 8), max_num_batched_tokens=role.max_num_batched_tokens)
            plans = search_plans(base, axes, LOAD)
            at = next(each for each in range(len(plans.num_ranks)) if plans.plan.at(each) == role.plan)
            limits = some_plans(plans, np.array([at])).limits
            load = rate * (1.0 + SPARE_FRAC) / count
            return open_load(Served(setting=base, load=LOAD), role.plan, limits, load, float(count))

        enough = alone(role.replicas)
        assert role.replicas * role.request_rate >= rate
        assert role.request_rate <= enough.sustainable_rate[0]
        assert objective_misses(enough, asked.slos, LOAD)[0] < 1.03
        if role.replicas > 1:
            assert objective_misses(alone(role.replicas - 1), asked.slos, LOAD)[0] > 0.97

    def test_a_small_fleet_misses_no_number(self) -> None:
        """Of few replicas every number is looked at: the answer is the fewest that keep the objectives."""
        base = setting("llama3.1-8b", "p5en.48xlarge", "bf16")
        plans = search_plans(base, Axes(sizes=(1,), max_num_batched_tokens=8192), LOAD)
        points = whole_replicas(search_points(base, plans, LOAD, Speculation(), total_rate=40.0), 40.0)
        counts = np.sort(np.round(40.0 / points.state.request_rate))
        assert np.array_equal(counts[:40], np.arange(counts[0], counts[0] + 40))

    def test_nodes_are_rented_whole(self) -> None:
        system = load_system("p5en.48xlarge")

        def rented(chips: int, replicas: int) -> float:
            return float(rented_chips(system, np.array([chips]), np.array([replicas]))[0])

        assert (rented(8, 1), rented(4, 3), rented(3, 3), rented(16, 2), rented(1, 9)) == (8, 16, 16, 32, 16)

    def test_the_best_keeps_its_objectives(self) -> None:
        for goal in OBJECTIVES:
            best = planned(objective=goal).best
            assert best.meets
            assert all(value <= limit for (_, value), limit in zip(best.objectives, (1.0, 0.03), strict=True))
            assert best.request_rate == 20.0
            served = sum(role.replicas * role.request_rate for role in best.roles if role.name != "prefill")
            assert served >= 20.0

    def test_each_objective_is_least(self) -> None:
        found = {goal: planned(objective=goal).best for goal in OBJECTIVES}
        for goal in OBJECTIVES:
            least = min(option.value(goal) for option in found.values())
            assert found[goal].value(goal) == pytest.approx(least, rel=1e-9)

    def test_stricter_objectives_take_more_chips(self) -> None:
        chips = [planned(goodput=f"ttft:2000 tpot:{limit}", objective="chips").best.chips for limit in (100, 40, 20)]
        assert chips == sorted(chips)

    def test_more_load_takes_more_chips(self) -> None:
        chips = [planned(request_rate=rate, objective="chips").best.chips for rate in (5.0, 20.0, 80.0)]
        assert chips == sorted(chips)
        assert chips[0] < chips[2]

    def test_percentiles_take_more_chips(self) -> None:
        rows = dict(planned().answer.by_attainment)
        chips = [option.chips for share in (0.5, 0.9, 0.99) if (option := rows[share]) is not None]
        assert len(chips) == 3
        assert chips == sorted(chips)

    def test_the_front_is_a_front(self) -> None:
        front = planned(systems="p5en.48xlarge,trn2.48xlarge").front
        assert len(front) > 3
        for one in front:
            for other in front:
                better = other.tokens_per_s_per_chip > one.tokens_per_s_per_chip * (
                    1 + 1e-9
                ) and other.tokens_per_s_per_user > one.tokens_per_s_per_user * (1 + 1e-9)
                assert not better

    def test_disaggregated(self) -> None:
        best = planned(modes=(DISAGGREGATED,)).best
        assert [role.name for role in best.roles] == ["prefill", "decode"]
        assert best.chips == sum(role.replicas * role.chips for role in best.roles)

    def test_roles_split_a_request(self) -> None:
        prefill, decode = role_loads(LOAD)
        assert float(prefill.new_tokens) == 4000
        assert float(prefill.output_tokens) == 1
        assert float(decode.new_tokens) == 1
        assert float(decode.decode_context) == float(LOAD.decode_context)

    def test_a_cache_takes_as_long_as_the_wire(self) -> None:
        """70B keeps 8 groups of 128 x 2 numbers of 2 bytes in each of 80 layers: 327,680 bytes a token."""
        base = setting()
        least = 4000 * 327_680 / (8 * float(base.pool.fabric.bytes_per_s))
        each = np.array([8.0])
        joins = own_joins(load_system("p5en.48xlarge"))
        found = float(hand_over_s((base, base), LOAD, (each, each), np.array([64.0]), joins)[0])
        assert least < found < 1.2 * least

    def test_a_rate_left_out_asks_for_the_best_replica(self) -> None:
        best = planned(request_rate=None, objective="cost").best
        assert best.roles[0].replicas == 1 or best.mode == DISAGGREGATED
        assert best.meets


class TestWhatCannotBe:
    """Infeasible is a value with a reason."""

    def test_physics_is_named(self) -> None:
        result = planned(goodput="ttft:1000 tpot:1")
        assert not result.feasible
        (bound,) = [each for each in result.bounds if each.forbids]
        assert bound.objective == "tpot:1"
        assert bound.cause == "bytes over memory bandwidth"
        assert bound.least_s > 0.001
        # bytes of one chip over its bandwidth are the seconds
        assert bound.amount / bound.rate == pytest.approx(bound.least_s)
        assert result.nearest is not None
        assert result.nearest.miss > 1
        text = result.table()
        assert "physics forbids it" in text
        assert "nearest" in text

    def test_first_tokens_are_bound_by_operations(self) -> None:
        result = planned(goodput="ttft:1 tpot:50")
        (bound,) = [each for each in result.bounds if each.forbids]
        assert bound.cause == "FLOP over peak"

    def test_bounds_are_those_of_an_iteration(self) -> None:
        result = planned()
        bound = next(each for each in result.bounds if each.objective.startswith("tpot"))
        least = bound_s(
            setting(), ServingPlan(tensor_parallel_size=8), tokens=1.0, decode_sequences=1.0, decode_context=4000.0
        )
        assert bound.least_s == pytest.approx(float(np.ravel(least)[0]))

    def test_no_prediction_beats_the_bounds(self) -> None:
        for goodput in (SLOS, "ttft:5000 tpot:200"):
            result = planned(goodput=goodput)
            limits = {bound.objective: bound.least_s for bound in result.bounds}
            for option in (*result.choices, *result.front):
                assert all(value >= limits[name] for name, value in option.objectives)

    def test_too_few_chips_names_the_nearest(self) -> None:
        result = planned(max_chips=4)
        assert not result.feasible
        assert result.nearest is not None
        assert "more than the 4 chips" in result.table() or result.nearest.miss > 1

    def test_nothing_fits(self) -> None:
        result = planned(model="deepseek-v3", systems="l40s-8", precisions=("bf16",))
        assert not result.feasible
        assert result.nearest is None
        assert "the weights do not fit" in result.table()

    def test_a_price_nobody_knows(self) -> None:
        result = planned(systems="mi300x-8", objective="cost")
        assert result.answer.best is None or math.isfinite(result.best.usd_per_s)
        priced = plan_serve(
            "llama3.1-70b", ["mi300x-8"], precisions=("fp8",), isl=4000, osl=500, request_rate=20.0, verify=False,
            goodput="ttft:5000 tpot:100", prices_per_chip_hour={"mi300x-8": 2.0},
        )  # fmt: skip
        assert priced.best.usd_per_s == pytest.approx(priced.best.rented_chips * 2.0 / 3600)


class TestVerified:
    """The best is simulated."""

    def test_the_simulation_keeps_the_objectives(self) -> None:
        pytest.importorskip("numba")
        for mode in ("aggregated", "disaggregated"):
            result = plan_serve(
                "llama3.1-70b", ["p5en.48xlarge"], precisions=("fp8",), isl=2000, osl=200, request_rate=30.0,
                goodput="ttft:1000 tpot:40", modes=(mode,),
            )  # fmt: skip
            found = result.answer.verification
            assert found is not None
            assert found.kept
            assert found.simulated is not None
            assert not found.simulated.overloaded
            assert result.best.mode == mode
            assert "simulated with" in result.table()

    def test_transfers_are_those_of_the_closed_form(self) -> None:
        """What the simulated links take of a typical prompt is the closed form's, but for the wait for each other."""
        pytest.importorskip("numba")
        result = planned(modes=(DISAGGREGATED,))
        best, base = result.best, setting()
        link = transfer_of(load_system("p5en.48xlarge"), Served(setting=base, load=LOAD), best)
        alone = LOAD.prompt_tokens * link.kv_bytes_per_token / link.bytes_per_s
        assert link.latency_s == float(base.engine.handover_s) > 0
        assert alone + link.latency_s <= best.transfer_s < 1.3 * alone + link.latency_s

    def test_trace(self, tmp_path: Any) -> None:
        pytest.importorskip("numba")
        trace = tmp_path / "trace.csv"
        rows = [f"{0.1 * at:.2f},{1000 + at % 50},{100 + at % 10}" for at in range(600)]
        trace.write_text("arrival_s,prompt_tokens,output_tokens\n" + "\n".join(rows) + "\n", "utf-8")
        result = plan_serve("llama3.1-8b", ["p5en.48xlarge"], trace=trace, goodput="ttft:1000 tpot:40")
        assert result.feasible
        assert result.answer.verification is not None


def test_objectives_by_statistic() -> None:
    base = setting()
    plans = search_plans(base, Axes(sizes=(8,)), LOAD)
    state = search_points(base, plans, LOAD, Speculation()).state
    slos = parse_slos("mean:ttft:1000 p50:ttft:1000 p99:ttft:1000 mean:tpot:30 p99:e2el:20000 p99:itl:50")
    values = [predicted_s(state, slo, LOAD, 0.99) for slo in slos.each]
    alive = np.isfinite(values[2])
    assert (values[1][alive] <= values[2][alive]).all()
    assert np.array_equal(values[0], state.ttft_s)


def test_json_is_the_same_twice_and_whole() -> None:
    def text() -> str:
        return plan_serve("gpt-oss-120b", ["p5en.48xlarge", "trn2.48xlarge"], precisions=("mxfp4",), isl=1000, osl=200,
                          request_rate=10, goodput=SLOS, verify=False).to_json()  # fmt: skip

    found = json.loads(text())
    assert text() == text()
    assert found["verb"] == "plan serve"
    assert found["feasible"] is True
    assert [each["percentile"] for each in found["by_percentile"]] == [50, 90, 99]
    assert {each["system"] for each in found["systems"]} == {"p5en.48xlarge", "trn2.48xlarge"}
    assert found["search"]["num_points"] > 1000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective": "speed"}, "speed"),
        ({"modes": ("both",)}, "both"),
        ({"offer": "free"}, "free"),
        ({"systems": "p9"}, "p9"),
        ({"precisions": ("fp7",)}, "fp7"),
        ({"max_chips": 0}, "max_chips is 0"),
        ({"request_rate": 0.0}, "request_rate is 0"),
        ({"goodput": "ttft"}, "no objective"),
    ],
)
def test_bad_input_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UltratwinError, match=words):
        planned(**options)


def test_one_bad_system_does_not_end_a_search() -> None:
    """Of many systems, one that cannot be asked about is named; alone, it is an error."""
    result = planned(systems="p5en.48xlarge,trn2.48xlarge", tensor_parallel_size=8)
    assert result.feasible
    assert dataclasses.is_dataclass(result.answer)


class TestCommandLine:
    """The verb outside in."""

    WORDS = ("plan", "serve", "llama3.1-70b", "--systems", "p5en.48xlarge", "--precision", "fp8", "--no-verify",
             "--isl", "4000", "--osl", "500", "--request-rate", "20")  # fmt: skip

    def test_plan(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run([*self.WORDS, "--goodput", "ttft:1000", "tpot:30", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["best"]["meets"] is True

    def test_infeasible_is_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run([*self.WORDS, "--goodput", "tpot:1"]) == 1
        assert "physics forbids it" in capsys.readouterr().out

    def test_bad_input_is_two(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run([*self.WORDS, "--objective", "speed"]) == 2
        assert "speed" in capsys.readouterr().err

    def test_launch(self, tmp_path: Path) -> None:
        words = ["--goodput", "ttft:1000", "tpot:30", "--modes", "aggregated", "--launch", "k8s"]
        assert run([*self.WORDS, *words, "--launch-dir", str(tmp_path)]) == 0
        assert "kind: Deployment" in (tmp_path / "serve.yaml").read_text("utf-8")
