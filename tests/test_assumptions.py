"""Assuming other figures: what follows from them, what is refused, and that nothing of it stays."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ultratwin
from ultratwin import cli
from ultratwin.catalogue import loader
from ultratwin.catalogue.assumptions import assuming, override, parsed
from ultratwin.catalogue.facts import Fact
from ultratwin.catalogue.overrides import in_force
from ultratwin.catalogue.schema import SystemEntry
from ultratwin.errors import UltratwinError
from ultratwin.hardware.chip import load_chip
from ultratwin.hardware.system import load_system
from ultratwin.mapping.engine import load_engine
from ultratwin.mapping.profile import load_profile
from ultratwin.planning.workers import mapped

HYPOTHETICAL = [name for name in loader.ids("systems") if getattr(loader.entry("systems", name), "hypothetical", False)]


def figure(kind: str, name: str, key: str) -> Fact:
    return loader.entry(kind, name).figures[key]


def test_the_answer_rests_on_it_and_says_so() -> None:
    def tokens_per_s() -> float:
        found = ultratwin.train(
            "llama3.1-8b", "trn4", chips=8, precision="mxfp8", tensor_parallel_size=1, pipeline_parallel_size=1,
            micro_batch_size=1, global_batch_size=64,
        )  # fmt: skip
        texts.append(found.to_json())
        assert ("assumed, instead of what the catalogue has" in found.table()) == bool(in_force())
        return found.tokens_per_s.expected

    texts: list[str] = []
    before = tokens_per_s()
    with ultratwin.assuming({"trainium4.mxfp8_flop_per_s": "8.8PFLOP/s", "trainium4.bf16_flop_per_s": 3.7e15}):
        assert tokens_per_s() > 1.15 * before
    assert tokens_per_s() == before
    assert texts[0] == texts[2]
    assert "assumptions" not in json.loads(texts[0])
    named = json.loads(texts[1])["assumptions"]
    assert [each["id"] for each in named] == [
        "chips/trainium4/mxfp8_flop_per_s",
        "chips/trainium4/bf16_flop_per_s",
    ]
    assert named[0]["si"] == pytest.approx(8.8e15)
    assert named[0]["stated"] == 7.551


def test_what_follows_is_recomputed_and_its_range_shrinks() -> None:
    wide = figure("chips", "trainium4", "bf16_flop_per_s")
    with assuming({"trainium4.fp4_multiple": 7.0}):
        fp4 = figure("chips", "trainium4", "mxfp4_flop_per_s")
        assert fp4.si == pytest.approx(7 * 2517e12)
        assert fp4.range_si == (fp4.si, fp4.si)
        assert figure("systems", "trn4", "mxfp4_flop_per_s").si == pytest.approx(144 * 7 * 2517e12)
        assert (
            figure("chips", "trainium4", "mxfp8_flop_per_s")
            == loader.stated_entry("chips", "trainium4").figures["mxfp8_flop_per_s"]
        )
    with assuming({"trainium4.fp8_multiple": 3.5}):
        bf16 = figure("chips", "trainium4", "bf16_flop_per_s")
        assert bf16.si == pytest.approx(3.5 * 671e12)
        assert bf16.range_si == wide.range_si  # what the multiple did not explain stays open


def test_a_link_is_one_figure_for_all_its_systems() -> None:
    with assuming({"nvlink-fusion.bytes_per_s": "1.5TB/s", "efa-trn4.bytes_per_s": "800Gb/s"}):
        for name in ("trn4-nvlink-fusion-72", "trn4-ultraserver-144", "trn4-ultraserver-2x72"):
            pool = load_system(name).pool
            assert (pool.domain.bytes_per_s, pool.fabric.bytes_per_s) == (1.5e12, 1e11)
    assert load_system("trn4").pool.domain.bytes_per_s == 1.8e12


def test_the_last_of_two_counts_and_inner_blocks_end() -> None:
    with assuming({"trainium4.tdp_w": "1.5kW"}):
        with assuming({"chips/trainium4/tdp_w": "2kW"}):
            assert load_chip("trn4").tdp_w == 2000
        assert load_chip("trn4").tdp_w == 1500
    assert load_chip("trn4").tdp_w == 1800


def test_profiles_and_engines_are_kept_apart() -> None:
    """They are loaded once; the assumption must not stay with them, nor they without it."""
    for kind, load, name in (("profiles", load_profile, "neuronx"), ("engines", load_engine, "vllm")):
        key, fact = next(
            (key, fact)
            for each in (name, getattr(loader.entry(kind, name), "based_on", ""))
            for key, fact in loader.entry(kind, each).figures.items()
            if fact.low is not None and fact.high is not None and fact.low < fact.value
            and getattr(load(name), key) == fact.si
        )  # fmt: skip
        owner = name if key in loader.entry(kind, name).figures else getattr(loader.entry(kind, name), "based_on", "")
        before = load(name)
        with assuming({f"{kind}/{owner}.{key}": f"{fact.low}{fact.unit}"}):
            assert getattr(load(name), key) == pytest.approx(fact.range_si[0])
        assert load(name) == before


def test_other_threads_do_not_see_it() -> None:
    seen: list[float] = []
    with assuming({"trainium4.tdp_w": "2kW"}):
        thread = threading.Thread(target=lambda: seen.append(float(load_chip("trn4").tdp_w)))
        thread.start()
        thread.join()
    assert seen == [1800.0]


def test_processes_that_work_for_the_question_see_it() -> None:
    with assuming({"trainium4.tdp_w": "2kW"}):
        found = mapped(load_chip, ["trainium4"] * 8, workers=2)
    assert {float(each.tdp_w) for each in found} == {2000.0}


def ranged() -> Iterator[tuple[str, Fact]]:
    for kind in ("chips", "links", "systems", "regions"):
        for name in loader.ids(kind):
            for key, fact in loader.entry(kind, name).figures.items():
                if (
                    not key.startswith(("num_", "chips_per_node", "domain_size", "max_"))
                    and fact.low is not None
                    and fact.high is not None
                    and fact.low < fact.high
                ):
                    yield f"{kind}/{name}.{key}", fact


RANGED = list(ranged())


@given(which=st.integers(0, len(RANGED) - 1), share=st.floats(0, 1))
def test_every_range_may_be_used_and_not_left(which: int, share: float) -> None:
    key, fact = RANGED[which]
    low, high = fact.range_si
    inside = low + share * (high - low)
    with assuming({key: inside}):
        kind, _, rest = key.partition("/")
        name, _, figure_key = rest.rpartition(".")
        assert figure(kind, name, figure_key).si == pytest.approx(inside)
    for outside in (low - (high - low) * (share + 1e-6), high + (high - low) * (share + 1e-6)):
        with pytest.raises(UltratwinError, match="outside its range"):
            override(key, outside)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("trainium4.memory_bytes=500GiB", ["500GiB lies outside its range", "216 to 432 GiB", "288 GiB (derived)"]),
        ("trainium4.memory_bites=300GiB", ['no figure "memory_bites"', "did you mean memory_bytes"]),
        ("trainum4.memory_bytes=300GiB", ['called "trainum4"', "did you mean trainium4"]),
        ("trainium3.memory_bytes=100GiB", ["published without a range: 144 GiB"]),
        ("trn4.memory_bytes_per_s=18TB/s", ["several entries", "chips/trainium4.memory", "systems/trn4-ultraserver"]),
        ("trainium4.memory_bytes=3TB/s", ["is a byte_per_s, not a byte"]),
        ("trainium4.memory_bytes=many", ["many", "is not a quantity"]),
        ("trainium4.tdp_w", ["is no assumption", "ENTRY.FIGURE=VALUE"]),
        ("trn4.chips_per_node=5.5", ["5.5 is not a whole number"]),
        ("memory-4x.claimed=4", ["is what was claimed"]),
        ("tdp_w=3", ["names no figure"]),
        ("models/llama3.1-8b.total_parameters=1", ["nothing in the catalogue"]),
        ("--json", ["--assume needs a value"]),
    ],
)
def test_bad_assumptions(text: str, says: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["catalogue", "chips", "trn4", "--assume", text]) == cli.BAD_INPUT
    error = capsys.readouterr().err
    for each in says:
        assert each in error


def test_several_in_one_text() -> None:
    assert parsed(["a.b=1, c.d = 2GB", "e.f=x"]) == {"a.b": "1", "c.d": "2GB", "e.f": "x"}


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    verb = ["catalogue", "systems", "trn4-nvlink-fusion-72"]
    assert cli.run([*verb, "--assume=trn4-nvlink-fusion-72.num_racks=2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["assumptions"][0]["id"] == "systems/trn4-nvlink-fusion-72/num_racks"
    assert found["entries"][0]["figures"]["num_racks"]["status"] == "assumed"
    assert cli.run(["--assume", "trainium4-per-ultraserver.tdp_w=3kW", *verb]) == 0
    shown = capsys.readouterr().out
    assert "248.4 kW" in shown  # 72 x (3,000 + 450) W
    assert "instead of 2,400 (1,400 to 4,000 W, assumed)" in " ".join(shown.split())  # however wide
    assert cli.run(["validate", "--assume", "trainium4.tdp_w=2kW"]) == cli.BAD_INPUT
    assert "does not go with validate" in capsys.readouterr().err
    assert cli.run(["train", "llama3.1-8b", "--system", "trn4", "--asume", "trainium4.tdp_w=2kW"]) == cli.BAD_INPUT
    assert "did you mean --assume?" in capsys.readouterr().err
    assert in_force() == ()


def test_trainium4_in_both_readings_and_both_sizes() -> None:
    """The announced totals follow from the multiples where 144 chips, or a whole UltraServer of 72, have them."""
    expected = {
        ("trn4-ultraserver-144", 144, 144): 1.0,
        ("trn4-ultraserver-144-per-ultraserver", 144, 144): 1.0,
        ("trn4-nvlink-fusion-72", 72, 72): 1.0,
        ("trn4-nvlink-fusion-72-per-chip", 72, 72): 0.5,
        ("trn4-ultraserver-2x72", 144, 72): 1.0,
    }
    assert sorted(name for name, *_ in expected) == sorted(each for each in HYPOTHETICAL if each.startswith("trn4"))
    for (name, chips, domain), share in expected.items():
        system = load_system(name)
        assert (system.unit_chips, system.pool.domain.size) == (chips, domain)
        assert system.facts["mxfp4_flop_per_s"].si == pytest.approx(share * 2.175e18, rel=2e-3)
        assert system.facts["memory_bytes_per_s"].si == pytest.approx(share * 2.822e15, rel=2e-3)
        assert system.pool.domain.link == "nvlink-fusion"
        assert system.pool.domain.bytes_per_s == 1.8e12
    assert loader.entry("links", "nvlink-fusion").figures["bidirectional_bytes_per_s"].si == 3.6e12
    assert load_system("rubin").id == "vr-nvl72"


@pytest.mark.parametrize("name", HYPOTHETICAL)
def test_nothing_hypothetical_is_published(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every figure of its own is marked and has a range; the listing shows status, range and note of its parts too."""
    entry = loader.entry("systems", name)
    assert isinstance(entry, SystemEntry)
    chip = loader.entry("chips", entry.chip)
    for key, fact in (*entry.figures.items(), *chip.figures.items()):
        assert fact.status in ("announced", "derived", "estimated", "assumed"), key
        assert fact.low is not None, key
        assert fact.high is not None, key
    assert cli.run(["catalogue", "systems", name]) == 0
    shown = capsys.readouterr().out
    for word in ("assumed", "announced", "rack_power_w", "liquid_heat_frac", "graviton5", "--assume", chip.name):
        assert word in shown
    assert cli.run(["catalogue", "systems", name, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["entries"]
    assert found["parts"].keys() == {"chip", "host", "scale-up", "scale-out"}
    assert all(each["sources"] for part in found["parts"].values() for each in part["figures"].values())
