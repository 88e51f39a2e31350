"""torchtitan: its TOML, and the model's sizes as a module that torchtitan imports.

Keys as in pytorch/torchtitan v0.2.2 (commit 73a0e6979dd10b6b1904098eb3c8f62c18ab87ce, February 2026, the newest
release): torchtitan/config/job_config.py. Its TOML names a model and a flavor; sizes that no flavor has come from a
module (experimental.custom_import), written here too. The main branch has left TOML for Python registries since.
"""

from __future__ import annotations

import itertools
from typing import Any, ClassVar, Final

from ultratwin.report.launch.launcher import (
    Job,
    Launcher,
    Shape,
    chunk_layers,
    command,
    header,
    rendezvous,
    variables,
)
from ultratwin.report.launch.toml_text import toml_text
from ultratwin.workload.model import Attention, LatentAttention, Moe

_SCHEDULES: Final = {"1f1b": "1F1B", "interleaved": "Interleaved1F1B", "gpipe": "GPipe", "zb-v": "ZBVZeroBubble"}
"""Names of torch.distributed.pipelining; DualPipeV is not DualPipe: it keeps one copy of the weights."""
_PRECISIONS: Final = ("bf16", "fp8", "mxfp8")
_RESHARD: Final = {0: "never", 2: "never", 3: "always"}
_SELECTIVE: Final = "op"
_BASES: Final = {
    "llama3": ("torchtitan.models.llama3", "llama3_args", "TransformerModelArgs"),
    "qwen3": ("torchtitan.models.qwen3", "qwen3_args", "Qwen3ModelArgs"),
    "deepseek_v3": ("torchtitan.models.deepseek_v3", "deepseekv3_args", "DeepSeekV3ModelArgs"),
}
_NAME: Final = "ultratwin"


