"""Scenarios against each other: sums that hold exactly, rankings that turn where it is said, the verb from outside."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cyclopts import App

import ultratwin
from ultratwin.cli.compare import answered, compare
from ultratwin.errors import ScenarioError, UltratwinError
from ultratwin.planning.comparison import (
    Comparison,
    PairedSampler,
    Ranking,
    Scenario,
    compared,
    ranking,
)
from ultratwin.planning.sensitivity import OBJECTIVES, outcomes_of, results_with, used_facts
from ultratwin.planning.uncertainty import range_of
from ultratwin.report.comparison import comparison_blocks, comparison_json, ranking_json
from ultratwin.report.json import dumped
from ultratwin.report.tables import rendered

ROOT = Path(__file__).parents[1]
MODEL = "llama3.1-8b"
LAYOUT = {"tensor_parallel_size": 8, "pipeline_parallel_size": 1, "micro_batch_size": 1, "global_batch_size": 64}


def scenario(system: str, **more: Any) -> Scenario:
    given = {"chips": 64, "tokens": 1e12} | LAYOUT | more
    found = ultratwin.train(MODEL, system, **given)
    return Scenario(name=system, question=found.question, answer=found.answer)


def ranked(scenarios: list[Scenario], objective: str) -> Ranking:
    return ranking([each.answer for each in scenarios], [each.question for each in scenarios], objective)


@pytest.fixture(scope="module")
def three() -> list[Scenario]:
    return [scenario("trn2.48xlarge"), scenario("p5en.48xlarge"), scenario("p5.48xlarge")]


@pytest.fixture(scope="module")
def rankings(three: list[Scenario]) -> dict[str, Ranking]:
    return {objective: ranked(three, objective) for objective in OBJECTIVES}


@pytest.fixture(scope="module")
def comparison(three: list[Scenario]) -> Comparison:
    return compared(three, "cost")


class TestSplits:
    def test_waterfalls_sum_exactly(self, comparison: Comparison) -> None:
        assert [split.kind for split in comparison.splits] == ["time", "energy", "cost"]
        for split in comparison.splits:
            first = split.total(0)
            assert first is not None
            for at in range(3):
                amounts, differences, total = split.amounts[at], split.differences(at), split.total(at)
                assert amounts is not None
                assert differences is not None
                assert total is not None
                assert sum(differences) == total - first
                assert sum(reversed(differences)) == total - first == math.fsum(differences)
                assert first + sum(differences) == total
            assert split.differences(split.base) == (0.0,) * len(split.causes)

    def test_totals_are_the_answers(self, comparison: Comparison) -> None:
        time, energy, cost = comparison.splits
        for at, each in enumerate(comparison.scenarios):
            run = each.answer.run
            assert run is not None
            assert time.total(at) == pytest.approx(run.duration_s.expected, rel=1e-12)
            assert energy.total(at) == pytest.approx(run.energy_j.expected, rel=1e-12)
            assert cost.total(at) == pytest.approx(next(iter(run.cost_usd.values())).expected, rel=1e-12)

    def test_joules_follow_what_chips_do(self, comparison: Comparison) -> None:
        """A second of matrix products draws more than a second of waiting, on the same chip."""
        time, energy, _ = comparison.splits
        seconds = dict(zip(time.causes, time.amounts[0] or (), strict=True))
        joules = dict(zip(energy.causes, energy.amounts[0] or (), strict=True))
        waiting = "host launches" if seconds["host launches"] > 0 else "host, per step"
        assert joules["linear layers"] / seconds["linear layers"] > 1.5 * joules[waiting] / seconds[waiting]

    def test_causes_that_differ_most_come_first(self, comparison: Comparison) -> None:
        for split in comparison.splits:
            most = [max(abs((split.differences(at) or ())[row]) for at in range(3)) for row in range(len(split.causes))]
            assert most == sorted(most, reverse=True)

    def test_one_that_cannot_run_is_a_column_without_figures(self, three: list[Scenario]) -> None:
        found = compared([scenario("trn2.48xlarge", chips=1, **dict.fromkeys(LAYOUT)), *three[:1]])
        assert found.scenarios[0].answer.run is None
        for split in found.splits:
            assert (split.base, split.total(0), split.differences(0)) == (1, None, None)
        ((at, reason),) = found.ranking.unranked
        assert at == 0
        assert "can't run" in reason
        text = rendered(comparison_blocks(found))
        assert "no layout" in text

    def test_none_that_can_run(self) -> None:
        alone = scenario("trn2.48xlarge", chips=1, **dict.fromkeys(LAYOUT))
        found = compared([alone, alone])
        assert found.splits == found.ranking.places == found.ranking.pairs == ()
        assert found.ranking.holds_frac == 1.0
        assert "can't run" in rendered(comparison_blocks(found))


class TestPairing:
    def test_a_column_depends_on_name_and_seed_only(self) -> None:
        one, two = PairedSampler(3, "neuronx"), PairedSampler(3, "neuronx")
        two.between("something else", 0.0, 1.0, 2.0)
        assert np.array_equal(one.between("PUE", 1.0, 1.1, 1.6), two.between("PUE", 1.0, 1.1, 1.6))
        other = PairedSampler(4, "neuronx").between("PUE", 1.0, 1.1, 1.6)
        assert not np.array_equal(one.between("PUE", 1.0, 1.1, 1.6), other)
        assert not np.array_equal(one.between("PUE", 1.0, 1.1, 1.6), one.between("carbon", 1.0, 1.1, 1.6))

    def test_own_error_is_one_per_profile(self) -> None:
        errors = [
            PairedSampler(0, profile).error_factor("error", 0.2) for profile in ("neuronx", "neuronx", "megatron")
        ]
        assert np.array_equal(errors[0], errors[1])
        assert abs(float(np.corrcoef(errors[0][1:], errors[2][1:])[0, 1])) < 0.1

    def test_paired_samples_have_the_distribution_of_unpaired_ones(self, three: list[Scenario]) -> None:
        run = three[0].answer.run
        assert run is not None
        paired = range_of(outcomes_of(three[0].answer, three[0].question, PairedSampler(0, "neuronx")).energy_j)
        assert paired.expected == run.energy_j.expected
        assert paired.low == pytest.approx(run.energy_j.low, rel=0.05)
        assert paired.high == pytest.approx(run.energy_j.high, rel=0.05)

    def test_what_is_shared_does_not_blur(self, three: list[Scenario]) -> None:
        """5 % more steps on the same machine are worse in every sample, however wide each range, whatever its seed."""
        more = scenario("trn2.48xlarge", tokens=1.05e12, seed=5)
        for objective in OBJECTIVES:
            found = ranked([more, three[0]], objective)
            assert [place.scenario for place in found.places] == [1, 0]
            assert found.holds_frac == 1.0
            best, second = found.places
            assert best.value.high > second.value.low, "the ranges overlap all the same"

    def test_seed(self, three: list[Scenario], rankings: dict[str, Ranking]) -> None:
        """Another seed is another set of samples: shares move a little, expected values not at all."""
        others = [scenario(each.name, seed=7) for each in three]
        one, two = rankings["energy"], ranked(others, "energy")
        assert [place.value.expected for place in one.places] == [place.value.expected for place in two.places]
        assert one != two
        assert one.holds_frac == pytest.approx(two.holds_frac, abs=0.05)


class TestRanking:
    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_order_and_shares(self, rankings: dict[str, Ranking], objective: str) -> None:
        found = rankings[objective]
        values = [place.value.expected for place in found.places]
        assert values == sorted(values)
        assert sum(place.best_frac for place in found.places) == pytest.approx(1.0)
        assert 0.0 <= found.holds_frac <= min(pair.holds_frac for pair in found.pairs)
        assert [(pair.better, pair.worse) for pair in found.pairs] == [
            (one.scenario, two.scenario) for one, two in zip(found.places, found.places[1:], strict=False)
        ]

    def test_giving_them_in_another_order_changes_nothing(
        self, three: list[Scenario], rankings: dict[str, Ranking]
    ) -> None:
        names = [each.name for each in three]
        one = ranking_json(rankings["energy"], names)
        two = ranking_json(ranked(three[::-1], "energy"), names[::-1])
        assert json.loads(dumped(one))["places"] == json.loads(dumped(two))["places"]
        assert one["holds_frac"] == two["holds_frac"]

    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_a_scenario_ties_with_itself(self, three: list[Scenario], objective: str) -> None:
        found = ranked([three[0], three[0]], objective)
        (pair,) = found.pairs
        assert (pair.is_tie, pair.holds_frac, pair.flips) == (True, 0.5, ())
        assert [place.best_frac for place in found.places] == [0.5, 0.5]
        assert [place.scenario for place in found.places] == [0, 1]

    def test_no_price_no_rank_by_cost(self, three: list[Scenario]) -> None:
        found = ranked([scenario("trn3-gen2-ultraserver"), three[0]], "cost")
        assert [place.scenario for place in found.places] == [1]
        assert found.unranked == ((0, "no public price, and none given"),)
        assert found.pairs == ()

    def test_an_offer_of_the_users_choice(self, three: list[Scenario]) -> None:
        answers, questions = [each.answer for each in three], [each.question for each in three]
        found = ranking(answers, questions, "cost", ["on_demand"] * 3)
        for place in found.places:
            run = answers[place.scenario].run
            assert run is not None
            assert place.value == run.cost_usd["on_demand"]
        dear = ranking(answers, questions, "cost", ["", "reserved_3y", ""])
        assert dear.unranked == ((1, "no public reserved 3y price, and none given"),)

    def test_for_nothing(self, three: list[Scenario]) -> None:
        """A price of zero is a price: no logarithm of it is taken."""
        found = ranked([three[0], scenario("trn2.48xlarge", price_per_chip_hour=0.0)], "cost")
        assert [place.scenario for place in found.places] == [1, 0]
        assert found.pairs[0].flips == ()
        assert found.holds_frac == 1.0

    def test_two_prices_of_one_system_are_two_facts(self) -> None:
        low, high = (scenario("trn2.48xlarge", price_per_chip_hour=price) for price in (2.0, 3.0))
        (pair,) = ranked([low, high], "cost").pairs
        assert {round(flip.needed, 5) for flip in pair.flips} == {2.0, 3.0}
        assert {flip.scenarios for flip in pair.flips} == {(0,), (1,)}

    def test_an_unknown_objective_is_refused(self, three: list[Scenario]) -> None:
        with pytest.raises(ScenarioError, match='unknown objective "speed"'):
            ranked(three, "speed")


class TestFlips:
    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_the_needed_value_really_turns_the_order(
        self, three: list[Scenario], rankings: dict[str, Ranking], objective: str
    ) -> None:
        found = rankings[objective]
        assert any(pair.flips for pair in found.pairs)
        for pair in found.pairs:
            for flip in pair.flips:
                just_before = flip.factor * math.exp(math.copysign(1e-7, -math.log(flip.factor)))
                one, two = (
                    self._with(three[at], objective, flip.fact.name, [flip.factor, just_before])
                    for at in (pair.better, pair.worse)
                )
                assert one[0] > two[0]
                assert one[1] < two[1]

    def _with(self, one: Scenario, objective: str, name: str, factors: list[float]) -> Any:
        """The objective with a fact replaced, where the scenario has it."""
        used = used_facts(one.answer, one.question)
        replaced = {name: np.array([used[name].si * factor for factor in factors])} if name in used else {}
        return np.broadcast_to(results_with(one.answer, one.question, replaced)[objective], 2)

    def test_flips_are_sorted_and_possible(self, rankings: dict[str, Ranking]) -> None:
        for found in rankings.values():
            for pair in found.pairs:
                changes = [abs(math.log(flip.factor)) for flip in pair.flips]
                assert changes == sorted(changes)
                for flip in pair.flips:
                    assert 0.1 - 1e-9 <= flip.factor <= 10 + 1e-9
                    assert flip.needed == pytest.approx(flip.fact.value * flip.factor)
                    assert flip.is_open == (flip.fact.low <= flip.needed <= flip.fact.high)
                    assert flip.scenarios
                    if flip.fact.key == "pue":
                        assert flip.needed >= 1

    def test_a_price_turns_a_ranking_where_arithmetic_says(self, three: list[Scenario]) -> None:
        """Cost is proportional to price: the factor is the ratio of the costs."""
        one, two = scenario("p5.48xlarge", price_per_chip_hour=3.0), three[0]
        (pair,) = ranked([one, two], "cost").pairs
        cost = [each.answer.run.cost_usd for each in (one, two) if each.answer.run]
        ratio = cost[0]["your price"].expected / next(iter(cost[1].values())).expected
        own = [flip for flip in pair.flips if flip.fact.key == "price_per_chip_hour"]
        assert 0.1 < ratio < 10
        assert own[0].factor == pytest.approx(1 / ratio, rel=1e-6)
        assert own[0].needed == pytest.approx(3.0 / ratio, rel=1e-6)

    def test_shared_facts_turn_nothing(self, three: list[Scenario]) -> None:
        """PUE, grid and one profile's error hit both alike."""
        (pair,) = ranked(three[1:], "energy").pairs
        assert {three[1].answer.profile.id, three[2].answer.profile.id} == {"megatron"}
        names = {flip.fact.name for flip in pair.flips}
        assert not {name for name in names if name.startswith(("PUE", "carbon", "the twin's own error"))}

    def test_regions_of_their_own_can_turn_it(self, three: list[Scenario]) -> None:
        elsewhere = scenario("p5.48xlarge", region="us-east-2")
        (pair,) = ranked([elsewhere, three[2]], "carbon").pairs
        names = {flip.fact.name for flip in pair.flips}
        assert {"carbon of the grid (us-east-2)", "carbon of the grid (world)"} <= names
        assert all(name.startswith(("carbon", "PUE")) for name in names), "the machine is the same"

    def test_what_cannot_be_turns_nothing(self, three: list[Scenario]) -> None:
        """2.5 times the tokens elsewhere: no PUE there is low enough, and none of linear_frac above 1 counts."""
        short, long = three[2], scenario("p5.48xlarge", region="us-east-2", tokens=2.5e12)
        (pair,) = ranked([short, long], "energy").pairs
        assert [flip.fact.name for flip in pair.flips] == ["PUE (world)"]
        assert pair.flips[0].factor == pytest.approx(2.5, rel=0.2)


