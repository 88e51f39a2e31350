"""Launch files against lists of the frameworks' real flags (tests/launch_flags), over plans of every kind."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ultratwin.catalogue import loader
from ultratwin.errors import ScenarioError
from ultratwin.mapping.feasible import shape_reasons
from ultratwin.mapping.plan import RECOMPUTE, Plan
from ultratwin.mapping.recipe import RECIPES
from ultratwin.mapping.schedules import SCHEDULE_NAMES
from ultratwin.planning.training import TrainingAnswer, TrainingQuestion, answer_training
from ultratwin.report.launch import LAUNCHER_NAMES, LAUNCHERS, launch_files, write_launch_files
from ultratwin.report.launch.launcher import chunk_layers
from ultratwin.workload.config_json import model_from_config
from ultratwin.workload.load import load_model
from ultratwin.workload.parameters import parameter_count

LISTS = Path(__file__).with_name("launch_flags")
SYSTEMS = {
    "megatron": "dgx-h100",
    "torchtitan": "dgx-h100",
    "neuronx-distributed": "trn2.48xlarge",
    "maxtext": "tpu-v5p-pod",
}
CORES = {"neuronx-distributed": 4}
"""Processes per chip: four logical NeuronCores of Trainium2, else one."""
MODELS = tuple(loader.ids("models"))


@cache
def flags(framework: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Kind and choices by name, from the committed list."""
    lines = (LISTS / f"{framework}.tsv").read_text("utf-8").splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return {name: (kind, frozenset(choices.split("|")) - {""}) for name, kind, choices in rows}


@cache
def answered(framework: str) -> TrainingAnswer:
    """Some feasible answer on the framework's system; tests put their own plan into it."""
    layout = {"tensor_parallel_size": 1, "pipeline_parallel_size": 1, "micro_batch_size": 1}
    question = TrainingQuestion(
        model="llama3.2-1b", system=SYSTEMS[framework], chips=16,
        global_batch_size=64, layout=layout,
    )  # fmt: skip
    answer = answer_training(question)
    assert answer.run is not None
    return answer


def answer_with(framework: str, model: str, plan: Plan, precision: str = "bf16") -> TrainingAnswer:
    """An answer whose plan is given, whether it fits into memory or not."""
    return dataclasses.replace(
        answered(framework), model=load_model(model), plan=plan, chips=int(plan.num_ranks), precision=precision
    )


