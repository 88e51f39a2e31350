"""Launch files of services against lists of the tools' real flags and keys (tests/launch_flags/serving)."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from ultratwin.api.serving import plan_serve, serve
from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import load_chip
from ultratwin.mapping.serving import ServingPlan
from ultratwin.mapping.serving_formats import SERVING_FORMATS, serving_formats
from ultratwin.planning.serving.mix import Speculation
from ultratwin.report.launch.serving import (
    LAUNCHER_NAMES,
    RoleJob,
    ServingJob,
    job_of_answer,
    job_of_plan,
    serving_files,
    write_deployment_files,
    write_serving_files,
)
from ultratwin.workload.load import load_model

LISTS = Path(__file__).with_name("launch_flags") / "serving"
SCRIPTS = {"vllm": "vllm", "sglang": "sglang", "trtllm": "trtllm", "nxd-inference": "vllm"}
"""Engine -> whose flags its script has."""


@cache
def flags(tool: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Kind and choices by name, from the committed list."""
    lines = (LISTS / f"{tool}.tsv").read_text("utf-8").splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return {name: (kind, frozenset(choices.split("|")) - {""}) for name, kind, choices in rows}


def job(
    model: str = "llama3.1-70b", plan: ServingPlan | None = None, *, fmt: str = "bf16", kv: str = "",
    engine: str = "vllm", system: str = "p5en.48xlarge", chip: str = "h200-sxm", node: int = 8, **changed: Any,
) -> ServingJob:  # fmt: skip
    role = RoleJob(
        name="serve", plan=plan or ServingPlan(tensor_parallel_size=8), replicas=3, max_num_seqs=256,
        max_num_batched_tokens=8192,
    )  # fmt: skip
    made = ServingJob(
        name="a-model", model=load_model(model), formats=serving_formats(fmt, kv), engine=engine, chip=load_chip(chip),
        system=system, node_chips=node, ranks_per_chip=1, block_size=16, memory_utilization_frac=0.9,
        max_model_len=8192, prefix_caching=False, speculation=Speculation(), roles=(role,), version="0",
    )  # fmt: skip
    return dataclasses.replace(made, **changed)


TRAINIUM = {"engine": "nxd-inference", "system": "trn2.48xlarge", "chip": "trainium2", "node": 16}
MOE = ServingPlan(tensor_parallel_size=1, attention_data_parallel_size=8, expert_parallel_size=8)
TWO_NODES = ServingPlan(tensor_parallel_size=8, pipeline_parallel_size=2)
DRAFTS = Speculation(num_tokens=2, acceptance_rate=0.8)
TWO_ROLES = tuple(
    RoleJob(
        name=name, plan=ServingPlan(tensor_parallel_size=4), replicas=2, max_num_seqs=64, max_num_batched_tokens=4096
    )
    for name in ("prefill", "decode")
)