TWO = tuple(
    f"""
model = "llama3.1-8b"
system = "{system}"
chips = 64
tokens = "1T"
global_batch_size = 64

[layout]
tensor_parallel_size = 8
pipeline_parallel_size = 1
micro_batch_size = 1
"""
    for system in ("trn2.48xlarge", "p5.48xlarge")
)


def written(folder: Path, *texts: str) -> list[Path]:
    paths = []
    for at, text in enumerate(texts):
        paths.append(folder / f"scenario{at}.toml")
        paths[-1].write_text(text, encoding="utf-8")
    return paths


def ran(*words: str | Path) -> tuple[int, str]:
    """The verb as the command line calls it: exit code and what is on stdout."""
    app = App(name="ultratwin")
    app.command(compare)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = app(["compare", *map(str, words)], exit_on_error=False, print_error=False, result_action="return_value")
    return int(code), out.getvalue()


def refused(*words: str | Path) -> str:
    with pytest.raises(UltratwinError) as error:
        ran(*words)
    return str(error.value)


class TestVerb:
    def test_tables(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "120")
        code, text = ran(*written(tmp_path, *TWO), "--objective", "energy")
        assert code == 0
        for word in (
            "2 scenarios, ranked by energy", "scenario0", "scenario1", "side by side", "MFU", "tokens per second",
            "time of the run by cause", "energy by cause", "cost by cause", "in all",
            "ranking by energy; the whole order holds in", "would be", "GiB", "on demand",
        ):  # fmt: skip
            assert word in text, word
        assert "_flop_per_s" in text.partition("would be")[2]
        assert all(len(line) <= 120 for line in text.splitlines())

    def test_objective_is_the_files_where_they_agree(self, tmp_path: Path) -> None:
        ends = ('objective = "carbon"\n', 'objective = "energy"\n')
        assert "ranked by carbon" in ran(*written(tmp_path, *(ends[0] + text for text in TWO)))[1]
        mixed = written(tmp_path, *(end + text for text, end in zip(TWO, ends, strict=True)))
        assert "ranked by time" in ran(*mixed)[1]
        assert "ranked by cost" in ran(*mixed, "--objective", "cost")[1]

    def test_offer(self, tmp_path: Path) -> None:
        files = written(tmp_path, *TWO)
        text = ran(*files, "--objective", "cost", "--offer", "on_demand")[1]
        assert text.count("on demand, ") == 2
        assert "several kinds" not in text
        block = ran(*files, "--objective", "cost", "--offer", "capacity_block")[1]
        assert "capacity block, " in block
        own = ("price_per_chip_hour = 2.0\n" + TWO[0], TWO[1])
        assert "several kinds" in ran(*written(tmp_path, *own), "--objective", "cost")[1]
        assert 'unknown offer "gift"' in refused(*files, "--offer", "gift")

    def test_json_is_the_same_twice_and_says_it_all(self, tmp_path: Path) -> None:
        files = written(tmp_path, *TWO)
        first, second = ran(*files, "--json"), ran(*files, "--json")
        assert first == second
        data = json.loads(first[1])
        assert (data["verb"], data["objective"]) == ("compare", "time")
        assert [each["name"] for each in data["scenarios"]] == ["scenario0", "scenario1"]
        assert all(each["feasible"] and each["plan"]["num_ranks"] == 64 for each in data["scenarios"])
        assert [each["offer"] for each in data["scenarios"]] == ["on_demand", "on_demand"]
        for split in data["splits"]:
            first_total = split["scenarios"][0]["total"]
            for each in split["scenarios"]:
                assert sum(each["by_cause"].values()) == each["total"]
                assert first_total + sum(each["more_by_cause"].values()) == each["total"]
        assert len(data["ranking"]["pairs"][0]["flips"]) >= 2
        assert all(flip["scenarios"] for flip in data["ranking"]["pairs"][0]["flips"])

    def test_many_scenarios_continue_below(self, tmp_path: Path) -> None:
        code, text = ran(*written(tmp_path, *(TWO * 3)))
        assert code == 0
        assert text.count("side by side") == 2
        assert text.count("energy by cause") == 2
        assert "are equal" in text

    def test_the_same_name_twice(self, tmp_path: Path) -> None:
        (one, _) = written(tmp_path, *TWO)
        (tmp_path / "other").mkdir()
        (two, _) = written(tmp_path / "other", *TWO)
        names = [each.name for each in answered([one, two, one])]
        assert names == [f"{one} #1", str(two), f"{one} #2"]

    def test_the_infeasible_is_a_column(self, tmp_path: Path) -> None:
        hopeless = TWO[0].replace("llama3.1-8b", "meta-llama/Llama-3.1-405B").replace("chips = 64", "chips = 16")
        files = written(tmp_path, hopeless, TWO[1])
        code, text = ran(*files)
        assert code == 0
        assert "can't run" in text
        assert ran(files[0], files[0])[0] == 1

    def test_all_faults_of_all_files_at_once(self, tmp_path: Path) -> None:
        bad = written(
            tmp_path,
            'modell = "llama3.1-8b"\nsystem = "trn9"\nchips = "many"\n',
            TWO[0].replace("chips = 64", "chips = 17"),
            TWO[1],
            "system = [",
        )
        text = refused(*bad, tmp_path / "absent.toml")
        for words in (
            "faults in 4 of 5 scenario files", 'unknown key "modell"', 'unknown system "trn9"', '"many"',
            "17 chips of trn2.48xlarge split a node", "scenario1.toml, chips", "not TOML", "absent.toml",
            "no such file",
        ):  # fmt: skip
            assert words in text, words
        assert "scenario2" not in text

    def test_one_fault_is_said_plainly(self, tmp_path: Path) -> None:
        text = refused(*written(tmp_path, TWO[0].replace("chips = 64", "chips = 17"), TWO[1]))
        assert text.startswith("17 chips of trn2.48xlarge split a node (")
        assert "multiples of 16" in text

    @pytest.mark.parametrize("count", [0, 1])
    def test_fewer_than_two_are_no_comparison(self, tmp_path: Path, count: int) -> None:
        assert "two or more" in refused(*written(tmp_path, *TWO)[:count])

    def test_an_unknown_objective_before_any_work(self, tmp_path: Path) -> None:
        assert 'unknown objective "speed"' in refused(tmp_path / "absent.toml", "x", "--objective", "speed")

    def test_examples(self) -> None:
        files = sorted((ROOT / "examples/scenarios").glob("*.toml"))
        assert len(files) >= 3
        code, text = ran(*files, "--objective", "cost")
        assert code == 0
        assert "can't run" not in text
        assert "your price" in text


def test_blocks_and_json_of_a_comparison_from_python(comparison: Comparison) -> None:
    text = rendered(comparison_blocks(comparison), width=140)
    assert "ranking by cost" in text
    data = comparison_json(comparison)
    assert data["ranking"]["places"][0]["name"] == comparison.scenarios[comparison.ranking.places[0].scenario].name