def plan_of(ranks: int, **sizes: int | str) -> Plan:
    """A plan on so many ranks, the data-parallel size being what is left."""
    values: dict[str, Any] = {"global_batch_size": 256, "zero_stage": 1, **sizes}
    for name, names in (("schedule", SCHEDULE_NAMES), ("recompute", RECOMPUTE)):
        if isinstance(values.get(name), str):
            values[name] = names.index(values[name])
    used = math.prod(values.get(f"{axis}_parallel_size", 1) for axis in ("tensor", "pipeline", "context"))
    assert ranks % used == 0
    values.setdefault("sequence_parallel", int(values.get("tensor_parallel_size", 1) > 1))
    return Plan(data_parallel_size=ranks // used, **values)


# what a plan of each framework can be: (framework, model, plan, precision)
ACCEPTED: tuple[tuple[str, str, Plan, str], ...] = (
    ("megatron", "llama3.1-405b", plan_of(1024, tensor_parallel_size=8, pipeline_parallel_size=16), "bf16"),
    ("megatron", "llama3.1-70b", plan_of(64, tensor_parallel_size=4, pipeline_parallel_size=4, virtual_pipeline_size=5,
     schedule="interleaved", recompute="full", context_parallel_size=2), "fp8"),
    ("megatron", "llama3.1-70b", plan_of(64, tensor_parallel_size=8, zero_stage=3, shard_size=4), "mxfp8"),
    ("megatron", "gpt3-175b", plan_of(64, tensor_parallel_size=8, pipeline_parallel_size=8, seq_length=2048), "fp16"),
    ("megatron", "deepseek-v3", plan_of(512, tensor_parallel_size=2, pipeline_parallel_size=16,
     expert_parallel_size=32, recompute="selective"), "fp8-block"),
    ("megatron", "Qwen/Qwen3-235B-A22B", plan_of(256, tensor_parallel_size=4, pipeline_parallel_size=8,
     expert_parallel_size=8, expert_tensor_parallel_size=2), "nvfp4"),
    ("megatron", "gpt-oss-120b", plan_of(64, expert_parallel_size=32), "bf16"),
    ("megatron", "mixtral-8x7b", plan_of(64, tensor_parallel_size=2, expert_parallel_size=8), "bf16"),
    ("neuronx-distributed", "llama3.1-70b", plan_of(64, tensor_parallel_size=8, pipeline_parallel_size=4), "bf16"),
    ("neuronx-distributed", "llama3.1-405b", plan_of(512, tensor_parallel_size=8, pipeline_parallel_size=16), "bf16"),
    ("neuronx-distributed", "llama3.1-8b", plan_of(32, tensor_parallel_size=2, context_parallel_size=4,
     recompute="selective"), "bf16"),
    ("neuronx-distributed", "mixtral-8x7b", plan_of(64, tensor_parallel_size=2, expert_tensor_parallel_size=2,
     expert_parallel_size=4, pipeline_parallel_size=4), "bf16"),
    ("neuronx-distributed", "gpt3-175b", plan_of(64, tensor_parallel_size=8, pipeline_parallel_size=4,
     seq_length=2048), "bf16"),
    ("maxtext", "llama3.1-70b", plan_of(64, tensor_parallel_size=4, zero_stage=3), "bf16"),
    ("maxtext", "llama3.1-405b", plan_of(256, tensor_parallel_size=8, context_parallel_size=2, zero_stage=3,
     shard_size=16, recompute="full"), "int8"),
    ("maxtext", "llama3.1-8b", plan_of(16, pipeline_parallel_size=4, schedule="gpipe", recompute="selective"), "bf16"),
    ("maxtext", "deepseek-v3", plan_of(512, expert_parallel_size=64, zero_stage=3, global_batch_size=2048), "bf16"),
    ("maxtext", "gpt3-175b", plan_of(64, tensor_parallel_size=8, seq_length=2048), "bf16"),
    ("maxtext", "Qwen/Qwen3-235B-A22B", plan_of(256, expert_parallel_size=8, zero_stage=3), "bf16"),
    ("torchtitan", "llama3.1-70b", plan_of(64, tensor_parallel_size=8, pipeline_parallel_size=2, zero_stage=3), "fp8"),
    ("torchtitan", "llama3.1-405b", plan_of(512, tensor_parallel_size=8, pipeline_parallel_size=8, zero_stage=2,
     virtual_pipeline_size=2, schedule="interleaved"), "bf16"),
    ("torchtitan", "Qwen/Qwen3-235B-A22B", plan_of(256, tensor_parallel_size=4, expert_parallel_size=32,
     zero_stage=3), "mxfp8"),
    ("torchtitan", "deepseek-ai/DeepSeek-V2-Lite", plan_of(64, expert_parallel_size=16, zero_stage=3,
     recompute="full"), "bf16"),
    ("torchtitan", "llama2-7b", plan_of(8, zero_stage=0), "bf16"),
)  # fmt: skip

# what must be refused, and a word that the reason holds: (framework, model, plan, precision, word)
REFUSED: tuple[tuple[str, str, Plan, str, str], ...] = (
    ("megatron", "llama3.1-70b", plan_of(64, pipeline_parallel_size=8, schedule="dualpipe"), "bf16", "dualpipe"),
    ("megatron", "llama3.1-70b", plan_of(64, pipeline_parallel_size=8, zero_stage=3), "bf16", "ZeRO stage 3"),
    ("megatron", "llama3.1-70b", plan_of(64), "int8", "int8"),
    ("megatron", "gemma-2-27b", plan_of(64), "bf16", "4 norms"),
    ("megatron", "falcon-7b", plan_of(64, tensor_parallel_size=1), "bf16", "parallel"),
    ("megatron", "bloom", plan_of(64), "bf16", "norm after its embedding"),
    ("megatron", "gpt2", plan_of(8, seq_length=2048), "bf16", "1,024 positions"),
    ("neuronx-distributed", "deepseek-v3", plan_of(64), "bf16", "latent attention"),
    ("neuronx-distributed", "llama3.1-70b", plan_of(64, zero_stage=3), "bf16", "ZeRO stage 3"),
    ("neuronx-distributed", "llama3.1-70b", plan_of(64), "fp8", "fp8"),
    ("neuronx-distributed", "llama3.1-70b", plan_of(64, tensor_parallel_size=32), "bf16", "128 logical NeuronCores"),
    ("maxtext", "mixtral-8x7b", plan_of(64, tensor_parallel_size=2, expert_parallel_size=8, zero_stage=3), "bf16",
     "splits experts 1 ways"),
    ("maxtext", "llama3.1-70b", plan_of(64, pipeline_parallel_size=4, schedule="1f1b"), "bf16", "1f1b"),
    ("maxtext", "llama3.1-70b", plan_of(64, zero_stage=2), "bf16", "ZeRO stage 2"),
    ("torchtitan", "llama3.1-70b", plan_of(64, zero_stage=1), "bf16", "ZeRO stage 1"),
    ("torchtitan", "llama3.1-70b", plan_of(64, pipeline_parallel_size=4, schedule="dualpipe", zero_stage=3), "bf16",
     "dualpipe"),
    ("torchtitan", "deepseek-v3", plan_of(64, zero_stage=3), "bf16", "multi-token-prediction"),
    ("torchtitan", "llama3.1-70b", plan_of(64, zero_stage=3), "fp16", "fp16"),
)  # fmt: skip


# reading the files back


def shell_arguments(script: str) -> tuple[dict[str, str], list[str]]:
    """torchrun's own flags, and all words after the program."""
    line = next(each for each in script.replace("\\\n", " ").splitlines() if each.startswith("torchrun"))
    words = shlex.split(line)
    at = next(index for index, word in enumerate(words) if word.endswith(".py") or word == "-m")
    return dict(zip(words[1:at:2], words[2:at:2], strict=True)), words[at + 1 :]


def megatron_flags(script: str) -> dict[str, str]:
    """Value by flag, empty for one without."""
    found: dict[str, str] = {}
    name = ""
    for word in shell_arguments(script)[1]:
        if word.startswith("--"):
            assert word not in found, f"{word} is given twice"
            name, found[word] = word, ""
        else:
            assert found[name] == "", f"{name} has two values"
            found[name] = word
    return found


def read_yaml(text: str) -> dict[str, Any]:
    """Block YAML of maps with one-line values, strictly: anything else is an error."""
    root: dict[str, Any] = {}
    open_maps = [(-1, root)]
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"((?:  )*)([A-Za-z_]\w*):(?: (.+))?", line)
        assert match, f"not a line of YAML: {line!r}"
        indent, key, value = len(match.group(1)), match.group(2), match.group(3)
        while open_maps[-1][0] >= indent:
            open_maps.pop()
        table = open_maps[-1][1]
        assert key not in table, f"{key} is given twice"
        if value is None:
            table[key] = {}
            open_maps.append((indent, table[key]))
        else:
            table[key] = yaml_value(value)
    return root


