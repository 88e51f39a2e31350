"""Studies on a real Ray cluster of several nodes on this machine, one of which is killed half-way."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ultratwin.errors import ScenarioError
from ultratwin.planning.studies.executors import executor
from ultratwin.planning.studies.executors import ray as ray_module
from ultratwin.planning.studies.executors.local import LocalExecutor
from ultratwin.planning.studies.run import Progress, run_study
from ultratwin.planning.studies.store import open_store
from ultratwin.planning.studies.study import read_study
from ultratwin.report.json import dumped
from ultratwin.report.outcome import answered
from ultratwin.report.study import study_json

ROOT = Path(__file__).parents[1]
STUDY = """\
name = "many-machines"
models = ["meta-llama/Llama-3.1-8B"]
systems = ["trn2.48xlarge", "p5.48xlarge"]
chips = [64, 100]
precisions = ["bf16", "fp8"]
seeds = [0, 1, 2, 3, 4, 5, 6, 7]
global_batch_sizes = [1024]

[layout]
tensor_parallel_size = 8
pipeline_parallel_size = 1
micro_batch_size = 1
"""


@pytest.fixture(scope="module")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ray") / "study.toml"
    path.write_text(STUDY, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A head and two more nodes of one CPU each, all of them real processes of Ray's."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, about its own insides
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        made.add_node(num_cpus=1)
    yield made
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.shutdown()


def outputs(path: Path) -> tuple[bytes, bytes, str]:
    with open_store(path) as kept:
        kept.export(path.with_suffix(".csv"))
        kept.export(path.with_suffix(".parquet"))
        return (
            path.with_suffix(".csv").read_bytes(),
            path.with_suffix(".parquet").read_bytes(),
            dumped(study_json(kept)),
        )


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_node_is_killed_half_way_and_the_answers_are_the_same(
    cluster: Any, study_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    study = read_study(study_file)
    victim = cluster.add_node(num_cpus=1)
    killed_at = []

    def kill(progress: Progress) -> None:
        if progress.num_here == study.num_scenarios // 3 and not killed_at:
            killed_at.append(progress.num_here)
            cluster.remove_node(victim, allow_graceful=False)

    capfd.readouterr()
    with open_store(tmp_path / "ray.duckdb", write=True) as kept:
        progress = run_study(study, kept, executor("ray", address=cluster.address), answered, watch=kill)
    said = capfd.readouterr()
    assert killed_at
    assert progress.by_status == {"done": 32, "rejected": 32}
    assert said.out == ""  # Ray's words about a dead node don't get between ours
    with open_store(tmp_path / "local.duckdb", write=True) as kept:
        run_study(study, kept, LocalExecutor(1), answered)
    assert outputs(tmp_path / "ray.duckdb") == outputs(tmp_path / "local.duckdb")


def test_the_command_line_on_a_cluster(cluster: Any, study_file: Path) -> None:
    study_file.write_text(STUDY.replace("[0, 1, 2, 3, 4, 5, 6, 7]", "[0]"), encoding="utf-8")
    done = shell("run", str(study_file), "--executor", "ray", "--address", cluster.address, "--workers", "2")
    assert (done.returncode, done.stdout) == (0, "")
    assert "8 scenarios (4 done, 4 rejected), 8 of them now" in done.stderr
    assert "Traceback" not in done.stderr
    assert "INFO" not in done.stderr


def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from ultratwin.cli import main; main()", "study", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def listener(answer: bytes | None) -> tuple[socket.socket, str]:
    """A port that answers with some bytes; with None it takes calls and is silent, with none it is closed."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while answer:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            with peer:
                peer.recv(100)
                peer.sendall(answer)

    address = f"127.0.0.1:{server.getsockname()[1]}"
    threading.Thread(target=serve, daemon=True).start()
    if answer == b"":
        server.close()
    return server, address


@pytest.mark.parametrize(
    ("answer", "words"),
    [(b"", "nobody answers"), (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no Ray cluster"), (None, "nobody answers")],
    ids=["closed", "a web server", "silent"],
)
def test_an_address_where_no_cluster_answers(
    answer: bytes | None, words: str, study_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_module, "_ANSWER_S", 0.5)
    server, address = listener(answer)
    begun = time.monotonic()
    with pytest.raises(ScenarioError, match=words) as caught:
        next(executor("ray", address=address).answers(answered, read_study(study_file).scenarios()))
    server.close()
    assert time.monotonic() - begun < 10
    assert address in str(caught.value)
    assert "ray start --head" in str(caught.value)


def test_the_command_line_where_nobody_answers(study_file: Path, tmp_path: Path) -> None:
    begun = time.monotonic()
    done = shell("run", str(study_file), "--store", str(tmp_path / "s.duckdb"), "--executor", "ray",
                 "--address", "127.0.0.1:1")  # fmt: skip
    assert time.monotonic() - begun < 15
    assert (done.returncode, done.stdout) == (2, "")
    assert "nobody answers at 127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("address", ["nonsense", "host:99999", "http://host:1", ":6379", "host:"])
def test_an_address_that_is_none(address: str, study_file: Path) -> None:
    with pytest.raises(ScenarioError, match="is no address of a cluster"):
        next(executor("ray", address=address).answers(answered, read_study(study_file).scenarios()))


def test_a_node_with_another_version_is_refused(study_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = next(read_study(study_file).scenarios())
    found = ray_module._answer(answered, scenario, ("9.9.9", "another catalogue"))

    class FakeRay:
        class exceptions:
            RayTaskError = RayError = OSError

        @staticmethod
        def get(reference: object) -> object:
            return found

    with pytest.raises(ScenarioError, match="install the same on every node"):
        ray_module._result(FakeRay, None)


def test_the_cluster_file_is_what_ray_takes() -> None:
    jsonschema, ray, yaml = (importlib.import_module(name) for name in ("jsonschema", "ray", "yaml"))
    file = yaml.safe_load((ROOT / "examples" / "ray-aws.yaml").read_text(encoding="utf-8"))
    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(file, json.loads(schema.read_text(encoding="utf-8")))
    page = (ROOT / "docs" / "how-to" / "run-a-study-on-aws.md").read_text(encoding="utf-8")
    version = file["docker"]["image"].partition(":")[2].partition("-")[0]
    assert f"ray[default]=={version}" in page
    assert file["head_node_type"] in file["available_node_types"]


def test_ray_that_is_not_installed(study_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ScenarioError, match=r"pip install 'ultratwin\[ray\]'"):
        next(executor("ray", address="127.0.0.1:1").answers(answered, iter(())))