# what a service of each tool can be
ACCEPTED: tuple[tuple[str, ServingJob], ...] = (
    ("vllm", job()),
    ("vllm", job("deepseek-v3", MOE, fmt="fp8-block", kv="fp8", speculation=DRAFTS)),
    ("vllm", job("deepseek-v3", TWO_NODES, fmt="fp8-block", prefix_caching=True)),
    ("vllm", job("llama3.1-8b", ServingPlan(), fmt="fp8", speculation=DRAFTS, max_model_len=None)),
    ("vllm", job(roles=TWO_ROLES)),
    ("vllm", job("gpt-oss-120b", ServingPlan(tensor_parallel_size=4), fmt="mxfp4", kv="fp8")),
    ("vllm", job(fmt="mxfp8")),
    ("sglang", job(engine="sglang")),
    ("sglang", job("deepseek-v3", MOE, fmt="fp8-block", kv="fp8", speculation=DRAFTS, engine="sglang")),
    ("sglang", job("deepseek-v3", TWO_NODES, fmt="fp8-block", engine="sglang", prefix_caching=True)),
    ("sglang", job(roles=TWO_ROLES, engine="sglang")),
    ("sglang", job(fmt="nvfp4", engine="sglang", chip="b200-sxm", system="p6-b200.48xlarge")),
    ("trtllm", job(engine="tensorrt-llm")),
    ("trtllm", job("deepseek-v3", MOE, fmt="nvfp4", kv="fp8", speculation=DRAFTS, engine="tensorrt-llm")),
    ("trtllm", job("deepseek-v3", TWO_NODES, fmt="fp8-block", engine="tensorrt-llm")),
    ("nxd-inference", job(plan=ServingPlan(tensor_parallel_size=16), **TRAINIUM)),
    ("nxd-inference", job("llama3.1-8b", ServingPlan(tensor_parallel_size=2), fmt="fp8", kv="fp8", prefix_caching=True,
                          speculation=DRAFTS, **TRAINIUM)),
    ("nxd-inference", job("gpt-oss-120b", ServingPlan(tensor_parallel_size=8, expert_parallel_size=4), **TRAINIUM)),
    ("k8s", job()),
    ("k8s", job("deepseek-v3", TWO_NODES, fmt="fp8-block")),
    ("k8s", job("deepseek-v3", TWO_NODES, fmt="fp8-block", engine="sglang")),
    ("k8s", job("deepseek-v3", MOE, fmt="nvfp4", engine="tensorrt-llm")),
    ("k8s", job(roles=TWO_ROLES, system="dgx-h200")),
    ("k8s", job(plan=ServingPlan(tensor_parallel_size=16), **TRAINIUM)),
    ("sagemaker", job(plan=ServingPlan(tensor_parallel_size=4))),
    ("sagemaker", job(engine="sglang", fmt="fp8", kv="fp8")),
    ("sagemaker", job(plan=ServingPlan(tensor_parallel_size=16), **TRAINIUM)),
)  # fmt: skip

# what must be refused, and a word that the reason holds
REFUSED: tuple[tuple[str, ServingJob, str], ...] = (
    ("vllm", job(**TRAINIUM), "Trainium2"),
    ("vllm", job("gpt-oss-120b", ServingPlan(tensor_parallel_size=8, expert_parallel_size=4)), "experts 4 ways"),
    ("vllm", job("deepseek-v3", ServingPlan(attention_data_parallel_size=16, expert_parallel_size=16), fmt="fp8-block"),
     "several nodes"),
    ("vllm", job(kv="mxfp4"), "mxfp4"),
    ("sglang", job(fmt="fp8-weight-only"), "fp8-weight-only"),
    ("trtllm", job("deepseek-v3", ServingPlan(tensor_parallel_size=2, attention_data_parallel_size=4)), "4 attention"),
    ("trtllm", job(chip="mi300x", system="mi300x-8"), "MI300X"),
    ("nxd-inference", job(), "H200"),
    ("nxd-inference", job(plan=TWO_NODES, **TRAINIUM), "pipeline"),
    ("nxd-inference", job("llama3.1-8b", ServingPlan(tensor_parallel_size=16), **TRAINIUM), "logical NeuronCores"),
    ("nxd-inference", job(roles=TWO_ROLES, **TRAINIUM), "apart"),
    ("nxd-inference", job(fmt="nvfp4", **TRAINIUM), "nvfp4"),
    ("k8s", job("deepseek-v3", TWO_NODES, engine="tensorrt-llm"), "MPI"),
    ("sagemaker", job(system="dgx-h200"), "no EC2 instance"),
    ("sagemaker", job("deepseek-v3", TWO_NODES), "2 instances"),
    ("sagemaker", job(roles=TWO_ROLES), "apart"),
    ("sagemaker", job(engine="tensorrt-llm"), "tensorrt-llm"),
    ("helm", job(), "helm"),
)  # fmt: skip


def words_of(script: str) -> list[str]:
    """Words of the command that a script ends with; variables are not filled in."""
    body = script.split("\n\n", 1)[1]
    return shlex.split(body.replace("\\\n", " "))