class Torchtitan(Launcher):
    """PyTorch's torchtitan."""

    name = "torchtitan"
    title = "torchtitan"
    families: ClassVar[tuple[str, ...]] = ("nvidia", "amd")

    def files(self, job: Job) -> dict[str, str]:
        """torchtitan.toml, ultratwin_model.py and launch.sh."""
        self.check_schedule(job, tuple(_SCHEDULES))
        self.check_precision(job, _PRECISIONS)
        shape = self.shape(job.model)
        base = self._base(job, shape)
        self._check_plan(job, shape)
        config: dict[str, Any] = {
            "job": {"description": f"{job.model.id}: {job.plan.describe()}"},
            "model": {"name": _NAME, "flavor": job.name, "converters": _converters(job, shape)},
            "experimental": {"custom_import": f"{_NAME}_model"},
            "training": _training(job),
            "parallelism": self._parallelism(job, shape),
            "activation_checkpoint": _recompute(job),
            "lr_scheduler": {"decay_type": "cosine"},
            "metrics": {"log_freq": 1},
            "checkpoint": {"enable": True, "last_save_model_only": False},
            "compile": {"enable": True, "components": ["model", "loss"]},
            **_quantize(job, shape),
        }
        return {
            "launch.sh": _script(job, self.title),
            "torchtitan.toml": "\n".join(header(job, self.title)) + "\n\n" + toml_text(config),
            f"{_NAME}_model.py": _module(job, shape, base),
        }

    def _base(self, job: Job, shape: Shape) -> str:
        """Which of torchtitan's models has this shape."""
        model, attention, moe = job.model, shape.attention, shape.moe
        biased = any(block is not None and block.bias for block in (shape.dense, moe))
        latent = isinstance(attention, LatentAttention)
        if isinstance(attention, Attention):
            biased = biased or attention.qkv_bias or attention.output_bias
        num_dense = shape.experts.index(True) if moe else 0
        for wrong, what in (
            (not shape.gated, "feed-forward blocks without a gate"),
            (biased, "biases in its matrices"),
            (model.norm != "rmsnorm", "layer norms"),
            (model.num_learned_positions, "learned positions"),
            (model.num_mtp_modules, "multi-token-prediction modules"),
            (model.embedding_norm, "a norm after its embedding"),
            (shape.num_norms != 2, f"{shape.num_norms} norms in a layer"),
            (shape.parallel_residual, "attention and feed-forward in parallel"),
            (isinstance(attention, Attention) and attention.sinks, "attention sinks"),
            (shape.window and shape.window < int(job.plan.seq_length), "windows of attention"),
            (moe and not all(shape.experts[num_dense:]), "dense layers between those with experts"),
            (moe and num_dense and not latent, "dense layers before those with experts"),
            (moe and moe.shared_gate, "a gate on its shared experts"),
            (moe and moe.shared_intermediate_size % moe.expert_intermediate_size, "shared experts of another width"),
            (latent and moe is None, "latent attention without experts"),
            (latent and model.tie_word_embeddings, "tied embeddings with latent attention"),
            (model.tie_word_embeddings and int(job.plan.pipeline_parallel_size) > 1, "tied embeddings in a pipeline"),
        ):
            if wrong:
                raise self.refusal(f"{model.id} has {what}")
        if isinstance(attention, LatentAttention):
            return "deepseek_v3"
        plain = not attention.qk_norm and moe is None and not model.tie_word_embeddings
        return "llama3" if plain and attention.head_dim * attention.num_heads == model.hidden_size else "qwen3"

    def _check_plan(self, job: Job, shape: Shape) -> None:
        plan = job.plan
        tensor, stage = int(plan.tensor_parallel_size), int(plan.zero_stage)
        if tensor > 1 and not plan.sequence_parallel:
            raise self.refusal(
                "the plan uses tensor parallelism without sequence parallelism", hint="fix --sequence-parallel"
            )
        if stage == 1 and int(plan.data_shard_size) > 1:
            raise self.refusal(
                "the plan uses ZeRO stage 1", allowed="0 (DDP), 2 and 3 (FSDP)", hint="fix --zero-stage 2 or 3"
            )
        if stage == 0 and int(plan.data_shard_size) > 1 and int(plan.num_ranks) != int(plan.data_parallel_size):
            raise self.refusal(
                "the plan uses plain data parallelism (ZeRO stage 0) beside other parallelism",
                allowed="ZeRO 0 alone, ZeRO 2 and 3",
                hint="fix --zero-stage 2 or 3",
            )
        if stage >= 2 and int(plan.zero_shard_size) % int(plan.context_parallel_size):
            raise self.refusal(
                f"the plan shards over {plan.zero_shard_size} ranks, no multiple of its "
                f"{plan.context_parallel_size} context-parallel ranks",
                hint="fix another --shard-size",
            )
        if shape.moe:
            self._check_experts(job)

    def _check_experts(self, job: Job) -> None:
        plan = job.plan
        tensor, expert, split = (
            int(plan.tensor_parallel_size),
            int(plan.expert_parallel_size),
            int(plan.expert_tensor_parallel_size),
        )
        if split != tensor and (split != 1 or expert == 1):
            allowed = f"{tensor}" if expert == 1 else f"1 or {tensor}"
            raise self.refusal(
                f"the plan splits experts {split} ways and the rest {tensor} ways",
                allowed=f"expert-tensor-parallel size {allowed}",
                hint=f"fix --expert-tensor-parallel-size {tensor}",
            )
        if split == 1 and expert % tensor:
            raise self.refusal(
                f"the plan has {expert} expert-parallel ranks, no multiple of its {tensor} tensor-parallel ranks",
                hint=f"fix --expert-parallel-size to a multiple of {tensor}",
            )
        if int(plan.zero_stage) < 2 and expert > 1:
            raise self.refusal("the plan uses expert parallelism without FSDP", hint="fix --zero-stage 2 or 3")
        if expert > 1 and int(plan.zero_shard_size) * tensor % (expert * split):
            raise self.refusal(
                f"the plan's {expert} x {split} expert ranks do not divide the {plan.zero_shard_size} x {tensor} ranks "
                "that it shards over",
                hint="fix --expert-parallel-size to a divisor",
            )

    def _parallelism(self, job: Job, shape: Shape) -> dict[str, Any]:
        plan = job.plan
        data, context = int(plan.data_parallel_size), int(plan.context_parallel_size)
        shards = int(plan.zero_shard_size) // context if int(plan.zero_stage) >= 2 else 1
        stages = int(plan.pipeline_parallel_size)
        result: dict[str, Any] = {
            "data_parallel_replicate_degree": data // shards,
            "data_parallel_shard_degree": shards,
            "fsdp_reshard_after_forward": _RESHARD.get(int(plan.zero_stage), "never"),
            "tensor_parallel_degree": int(plan.tensor_parallel_size),
            "context_parallel_degree": context,
            "pipeline_parallel_degree": stages,
        }
        if shape.moe:
            result["expert_parallel_degree"] = int(plan.expert_parallel_size)
            result["expert_tensor_parallel_degree"] = int(plan.expert_tensor_parallel_size)
        if stages > 1:
            # this schedule folds the pipeline: every rank has two chunks
            chunks = 2 if job.schedule == "zb-v" else int(plan.virtual_pipeline_size)
            if stages * chunks > job.model.num_layers + 2:
                raise self.refusal(f"the plan has more than {job.model.num_layers + 2} chunks of the model")
            result |= {
                "pipeline_parallel_schedule": _SCHEDULES[job.schedule],
                "pipeline_parallel_microbatch_size": int(plan.micro_batch_size),
                "module_fqns_per_model_part": model_parts(chunk_layers(job.model.num_layers, stages, chunks)),
            }
        return result