def yaml_value(text: str) -> Any:
    """A scalar, or a list of scalars."""
    if text.startswith("["):
        return [yaml_value(each) for each in text[1:-1].split(", ")]
    if text.startswith('"'):
        return json.loads(text)
    words: dict[str, Any] = {"null": None, "true": True, "false": False}
    if text in words:
        return words[text]
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if re.fullmatch(r"-?\d+\.\d+(e-?\d+)?", text):
        return float(text)
    assert re.fullmatch(r"[A-Za-z_/][\w./-]*", text), f"needs quotes: {text}"
    return text


def dotted(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf by its dotted key."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def check_value(framework: str, name: str, value: Any) -> None:
    """That a key exists and takes this value; text for int and float flags, "$X" and "???" for what the user sets."""
    known = flags(framework)
    assert name in known or f"*.{name.rpartition('.')[2]}" in known, f"{framework} has no {name}"
    kind, choices = known.get(name, ("any", frozenset()))
    if isinstance(value, str) and (value.startswith("$") or value == "???"):
        return
    if choices and value is not None:
        assert str(value) in choices or value == "", f"{name}: {value} is none of {sorted(choices)}"
    if kind == "flag":
        assert value == "", f"{name} takes no value"
    if kind == "int":
        assert value is None or str(int(value)) == str(value), f"{name}: {value} is not an int"
    if kind == "float":
        assert value is None or math.isfinite(float(value))
    if kind == "bool":
        assert isinstance(value, bool), f"{name}: {value} is not a bool"
    if kind == "list":
        assert value is None or isinstance(value, list | str)


# what each framework makes of its file


def check_megatron(answer: TrainingAnswer, plan: Plan, files: Mapping[str, str]) -> None:
    run, _ = shell_arguments(files["launch.sh"])
    found = megatron_flags(files["launch.sh"])
    for name, value in found.items():
        check_value("megatron", name, value)
    world = int(run["--nnodes"]) * int(run["--nproc_per_node"])
    stages = int(found["--pipeline-model-parallel-size"])
    used = int(found["--tensor-model-parallel-size"]) * stages * int(found["--context-parallel-size"])
    assert world == plan.num_ranks
    assert world % used == 0
    per_step = int(found["--micro-batch-size"]) * (world // used)
    assert int(found["--global-batch-size"]) == per_step * int(plan.num_micro_batches)
    layers = int(found["--num-layers"])
    layout = found.get("--pipeline-model-parallel-layout")
    chunks = int(found.get("--num-virtual-stages-per-pipeline-rank", 1))
    if layout:
        parts = layout.split("|")
        assert layout.count("t") == layers
        assert parts[0][0] == "E"
        assert parts[-1][-1] == "L"
        assert len(parts) == stages * int(plan.virtual_pipeline_size)
        assert layout.count("m") == int(found.get("--mtp-num-layers", 0))
    else:
        assert layers % (stages * chunks) == 0
        assert chunks == (plan.virtual_pipeline_size if stages > 1 else 1)
    for name in ("--moe-layer-freq", "--window-attn-skip-freq"):
        if name in found:
            assert len(eval(found[name])) == layers
    if "--num-experts" in found:
        experts = int(found["--expert-model-parallel-size"]) * int(found["--expert-tensor-parallel-size"])
        assert world // stages % experts == 0
        assert int(found["--num-experts"]) % int(found["--expert-model-parallel-size"]) == 0
    assert int(found["--max-position-embeddings"]) >= int(found["--seq-length"]) == plan.seq_length
    assert megatron_parameters(found) == pytest.approx(parameter_count(answer.model), rel=2e-3)


def megatron_parameters(found: Mapping[str, str]) -> float:
    """Parameters of the model that Megatron builds, without biases, norms and MTP modules."""

    def size(name: str, default: int = 0) -> int:
        return int(found.get(name) or default)

    hidden, layers, heads = size("--hidden-size"), size("--num-layers"), size("--num-attention-heads")
    if "--multi-latent-attention" in found:
        nope, rope, value = size("--qk-head-dim"), size("--qk-pos-emb-head-dim"), size("--v-head-dim")
        latent, q_latent = size("--kv-lora-rank"), size("--q-lora-rank")
        query = hidden * q_latent + q_latent * heads * (nope + rope) if q_latent else hidden * heads * (nope + rope)
        attention = query + hidden * (latent + rope) + latent * heads * (nope + value) + heads * value * hidden
    else:
        groups = size("--num-query-groups", heads)
        attention = hidden * size("--kv-channels") * (2 * heads + 2 * groups)
    matrices = 3 if "--swiglu" in found else 2
    dense = matrices * hidden * size("--ffn-hidden-size")
    frequency = eval(found["--moe-layer-freq"]) if "--moe-layer-freq" in found else [1] * layers
    num_experts = size("--num-experts")
    shared = size("--moe-shared-expert-intermediate-size")
    expert = hidden * (matrices * (num_experts * size("--moe-ffn-hidden-size") + shared) + num_experts)
    with_experts = sum(frequency) if num_experts else 0
    blocks = with_experts * expert + (layers - with_experts) * dense
    tables = 2 if "--untie-embeddings-and-output-weights" in found else 1
    positions = size("--max-position-embeddings") if found["--position-embedding-type"] == "learned_absolute" else 0
    return hidden * (tables * size("--vocab-size") + positions) + layers * attention + blocks


def check_neuronx_distributed(answer: TrainingAnswer, plan: Plan, files: Mapping[str, str]) -> None:
    config = read_yaml(files["config.yaml"])
    for name, value in dotted(config):
        check_value("neuronx-distributed", name, value)
    run, words = shell_arguments(files["launch.sh"])
    overrides = [word.split("=")[0] for word in words if "=" in word]
    unset = [name for name, value in dotted(config) if value == "???" or (isinstance(value, list) and "???" in value)]
    assert sorted(overrides) == sorted(unset)
    layout, data, trainer = config["distributed_strategy"], config["data"], config["trainer"]
    world = trainer["devices"] * trainer["num_nodes"]
    assert int(run["--nproc_per_node"]) == trainer["devices"]
    assert int(run["--nnodes"]) == trainer["num_nodes"]
    stages = layout["pipeline_model_parallel_size"]
    used = layout["tensor_model_parallel_size"] * stages * layout.get("context_parallel_size", 1)
    assert world == plan.num_ranks * CORES["neuronx-distributed"]
    assert world % used == 0
    assert data["global_batch_size"] == data["micro_batch_size"] * (world // used) * int(plan.num_micro_batches)
    assert world // used == plan.data_parallel_size
    chunks = layout["virtual_pipeline_model_parallel_size"]
    cuts = config["model"].get("pipeline_cuts")
    assert len(cuts) == stages - 1 if cuts else answer.model.num_layers % (stages * chunks) == 0
    fusions = config["model"]["fusions"]
    assert fusions["ring_attention"] == (layout.get("context_parallel_size", 1) > 1)
    assert fusions["ring_attention"] != fusions["flash_attention"]
    if "config.json" in files:
        hub = json.loads(files["config.json"])
        assert parameter_count(model_from_config(hub)) == pytest.approx(parameter_count(answer.model), rel=1e-6)
        keys, tensor = hub["num_key_value_heads"], layout["tensor_model_parallel_size"]
        assert keys * layout["kv_replicator"] % tensor == 0


def check_maxtext(answer: TrainingAnswer, plan: Plan, files: Mapping[str, str]) -> None:
    config = read_yaml(files["maxtext.yml"])
    for name, value in dotted(config):
        check_value("maxtext", name, value)
    for name in re.findall(r'^  "(\w+)=', files["launch.sh"], flags=re.MULTILINE):
        check_value("maxtext", name, "$SET")
    inner = math.prod(value for name, value in config.items() if name.startswith("ici_"))
    outer = math.prod(value for name, value in config.items() if name.startswith("dcn_"))
    assert inner * outer == plan.num_ranks
    assert outer == config["num_slices"]
    at_once = int(config["per_device_batch_size"] * inner * outer)
    assert at_once * config["gradient_accumulation_steps"] == plan.global_batch_size
    stages = config["ici_pipeline_parallelism"] * config["dcn_pipeline_parallelism"]
    if stages > 1:
        assert config["num_layers_per_pipeline_stage"] * stages == answer.model.num_layers
        assert at_once % config["num_pipeline_microbatches"] == 0 == config["num_pipeline_microbatches"] % stages
    size = config["base_emb_dim"] * config["vocab_size"] * (1 if config["logits_via_embedding"] else 2)
    assert size < parameter_count(answer.model)


def check_torchtitan(answer: TrainingAnswer, plan: Plan, files: Mapping[str, str]) -> None:
    config = tomllib.loads(files["torchtitan.toml"])
    for name, value in dotted(config):
        check_value("torchtitan", name, value)
    for name in config["model"]["converters"]:
        check_value("torchtitan", "model.converters[]", name)
    run, words = shell_arguments(files["launch.sh"])
    for word in words:
        if word.startswith("--"):
            check_value("torchtitan", word[2:], "$SET")
    layout, training = config["parallelism"], config["training"]
    data = layout["data_parallel_replicate_degree"] * layout["data_parallel_shard_degree"]
    stages = layout["pipeline_parallel_degree"]
    world = int(run["--nnodes"]) * int(run["--nproc_per_node"])
    assert world == data * layout["tensor_parallel_degree"] * layout["context_parallel_degree"] * stages
    assert training["global_batch_size"] == plan.global_batch_size
    assert training["global_batch_size"] % (training["local_batch_size"] * data) == 0
    if stages > 1:
        parts = layout["module_fqns_per_model_part"]
        names = [name for part in parts for name in part]
        layers = [f"layers.{layer}" for layer in range(answer.model.num_layers)]
        assert names == ["tok_embeddings", *layers, "norm", "output"]
        assert len(parts) % stages == 0
        count = training["local_batch_size"] // layout["pipeline_parallel_microbatch_size"]
        assert count == plan.num_micro_batches
    if layout.get("expert_parallel_degree", 1) > 1:
        split = layout["expert_tensor_parallel_degree"]
        shards = layout["data_parallel_shard_degree"] * layout["context_parallel_degree"]
        assert split in (1, layout["tensor_parallel_degree"])
        assert shards * layout["tensor_parallel_degree"] % (split * layout["expert_parallel_degree"]) == 0
    check_module(answer, files["ultratwin_model.py"])


def check_module(answer: TrainingAnswer, text: str) -> None:
    """The model's sizes: arguments that torchtitan's classes have."""
    calls = {ast.unparse(each.func): each for each in ast.walk(ast.parse(text)) if isinstance(each, ast.Call)}
    name = next(each for each in calls if each.endswith("ModelArgs"))
    for of_class in {name, "MoEArgs"} & calls.keys():
        for word in calls[of_class].keywords:
            assert f"{of_class}({word.arg})" in flags("torchtitan"), f"{of_class} has no {word.arg}"
    given = {word.arg: word.value for word in calls[name].keywords}
    sizes = {key: ast.literal_eval(node) for key, node in given.items() if key not in ("rope_theta", "moe_args")}
    assert sizes["dim"] == answer.model.hidden_size
    assert sizes["n_layers"] == answer.model.num_layers
    if name == "TransformerModelArgs":  # torchtitan's own rule for the width
        width = int(2 * 4 * sizes["dim"] / 3)
        width = int(width * sizes["ffn_dim_multiplier"]) if sizes["ffn_dim_multiplier"] is not None else width
        width = sizes["multiple_of"] * ((width + sizes["multiple_of"] - 1) // sizes["multiple_of"])
        assert width == getattr(answer.model.layers[0].mlp, "intermediate_size", 0)


CHECKS = {
    "megatron": check_megatron,
    "neuronx-distributed": check_neuronx_distributed,
    "maxtext": check_maxtext,
    "torchtitan": check_torchtitan,
}


def test_every_launcher_has_a_list_and_a_check() -> None:
    assert set(CHECKS) == set(SYSTEMS) == set(LAUNCHER_NAMES) == {path.stem for path in LISTS.glob("*.tsv")}
    assert [launcher.name for launcher in LAUNCHERS] == list(LAUNCHER_NAMES)


@pytest.mark.parametrize(("framework", "model", "plan", "precision"), ACCEPTED)
def test_a_plan_becomes_the_frameworks_own_words(framework: str, model: str, plan: Plan, precision: str) -> None:
    answer = answer_with(framework, model, plan, precision)
    assert not int(shape_reasons(answer.model, plan, plan.num_ranks))
    files = launch_files(framework, answer, None)
    CHECKS[framework](answer, plan, files)
    assert files == launch_files(framework, answer, None)


@pytest.mark.parametrize(("framework", "model", "plan", "precision", "word"), REFUSED)
def test_what_a_framework_cannot_say_is_refused(
    framework: str, model: str, plan: Plan, precision: str, word: str
) -> None:
    with pytest.raises(ScenarioError, match=re.escape(word)) as caught:
        launch_files(framework, answer_with(framework, model, plan, precision), None)
    assert caught.value.where == f"--launch {framework}"


@st.composite
def plans(draw: st.DrawFn) -> tuple[str, str, Plan, str]:
    """A framework, a model of the catalogue, and a plan of any kind for it."""
    framework = draw(st.sampled_from(LAUNCHER_NAMES))
    model = draw(st.sampled_from(MODELS))
    two = lambda most: st.sampled_from([2**power for power in range(most + 1)])  # noqa: E731
    tensor, context, stages = draw(two(3)), draw(two(1)), draw(two(3))
    chunks = draw(st.sampled_from((1, 1, 2))) if stages > 1 else 1
    node = answered(framework).system.pool.chips_per_node
    data = max(node // (tensor * context * stages), 1) * draw(st.sampled_from((1, 2, 3, 8)))
    micro, count = draw(two(1)), stages * draw(st.integers(1, 4))
    stage = draw(st.integers(0, 3))
    shards = draw(st.sampled_from([0, *(each for each in (2, 4, 8) if data * context % each == 0)]))
    plan = Plan(
        tensor_parallel_size=tensor, context_parallel_size=context, pipeline_parallel_size=stages,
        virtual_pipeline_size=chunks, data_parallel_size=data, expert_parallel_size=draw(two(3)),
        expert_tensor_parallel_size=draw(st.sampled_from((1, tensor))), zero_stage=stage, shard_size=shards,
        micro_batch_size=micro, global_batch_size=micro * data * count,
        seq_length=draw(st.sampled_from((1024, 4096, 8192))),
        sequence_parallel=int(tensor > 1 and draw(st.integers(0, 3)) > 0),
        recompute=draw(st.integers(0, 2)),
        schedule=2 if chunks > 1 else draw(st.sampled_from((0, 0, 1, 1, 1, 5, 6))) if stages > 1 else 1,
    )  # fmt: skip
    precision = draw(st.sampled_from((*("bf16",) * 8, *(each.name for each in RECIPES))))
    return framework, model, plan, precision


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(case=plans())
def test_every_feasible_plan_is_said_or_refused(case: tuple[str, str, Plan, str]) -> None:
    framework, model, plan, precision = case
    answer = answer_with(framework, model, plan, precision)
    assume(not int(shape_reasons(answer.model, plan, plan.num_ranks)))
    try:
        files = launch_files(framework, answer, None)
    except ScenarioError as error:
        where = error.where
    else:
        where = f"--launch {framework}"
        CHECKS[framework](answer, plan, files)
    assert where == f"--launch {framework}"


@pytest.mark.parametrize("framework", LAUNCHER_NAMES)
def test_scripts_run(framework: str, tmp_path: Path) -> None:
    """The script itself, with stand-ins for torchrun and python3 that print what they are given."""
    model, plan, precision = next(case[1:] for case in ACCEPTED if case[0] == framework)
    folder = tmp_path / "a folder"
    paths = write_launch_files(framework, answer_with(framework, model, plan, precision), None, folder)
    script = folder / "launch.sh"
    assert script in paths
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("torchrun", "python3"):
        (programs / name).write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
        (programs / name).chmod(0o755)
    required = re.findall(r"^(\w+)=\"\$\{\w+:\?", script.read_text("utf-8"), flags=re.MULTILINE)
    assert required
    env = {"PATH": f"{programs}:/usr/bin:/bin"}
    missing = subprocess.run([str(script)], env=env, capture_output=True, text=True, check=False)
    assert missing.returncode
    assert required[0] in missing.stderr
    values = {name: f"/data of/{name.lower()}" for name in required}
    done = subprocess.run([str(script)], env=env | values, capture_output=True, text=True, check=True)
    for name, value in values.items():
        assert value in done.stdout or name in ("NODE_RANK", "JAX_COORDINATOR_IP"), f"{name} is not used"
    assert "$" not in done.stdout


def test_other_chips_are_refused() -> None:
    plan = plan_of(16, tensor_parallel_size=2)
    with pytest.raises(ScenarioError, match="Megatron-LM does not train on") as caught:
        launch_files("megatron", answer_with("neuronx-distributed", "llama3.1-8b", plan))
    assert "nvidia" in caught.value.allowed


def test_an_answer_without_a_plan_and_an_unknown_framework() -> None:
    empty = dataclasses.replace(answered("megatron"), plan=None, run=None)
    with pytest.raises(ScenarioError, match="no plan can run"):
        launch_files("megatron", empty)
    with pytest.raises(ScenarioError, match='unknown framework "megatorn"') as caught:
        launch_files("megatorn", answered("megatron"))
    assert "megatron" in caught.value.hint


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ScenarioError, match="can't write the launch files"):
        write_launch_files("megatron", answered("megatron"), None, tmp_path / "file")


def test_names_from_paths_cannot_break_out_of_the_files() -> None:
    plan = plan_of(16, tensor_parallel_size=2, zero_stage=3)
    answer = answer_with("torchtitan", "llama3.1-8b", plan)
    model = dataclasses.replace(answer.model, id='x/$(rm -rf /)"""\nimport os\n')
    for framework in ("megatron", "torchtitan"):
        files = launch_files(framework, dataclasses.replace(answer, model=model))
        assert "$(rm" not in files["launch.sh"]
        if framework == "torchtitan":
            check_module(answer, files["ultratwin_model.py"])


@given(layers=st.integers(1, 130), stages=st.integers(1, 16), chunks=st.integers(1, 4))
def test_chunks_hold_every_layer(layers: int, stages: int, chunks: int) -> None:
    assume(stages * chunks <= layers + 2)
    sizes = chunk_layers(layers, stages, chunks)
    assert sum(sizes) == layers
    assert len(sizes) == stages * chunks
    assert min(sizes) >= 0
    assert max(sizes) == -(-layers // (stages * chunks))
