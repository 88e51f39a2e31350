"""Studies: what a file means, and that nothing is lost or changed however a study is run, ended and gone on with."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ultratwin
from ultratwin import cli
from ultratwin.errors import ScenarioError
from ultratwin.planning.scenario_file import read_scenario
from ultratwin.planning.settings_file import _key_lines
from ultratwin.planning.studies import store as store_module
from ultratwin.planning.studies.executors import EXECUTORS, executor, local
from ultratwin.planning.studies.executors.executor import MOST_LOSSES, Executor
from ultratwin.planning.studies.executors.local import LocalExecutor
from ultratwin.planning.studies.run import Progress, run_study
from ultratwin.planning.studies.store import COLUMNS, Store, open_store
from ultratwin.planning.studies.study import Outcome, Scenario, Study, read_study
from ultratwin.report.outcome import answered

ROOT = Path(__file__).parents[1]
TINY = """\
name = "tiny"
models = ["meta-llama/Llama-3.1-8B"]
systems = ["trn2.48xlarge", "p5.48xlarge"]
chips = [64, 100]
tokens = "1T"
precisions = ["bf16", "fp8"]
seeds = [0, 1, 2, 3, 4, 5]
global_batch_sizes = [1024]

[layout]
tensor_parallel_size = 8
pipeline_parallel_size = 1
micro_batch_size = 1
zero_stage = 1
"""
NUM_TINY = 48


class InlineExecutor(Executor):
    """Answers in this process: what all others must equal."""

    name = "inline"

    @classmethod
    def made(cls, *, workers: int | None, address: str) -> InlineExecutor:
        return cls()

    def answers(
        self, answered: Callable[[Scenario], Outcome], scenarios: Iterable[Scenario]
    ) -> Iterator[tuple[Scenario, Outcome]]:
        return ((scenario, answered(scenario)) for scenario in scenarios)


def quick(scenario: Scenario) -> Outcome:
    """An answer that takes no time."""
    return Outcome(status="done", figures={"days": float(scenario.question.seed)}, result="{}" + " " * 10_000)


def deadly(scenario: Scenario) -> Outcome:
    """Its process does not survive one of the scenarios."""
    if scenario.question.seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return quick(scenario)


def deadly_once(scenario: Scenario) -> Outcome:
    """A process is lost, for a reason that does not come back."""
    mark = Path(os.environ["ULTRATWIN_TEST_MARK"])
    if scenario.question.seed == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return quick(scenario)


def faulty(scenario: Scenario) -> Outcome:
    """A fault of the program in one of the scenarios."""
    if scenario.question.seed == 1:
        raise ZeroDivisionError("a fault")
    return quick(scenario)


def ends_at_once(*arguments: object) -> None:
    """A worker that can't even start."""
    os._exit(3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    """CSV and JSON of the tiny study, answered one by one in this process."""
    folder = tmp_path_factory.mktemp("expected")
    path = folder / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    with open_store(folder / "tiny.duckdb", write=True) as kept:
        run_study(read_study(path), kept, InlineExecutor(), answered)
    return outputs(folder / "tiny.duckdb")


def outputs(path: Path) -> tuple[bytes, str]:
    """What a store gives: its CSV export, and `show --json`."""
    from ultratwin.report.json import dumped
    from ultratwin.report.study import study_json

    with open_store(path) as kept:
        kept.export(path.with_suffix(".csv"))
        return path.with_suffix(".csv").read_bytes(), dumped(study_json(kept))


def small(tmp_path: Path, **lists: list[Any]) -> Study:
    """A study of two systems and three seeds, or as given."""
    text = TINY.replace("[0, 1, 2, 3, 4, 5]", "[0, 1, 2]").replace('["bf16", "fp8"]', '["bf16"]')
    text = text.replace("[64, 100]", "[64]")
    path = tmp_path / "small.toml"
    path.write_text(text, encoding="utf-8")
    study = read_study(path)
    from msgspec.structs import replace

    return dataclasses.replace(study, file=replace(study.file, **lists))


COMMAND = [sys.executable, "-c", "from ultratwin.cli import main; main()"]


def shell(*arguments: str | Path, before: str = "") -> subprocess.CompletedProcess[str]:
    """A real process."""
    command = [sys.executable, "-c", f"{before}\nfrom ultratwin.cli import main; main()"]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"COLUMNS": "140"},
    )  # fmt: skip


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    """A real process that goes on, in a process group of its own as a shell would give it."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def wait_for_growth(path: Path, process: subprocess.Popen[str], size_bytes: int = 150_000) -> None:
    """Waits until some scenarios more are committed."""
    log = path.with_name(path.name + ".wal")
    begun = log.stat().st_size if log.exists() else 0
    deadline = time.monotonic() + 40
    while not (log.exists() and log.stat().st_size > begun + size_bytes):
        assert time.monotonic() < deadline, "the study does not begin"
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert cli.run([str(each) for each in arguments]) == cli.BAD_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err


# files


def test_all_faults_of_a_file_are_reported_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(
        'name = "a study"\nmodels = ["llama3.1-8b", "llama3.1-9b"]\nsystem = ["p5.48xlarge"]\n'
        'seeds = [1, 1]\ntokens = "1 TB"\nobjectives = []\n[layout]\nzero_stage = 4.5\nrecompute = "some"\n',
        encoding="utf-8",
    )
    with pytest.raises(ScenarioError) as caught:
        read_study(path)
    text = str(caught.value)
    for words in (
        "9 faults", "systems is missing", "name is 'a study' (bad.toml, line 1)", 'unknown model "llama3.1-9b"',
        'unknown key "system" (bad.toml, line 3)', "did you mean systems?", "seeds has 1 twice (bad.toml, line 4)",
        '"1 TB" is a byte, not a number (bad.toml, line 5)', "objectives is empty (bad.toml, line 6)",
        "4.5 is not a whole number (bad.toml, line 8)", 'unknown recompute "some" (bad.toml, line 9)',
    ):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = tiny", "not TOML"),
        (TINY.replace("chips = [64, 100]", 'chips = { "trn1.32xlarge" = [64] }'), "none of the systems"),
        (TINY.replace("chips = [64, 100]", "chips = 64"), "chips is 64"),
        (TINY.replace("[0, 1, 2, 3, 4, 5]", str(list(range(200_000)))), "up to 1,000,000"),
        (TINY.replace("[0, 1, 2, 3, 4, 5]", f"[{'9' * 5000}]"), "not TOML"),
        (TINY.replace('["bf16", "fp8"]', '["bf16", "bf8"]'), "did you mean"),
        (TINY.replace('"meta-llama/Llama-3.1-8B"', '"llama3.1-8b", "meta-llama/Llama-3.1-8B"'), "twice"),
        (TINY.replace("micro_batch_size = 1", "data_parallel_size = 1"), "data_parallel_size alone"),
    ],
)
def test_a_fault_is_explained(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ScenarioError) as caught:
        read_study(path)
    assert words in str(caught.value)
    assert "bad.toml" in str(caught.value)


def test_files_that_are_none(tmp_path: Path, file: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for path, words in (
        (tmp_path, "folder"), (tmp_path / "tinny.toml", "did you mean"), (tmp_path / "binary.toml", "UTF-8"),
    ):  # fmt: skip
        with pytest.raises(ScenarioError, match=words):
            read_study(path)


def test_lines_of_keys() -> None:
    text = '# head\na.b = 1\n"c d" = 2\n[table]\n  key = [\n    1,\n  ]\n[[many]]\nx = 1\n[[many]]\nx = 2\n'
    assert _key_lines(text) == {
        ("a", "b"): 2, ("c d",): 3, ("table",): 4, ("table", "key"): 5, ("many",): 8, ("many", "x"): 9,
    }  # fmt: skip


def test_a_scenario_file_is_the_question_that_train_asks(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        'model = "llama3.1-8b"\nsystem = "trn2.48xlarge"\nchips = "64"\ntokens = "15.6T"\nprice_per_chip_hour = 3.6\n'
        '[layout]\ntensor_parallel_size = 8\nrecompute = "full"\nsequence_parallel = true\n',
        encoding="utf-8",
    )
    question = read_scenario(path)
    assert (question.model, question.chips, question.tokens) == ("meta-llama/Llama-3.1-8B", 64, 15.6e12)
    assert question.price_usd_per_chip_s == pytest.approx(0.001)
    assert question.layout == {"tensor_parallel_size": 8, "sequence_parallel": 1, "recompute": 2}


def test_a_model_of_a_file_travels_with_the_question(tmp_path: Path, file: Path) -> None:
    """Whoever answers need not have the file; a change of the file is another question."""
    config = {
        "model_type": "llama", "hidden_size": 1024, "num_hidden_layers": 8, "intermediate_size": 4096,
        "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 32000, "max_position_embeddings": 4096,
    }  # fmt: skip
    folder = tmp_path / "own"
    folder.mkdir()
    file.write_text(TINY.replace("meta-llama/Llama-3.1-8B", "own/config.json"), encoding="utf-8")
    keys = []
    for layers in (8, 16):
        (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}), encoding="utf-8")
        scenario = next(read_study(file).scenarios())
        (folder / "config.json").unlink()
        assert answered(scenario).status == "done"
        keys.append(scenario.key)
    assert keys[0] != keys[1]


# scenarios


def test_every_combination_is_a_scenario(file: Path) -> None:
    study = read_study(file)
    scenarios = list(study.scenarios())
    assert len(scenarios) == study.num_scenarios == NUM_TINY
    assert [each.position for each in scenarios] == list(range(NUM_TINY))
    asked = [
        (each.question.system, each.question.chips, each.question.precision, each.question.seed) for each in scenarios
    ]
    assert asked[:3] == [("trn2.48xlarge", 64, "bf16", seed) for seed in range(3)]
    assert asked[-1] == ("p5.48xlarge", 100, "fp8", 5)
    assert len({each.key for each in scenarios}) == NUM_TINY


def test_sizes_by_system(tmp_path: Path) -> None:
    study = small(tmp_path, chips={"trn2": [16, 32]}, seeds=[0])
    assert [each.question.chips for each in study.scenarios()] == [16, 32, None]
    assert study.num_scenarios == 3


def test_keys_are_of_question_version_and_catalogue(tmp_path: Path) -> None:
    study = small(tmp_path)
    keys = [each.key for each in study.scenarios()]
    assert keys == [each.key for each in small(tmp_path).scenarios()]
    for other in (
        dataclasses.replace(study, version="9"), dataclasses.replace(study, catalogue_hash="9"),
        small(tmp_path, precisions=["fp8"]), small(tmp_path, objectives=["cost"]), small(tmp_path, chips=[128]),
    ):  # fmt: skip
        assert not set(keys) & {each.key for each in other.scenarios()}
    # a longer list keeps the keys of what was there
    assert set(keys) < {each.key for each in small(tmp_path, seeds=[0, 1, 2, 3]).scenarios()}


def test_the_result_is_what_train_prints(expected: tuple[bytes, str]) -> None:
    rows = list(csv.DictReader(expected[0].decode().splitlines(keepends=True)))
    asked = {"chips": 64, "tokens": 1e12, "tensor_parallel_size": 8, "pipeline_parallel_size": 1, "micro_batch_size": 1}
    result = ultratwin.train(
        "meta-llama/Llama-3.1-8B", "p5.48xlarge", precision="fp8", seed=3, zero_stage=1, global_batch_size=1024, **asked
    )
    row = next(row for row in rows if (row["system"], row["chips"], row["precision"], row["seed"]) == (
        "p5.48xlarge", "64", "fp8", "3"))  # fmt: skip
    assert row["result"] == result.to_json()
    assert float(row["days"]) == result.days.expected
    assert float(row["cost_usd"]) == result.cost_usd[row["offer"]].expected


def test_what_a_system_cannot_hold_is_rejected_and_the_study_goes_on(expected: tuple[bytes, str]) -> None:
    shown = json.loads(expected[1])
    assert shown["by_status"] == {"done": 24, "rejected": 24}
    assert {row["reason"] for row in shown["scenarios"] if row["system"] == "p5.48xlarge" and row["chips"] == 100} == {
        "100 chips of p5.48xlarge split a node; allowed: multiples of 8"
    }


def test_a_plan_that_cannot_run_is_infeasible(tmp_path: Path) -> None:
    study = small(tmp_path, models=["openai/gpt3-175b"], seeds=[0])
    outcome = answered(next(study.scenarios()))
    assert outcome.status == "infeasible"
    assert "memory" in outcome.reason
    assert outcome.result is not None
    assert json.loads(outcome.result)["feasible"] is False


# the same bytes, however it is run and ended


def test_killed_twice_and_gone_on_with(file: Path, expected: tuple[bytes, str]) -> None:
    path = file.with_suffix(".duckdb")
    finished = [0]
    for _ in range(2):
        process = started("study", "run", file, "--workers", "2")
        wait_for_growth(path, process)
        workers = children(process.pid)
        assert len(workers) >= 2
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        with open_store(path) as kept:
            finished.append(kept.counts().finished)
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            assert time.monotonic() < deadline, "workers outlive their study"
            time.sleep(0.01)
    assert finished == sorted(set(finished))
    assert 0 < finished[-1] < NUM_TINY
    done = shell("study", "run", file, "--workers", "2")
    assert done.returncode == 0
    assert f"{NUM_TINY - finished[-1]} of them now" in done.stderr
    assert outputs(path) == expected


def test_interrupted_and_gone_on_with(file: Path, expected: tuple[bytes, str]) -> None:
    path = file.with_suffix(".duckdb")
    process = started("study", "run", file, "--workers", "1")
    wait_for_growth(path, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: parent and workers alike
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "run the same command again" in err
    assert "Traceback" not in err
    assert out == ""
    done = shell("study", "run", file, "--workers", "1")
    assert done.returncode == 0
    assert outputs(path) == expected


def test_full_disk_and_gone_on_with(file: Path, expected: tuple[bytes, str]) -> None:
    path = file.with_suffix(".duckdb")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))"
    for _ in range(2):  # the second time nothing fits any more
        full = shell("study", "run", file, "--workers", "1", before=limit)
        assert (full.returncode, full.stdout) == (2, "")
        assert "the disk is full" in full.stderr
        assert str(path) in full.stderr
        assert "Traceback" not in full.stderr
    with open_store(path) as kept:
        assert 0 < kept.counts().finished < NUM_TINY
    assert shell("study", "run", file, "--workers", "1").returncode == 0
    assert outputs(path) == expected


def test_two_runs_at_once(file: Path) -> None:
    with open_store(file.with_suffix(".duckdb"), write=True):
        second = shell("study", "run", file)
    assert (second.returncode, second.stdout) == (2, "")
    assert "in use by another process" in second.stderr
    assert str(os.getpid()) in second.stderr


# workers


def run_small(tmp_path: Path, function: Callable[[Scenario], Outcome], *, workers: int = 2, **options: Any) -> Store:
    kept = open_store(tmp_path / "small.duckdb", write=True)
    run_study(
        small(tmp_path, seeds=[0, 1, 2, 3], systems=["p5.48xlarge"]), kept, LocalExecutor(workers), function, **options
    )
    return kept


def test_a_lost_worker_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULTRATWIN_TEST_MARK", str(tmp_path / "mark"))
    with run_small(tmp_path, deadly_once) as kept:
        assert kept.counts().by_status == {"done": 4}
    assert (tmp_path / "mark").exists()


def test_a_deadly_scenario_is_given_up_alone_and_tried_again_if_asked(tmp_path: Path) -> None:
    with run_small(tmp_path, deadly) as kept:
        assert kept.counts().by_status == {"done": 3, "failed": 1}
        ((seed, reason),) = kept.rows("SELECT seed, reason FROM results WHERE status = 'failed'")
        assert seed == 1
        assert f"died {MOST_LOSSES} times" in reason
    with run_small(tmp_path, quick) as kept:
        assert kept.counts().by_status == {"done": 3, "failed": 1}
    with run_small(tmp_path, quick, retry_failed=True) as kept:
        assert kept.counts().by_status == {"done": 4}


def test_a_fault_of_the_program_fails_its_scenario_only(tmp_path: Path) -> None:
    with run_small(tmp_path, faulty, workers=1) as kept:
        assert kept.counts().by_status == {"done": 3, "failed": 1}
        assert kept.rows("SELECT reason FROM results WHERE status = 'failed'") == [("ZeroDivisionError: a fault",)]


def test_workers_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_work", ends_at_once)
    with pytest.raises(ScenarioError, match="end before they begin"):
        list(LocalExecutor(1).answers(quick, small(tmp_path).scenarios()))


def test_scenarios_are_taken_as_workers_become_free(tmp_path: Path) -> None:
    taken, most_ahead = 0, 0

    def counted() -> Iterator[Scenario]:
        nonlocal taken
        for scenario in small(tmp_path, seeds=list(range(100)), systems=["p5.48xlarge"]).scenarios():
            taken += 1
            yield scenario

    for finished, _ in enumerate(LocalExecutor(2).answers(quick, counted()), start=1):
        most_ahead = max(most_ahead, taken - finished)
    assert taken == 100
    assert most_ahead <= 3


@pytest.mark.parametrize("each", EXECUTORS)
def test_every_executor_is_found_by_its_name(each: type[Executor]) -> None:
    assert type(executor(each.name, workers=1)) is each
    with pytest.raises(ScenarioError, match="allowed"):
        executor(each.name, workers=-1)


def test_executors_that_are_none() -> None:
    with pytest.raises(ScenarioError, match="did you mean local"):
        executor("locl")
    with pytest.raises(ScenarioError, match="add --executor ray"):
        executor("local", address="auto")


# the store


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A finished store of a small study."""
    with open_store(tmp_path / "small.duckdb", write=True) as each:
        run_study(small(tmp_path), each, InlineExecutor(), quick)
    return tmp_path / "small.duckdb"