def model_parts(sizes: list[int]) -> list[list[str]]:
    """The modules of every chunk, in the order of the layers.

    Example:
        >>> model_parts([1, 1])
        [['tok_embeddings', 'layers.0'], ['layers.1', 'norm', 'output']]
    """
    ends = list(itertools.accumulate(sizes))
    parts = [[f"layers.{layer}" for layer in range(end - size, end)] for size, end in zip(sizes, ends, strict=True)]
    parts[0].insert(0, "tok_embeddings")
    parts[-1] += ["norm", "output"]
    return parts


def _training(job: Job) -> dict[str, Any]:
    plan = job.plan
    # a pipeline takes all micro-batches of a step at once; without one, gradients are accumulated
    at_once = int(plan.num_micro_batches) if int(plan.pipeline_parallel_size) > 1 else 1
    return {
        "local_batch_size": int(plan.micro_batch_size) * at_once,
        "global_batch_size": int(plan.global_batch_size),
        "seq_len": int(plan.seq_length),
        "steps": job.num_steps,
        "dtype": "float32",
        "mixed_precision_param": "bfloat16",
        "mixed_precision_reduce": "float32",
    }


def _recompute(job: Job) -> dict[str, Any]:
    if job.recompute != "selective":
        return {"mode": job.recompute}
    return {"mode": "selective", "selective_ac_option": _SELECTIVE}


def _converters(job: Job, shape: Shape) -> list[str]:
    if not job.recipe.is_low:
        return []
    kind = "float8" if job.recipe.name == "fp8" else "mx"
    return [f"quantize.linear.{kind}", *([f"quantize.grouped_mm.{kind}"] if shape.moe else [])]


def _quantize(job: Job, shape: Shape) -> dict[str, Any]:
    if not job.recipe.is_low:
        return {}
    experts = {"fqns": ["experts"]}
    if job.recipe.name == "fp8":
        gathers = int(job.plan.zero_stage) >= 2
        linear: dict[str, Any] = {
            "enable_fsdp_float8_all_gather": gathers,
            "precompute_float8_dynamic_scale_for_fsdp": gathers,
            "filter_fqns": ["output", *(["router.gate"] if shape.moe else [])],
        }
        return {
            "quantize": {"linear": {"float8": linear}, **({"grouped_mm": {"float8": experts}} if shape.moe else {})}
        }
    linear = {"recipe_name": "mxfp8_cublas", "filter_fqns": ["output", *(["router.gate"] if shape.moe else [])]}
    grouped = {"recipe_name": "mxfp8", **experts}
    return {"quantize": {"linear": {"mx": linear}, **({"grouped_mm": {"mx": grouped}} if shape.moe else {})}}