def check_flags(tool: str, words: list[str]) -> None:
    """Every flag exists, has a value exactly if it takes one, of its kind and among its choices."""
    known = flags(tool)
    at = 0
    while at < len(words):
        flag = words[at]
        if not flag.startswith("--"):
            at += 1
            continue
        assert flag in known, f"{tool} has no {flag}"
        kind, choices = known[flag]
        value = words[at + 1] if at + 1 < len(words) and not words[at + 1].startswith("--") else None
        if kind == "flag":
            assert value is None or not re.fullmatch(r"[\w.]+", value), (flag, value)
            at += 1
            continue
        assert value is not None, f"{flag} needs a value"
        if not value.startswith("$"):
            assert kind not in ("int",) or re.fullmatch(r"-?\d+", value), (flag, value)
            if kind == "float":
                float(value)
            assert not choices or value in choices, (flag, value, choices)
        at += 2


@pytest.mark.parametrize(("tool", "made"), [each for each in ACCEPTED if each[0] in SCRIPTS])
def test_flags_are_the_engines_own(tool: str, made: ServingJob) -> None:
    files = serving_files(tool, made)
    assert [f"{role.name}.sh" in files for role in made.roles] == [True] * len(made.roles)
    for name, text in files.items():
        if name.endswith(".sh"):
            check_flags(SCRIPTS[tool], words_of(text))
            for line in ("set -euo pipefail", made.model.id):
                assert line in text
        else:
            check_llm_args(yaml.safe_load(text))


def check_llm_args(config: Any, prefix: str = "") -> None:
    """Keys of TensorRT-LLM's YAML."""
    known = flags("trtllm")
    for key, value in config.items():
        if isinstance(value, dict):
            check_llm_args(value, f"{prefix}{key}.")
            continue
        kind, choices = known[f"LlmArgs({prefix}{key})"]
        assert type(value).__name__ == kind, (key, value)
        assert not choices or value in choices


@pytest.mark.parametrize(("tool", "made"), [each for each in ACCEPTED if each[0] == "nxd-inference"])
def test_neuron_config_has_real_keys(tool: str, made: ServingJob) -> None:
    known = flags("nxd-inference")
    words = words_of(serving_files(tool, made)["serve.sh"])
    config = json.loads(words[words.index("--additional-config") + 1])["override_neuron_config"]
    for key, value in config.items():
        kind, _ = known[f"NeuronConfig({key})"]
        assert kind in ("any", type(value).__name__), (key, value)
    cores = int(words[words.index("--tensor-parallel-size") + 1])
    assert cores == int(made.roles[0].plan.num_ranks) * 4
    if "moe_ep_degree" in config:
        assert config["moe_ep_degree"] * config["moe_tp_degree"] == cores


@pytest.mark.parametrize(("tool", "made"), [each for each in ACCEPTED if each[0] == "k8s"])
def test_manifests_are_what_the_api_server_takes(tool: str, made: ServingJob) -> None:
    for role in made.roles:
        text = serving_files(tool, made)[f"{role.name}.yaml"]
        workload, service, *maps = yaml.safe_load_all(text)
        check_workload(workload, made, role)
        assert service["kind"] == "Service"
        selected = service["spec"]["selector"].items()
        template = pods_of(workload)[0]
        labels = template["metadata"]["labels"].items()
        assert set(selected) <= set(labels) | {("leaderworkerset.sigs.k8s.io/worker-index", "0")}
        mounted = {each["configMap"]["name"] for each in template["spec"]["volumes"] if "configMap" in each}
        assert mounted == {each["metadata"]["name"] for each in maps}


def pods_of(workload: Any) -> list[Any]:
    if workload["kind"] == "Deployment":
        return [workload["spec"]["template"]]
    template = workload["spec"]["leaderWorkerTemplate"]
    return [template["leaderTemplate"], template["workerTemplate"]]


