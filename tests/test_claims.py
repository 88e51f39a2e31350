"""The ledger: every claim is there, every number has its origin, and verdicts follow from numbers alone."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ultratwin
from ultratwin import cli
from ultratwin.catalogue import loader
from ultratwin.catalogue.assumptions import assuming
from ultratwin.catalogue.expressions import computed
from ultratwin.catalogue.facts import Fact
from ultratwin.catalogue.schema import ClaimEntry, ReadingEntry
from ultratwin.errors import CatalogueError
from ultratwin.hardware.chip import Array
from ultratwin.planning.claims.ledger import Claim, Reading, claim_entry, judged, ledger
from ultratwin.planning.claims.sampling import OWN_ERROR
from ultratwin.planning.claims.scenarios import Answers
from ultratwin.planning.claims.verdict import ReadingVerdict, claim_verdict, reading_verdict, satisfied
from ultratwin.planning.sensitivity import UsedFact
from ultratwin.planning.uncertainty import NUM_SAMPLES

ROOT = Path(__file__).parents[1]
ISSUE = {
    "ultraserver-144": ["144 chips"],
    "million-chip-clusters": ["1,000,000 chips", "10x"],
    "performance-4x": ["4x", "4.4x"],
    "memory-4x": ["4x"],
    "energy-40-percent": ["1.4x"],
    "performance-per-watt": ["4x"],
    "gpt-oss-3x": ["3x", "4x"],
    "trainium4-multiples": ["3x", "6x", "4x"],
    "trainium4-ultraserver": ["2 EFLOP/s", "2.8 PB/s"],
    "nvlink-6": ["1.8 TB/s", "3.6 TB/s"],
    "cloud-prices": ["30 %"],
    "price-performance": ["1.35x"],
}
"""What issue 6 asks for, and the numbers that each claim states."""


@pytest.fixture(scope="module")
def claims() -> dict[str, Claim]:
    return {each.id: each for each in ultratwin.claims().claims}


def figures_only(claim_id: str) -> ClaimEntry:
    """A claim with those of its readings that need no scenario."""
    entry = claim_entry(claim_id)
    kept = tuple(each for each in entry.readings if not any(f"{word}." in each.expression for word in entry.scenarios))
    return msgspec.structs.replace(entry, readings=kept)


def quick(claim_id: str) -> Claim:
    return judged(claim_id, figures_only(claim_id), Answers(0))


def expected(reading: Reading) -> float:
    assert reading.value is not None
    return reading.value.expected


def verdicts(claim: Claim) -> dict[str, str]:
    return {each.entry.name: each.verdict.verdict for each in claim.readings}


def test_every_claim_of_the_issue_is_on_trial(claims: dict[str, Claim]) -> None:
    assert ISSUE.keys() <= claims.keys()
    for name, amounts in ISSUE.items():
        shown = ultratwin.Ledger(claims=(claims[name],)).table(width=160)
        for amount in amounts:
            assert amount in shown, name
    for name in ("performance-4x", "gpt-oss-3x", "trainium4-multiples", "price-performance"):
        scenarios = claims[name].entry.scenarios.values()
        assert scenarios, name  # on real workloads, not on peaks alone
    verbs = {each.verb for claim in claims.values() for each in claim.entry.scenarios.values()}
    assert verbs == {"train", "serve"}


def test_every_number_has_its_range_and_its_origin(claims: dict[str, Claim]) -> None:
    for claim in claims.values():
        assert claim.entry.decided_by
        for reading in claim.readings:
            if reading.term is None:
                assert reading.verdict.verdict == "cannot be tested"
                assert reading.verdict.reason
                continue
            assert reading.value is not None
            assert reading.value.low <= reading.value.expected <= reading.value.high
            assert reading.value.expected == float(reading.term.samples[0])
            for _, term in reading.term.walk():
                leaf = not term.children
                if leaf and term.fact is not None:
                    assert term.fact.source.split()
                    assert set(term.fact.source.split()) <= loader.sources().keys()
                elif leaf:
                    assert term.answer is not None or float(term.samples[0]) in (0.0, 1.0), term.text


def test_the_claims_say_what_is_known_of_them(claims: dict[str, Claim]) -> None:
    """By hand, from the published figures."""
    memory = {each.entry.name: each for each in claims["memory-4x"].readings}
    assert expected(memory["memory bandwidth of an UltraServer"]) == pytest.approx(705.6 / 185.6)
    assert expected(memory["memory of an UltraServer"]) == pytest.approx(20736 / 6144)
    energy = claims["energy-40-percent"].readings[0]
    (condition,) = energy.verdict.conditions
    assert condition.name_said == "trainium3.tdp_w"
    assert condition.most == pytest.approx(2517 / (1.35 * 1299 / 500), rel=2e-3)  # 717 W
    assert expected(claims["performance-4x"].readings[0]) == pytest.approx(362448 / 83200, rel=1e-3)
    assert verdicts(claims["ultraserver-144"]) == {
        "Gen2: chips of one unit": "holds",
        "Gen2: chips of one scale-up domain": "holds",
        "Gen1: chips of one unit": "does not hold",
    }
    nvlink = verdicts(claims["nvlink-6"])
    assert nvlink["NVLink 6, both directions together"] == "holds"
    assert nvlink["NVLink 6, one direction"] == "does not hold"
    assert "no price of trn3-gen2-ultraserver is public" in str(claims["cloud-prices"].readings[-1].verdict)


def test_an_assumption_changes_the_verdict() -> None:
    name = "FP8 peak per watt of a chip"
    assert verdicts(quick("energy-40-percent"))[name] == "holds only if"
    with assuming({"trainium3.tdp_w": "700W", "trainium2.tdp_w": "500W"}):
        assert verdicts(quick("energy-40-percent"))[name] == "holds"
    with assuming({"trainium3.tdp_w": "1000W"}):
        assert verdicts(quick("energy-40-percent"))[name] == "does not hold"
    bandwidth = "memory bandwidth, multiples per chip, 144 chips"
    for multiple, verdict in ((4.0, "holds"), (3.5, "does not hold")):
        with assuming({"trainium4.memory_bandwidth_multiple": multiple}):
            assert verdicts(quick("trainium4-ultraserver"))[bandwidth] == verdict


def test_assumptions_reach_the_runs_of_a_claim() -> None:
    entry = claim_entry("trainium4-multiples")
    one = tuple(each for each in entry.readings if "new_train." in each.expression)
    entry = msgspec.structs.replace(entry, readings=one)
    values = []
    for rate in ("7.551PFLOP/s", "8.8PFLOP/s"):
        with assuming({"trainium4.mxfp8_flop_per_s": rate, "trainium4.bf16_flop_per_s": "2.013PFLOP/s"}):
            (reading,) = judged("trainium4-multiples", entry, Answers(0)).readings
        values.append(expected(reading))
        assert not [each for each in reading.verdict.conditions if "mxfp8" in each.fact.name]
    assert values[1] > values[0]


def used(name: str, low: float, value: float, high: float, key: str = "tdp_w") -> UsedFact:
    return UsedFact(name=name, key=key, unit="x", low=low, value=value, high=high, status="assumed", source="seedcalc")


def claimed(low: float, high: float) -> Fact:
    return Fact(value=low, unit="x", status="announced", source="seedcalc", low=low, high=high)


@given(
    low=st.floats(0.1, 10),
    spread=st.floats(1.01, 3),
    limit=st.floats(0.05, 40),
    key=st.sampled_from(["tdp_w", OWN_ERROR]),
)
def test_a_verdict_is_what_the_samples_say(low: float, spread: float, limit: float, key: str) -> None:
    """One fact is the number: the verdict is known without computing it again."""
    high = low * spread**2
    fact = used("chip tdp_w", low, low * spread, high, key)
    samples = np.concatenate([[fact.value], np.linspace(low, high, NUM_SAMPLES)])
    found = reading_verdict(
        samples, claimed(limit, limit * 2), "at least", {fact.name: fact}, lambda new: new[fact.name]
    )
    share = float(np.mean(samples[1:] >= limit))
    assert found.holds_frac == pytest.approx(share, abs=1e-6)
    if limit <= low:
        assert found.verdict == "holds"
    elif limit > high:
        assert found.verdict == "does not hold"
    elif 0.05 < share < 0.95 and key != OWN_ERROR:
        assert found.verdict == "holds only if"
        (condition,) = found.conditions
        assert condition.most is None
        assert condition.least == pytest.approx(limit, rel=0.05)
    elif 0.05 < share < 0.95:
        assert found.verdict == ("holds only if" if fact.value >= limit else "does not hold")
        assert found.unless_factor == pytest.approx(max(limit / fact.value, fact.value / limit), rel=0.05)


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1), low=st.floats(-1e6, 1e6), width=st.floats(0, 1e6))
def test_a_higher_claim_holds_no_more_often(values: list[float], low: float, width: float) -> None:
    numbers: Array = np.array(values)
    for relation in ("at least", "equal"):
        assert np.all(
            satisfied(numbers, claimed(low, low + width), "equal")
            <= satisfied(numbers, claimed(low, low + width), relation)
        )
    assert np.all(
        satisfied(numbers, claimed(low + width, math.inf), "at least")
        <= satisfied(numbers, claimed(low, math.inf), "at least")
    )


def test_verdict_of_a_claim_by_its_readings() -> None:
    holds, fails = (ReadingVerdict(verdict=each, holds_frac=1.0) for each in ("holds", "does not hold"))
    blind = ReadingVerdict(verdict="cannot be tested", holds_frac=math.nan, reason="no price")
    assert claim_verdict([("4x", "a", holds), ("4x", "b", blind)]).verdict == "holds"
    assert claim_verdict([("4x", "a", fails), ("4x", "b", blind)]).verdict == "does not hold"
    assert claim_verdict([("4x", "a", blind)]).text == "cannot be tested: no price"
    mixed = claim_verdict([("4x", "a", holds), ("4x", "b", fails)])
    assert (mixed.verdict, mixed.text) == ("holds only if", "holds only if it means a")


def test_no_verdict_is_typed_in() -> None:
    for name in loader.ids("claims"):
        stated = tomllib.loads((loader.DATA / "claims" / f"{name}.toml").read_text(encoding="utf-8"))
        assert "verdict" not in stated
        for reading in claim_entry(name).readings:
            constants: list[float] = []
            computed(reading.expression, lambda _: None, constants.append, lambda *_: None)
            assert set(constants) <= {1.0}, name  # a number in an expression would have no source


def test_a_claim_that_does_not_compute_names_what_is_wrong() -> None:
    entry = figures_only("memory-4x")
    for expression, says in (
        ("new.memory_bites", "memory_bites"),
        ("newer.memory_bytes", "newer"),
        ("new.memory_bytes /", "does not parse"),
    ):
        wrong = msgspec.structs.replace(entry, readings=(ReadingEntry(name="a", expression=expression),))
        with pytest.raises(CatalogueError, match=says):
            judged("memory-4x", wrong, Answers(0))
    with pytest.raises(CatalogueError, match="did you mean memory-4x"):
        ledger(["memory-4"])


def test_the_claim_of_the_how_to_is_one_file() -> None:
    page = (ROOT / "docs/how-to/judge-a-claim.md").read_text(encoding="utf-8")
    text = page.split("```toml\n")[1].split("```")[0]
    entry = msgspec.convert(tomllib.loads(text), ClaimEntry)
    claim = judged("bandwidth-per-flop", entry, Answers(0))
    peaks, training = claim.readings
    assert peaks.verdict.verdict == "holds"
    assert training.value is not None
    assert training.used


def test_command_line(claims: dict[str, Claim], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["claims", "nvlink-6", "ultraserver-144", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["id"] for each in found["claims"]] == ["nvlink-6", "ultraserver-144"]
    for claim in found["claims"]:
        assert claim["verdict"] == claims[claim["id"]].verdict.verdict
        assert all(each["tree"]["value"]["expected"] for each in claim["readings"])
    assert cli.run(["claims", "ultraserver-144", "--explain"]) == 0
    shown = capsys.readouterr().out
    for word in (
        "holds only if",
        "systems/trn3-gen2-ultraserver/num_chips [published] [nd_trn3]",
        "decide",
        "neuron-ls",
    ):
        assert word in shown
    assert cli.run(["claims", "ultraserver"]) == cli.BAD_INPUT
    assert "did you mean ultraserver-144" in capsys.readouterr().err


def test_catalogue_shows_the_same_claim(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert cli.run(["catalogue", "claims", "memory-4x"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    entry = claim_entry("memory-4x")
    for word in (entry.statement, *(each.name for each in entry.readings), "new: systems/trn3-gen2-ultraserver"):
        assert word in shown
    assert cli.run(["catalogue", "claims"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ISSUE)


def test_page_has_every_claim_and_reading(claims: dict[str, Claim]) -> None:
    page = (ROOT / "docs/explanation/claims.md").read_text(encoding="utf-8")

    def has(reading: Reading) -> bool:
        return f"| {reading.entry.name}" in page

    missing = [
        each.id for each in claims.values() if f"## {each.entry.name}\n" not in page or not all(map(has, each.readings))
    ]
    assert not missing, "run `make docs`"