def model_arguments(job: Job, shape: Shape, base: str) -> dict[str, Any]:
    """The sizes as arguments of torchtitan's model class; experts apart, under "moe_args"."""
    model, attention, dense, moe = job.model, shape.attention, shape.dense, shape.moe
    result: dict[str, Any] = {
        "dim": model.hidden_size,
        "n_layers": model.num_layers,
        "n_heads": attention.num_heads,
        "vocab_size": model.vocab_size,
        "max_seq_len": int(job.plan.seq_length),
    }
    if isinstance(attention, LatentAttention):
        result |= {
            "n_dense_layers": shape.experts.index(True),
            "q_lora_rank": attention.q_lora_rank,
            "kv_lora_rank": attention.kv_lora_rank,
            "qk_nope_head_dim": attention.nope_head_dim,
            "qk_rope_head_dim": attention.rope_head_dim,
            "v_head_dim": attention.v_head_dim,
            **({"inter_dim": dense.intermediate_size} if dense else {}),
        }
    else:
        result["n_kv_heads"] = attention.num_kv_heads
    if base == "llama3" and dense is not None:
        # torchtitan rounds 8/3 of the hidden size up to a multiple: with less than the width as the start, that is it
        start = 1 if dense.intermediate_size >= 8 * model.hidden_size // 3 else 0.5 * dense.intermediate_size / (
            8 * model.hidden_size / 3
        )  # fmt: skip
        result |= {"multiple_of": dense.intermediate_size, "ffn_dim_multiplier": None if start == 1 else start}
    if base == "qwen3" and isinstance(attention, Attention):
        result |= {
            "head_dim": attention.head_dim,
            "hidden_dim": shape.intermediate_size,
            "qk_norm": attention.qk_norm,
            "enable_weight_tying": model.tie_word_embeddings,
            "moe_enabled": moe is not None,
        }
    if moe is not None:
        result["moe_inter_dim"] = moe.expert_intermediate_size
        result["moe_args"] = _moe_arguments(moe)
    return result


def _moe_arguments(moe: Moe) -> dict[str, Any]:
    return {
        "num_experts": moe.num_experts,
        "num_shared_experts": moe.shared_intermediate_size // moe.expert_intermediate_size,
        "top_k": moe.experts_per_token,
        "score_func": "sigmoid" if moe.router_bias else "softmax",
        "route_norm": True,
        "score_before_experts": False,
    }


def _module(job: Job, shape: Shape, base: str) -> str:
    path, _, arguments = _BASES[base]
    values = model_arguments(job, shape, base)
    experts = values.pop("moe_args", None)
    lines = [f"    {key}={value!r}," for key, value in values.items()]
    if experts:
        inner = ", ".join(f"{key}={value!r}" for key, value in experts.items())
        lines.append(f"    moe_args=MoEArgs({inner}),")
    return "\n".join(
        [
            f'"""The sizes of {job.model.id}, for torchtitan: registers them as the model "{_NAME}"."""',
            "",
            "import dataclasses",
            "import os",
            "",
            f"from {path} import {arguments}, get_train_spec",
            *(["from torchtitan.models.moe import MoEArgs"] if experts else []),
            "from torchtitan.protocols.train_spec import register_train_spec",
            "",
            f"SIZES = {arguments}(",
            *lines,
            '    rope_theta=float(os.environ.get("ROPE_THETA", "10000")),',
            ")",
            "",
            f'SPEC = dataclasses.replace(get_train_spec(), model_args={{"{job.name}": SIZES}})',
            f'register_train_spec("{_NAME}", SPEC)',
            "",
        ]
    )


def _script(job: Job, title: str) -> str:
    names, words = rendezvous(job, job.ranks_per_node)
    names |= {
        "DATASET": "c4",
        "DATA_PATH": "?folder of the data set that DATASET names",
        "HF_ASSETS_PATH": "?folder with the tokenizer",
        "OUTPUT_PATH": "outputs",
        "SAVE_INTERVAL": "1000",
        "LEARNING_RATE": "3e-4",
        "ROPE_THETA": "10000",
    }
    arguments: list[tuple[str, str | None]] = [
        ("--job.config_file", "$HERE/torchtitan.toml"),
        ("--job.dump_folder", "$OUTPUT_PATH"),
        ("--model.hf_assets_path", "$HF_ASSETS_PATH"),
        ("--training.dataset", "$DATASET"),
        ("--training.dataset_path", "$DATA_PATH"),
        ("--checkpoint.interval", "$SAVE_INTERVAL"),
        ("--optimizer.lr", "$LEARNING_RATE"),
    ]
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            *header(job, title),
            "set -euo pipefail",
            "",
            "# to set: where things are, and which node this is. The last two do not change the time of a step",
            *variables(names),
            'HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"',
            "export ROPE_THETA",
            'export PYTHONPATH="$HERE${PYTHONPATH:+:$PYTHONPATH}"  # where ultratwin_model.py is',
            'export PYTORCH_ALLOC_CONF="expandable_segments:True"',
            "",
            *command([*words, "-m torchtitan.train"], arguments),
            "",
        ]
    )
