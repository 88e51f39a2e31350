"""`ultratwin cluster` and `ultratwin collective` from outside: tables, JSON, what is said of bad input."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from cyclopts import App

from ultratwin import cli
from ultratwin.cli.cluster import cluster
from ultratwin.cli.collective import collective
from ultratwin.hardware.system import load_system
from ultratwin.planning.collective import CollectiveQuestion, answer_collective, doubling_sizes


@pytest.fixture(autouse=True)
def verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line of the two verbs alone."""

    def application() -> App:
        app = App(name="ultratwin", help_format="plaintext")
        app.command(cluster)
        app.command(collective)
        return app

    monkeypatch.setattr(cli, "application", application)
    monkeypatch.setenv("COLUMNS", "110")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.run(words) == cli.DONE
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.run(words) == cli.BAD_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return err


def test_a_cluster_of_a_million(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "cluster", "trn3-ultracluster", "--chips", "1000000")
    for word in ("6,945 x 144 chips", "rounded up by 80", "sled: switch of 4", "spine to core", "1.18 GW",
                 "What a loss takes away", "none is public", "Assumed, not published"):  # fmt: skip
        assert word in out, word
    data = json.loads(said(capsys, "cluster", "trn3-ultracluster", "--chips", "1e6", "--json"))
    assert data["verb"] == "cluster"
    assert data["num_endpoints"] == data["domain"]["num_domains"] * data["domain"]["size"] == 1_000_080
    assert data["power_w"]["low"] < data["power_w"]["all"] < data["power_w"]["high"]
    assert data["fabric"]["num_leaves"] == data["parts"]["leaf switches"]
    rates = data["failures_per_day"]
    assert 300 < sum(each["expected"] for each in rates.values()) < 600
    assert all(each["low"] <= each["expected"] <= each["high"] for each in rates.values())


def test_the_way_between_two_chips(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "cluster", "trn3-ultracluster", "--chips", "1000000", "--path", "0:999999")
    assert "adapter of chip 0 up" in out
    data = json.loads(said(capsys, "cluster", "tpu-v5e-pod", "--path", "0:17", "--json"))
    assert [hop["link"] for hop in data["way"]] == ["x+ of chip 0", "y+ of chip 1"]
    assert "CHIP:CHIP" in refused(capsys, "cluster", "dgx-h100", "--chips", "16", "--path", "3-4")
    assert "0 to 15" in refused(capsys, "cluster", "dgx-h100", "--chips", "16", "--path", "3:16")


