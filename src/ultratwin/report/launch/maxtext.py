"""MaxText: a YAML file over its base.yml.

Keys as in AI-Hypercomputer/maxtext at commit e591f30cbbf217ed67ef71263ec0538239f9c3b8 (August 2026):
src/maxtext/configs/base.yml and types.py. Its mesh has an axis of its own for experts, which splits the batch and
shards dense weights too; its pipeline runs all micro-batches forward, then all backward (GPipe).
"""

from __future__ import annotations

import math
from typing import ClassVar, Final

from ultratwin.report.launch.launcher import Job, Launcher, Shape, header, variables
from ultratwin.report.launch.yaml_text import Yaml, yaml_text
from ultratwin.workload.model import Attention, LatentAttention

_QUANTIZATION: Final = {
    "nvidia": {
        "bf16": "",
        "fp8": "te_fp8_delayedscaling",
        "mxfp8": "te_mxfp8",
        "nvfp4": "te_nvfp4",
        "int8": "int8",
    },
    "tpu": {"bf16": "", "fp8": "fp8_full", "int8": "int8"},
}
_QWIX: Final = ("int8", "fp8_full")
"""Quantizations that MaxText wants from Qwix; those of Transformer Engine begin with te_."""
_REMAT: Final = {"none": "none", "selective": "minimal", "full": "full"}
_DEVICES_PER_CHIP: Final = {"tpu-v3": 2, "tpu-v7": 2}
"""TPUs whose two TensorCores JAX shows as devices of their own; those of v4 and v5p act as one."""