def flipped(data: bytes) -> bytes:
    return bytes(byte ^ 255 if at % 997 == 0 and at > 12_288 else byte for at, byte in enumerate(data))


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"garbage" * 1000, lambda data: b"", lambda data: data[: len(data) // 3], flipped],
    ids=["garbage", "empty", "truncated", "flipped"],
)
def test_a_damaged_store_is_named_and_left_alone(
    damage: Callable[[bytes], bytes], kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.write_bytes(damage(kept.read_bytes()))
    before = kept.read_bytes()
    study_file = kept.with_suffix(".toml")
    for arguments in (
        ("show", kept), ("query", kept, "SELECT * FROM results"), ("export", kept, kept.with_suffix(".csv")),
        ("run", study_file, "--store", kept),
    ):  # fmt: skip
        err = refused(capsys, "study", *arguments)
        assert str(kept) in err, arguments
        assert "damaged" in err, arguments
        assert "move the file" in err, arguments
    assert kept.read_bytes() == before
    assert not kept.with_suffix(".csv").exists()


def test_other_files_are_refused(tmp_path: Path, kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.duckdb"
    with store_module.duckdb().connect(str(other)) as connection:
        connection.execute("CREATE TABLE t (x INTEGER)")
    assert "no study" in refused(capsys, "study", "show", other)
    assert "is a folder" in refused(capsys, "study", "run", tmp_path / "small.toml", "--store", tmp_path)
    text = refused(capsys, "study", "show", tmp_path / "missing")
    assert "studies here: other.duckdb, small.duckdb" in text
    with store_module.duckdb().connect(str(kept)) as connection:
        connection.execute("UPDATE study SET format = 99")
    assert "format 99" in refused(capsys, "study", "show", kept)
    with store_module.duckdb().connect(str(kept)) as connection:
        connection.execute("UPDATE study SET format = 1, name = 'another'")
    assert 'holds the study "another"' in refused(capsys, "study", "run", tmp_path / "small.toml", "--store", kept)


def test_a_changed_study_keeps_what_it_still_asks(tmp_path: Path, kept: Path) -> None:
    longer = small(tmp_path, seeds=[1, 2, 3])
    with open_store(kept, write=True) as each:
        progress = run_study(longer, each, InlineExecutor(), quick)
        assert (progress.num_before, progress.num_here) == (4, 2)
        assert each.counts().num_former == 2
        assert each.rows("SELECT seed FROM results") == [(1,), (2,), (3,)] * 2
    other = dataclasses.replace(longer, catalogue_hash="of another catalogue")
    with open_store(kept, write=True) as each:
        assert run_study(other, each, InlineExecutor(), quick).num_here == 6
        assert each.about()["catalogue_hash"] == "of another catalogue"


def test_a_new_store_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_CREATE", "CREATE TABLE study (x INTEGER); nonsense")
    with pytest.raises(ScenarioError):
        open_store(tmp_path / "new.duckdb", write=True)
    assert list(tmp_path.iterdir()) == []


def test_exports_are_the_same_twice(kept: Path, tmp_path: Path) -> None:
    with open_store(kept) as each:
        for suffix in (".csv", ".parquet"):
            targets = [tmp_path / f"{name}'s{suffix}" for name in ("one", "two")]
            assert [each.export(target) for target in targets] == [6, 6]
            assert targets[0].read_bytes() == targets[1].read_bytes()
        rows = store_module.duckdb().sql(f"SELECT * FROM read_parquet('{tmp_path}/one''s.parquet')")
        assert rows.columns == ["position", *COLUMNS]
        assert [row[0] for row in rows.fetchall()] == list(range(6))
        with pytest.raises(ScenarioError, match="parquet"):
            each.export(tmp_path / "out.xlsx")
        with pytest.raises(ScenarioError, match="no folder"):
            each.export(tmp_path / "nowhere" / "out.csv")


def test_an_extra_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ScenarioError, match=r"pip install 'ultratwin\[study\]'"):
        open_store(tmp_path / "new.duckdb", write=True)


# the command line


def test_show_and_query(kept: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(kept.parent)
    monkeypatch.setenv("COLUMNS", "140")
    with open_store(kept, write=True) as each:
        run_study(small(kept.parent, seeds=[0], precisions=["bf16", "fp8"]), each, InlineExecutor(), answered)
    assert cli.run(["study", "show", "small"]) == 0
    shown = capsys.readouterr().out
    for words in ("4 of 4 scenarios finished: 4 done", "least cost", "no other beats", "p5.48xlarge", "TP8 DP8", "$"):
        assert words in shown, words
    sql = "SELECT system, count(*) AS n, min(days) AS days FROM results GROUP BY system ORDER BY system"
    assert cli.run(["study", "query", "small", sql]) == 0
    assert "trn2.48xlarge" in capsys.readouterr().out
    assert (
        cli.run(["study", "query", "small", "SELECT position, result->>'$.feasible' AS f FROM results", "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)[1] == {"position": 1, "f": "true"}


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT nothing FROM results", "DuckDB can't answer: Binder Error"),
        ("SELCT 1", "syntax error"),
        ("DELETE FROM finished", "read-only"),
        ("", "empty"),
        ("SELECT * FROM unheard_of", "unheard_of"),
    ],
)
def test_queries_that_are_refused(sql: str, words: str, kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = kept.read_bytes()
    assert words in refused(capsys, "study", "query", kept, sql)
    assert kept.read_bytes() == before


def test_a_study_where_nothing_can_run_is_exit_code_1(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(TINY.replace("[64, 100]", "[100]").replace("[0, 1, 2, 3, 4, 5]", "[0]"), encoding="utf-8")
    assert cli.run(["study", "run", str(file), "--workers", "1"]) == 1
    assert "4 rejected" in capsys.readouterr().err
    assert cli.run(["study", "show", str(file)]) == 0
    assert "split a node" in capsys.readouterr().out


def test_help_loads_nothing_heavy() -> None:
    asked = "import sys; from ultratwin.cli import run; run(['study', 'run', '--help'])"
    code = f"{asked}; print({{'numpy', 'msgspec', 'duckdb', 'ray', 'pyarrow'}} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "--executor" in out.stdout
    assert out.stdout.strip().endswith("set()")


def test_progress_says_rate_and_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    from ultratwin.cli.study import _progress_said

    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    progress = Progress(total=20, num_before=5)
    assert _progress_said(progress) == "5 of 20 done, 15 left"
    progress.count(Outcome(status="done"))
    monkeypatch.setattr(time, "monotonic", lambda: 102.0)
    for _ in range(4):
        progress.count(Outcome(status="done"))
    assert _progress_said(progress) == "10 of 20 done, 10 left, 2/s, about 5 s to go"


def test_the_example_is_a_study() -> None:
    study = read_study(ROOT / "examples" / "study.toml")
    assert study.num_scenarios == len({each.key for each in study.scenarios()}) > 10