@pytest.mark.parametrize(
    ("system", "words"),
    [("p5.48xlarge", ("8 x NVIDIA H100", "USD/h")), ("tpu-v4-pod", ("z: ring of 16",)), ("mi300x-8", ("mesh of 8",)),
     ("h100-nvl-2", ("1 x 2 chips",))],
)  # fmt: skip
def test_one_unit_where_no_chips_are_given(
    system: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    out = said(capsys, "cluster", system)
    assert f"{load_system(system).unit_chips:,} chips asked for" in out
    for word in words[1:]:
        assert word in out


def test_a_table_as_nccl_tests_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("collective", "all_reduce", "--system", "dgx-h100", "--chips", "1024", "--sizes", "1MB:8MB")
    out = said(capsys, *asked)
    for word in ("size (B)", "count", "time (us)", "algbw", "busbw", "8,000,000", "2,000,000"):
        assert word in out, word
    rows = json.loads(said(capsys, *asked, "--json"))["rows"]
    assert [row["size_bytes"] for row in rows] == [1e6, 2e6, 4e6, 8e6]
    for row in rows:
        assert row["count"] == row["size_bytes"] / 4
        assert row["bus_bytes_per_s"] == pytest.approx(row["algorithm_bytes_per_s"] * 2 * 1023 / 1024)
        assert row["time_s"] == pytest.approx(row["size_bytes"] / row["algorithm_bytes_per_s"])


@pytest.mark.parametrize("operation", ["all_reduce", "all_gather", "reduce_scatter", "all-to-all"])
@pytest.mark.parametrize(("system", "chips"), [("gb200-nvl72", 144), ("trn3-ultracluster", 1_000_000), ("dgx-h100", 8)])
def test_fidelities_keep_their_order(operation: str, system: str, chips: int) -> None:
    """Nothing is faster than the bound; without contention events say what the closed form says."""
    times = {}
    for fidelity in ("bound", "analytic", "event"):
        question = CollectiveQuestion(
            operation=operation.replace("-", "_"), system=system, num_chips=chips, sizes_bytes=(1e6, 256e6, 8e9),
            fidelity=fidelity,
        )  # fmt: skip
        times[fidelity] = [row.time_s for row in answer_collective(question).rows]
    for bound, closed, event in zip(*times.values(), strict=True):
        assert bound <= closed * (1 + 1e-9)
        assert bound <= event * (1 + 1e-9)
        assert event == pytest.approx(closed, rel=0.02)


def test_faults_show_in_events(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("collective", "all_reduce", "--system", "trn3-ultracluster", "--chips", "14400", "--sizes", "1GB",
             "--fidelity", "event", "--json")  # fmt: skip
    (well,) = json.loads(said(capsys, *asked))["rows"]
    for more in (("--slow-link", "adapter:17=0.5"), ("--slow-link", "rack:17=50%"), ("--lost-rails", "12"),
                 ("--straggler", "17=1ms"), ("--slow-link", "leaf:0=0.25,pod:0=0.9")):  # fmt: skip
        (ill,) = json.loads(said(capsys, *asked, *more))["rows"]
        assert ill["time_s"] > well["time_s"] * 1.01, more


def test_the_same_question_gives_the_same_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("collective", "all_reduce", "--system", "dgx-h100", "--chips", "256", "--sizes", "64MB", "--fidelity",
             "event", "--routing", "ecmp", "--seed", "3", "--json")  # fmt: skip
    assert said(capsys, *asked) == said(capsys, *asked)
    other = said(capsys, *asked[:-2], "4", "--json")
    assert other != said(capsys, *asked)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("cluster", "trn3-ultraclutser"), "did you mean"),
        (("cluster", "trn2.3xlarge", "--chips", "1e6"), "it holds 64"),
        (("cluster", "trn3-ultracluster", "--chips", "50"), "do not fill rows"),
        (("cluster", "trn3-ultracluster", "--chips", "0"), "0 chips are no cluster"),
        (("cluster", "trn3-ultracluster", "--chips", "-5"), "-5 chips are no cluster"),
        (("cluster", "../systems/dgx-h100"), "system"),
        (("collective", "all_reduse", "--system", "dgx-h100"), "did you mean all_reduce"),
        (("collective", "all_reduce"), "--system is missing"),
        (("collective", "all_reduce", "--system", "dgx-h100", "--sizes", "16GB:1MB"), "out of order"),
        (("collective", "all_reduce", "--system", "dgx-h100", "--sizes", "2MB,1MB"), "out of order"),
        (("collective", "all_reduce", "--system", "dgx-h100", "--sizes", "-1MB:1MB"), "out of order"),
        (("collective", "all_reduce", "--system", "dgx-h100", "--sizes", "0MB"), "a message of 0 bytes"),
        (("collective", "all_reduce", "--system", "dgx-h100", "--sizes", "1MX"), "1MX"),
        (("collective", "all_reduce", "--system", "dgx-h100", "--sizes", "5s"), "not a byte"),
        (("collective", "all_reduce", "--system", "dgx-h100", "--chips", "1"), "nobody to talk to"),
        (("collective", "all_reduce", "--system", "dgx-h100", "--fidelity", "exact"), "unknown fidelity"),
        (("collective", "all_reduce", "--system", "dgx-h100", "--algorithm", "rings"), "did you mean ring"),
        (("collective", "all_reduce", "--system", "dgx-h100", "--algorithm", "ring", "--fidelity", "bound"), "a bound"),
        (("collective", "all_reduce", "--system", "dgx-h100", "--chips", "64", "--slow-link", "adapter:1=0.5"),
         "--fidelity event"),
        (("collective", "all_reduce", "--system", "dgx-h100", "--chips", "64", "--fidelity", "event", "--slow-link",
          "adapter:1=0"), "--lost-rails"),
        (("collective", "all_reduce", "--system", "dgx-h100", "--chips", "64", "--fidelity", "event", "--straggler",
          "fast"), "CHIP=DELAY"),
        (("collective", "all_reduce", "--system", "dgx-h100", "--chips", "64", "--fidelity", "event", "--algorithm",
          "mesh"), "can't run here"),
        (("collective", "all_reduce", "--system", "dgx-h100", "--chips", "64", "--fidelity", "event", "--routing",
          "best"), "unknown routing"),
    ],
)  # fmt: skip
def test_what_is_said_of_bad_input(words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in refused(capsys, *words)


def test_doubling_sizes_end_where_asked() -> None:
    assert doubling_sizes(1e6, 1e6) == (1e6,)
    assert doubling_sizes(1e6, 16e9)[-1] <= 16e9


def test_verbs_load_nothing_heavy() -> None:
    verbs = "ultratwin.cli.cluster, ultratwin.cli.collective"
    code = f"import sys, {verbs}; print(*sorted({{'numpy', 'rich'}} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