def check_workload(workload: Any, made: ServingJob, role: RoleJob) -> None:
    known = flags("k8s")
    root = "LeaderWorkerSet.spec.leaderWorkerTemplate.leaderTemplate"
    if workload["kind"] == "LeaderWorkerSet":
        assert workload["apiVersion"] in known
        check_keys(workload["spec"], "LeaderWorkerSet.spec", known)
        assert workload["spec"]["leaderWorkerTemplate"]["size"] == made.nodes(role) > 1
    else:
        assert workload["apiVersion"] == "apps/v1"
        assert set(workload["spec"]) == {"replicas", "selector", "template"}
        assert workload["spec"]["selector"]["matchLabels"] == workload["spec"]["template"]["metadata"]["labels"]
        check_keys(workload["spec"]["template"], root, known)
    assert workload["spec"]["replicas"] == role.replicas
    for pod in pods_of(workload):
        (container,) = pod["spec"]["containers"]
        resource = {"neuron": "aws.amazon.com/neuron"}.get(made.chip.family, "nvidia.com/gpu")
        assert container["resources"]["limits"] == {resource: str(made.chips(role) // made.nodes(role))}
        engine = {"tensorrt-llm": "trtllm", "nxd-inference": "vllm"}.get(made.engine, made.engine)
        check_flags(engine, [re.sub(r"^\$\(", "$", word) for word in container["command"]])
        names = {each["name"] for each in pod["spec"]["volumes"]}
        assert {each["name"] for each in container["volumeMounts"]} == names


def check_keys(value: Any, prefix: str, known: dict[str, Any]) -> None:
    """Every key of a manifest stands in the schema, with its type."""
    free = ("matchLabels", "labels", "limits", "requests", "nodeSelector")
    for key, each in value.items():
        path = f"{prefix}.{key}" + ("[]" if isinstance(each, list) else "")
        if key in free or prefix.endswith(".metadata"):
            continue
        assert path in known, path
        kind, choices = known[path]
        types = {"string": str, "integer": int, "object": dict, "array": list, "boolean": bool}
        if kind in types:
            assert isinstance(each, types[kind]), (path, each)
        assert not choices or each in choices, (path, each)
        for inner in each if isinstance(each, list) else [each]:
            if isinstance(inner, dict):
                check_keys(inner, path, known)


@pytest.mark.parametrize(("tool", "made"), [each for each in ACCEPTED if each[0] == "sagemaker"])
def test_sagemaker_requests_are_valid(tool: str, made: ServingJob) -> None:
    known = flags("sagemaker")
    texts = serving_files(tool, made)
    requests = {
        "model.json": "CreateModel", "endpoint-config.json": "CreateEndpointConfig", "endpoint.json": "CreateEndpoint",
        "inference-component.json": "CreateInferenceComponent",
    }  # fmt: skip
    assert set(texts) == set(requests)
    found = {name: json.loads(text) for name, text in texts.items()}
    for name, request in requests.items():
        assert known[request][1] <= set(found[name])
        check_members(found[name], request, known)
    environment = found["model.json"]["PrimaryContainer"]["Environment"]
    prefix, engine = ("SM_SGLANG_", "sglang") if made.engine == "sglang" else ("SM_VLLM_", "vllm")
    words: list[str] = []
    for key, value in environment.items():
        words += ["--" + key.removeprefix(prefix).lower().replace("_", "-"), *([value] if value else [])]
    check_flags(engine, [word for word in words if word != "--model"])
    role = made.roles[0]
    instances = found["endpoint-config.json"]["ProductionVariants"][0]["InitialInstanceCount"]
    assert instances * (made.node_chips // made.chips(role)) >= role.replicas


def check_members(value: Any, prefix: str, known: dict[str, Any]) -> None:
    for key, each in value.items():
        path = f"{prefix}.{key}"
        assert path in known, path
        kind, choices = known[path]
        types = {"string": str, "integer": int, "structure": dict, "list": list, "map": dict}
        assert isinstance(each, types.get(kind, object)), (path, each)
        assert not choices or each in choices, (path, each)
        if kind == "structure":
            check_members(each, path, known)
        for inner in each if kind == "list" else ():
            check_members(inner, f"{path}[]", known)


@pytest.mark.parametrize(("tool", "made", "word"), REFUSED)
def test_what_has_no_setting_is_refused(tool: str, made: ServingJob, word: str) -> None:
    with pytest.raises(ScenarioError, match=re.escape(word)):
        serving_files(tool, made)


@pytest.mark.parametrize("tool", sorted(SCRIPTS))
def test_every_format_is_named_or_refused(tool: str) -> None:
    """No number format is dropped in silence: a flag says it, or the file says what checkpoint is needed."""
    for each in SERVING_FORMATS:
        more: dict[str, Any] = (
            TRAINIUM if tool == "nxd-inference" else {"chip": "b200-sxm", "system": "p6-b200.48xlarge"}
        )
        made = job(plan=ServingPlan(tensor_parallel_size=8), fmt=each.name, **more)
        try:
            files = serving_files(tool, made)
        except ScenarioError as error:
            files = {"refusal": f"--quantization {error.what}"}
        text = "".join(files.values())
        assert each.name in text
        said = "must be a checkpoint" in text or "--quantization" in text or "quantization_dtype" in text
        assert said or each.name in ("bf16", "fp16"), each.name


def test_scripts_run(tmp_path: Path) -> None:
    """A script stops without what only the user knows, and calls the engine with it."""
    made = job("deepseek-v3", TWO_NODES, fmt="fp8-block")
    (tmp_path / "serve.sh").write_text(serving_files("vllm", made)["serve.sh"], "utf-8")
    engine = tmp_path / "vllm"
    engine.write_text('#!/bin/sh\nfor each in "$@"; do echo "$each"; done\n', "utf-8")
    engine.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def ran(**more: str) -> subprocess.CompletedProcess[str]:
        words = ["bash", str(tmp_path / "serve.sh")]
        return subprocess.run(words, env=environment | more, capture_output=True, text=True, check=False)

    missing = ran()
    assert missing.returncode != 0
    assert "NODE_RANK" in missing.stderr
    leader, worker = (ran(NODE_RANK=rank, LEADER="10.0.0.1").stdout.split("\n") for rank in ("0", "1"))
    assert leader[leader.index("--node-rank") + 1] == "0"
    assert "--headless" not in leader
    assert "--headless" in worker
    assert worker[worker.index("--master-addr") + 1] == "10.0.0.1"


def test_answers_are_launched(tmp_path: Path) -> None:
    result = serve(
        "llama3.1-70b", "p5en.48xlarge", tensor_parallel_size=4, replicas=2, concurrency=64, isl=2000, osl=200
    )
    made = job_of_answer(result.question, result.answer)
    assert made.max_model_len == 2264
    assert (made.roles[0].replicas, made.chips(made.roles[0])) == (2, 4)
    paths = write_serving_files("vllm", result.question, result.answer, tmp_path / "files")
    assert os.access(paths[0], os.X_OK)
    assert serving_files("vllm", made) == serving_files("vllm", made)
    blocked = tmp_path / "blocked"
    blocked.write_text("", "utf-8")
    with pytest.raises(ScenarioError, match="can't write"):
        write_serving_files("vllm", result.question, result.answer, blocked)


def test_plans_are_launched(tmp_path: Path) -> None:
    result = plan_serve(
        "llama3.1-70b", ["p5en.48xlarge"], precisions=("fp8",), isl=2000, osl=200, request_rate=30.0, verify=False,
        goodput="ttft:1000 tpot:40", modes=("disaggregated",),
    )  # fmt: skip
    made = job_of_plan(result.answer)
    assert [role.name for role in made.roles] == ["prefill", "decode"]
    paths = write_deployment_files("vllm", result.answer, tmp_path)
    assert [path.name for path in paths] == ["prefill.sh", "decode.sh"]
    for path in paths:
        check_flags("vllm", words_of(path.read_text("utf-8")))


def test_what_cannot_run_is_not_launched() -> None:
    result = serve("deepseek-v3", "p5en.48xlarge", tensor_parallel_size=1)
    with pytest.raises(ScenarioError, match="nothing to launch"):
        job_of_answer(result.question, result.answer)
    assert len(LAUNCHER_NAMES) == 6
