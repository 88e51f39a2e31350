"""Serving on chips of two kinds: what joins them, what a mix does, and that it is never worse than one system alone."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultratwin.api.mixed_serving import plan_serve_mixed, serve_mixed
from ultratwin.api.serving import plan_serve
from ultratwin.catalogue import loader
from ultratwin.cli import run
from ultratwin.errors import UltratwinError
from ultratwin.hardware.mix import Join, join_pools, joins_of, own_joins, parse_pools
from ultratwin.hardware.system import load_system
from ultratwin.mapping.engine import load_engine
from ultratwin.mapping.serving import ServingPlan
from ultratwin.mapping.serving_formats import serving_formats
from ultratwin.planning.front import pareto_front
from ultratwin.planning.mixed.crossover import lower_hull
from ultratwin.planning.mixed.plan import amount, is_pure
from ultratwin.planning.mixed.search import PoolSide, mixed_ways, pool_side, routed_table
from ultratwin.planning.mixed.split import DraftApart, ExpertsApart, without_experts
from ultratwin.planning.serving.deployment import OBJECTIVES, best_of, deployment_of, deployments
from ultratwin.planning.serving.loads import whole_replicas
from ultratwin.planning.serving.mix import Load, Speculation
from ultratwin.planning.serving.nodes import Served
from ultratwin.planning.serving.point import open_states
from ultratwin.planning.serving.search import Axes
from ultratwin.planning.serving.slo import parse_slos
from ultratwin.planning.serving.transfer import hand_over_s, kv_wire
from ultratwin.planning.serving.ways import DISAGGREGATED, Wanted, served_candidates
from ultratwin.timing.serving import ServingSetting
from ultratwin.timing.transfer import transfer_time_s
from ultratwin.workload.load import load_model
from ultratwin.workload.parameters import parameter_count

MODEL = "llama3.1-8b"
MOE = "qwen3-30b-a3b"
LOAD = Load(prompt_tokens=2000.0, output_tokens=200.0)
SLOS = "ttft:1000 tpot:40"
SYSTEMS = ("trn2.48xlarge", "p5.48xlarge", "p6-b200.48xlarge", "trn3-gen2-ultraserver", "p5en.48xlarge", "mi300x-8")
PAIRS = [
    pair for pair in itertools.combinations(loader.ids("systems"), 2) if joins_of([load_system(each) for each in pair])
]
"""Every two systems of the catalogue that some fabric joins."""
# Trainium2 <-> B200, NIXL with libfabric over one EFA rail of 200 Gb/s: MiB of a message, who does what, 1e9 byte/s.
# Source: public GitHub README of an RDMA connector for KV blocks (index id 71196695870), read 2026-11.
MEASURED = (
    (1, "B200 reads Trn2", 10.3), (1, "B200 writes Trn2", 12.3), (1, "Trn2 reads B200", 11.7),
    (1, "Trn2 writes B200", 13.1), (16, "B200 reads Trn2", 21.5), (16, "B200 writes Trn2", 22.6),
    (16, "Trn2 reads B200", 22.4), (16, "Trn2 writes B200", 22.0), (256, "B200 reads Trn2", 23.5),
    (256, "B200 writes Trn2", 24.3), (256, "Trn2 reads B200", 24.2), (256, "Trn2 writes B200", 23.1),
)  # fmt: skip


def side(system: str, model: str = MODEL, fmt: str = "bf16", ranks: tuple[int, ...] = (1, 2, 4, 8)) -> PoolSide:
    found = load_system(system)
    engine = load_engine("nxd-inference" if found.pool.chip.family == "neuron" else "vllm")
    setting = ServingSetting(model=load_model(model), pool=found.pool, formats=serving_formats(fmt), engine=engine)
    return pool_side(setting, found, Axes(sizes=ranks), wanted(), usd_per_chip_s=0.001, max_chips=10**5)


def wanted(**changed: Any) -> Wanted:
    values: dict[str, Any] = {
        "load": LOAD, "speculation": Speculation(), "slos": parse_slos(SLOS), "request_rate": 10.0, "burstiness": 1.0,
        "usd_per_chip_s": 0.001, "max_chips": 10**5, "objective": "cost",
    }  # fmt: skip
    return Wanted(**values | changed)


def efa(**changed: Any) -> Join:
    return dataclasses.replace(join_pools(parse_pools("trn2.48xlarge,p6-b200.48xlarge")).join, **changed)


class TestJoins:
    """What joins two kinds of chips."""

    def test_the_slower_side_counts(self) -> None:
        join = efa()
        assert join.fabric == "efa"
        assert not join.hypothetical
        assert float(join.bytes_per_s) == 25e9  # Trn2's 200 Gb/s, though B200 has 400
        assert float(join.latency_s) == pytest.approx(16e-6)

    def test_a_name_of_a_chip_is_its_largest_domain(self) -> None:
        shares = parse_pools("trn4,rubin:2")
        assert [each.system.id for each in shares] == ["trn4-ultraserver-144", "vr-nvl72"]
        assert shares[1].chips == 144

    def test_fusion_joins_what_speaks_it_and_is_marked(self) -> None:
        mix = join_pools(parse_pools("trn4-72,gb200-nvl72"), "nvlink-fusion,efa")
        assert mix.join.kind == "scale-up"
        assert mix.join.hypothetical
        assert mix.hypothetical
        assert mix.join.domain_chips == 72
        assert float(mix.join.bytes_per_s) == 900e9  # NVLink 5, the slower side
        # NVLink 5 and 6 meet only in a domain of custom chips
        assert not joins_of([load_system("gb200-nvl72"), load_system("vr-nvl72")], ["nvlink-fusion"])

    def test_what_exists_comes_before_what_is_assumed(self) -> None:
        systems = [load_system("trn4-72"), load_system("p6-b200.48xlarge")]
        assert [each.fabric for each in joins_of(systems)] == ["efa", "nvlink-fusion"]
        assert joins_of(systems, ["nvlink-fusion", "efa"])[0].fabric == "nvlink-fusion"

    def test_one_system_twice_is_its_own_network(self) -> None:
        system = load_system("trn2.48xlarge")
        assert joins_of([system, system]) == own_joins(system, 2)

    @pytest.mark.parametrize(
        ("text", "fabric", "words"),
        [
            ("trn3,vr-nvl72", "", "trn3-gen2-ultraserver has efa (efa-trn3); vr-nvl72 has infiniband"),
            ("trn3,p6-b200", "nvlink-fusion", "hint: --fabric efa"),
            ("trn3,p6-b200", "nvlinc-fusion", "did you mean nvlink-fusion?"),
            ("trn3,", "", "leaves a pool empty"),
            ("trn3:0", "", '"0" units of trn3'),
            ("trn3:1.5", "", '"1.5" units of trn3'),
            (":3", "", "names no system"),
            ("trn9", "", 'unknown system "trn9"'),
            ("p6-b200:1000000", "", "at most "),
        ],
    )
    def test_bad_pools(self, text: str, fabric: str, words: str) -> None:
        with pytest.raises(UltratwinError) as caught:
            join_pools(parse_pools(text), fabric)
        assert words in str(caught.value)


class TestTransfers:
    """Bytes from one kind to the other."""

    @pytest.mark.parametrize(("mib", "who", "measured"), MEASURED)
    def test_trainium2_and_b200_as_measured(self, mib: int, who: str, measured: float) -> None:
        """Nothing is fitted to these rows: rates of both systems, send/receive of both libraries."""
        size = mib * 2.0**20
        found = size / float(transfer_time_s(efa(), size, 1.0, is_read="reads" in who)) / 1e9
        assert found == pytest.approx(measured, rel=0.15)

    @given(st.floats(1e3, 1e10), st.floats(1.0, 64.0), st.floats(1.0, 8.0))
    def test_more_never_takes_longer(self, size: float, links: float, factor: float) -> None:
        base = float(transfer_time_s(efa(), size, links))
        assert base >= size / links / 25e9
        assert float(transfer_time_s(efa(bytes_per_s=25e9 * factor), size, links)) <= base
        assert float(transfer_time_s(efa(), size, links * factor)) <= base
        assert float(transfer_time_s(efa(), size * factor, links)) >= base

    def test_the_smaller_format_travels(self) -> None:
        model, bf16, fp8 = load_model(MODEL), serving_formats("bf16"), serving_formats("bf16", "fp8")
        there, back = kv_wire(model, bf16, fp8, 1000.0), kv_wire(model, fp8, bf16, 1000.0)
        assert there.formats == ("bf16", "fp8", "fp8")
        assert there.packs
        assert not there.unpacks
        assert back.formats == ("fp8", "fp8", "bf16")
        assert back.unpacks
        assert not back.packs
        assert float(there.wire_bytes) == float(there.sent_bytes) / 2
        assert kv_wire(model, bf16, fp8, 1000.0, "bf16").formats == ("bf16", "bf16", "fp8")
        with pytest.raises(UltratwinError, match="can't travel as int8"):
            kv_wire(model, bf16, fp8, 1000.0, "int8")

    def test_conversion_is_a_pass_over_the_memory_of_the_side_that_converts(self) -> None:
        prefill, decode = side("p6-b200.48xlarge").setting, side("trn2.48xlarge").setting
        packed = dataclasses.replace(decode, formats=serving_formats("bf16", "fp8"))
        chips, joins = (np.array([8.0]), np.array([4.0])), (efa(),)
        wire = kv_wire(prefill.model, prefill.formats, packed.formats, LOAD.prompt_tokens)
        on_wire = float(transfer_time_s(efa(), wire.wire_bytes, 4.0))
        found = float(hand_over_s((prefill, packed), LOAD, chips, np.array([12.0]), joins)[0])
        rate = 8 * float(prefill.pool.chip.memory_bytes_per_s)
        assert found == pytest.approx(on_wire + float(wire.sent_bytes + wire.wire_bytes) / rate)

    def test_a_domain_reaches_no_further_than_its_chips(self) -> None:
        fusion = join_pools(parse_pools("trn4-72,gb200-nvl72"), "nvlink-fusion").join
        setting = side("p6-b200.48xlarge").setting
        chips = (np.array([36.0, 64.0]), np.array([36.0, 36.0]))
        found = hand_over_s((setting, setting), LOAD, chips, np.array([10_000.0, 10_000.0]), (fusion,))
        assert np.isfinite(found).tolist() == [True, False]


class TestTwoPoolsOfOneChip:
    """The same formulas, only composed: the same answer."""

    @settings(max_examples=6, deadline=None)
    @given(st.sampled_from(SYSTEMS), st.floats(0.5, 60.0), st.sampled_from(OBJECTIVES))
    def test_prefill_and_decode(self, system: str, rate: float, goal: str) -> None:
        one, asked = side(system), wanted(request_rate=rate)
        alone = deployments(one.setting, one.system, one.axes, asked, (DISAGGREGATED,))
        joins = {(one.system.id, one.system.id): own_joins(one.system, 2)}
        for ways in mixed_ways([one, one], joins, asked, [DISAGGREGATED]).ways:
            at = best_of(ways.table, asked, goal)
            assert (at is None) == (goal not in alone.best)
            if at is not None:
                found, expected = deployment_of(ways, asked, at), alone.best[goal]
                assert found.describe() == expected.describe()
                for name in ("ttft_s", "tpot_s", "power_w", "usd_per_s", "miss"):
                    assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-9)

    @settings(max_examples=6, deadline=None)
    @given(st.sampled_from(SYSTEMS), st.integers(1, 20), st.integers(1, 20))
    def test_behind_one_router(self, system: str, first: int, second: int) -> None:
        one = side(system, ranks=(1, 2))
        asked = wanted(request_rate=None)
        every = served_candidates(one.setting, one.system, one.plans, asked)
        state, size = every.points.state, every.points.num_points
        mixed = routed_table((every, every), (np.full(size, float(first)), np.full(size, float(second))), asked)
        total = float(first + second)
        expected = {
            "ttft": state.ttft_s, "tpot": state.tpot_s, "power": state.power_w * total,
            "rate": state.request_rate * total, "chips": every.points.num_chips * total,
        }  # fmt: skip
        alive = np.isfinite(state.ttft_s)
        for name, values in expected.items():
            np.testing.assert_allclose(getattr(mixed, name)[alive], values[alive], rtol=1e-9)


class TestNeverWorse:
    """A mix is never worse than the best system alone that the same budget allows."""

    @settings(max_examples=5, deadline=None)
    @given(
        st.sampled_from(PAIRS),
        st.sampled_from(OBJECTIVES), st.floats(1.0, 40.0), st.sampled_from([16, 64, 10**5]), st.floats(0.2, 5.0),
    )  # fmt: skip
    def test_over_random_systems_and_budgets(
        self, names: tuple[str, str], goal: str, rate: float, most: int, ratio: float
    ) -> None:
        pools = parse_pools(",".join(names), default_units=0)
        prices = {each.system.id: price for each, price in zip(pools, (2.0, 2.0 * ratio), strict=True)}
        asked: dict[str, Any] = {
            "objective": goal, "max_chips": most, "isl": 2000, "osl": 200, "goodput": SLOS, "request_rate": rate,
            "prices_per_chip_hour": prices,
        }  # fmt: skip
        mixed = plan_serve_mixed(MODEL, pools, modes=("aggregated", "disaggregated", "routed"), **asked)
        for share in pools:
            alone = plan_serve(MODEL, [share.system.id], verify=False, workers=1, **asked)
            if alone.feasible:
                assert amount(mixed.best, goal) <= amount(alone.best, goal) * (1 + 1e-9)
        if mixed.feasible:
            assert mixed.best.chips <= most
            assert mixed.best.meets
            assert not mixed.gain < 1.0

    def test_units_are_the_most_that_there_are(self) -> None:
        asked: dict[str, Any] = {"isl": 2000, "osl": 200, "goodput": SLOS, "request_rate": 100.0}
        scarce = plan_serve_mixed(MODEL, "p5:1,p6-b200:1", objective="energy", **asked)
        for option in scarce.answer.choices:
            for name in ("p5.48xlarge", "p6-b200.48xlarge"):
                assert sum(e.chips * e.replicas for e in option.roles if e.system_id == name) <= 8


class TestWholeReplicas:
    """Between the loads of a search, where whole numbers of replicas are."""

    @settings(max_examples=4, deadline=None)
    @given(st.sampled_from(SYSTEMS), st.floats(20.0, 500.0))
    def test_lines_come_near_a_fine_grid(self, system: str, rate: float) -> None:
        one, asked = side(system, ranks=(1, 4)), wanted(request_rate=rate)
        points = whole_replicas(served_candidates(one.setting, one.system, one.plans, asked).points, rate)
        counts = np.round(rate / points.state.request_rate)
        np.testing.assert_allclose(counts * points.state.request_rate, rate, rtol=1e-9)
        fine = np.concatenate([np.geomspace(1e-3, 0.2, 300), np.linspace(0.2, 1.0, 700)])
        for at in range(len(points.plan_index) // 2, len(points.plan_index), 151):
            if np.isfinite(points.state.ttft_s[at]):
                plan, limits = points.one_plan(at)
                grid = open_states(Served(setting=one.setting, load=LOAD), plan, limits, fine, 1.0, rate)
                near = int(np.argmin(np.abs(grid.request_rate - rate / counts[at])))
                assert points.state.tpot_s[at] == pytest.approx(grid.tpot_s[near], rel=0.05)
                assert points.state.ttft_s[at] == pytest.approx(grid.ttft_s[near], rel=0.1)


class TestSharedIterations:
    """Experts apart from attention, drafts apart from their target."""

    @staticmethod
    def apart(**changed: Any) -> tuple[Served, ExpertsApart]:
        own, other = side("p6-b200.48xlarge", MOE), side("trn2.48xlarge", MOE)
        split = ExpertsApart(
            setting=other.setting, plan=ServingPlan(attention_data_parallel_size=8, expert_parallel_size=8),
            joins=(efa(**changed),), links=np.array([4.0]), pair_chips=np.array([12.0]),
        )  # fmt: skip
        setting = dataclasses.replace(own.setting, model=without_experts(own.setting.model))
        return Served(setting=setting, load=LOAD, split=split), split

    BATCH = (np.array([[0.0], [512.0]]), np.array([[64.0], [64.0]]), np.array([512.0]))

    def test_between_its_bounds(self) -> None:
        served, split = self.apart()
        plan = ServingPlan(tensor_parallel_size=4)
        seconds, joules = split.nodes(served, plan, *self.BATCH)
        whole = split.sides(served, plan, *self.BATCH)
        assert (seconds >= np.maximum(whole.own_s, whole.other_s) * (1 - 1e-9)).all()
        assert (seconds <= whole.own_s + whole.other_s + whole.between_s).all()
        assert (joules > 0).all()

    def test_a_faster_join_is_never_slower(self) -> None:
        plan = ServingPlan(tensor_parallel_size=4)
        times = []
        for speed in (1e9, 25e9, 900e9):
            served, split = self.apart(bytes_per_s=speed)
            times.append(split.nodes(served, plan, *self.BATCH)[0])
        assert (times[0] > times[1]).all()
        assert (times[1] > times[2]).all()

    def test_experts_are_all_that_is_elsewhere(self) -> None:
        model = load_model(MOE)
        left = without_experts(model)
        one = 3 * model.hidden_size * 768  # gate, up and down of Qwen3's experts
        assert parameter_count(model) - parameter_count(left) == 48 * (128 * one + 128 * model.hidden_size)

    def test_a_draft_elsewhere_costs_its_transfers_or_hides(self) -> None:
        own, other = side("trn2.48xlarge"), side("p6-b200.48xlarge")
        drafts = Speculation(num_tokens=3, acceptance_rate=0.7)
        split = DraftApart(
            setting=other.setting, plan=ServingPlan(tensor_parallel_size=1), joins=(efa(),), links=np.array([1.0]),
            pair_chips=np.array([5.0]),
        )  # fmt: skip
        served = Served(setting=own.setting, load=LOAD, speculation=drafts, split=split)
        plan = ServingPlan(tensor_parallel_size=4)
        seconds, _ = split.nodes(served, plan, *self.BATCH)
        whole = split.sides(served, plan, *self.BATCH)
        assert whole.other_s.min() > 0
        assert (seconds <= whole.own_s + whole.other_s + whole.between_s).all()


class TestCrossover:
    """Which is cheapest at which prices."""

    @given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=30), st.floats(0.01, 100))
    def test_a_corner_is_cheapest_at_any_price(self, points: list[tuple[float, float]], ratio: float) -> None:
        values = np.array(points).T
        corners = lower_hull(values, pareto_front(values).tolist())
        cost = values[0] + ratio * values[1]
        assert cost[corners].min() <= cost.min() * (1 + 1e-9) + 1e-9

    def test_segments_tile_the_prices(self) -> None:
        answer = planned().answer
        segments = answer.readings[0].segments
        assert segments[0].low == 0
        assert math.isinf(segments[-1].high)
        for one, two in itertools.pairwise(segments):
            assert one.high == two.low
            assert one.chips[0] <= two.chips[0]
            assert one.chips[1] >= two.chips[1]

    def test_better_figures_are_never_worse(self) -> None:
        answer = planned().answer
        names = [each.name for each in answer.readings]
        assert names[1:3] == ["trn4-ultraserver-144 at its low figures", "trn4-ultraserver-144 at its high figures"]
        low, high = (each.best for each in answer.readings[1:3])
        assert low is not None
        assert high is not None
        assert amount(high, answer.objective) <= amount(low, answer.objective)

    def test_unknown_prices_are_said(self) -> None:
        answer = planned().answer
        assert answer.objective == "energy"
        assert "no public price of trn4-ultraserver-144, vr-nvl72" in answer.notes[0]


@cache
def planned() -> Any:
    return plan_serve_mixed(
        MODEL, "trn4,rubin", fabric="nvlink-fusion,efa", objective="cost", isl=4000, osl=200, request_rate=100.0,
        goodput="ttft:500 tpot:10", modes=("aggregated", "disaggregated"),
    )  # fmt: skip


def served(**options: Any) -> Any:
    asked: dict[str, Any] = {"prefill": "p6-b200:1", "decode": "trn2:1", "isl": 2000, "osl": 200}
    return serve_mixed(MODEL, **asked | options)


class TestServe:
    """Fixed pools, one role each."""

    @cache
    @staticmethod
    def served(**options: Any) -> Any:
        asked: dict[str, Any] = {"prefill": "p6-b200:1", "decode": "trn2:1", "isl": 2000, "osl": 200}
        return serve_mixed(MODEL, **asked | options)

    def test_roles_and_what_is_handed_over(self) -> None:
        result = served(request_rate=10.0)
        assert [each.name for each in result.deployment.roles] == ["prefill", "decode"]
        assert [each.system_id for each in result.deployment.roles] == ["p6-b200.48xlarge", "trn2.48xlarge"]
        assert 0 < result.deployment.transfer_s < result.deployment.ttft_s
        first, second = (each.ranges for each in result.answer.roles)
        assert result.deployment.ttft_s == pytest.approx(first.ttft_s.expected + result.deployment.transfer_s)
        assert result.deployment.tpot_s == pytest.approx(second.tpot_s.expected)

    def test_left_out_the_rate_is_the_most_that_keeps_the_objectives(self) -> None:
        result = served(goodput=SLOS)
        assert result.deployment.meets
        assert result.deployment.request_rate <= result.answer.sustainable_rate
        loose = served(goodput="ttft:5000 tpot:100")
        assert loose.deployment.request_rate >= result.deployment.request_rate

    def test_both_behind_one_router_serve_more_than_either(self) -> None:
        both = serve_mixed(MODEL, pools="p6-b200:1,trn2:1", isl=2000, osl=200)
        rates = [each.sustainable_rate for each in both.answer.roles]
        assert both.answer.sustainable_rate == pytest.approx(sum(rates))

    def test_too_much_is_a_value(self) -> None:
        result = served(request_rate=1e5)
        assert not result.feasible
        assert "100000 requests a second" in result.rejected.reason
        assert "nothing can run" in result.table()

    def test_a_shared_iteration_is_shown(self) -> None:
        result = serve_mixed(MOE, attention="p6-b200:1", experts="trn2:1", request_rate=4.0, isl=1000, osl=100)
        found = result.answer.shared
        assert max(found.whole_s[:2]) <= found.seconds <= sum(found.whole_s)
        assert "experts on trn2.48xlarge" in result.table()
        assert json.loads(result.to_json())["shared_iteration"]["seconds"] == found.seconds

    def test_all_units_are_paid_for(self) -> None:
        result = serve_mixed(
            MODEL, prefill="p6-b200:2", decode="trn2:1", request_rate=1.0,
            prices_per_chip_hour={"p6-b200": 5.0, "trn2": 2.0},
        )  # fmt: skip
        assert result.deployment.usd_per_s * 3600 == pytest.approx(16 * 5.0 + 16 * 2.0)

    def test_a_model_without_experts_has_none_to_move(self) -> None:
        result = serve_mixed(MODEL, attention="p6-b200:1", experts="trn2:1", request_rate=1.0)
        assert not result.feasible

    def test_the_same_bytes(self) -> None:
        one = served(request_rate=10.0).to_json()
        assert one == served(request_rate=10.0).to_json()


class TestCommandLine:
    """What a user types."""

    def test_serve(self, capsys: pytest.CaptureFixture[str]) -> None:
        asked = ["serve", MOE, "--prefill", "p6-b200.48xlarge:1", "--decode", "trn2.48xlarge:1", "--isl", "1000"]
        asked += ["--osl", "100", "--request-rate", "5", "--precision", "nvfp4,fp8", "--kv-cache-dtype", "bf16,fp8"]
        assert run([*asked, "--explain"]) == 0
        shown = capsys.readouterr().out
        for words in ("prefill and decode apart", "joined by EFA", "converts bf16 to fp8 before it sends",
                      "figures used", "decode on trn2.48xlarge"):  # fmt: skip
            assert words in shown
        assert run([*asked, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["hand_over"]["formats"] == ["bf16", "fp8", "fp8"]
        assert found["join"]["fabric"] == "efa"

    def test_plan(self, capsys: pytest.CaptureFixture[str]) -> None:
        asked = ["plan", "serve", MODEL, "--pools", "trn2,p6-b200", "--isl", "1000", "--osl", "100", "--request-rate"]
        asked += ["5", "--goodput", "ttft:500", "tpot:30", "--fabric", "efa"]
        assert run(asked) == 0
        shown = capsys.readouterr().out
        for words in ("against each system alone", "crossover", "ways to share the work"):
            assert words in shown
        assert run([*asked, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["gain_over_pure"] >= 1
        assert found["readings"][0]["by_price_ratio"][0]["low"] == 0

    @pytest.mark.parametrize(
        ("words", "complaint"),
        [
            (("--prefill", "trn3:1"), "decode is left empty (--prefill)"),
            (("--experts", "trn3:1"), "attention is left empty (--experts)"),
            (("--prefill", "trn3", "--decode", "vr-nvl72"), "no fabric joins"),
            (("--prefill", "trn3", "--experts", "p6"), "--prefill and --experts are given at once"),
            (("--prefill", "trn3", "--decode", "p6", "--concurrency", "4"), "--concurrency is for one system"),
            (("--prefill", "trn3", "--decode", "p6", "--precision", "fp9"), 'unknown precision "fp9"'),
            (("--prefill", "trn3", "--decode", "p6", "--precision", "fp8,fp8,fp8"), "one format, or two"),
            (("--prefill", "trn3", "--decode", "p6", "--fabric", "token-ring"), 'unknown fabric "token-ring"'),
            (("--prefill", "trn3,p5", "--decode", "p6"), "2 systems for one role"),
            (("--target", "trn3", "--draft", "p6"), "nothing is drafted"),
            (("--pools", "trn3"), "1 pools behind one router"),
            (("--fabric", "efa"), "no pools are given"),
            (("--system", "trn3", "--decode", "p6"), "given at once"),
            ((), "--system is missing"),
        ],
    )
    def test_bad_input(self, words: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["serve", MODEL, *words]) == 2
        shown = capsys.readouterr().err
        assert complaint in shown
        assert "Traceback" not in shown

    def test_a_format_that_a_chip_lacks_is_said(self) -> None:
        result = serve_mixed(MODEL, prefill="p6-b200:1", decode="trn2:1", request_rate=1.0, precision="nvfp4")
        assert result.answer.notes == (
            "trainium2 does not multiply nvfp4: nvfp4 weights are unpacked and multiplied in bf16 there",
        )

    def test_pure_is_marked(self) -> None:
        assert is_pure(next(option for option in planned().pure.values() if option is not None))