class MaxText(Launcher):
    """Google's MaxText, on TPUs and Nvidia GPUs."""

    name = "maxtext"
    title = "MaxText"
    families: ClassVar[tuple[str, ...]] = ("tpu", "nvidia")

    def files(self, job: Job) -> dict[str, str]:
        """maxtext.yml and launch.sh."""
        self.check_schedule(job, ("gpipe",))
        self.check_precision(job, _QUANTIZATION[job.chip.family])
        shape = self.shape(job.model)
        block = self._block(job, shape)
        cores = _DEVICES_PER_CHIP.get(job.chip.id, 1)
        self._check_plan(job, shape, cores)
        quantization = _QUANTIZATION[job.chip.family][job.recipe.name]
        config: Yaml = {
            "base_config": "base.yml",
            "run_name": job.name,
            "hardware": "tpu" if job.chip.family == "tpu" else "gpu",
            "decoder_block": block,
            **_model(job, shape),
            "dtype": "bfloat16",
            "weight_dtype": "float32",
            "quantization": quantization,
            "use_qwix_quantization": quantization in _QWIX,
            "remat_policy": _REMAT[job.recompute],
            **self._mesh(job, shape, cores),
            **self._batch(job, cores),
            "max_target_length": int(job.plan.seq_length),
            "steps": job.num_steps,
            "dataset_type": "grain",
            "tokenizer_type": "huggingface",
            "enable_checkpointing": True,
            "log_period": 100,
        }
        return {
            "launch.sh": _script(job, self.title),
            "maxtext.yml": "\n".join(header(job, self.title)) + "\n" + yaml_text(config),
        }

    def _block(self, job: Job, shape: Shape) -> str:
        """Which of MaxText's decoder blocks has this shape."""
        model, attention, moe = job.model, shape.attention, shape.moe
        num_dense = shape.experts.index(True) if moe else 0
        latent = isinstance(attention, LatentAttention)
        for wrong, what in (
            (model.embedding_norm, "a norm after its embedding"),
            (shape.num_norms != 2, f"{shape.num_norms} norms in a layer"),
            (shape.parallel_residual, "attention and feed-forward in parallel"),
            (isinstance(attention, Attention) and attention.sinks, "attention sinks"),
            (shape.window and shape.window < int(job.plan.seq_length), "windows of attention"),
            (moe and not all(shape.experts[num_dense:]), "dense layers between those with experts"),
            (num_dense and not latent, "dense layers before those with experts"),
            (latent and moe is None, "latent attention without experts"),
            (moe and moe.shared_gate, "a gate on its shared experts"),
            (moe and moe.shared_intermediate_size and not latent, "shared experts without latent attention"),
            (moe and moe.shared_intermediate_size % moe.expert_intermediate_size, "shared experts of another width"),
            (moe and moe.router_bias and not latent, "a bias in its router"),
        ):
            if wrong:
                raise self.refusal(f"{model.id} has {what}")
        biases = [block.bias for block in (shape.dense, moe) if block is not None]
        if latent and model.norm == "rmsnorm" and shape.gated and not any(biases):
            return "deepseek"
        if isinstance(attention, Attention):
            block = _dense_block(job, shape, attention, all(biases), any(biases))
            if block:
                return block
        raise self.refusal(
            f"{model.id} is unlike any decoder block", allowed="those of Llama, Qwen 2 and 3, Mixtral, DeepSeek, GPT-3"
        )

    def _check_plan(self, job: Job, shape: Shape, cores: int) -> None:
        plan, attention = job.plan, shape.attention
        tensor, stage = int(plan.tensor_parallel_size) * cores, int(plan.zero_stage)
        keys = attention.num_kv_heads if isinstance(attention, Attention) else attention.num_heads
        if keys % tensor:
            raise self.refusal(
                f"the plan splits {keys} key/value heads over {tensor} devices", allowed=f"divisors of {keys}",
                hint="fix a smaller --tensor-parallel-size",
            )  # fmt: skip
        if stage == 2:
            raise self.refusal("the plan uses ZeRO stage 2", allowed="0, 1 and 3", hint="fix --zero-stage 1 or 3")
        splits = int(plan.context_parallel_size) > 1 or int(plan.expert_parallel_size) > 1
        if stage < 3 and splits:
            raise self.refusal(
                f"the plan keeps whole weights (ZeRO stage {stage}) on context- or expert-parallel ranks",
                allowed="ZeRO 3: these axes shard weights",
                hint="fix --zero-stage 3",
            )
        if shape.moe and int(plan.expert_tensor_parallel_size) != int(plan.tensor_parallel_size):
            raise self.refusal(
                f"the plan splits experts {plan.expert_tensor_parallel_size} ways and the rest "
                f"{plan.tensor_parallel_size} ways",
                allowed="equal sizes",
                hint=f"fix --expert-tensor-parallel-size {plan.tensor_parallel_size}",
            )
        if int(plan.data_parallel_size) % int(plan.expert_parallel_size):
            raise self.refusal(
                f"the plan's {plan.expert_parallel_size} expert-parallel ranks do not divide its "
                f"{plan.data_parallel_size} data-parallel ranks",
                hint="fix --expert-parallel-size to a divisor",
            )
        if stage == 1 and int(plan.zero_shard_size) != int(plan.data_shard_size):
            raise self.refusal(
                f"the plan shards the optimizer over {plan.zero_shard_size} of {plan.data_shard_size} ranks",
                hint="leave out --shard-size",
            )
        if stage == 3 and int(plan.zero_shard_size) % (
            int(plan.context_parallel_size) * int(plan.expert_parallel_size)
        ):
            raise self.refusal(
                f"the plan shards over {plan.zero_shard_size} ranks, no multiple of its context- and expert-parallel "
                "ranks",
                hint="fix another --shard-size",
            )

    def axes(self, job: Job, cores: int) -> dict[str, int]:
        """Sizes of the mesh axes, innermost first: those that should stay on the fast links."""
        plan = job.plan
        context, expert = int(plan.context_parallel_size), int(plan.expert_parallel_size)
        shards = int(plan.zero_shard_size) // (context * expert) if int(plan.zero_stage) == 3 else 1
        tensor = int(plan.tensor_parallel_size) * cores
        # a chip that is one rank of the plan holds each norm once, so its devices must split them
        split = bool(plan.sequence_parallel) or (int(plan.tensor_parallel_size) == 1 and cores > 1)
        return {
            "tensor": 1 if split else tensor,
            "tensor_sequence": tensor if split else 1,
            "context": context,
            "expert": expert,
            "fsdp": shards,
            "data": int(plan.data_parallel_size) // (shards * expert),
            "pipeline": int(plan.pipeline_parallel_size),
        }

    def _mesh(self, job: Job, shape: Shape, cores: int) -> Yaml:
        """The axes over fast links (ICI: a slice of a TPU, a GPU node) and over the network (DCN)."""
        devices = int(job.plan.num_ranks) * cores
        fast = min(devices, (job.domain_size if job.chip.family == "tpu" else job.ranks_per_node) * cores)
        left = fast
        inside: Yaml = {}
        outside: Yaml = {}
        for name, size in self.axes(job, cores).items():
            inside[f"ici_{name}_parallelism"] = math.gcd(size, left)
            outside[f"dcn_{name}_parallelism"] = size // math.gcd(size, left)
            left //= math.gcd(size, left)
        if left > 1 or devices % fast:
            raise self.refusal(
                f"the plan's axes do not fill {fast} devices joined by fast links",
                hint="choose sizes whose product over the inner axes is that number",
            )
        zero = {"shard_optimizer_over_data": True} if int(job.plan.zero_stage) == 1 else {}
        return {"num_slices": devices // fast, **inside, **outside, **zero}

    def _batch(self, job: Job, cores: int) -> Yaml:
        plan = job.plan
        devices, stages = int(plan.num_ranks) * cores, int(plan.pipeline_parallel_size)
        count, batch = int(plan.num_micro_batches), int(plan.global_batch_size)
        if stages == 1:
            return {"per_device_batch_size": batch / count / devices, "gradient_accumulation_steps": count}
        if job.model.num_layers % stages or isinstance(job.model.layers[0].attention, LatentAttention):
            raise self.refusal(
                f"the plan splits {job.model.num_layers} layers of {job.model.id} into {stages} stages",
                allowed="equal stages, and no pipeline for models with latent attention",
                hint="fix --pipeline-parallel-size 1",
            )
        if count % stages:
            raise self.refusal(
                f"the plan's {count} micro-batches are no multiple of its {stages} pipeline stages",
                hint="fix another --micro-batch-size",
            )
        return {
            "per_device_batch_size": batch / devices,
            "gradient_accumulation_steps": 1,
            "num_layers_per_pipeline_stage": job.model.num_layers // stages,
            "num_pipeline_repeats": 1,
            "num_pipeline_microbatches": count,
        }


def _dense_block(job: Job, shape: Shape, attention: Attention, all_biased: bool, any_biased: bool) -> str:
    """The block of a model with plain attention, empty if there is none."""
    model, moe = job.model, shape.moe
    if model.norm == "layernorm":
        old = all_biased and attention.qkv_bias and attention.output_bias and model.norm_bias and moe is None
        many = attention.num_kv_heads == attention.num_heads and model.num_learned_positions and not shape.gated
        return "gpt3" if old and many else ""
    if any_biased or attention.output_bias or not shape.gated or model.num_learned_positions:
        return ""
    if attention.qkv_bias:
        return "" if moe or attention.qk_norm else "qwen2"
    if attention.qk_norm:
        return "qwen3_moe" if moe else "qwen3"
    return "mixtral" if moe else "llama2"


def _model(job: Job, shape: Shape) -> Yaml:
    model, attention, moe = job.model, shape.attention, shape.moe
    keys = attention.num_kv_heads if isinstance(attention, Attention) else attention.num_heads
    result: Yaml = {
        "base_emb_dim": model.hidden_size,
        "base_num_query_heads": attention.num_heads,
        "base_num_kv_heads": keys,
        "base_mlp_dim": shape.intermediate_size,
        "base_num_decoder_layers": model.num_layers,
        "mlp_activations": ["silu", "linear"] if shape.gated else ["gelu"],
        "vocab_size": model.vocab_size,
        "enable_dropout": False,
        "logits_via_embedding": model.tie_word_embeddings,
        "mtp_num_layers": model.num_mtp_modules,
    }
    if isinstance(attention, LatentAttention):
        result |= {
            "attention_type": "mla",
            "q_lora_rank": attention.q_lora_rank,
            "kv_lora_rank": attention.kv_lora_rank,
            "qk_nope_head_dim": attention.nope_head_dim,
            "qk_rope_head_dim": attention.rope_head_dim,
            "v_head_dim": attention.v_head_dim,
        }
    else:
        result |= {"head_dim": attention.head_dim, "use_qk_norm": attention.qk_norm}
        if attention.qkv_bias and not attention.output_bias:
            result["attention_bias"] = True
    if model.num_learned_positions:
        result |= {"trainable_position_size": model.num_learned_positions, "fused_qkv": True}
    if moe is not None:
        result |= {
            "num_experts": moe.num_experts,
            "num_experts_per_tok": moe.experts_per_token,
            "base_moe_mlp_dim": moe.expert_intermediate_size,
            "first_num_dense_layers": shape.experts.index(True),
            "shared_experts": moe.shared_intermediate_size // moe.expert_intermediate_size,
            "sparse_matmul": True,
            "capacity_factor": -1.0,
        }
        if moe.router_bias:
            result |= {"routed_bias": True, "routed_score_func": "sigmoid"}
    return result


def _script(job: Job, title: str) -> str:
    names = {
        "DATA_FILES": "?pattern of the training files (ArrayRecord)",
        "TOKENIZER_PATH": "?folder or hub id of the tokenizer",
        "OUTPUT_PATH": "?folder or bucket for logs and checkpoints",
        "SAVE_INTERVAL": "1000",
        "LEARNING_RATE": "3e-4",
        "ROPE_THETA": "10000",
    }
    several = job.chip.family != "tpu"
    if several:
        first = "?address of node 0" if job.num_nodes > 1 else "localhost"
        rank = f"?number of this node, 0 to {job.num_nodes - 1}" if job.num_nodes > 1 else "0"
        names = {"NODE_RANK": rank, "JAX_COORDINATOR_IP": first, "JAX_COORDINATOR_PORT": "29500", **names}
    overrides = {
        "base_output_directory": "$OUTPUT_PATH",
        "grain_train_files": "$DATA_FILES",
        "tokenizer_path": "$TOKENIZER_PATH",
        "checkpoint_period": "$SAVE_INTERVAL",
        "learning_rate": "$LEARNING_RATE",
        "rope_max_timescale": "$ROPE_THETA",
    }
    call = ['python3 -m maxtext.trainers.pre_train.train "$HERE/maxtext.yml"']
    call += [f'  "{key}={value}"' for key, value in overrides.items()]
    exports = f"export NODE_RANK JAX_COORDINATOR_IP JAX_COORDINATOR_PORT NNODES={job.num_nodes}"
    note = "on every host of the slices" if not several else f"on each of the {job.num_nodes:,} nodes"
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            *header(job, title),
            f"# run it {note}",
            "set -euo pipefail",
            "",
            "# to set: where things are. The last two do not change the time of a step",
            *variables(names),
            *([exports] if several else []),
            'HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"',
            "",
            *(line + " \\" for line in call[:-1]),
            call[-1],
            "",
        ]
    )
