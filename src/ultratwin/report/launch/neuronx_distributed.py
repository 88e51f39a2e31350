"""NeuronX Distributed Training: its YAML, for Trainium.

Keys as in aws-neuron/neuronx-distributed-training at commit 9169aa03f39efd4eb02da63891a7ed98defb1714 (September 2025):
examples/conf, docs/general/config_overview.rst and what the model modules read. The library brings three models:
Llama and Mixtral as the hub has them (from a config.json, written here too), and Megatron's GPT (from the YAML alone).

A process is a logical NeuronCore there, a chip here. The chip's cores share its part of each matrix, so the
tensor-parallel size is the plan's times the logical cores of a rank.
"""

from __future__ import annotations

import itertools
import json
from typing import ClassVar, Final

from ultratwin.report.launch.launcher import Job, Launcher, Shape, chunk_layers, header, rendezvous, variables
from ultratwin.report.launch.yaml_text import Yaml, yaml_text
from ultratwin.workload.model import Attention, Moe

_UNSET: Final = "???"
"""What OmegaConf calls a value that must be given; the script gives it."""


class NeuronxDistributed(Launcher):
    """AWS NeuronX Distributed Training (NxDT)."""

    name = "neuronx-distributed"
    title = "NeuronX Distributed Training"
    families: ClassVar[tuple[str, ...]] = ("neuron",)

    def files(self, job: Job) -> dict[str, str]:
        """config.yaml, launch.sh, and config.json for models that the library takes from the hub's format."""
        self.check_schedule(job, ("1f1b", "interleaved"))
        self.check_precision(job, ("bf16",))
        shape = self.shape(job.model)
        kind = self._kind(job, shape)
        lnc, cores = logical_cores(job)
        tensor = int(job.plan.tensor_parallel_size) * cores
        self._check_plan(job, shape, kind, tensor)
        config: Yaml = {
            "name": kind,  # the library takes Mixtral if this name holds "mixtral"
            "model_source": "megatron" if kind == "megatron" else "hf",
            "seed": 1234,
            "trainer": _trainer(job, lnc, cores),
            "exp_manager": _experiment(job, kind),
            "distributed_strategy": self._strategy(job, shape, kind, tensor, cores),
            "data": _data(job, kind),
            "model": self._model(job, shape, kind),
            "precision": _precision(kind),
            "compiler_flags": "--model-type transformer",
            "compiler_cache_url": _UNSET,
            "aync_exec_max_inflight_requests": 7,
            "bucket_size_collectives": 1024,
            "neuron_rt_exec_timeout": 100,
            "neuron_experimental_compress_rg": False,
        }
        files = {"launch.sh": _script(job, kind, cores, self.title)}
        files["config.yaml"] = "\n".join(header(job, self.title)) + "\n" + yaml_text(config)
        if kind != "megatron":
            files["config.json"] = json.dumps(_hub_config(job, shape, kind), indent=2) + "\n"
        return files

    def _kind(self, job: Job, shape: Shape) -> str:
        """Which of the library's models this is: "hf_llama", "hf_mixtral" or "megatron"."""
        model, attention = job.model, shape.attention
        if not isinstance(attention, Attention):
            raise self.refusal(f"{model.id} has latent attention", allowed="multi-head and grouped-query attention")
        wide = shape.window and shape.window < int(job.plan.seq_length)
        for wrong, what in (
            (attention.qk_norm, "norms of queries and keys"),
            (attention.sinks, "attention sinks"),
            (model.num_mtp_modules, "multi-token-prediction modules"),
            (model.embedding_norm, "a norm after its embedding"),
            (shape.num_norms != 2, f"{shape.num_norms} norms in a layer"),
            (shape.parallel_residual, "attention and feed-forward in parallel"),
            (wide and not all(shape.windowed), "windows in some layers only"),
            (model.norm == "layernorm" and not model.norm_bias, "layer norms without bias"),
            (shape.moe and not all(shape.experts), "experts in some layers only"),
            (shape.moe and shape.moe.shared_intermediate_size, "shared experts"),
        ):
            if wrong:
                raise self.refusal(f"{model.id} has {what}")
        bias = self._bias(job, shape, attention)
        of_hub = model.norm == "rmsnorm" and not bias and not model.num_learned_positions and shape.gated
        of_hub = of_hub and attention.head_dim * attention.num_heads == model.hidden_size and not wide
        if shape.moe:
            if not of_hub or shape.moe.router_bias:
                raise self.refusal(f"{model.id} has experts in a model unlike Mixtral")
            return "hf_mixtral"
        return "hf_llama" if of_hub else "megatron"

    def _bias(self, job: Job, shape: Shape, attention: Attention) -> bool:
        of_blocks = {block.bias for block in (shape.dense, shape.moe) if block is not None}
        found = {attention.qkv_bias, attention.output_bias, *of_blocks}
        if len(found) > 1:
            raise self.refusal(f"{job.model.id} has biases in some of its matrices", allowed="all or none")
        return found == {True}

    def _check_plan(self, job: Job, shape: Shape, kind: str, tensor: int) -> None:
        plan, attention = job.plan, shape.attention
        stages, chunks = int(plan.pipeline_parallel_size), int(plan.virtual_pipeline_size)
        if int(plan.zero_stage) > 1:
            raise self.refusal(
                f"the plan uses ZeRO stage {plan.zero_stage}", allowed="0 and 1", hint="fix --zero-stage 1"
            )
        if int(plan.zero_stage) == 0 and kind == "megatron":
            raise self.refusal("the plan uses no ZeRO with a GPT model", allowed="ZeRO 1", hint="fix --zero-stage 1")
        if int(plan.zero_stage) and int(plan.zero_shard_size) != int(plan.data_shard_size):
            raise self.refusal(
                f"the plan shards the optimizer over {plan.zero_shard_size} of {plan.data_shard_size} ranks",
                hint="leave out --shard-size",
            )
        if attention.num_heads % tensor:
            raise self.refusal(
                f"the plan splits {attention.num_heads} heads over {tensor} logical NeuronCores",
                allowed=f"divisors of {attention.num_heads}",
                hint="fix a smaller --tensor-parallel-size: a chip's cores share its part",
            )
        keys = attention.num_kv_heads if isinstance(attention, Attention) else attention.num_heads
        if keys % tensor and (kind == "megatron" or tensor % keys):
            raise self.refusal(f"the plan splits {keys} key/value heads over {tensor} logical NeuronCores")
        if int(plan.context_parallel_size) > 1 and kind != "hf_llama":
            raise self.refusal(
                f"the plan uses context parallelism with a model of kind {kind}", allowed="Llama-shaped models",
                hint="fix --context-parallel-size 1",
            )  # fmt: skip
        if chunks > 1 and job.model.num_layers % (stages * chunks):
            raise self.refusal(
                f"the plan splits {job.model.num_layers} layers into {stages} x {chunks} unequal chunks",
                hint="fix --virtual-pipeline-size 1",
            )
        if shape.moe:
            self._check_experts(job)

    def _check_experts(self, job: Job) -> None:
        plan = job.plan
        if int(plan.expert_tensor_parallel_size) != int(plan.tensor_parallel_size):
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

    def _cuts(self, job: Job, kind: str) -> list[str]:
        """The last layer of every stage but the last, where stages are not equal."""
        sizes = chunk_layers(job.model.num_layers, int(job.plan.pipeline_parallel_size), 1)
        if min(sizes) < 1:
            raise self.refusal(
                f"the plan leaves a pipeline stage without any of {job.model.num_layers} layers",
                hint="fix a smaller --pipeline-parallel-size",
            )
        ends = itertools.accumulate(sizes[:-1])
        layers = "language_model.encoder.layers" if kind == "megatron" else "model.layers"
        return [f"{layers}.{end - 1}" for end in ends]

    def _strategy(self, job: Job, shape: Shape, kind: str, tensor: int, cores: int) -> Yaml:
        plan, attention = job.plan, shape.attention
        # a chip that is one rank of the plan holds each norm once, so its cores must split them
        split = bool(plan.sequence_parallel) or (int(plan.tensor_parallel_size) == 1 and cores > 1)
        result: Yaml = {
            "tensor_model_parallel_size": tensor,
            "pipeline_model_parallel_size": int(plan.pipeline_parallel_size),
            "virtual_pipeline_model_parallel_size": int(plan.virtual_pipeline_size),
            "zero1": int(plan.zero_stage) == 1,
            "sequence_parallel": split,
        }
        if kind == "hf_llama":
            result["context_parallel_size"] = int(plan.context_parallel_size)
        if kind != "megatron" and isinstance(attention, Attention):
            result["kv_replicator"] = max(tensor // attention.num_kv_heads, 1)
        if shape.moe:
            result["expert_model_parallel_size"] = int(plan.expert_parallel_size)
        return result

    def _model(self, job: Job, shape: Shape, kind: str) -> Yaml:
        plan, model, attention = job.plan, job.model, shape.attention
        result: Yaml = {
            "encoder_seq_length": int(plan.seq_length),
            "max_position_embeddings": model.num_learned_positions or int(plan.seq_length),
            "num_layers": model.num_layers,
            "hidden_size": model.hidden_size,
            "use_cpu_initialization": True,
        }
        if kind == "megatron" and isinstance(attention, Attention):
            result |= _gpt(job, shape, attention, self._bias(job, shape, attention))
        else:
            result |= {"model_config": _UNSET, "rope_theta": _UNSET, "qkv_linear": True}
            result |= {"fuse_qkv": True} if kind == "hf_llama" else {}
        if shape.moe:
            result["moe"] = _experts(shape.moe)
        if int(plan.pipeline_parallel_size) > 1 and model.num_layers % int(plan.pipeline_parallel_size):
            result["pipeline_cuts"] = self._cuts(job, kind)
        ring = int(plan.context_parallel_size) > 1
        result |= {
            "activations_checkpoint_granularity": None if job.recompute == "none" else job.recompute,
            "activations_checkpoint_recompute": ["CoreAttention"] if job.recompute == "selective" else None,
            "fusions": {"softmax": True, "flash_attention": not ring, "ring_attention": ring},
            "do_layer_norm_weight_decay": False,
            "optim": {
                "name": "adamw",
                "lr": _UNSET,
                "weight_decay": 0.1,
                "capturable": False,
                "betas": [0.9, 0.95],
                "sched": {"name": "CosineAnnealing", "warmup_steps": 0, "constant_steps": 0, "min_lr": 0.0},
            },
        }
        return result


def logical_cores(job: Job) -> tuple[int, int]:
    """NeuronCores of a logical one, and logical cores of a rank of the plan.

    From NeuronCore-v3 on the runtime joins two cores into one by default (LNC 2); chips before have two cores in all.
    """
    lnc = 2 if job.chip.num_cores > 2 else 1
    return lnc, max(int(job.chip.num_cores) // lnc // job.ranks_per_chip, 1)


def _trainer(job: Job, lnc: int, cores: int) -> Yaml:
    return {
        "devices": job.ranks_per_node * cores,
        "num_nodes": job.num_nodes,
        "lnc": lnc,
        "max_epochs": -1,
        "max_steps": job.num_steps,
        "log_every_n_steps": 1,
        "val_check_interval": job.num_steps + 1,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0.0,
        "limit_test_batches": 0.0,
        "gradient_clip_val": 1.0,
    }


def _experiment(job: Job, kind: str) -> Yaml:
    return {
        "log_local_rank_0_only": True,
        "create_tensorboard_logger": True,
        "explicit_log_dir": None,
        "exp_dir": _UNSET,
        "name": f"{kind}_{job.name}",
        "resume_if_exists": True,
        "resume_ignore_no_checkpoint": True,
        "create_checkpoint_callback": True,
        "checkpoint_callback_params": {
            "monitor": "step",
            "save_top_k": 1,
            "mode": "max",
            "save_last": False,
            "filename": f"{job.name}--{{step}}-{{consumed_samples}}",
            "every_n_train_steps": _UNSET,
            "use_master_weights_in_ckpt": False,
        },
        "log_parameter_norm": True,
        "log_gradient_norm": True,
        "enable_recovery_time_instrumentation": False,
        "save_xser": True,
        "load_xser": True,
        "async_checkpointing": False,
        "resume_from_checkpoint": None,
    }


def _data(job: Job, kind: str) -> Yaml:
    result: Yaml = {
        "micro_batch_size": int(job.plan.micro_batch_size),
        "global_batch_size": int(job.plan.global_batch_size),
    }
    if kind != "megatron":
        return result | {"train_dir": _UNSET}
    return result | {
        "data_prefix": [1.0, _UNSET],
        "index_mapping_dir": None,
        "data_impl": "mmap",
        "splits_string": "99,1,0",
        "seq_length": int(job.plan.seq_length),
        "skip_warmup": False,
        "num_workers": 1,
        "dataloader_type": "single",
        "reset_position_ids": False,
        "reset_attention_mask": False,
        "eod_mask_loss": False,
        "validation_drop_last": True,
        "no_seqlen_plus_one_input_tokens": False,
        "pad_samples_to_global_batch_size": False,
        "tokenizer": {
            "library": "megatron",
            "type": _UNSET,
            "model": None,
            "vocab_file": None,
            "merge_file": None,
            "delimiter": None,
            "sentencepiece_legacy": False,
            "use_fast": False,
        },
    }


def _gpt(job: Job, shape: Shape, attention: Attention, bias: bool) -> Yaml:
    model = job.model
    result: Yaml = {
        "ffn_hidden_size": shape.intermediate_size,
        "num_attention_heads": attention.num_heads,
        "num_kv_heads": attention.num_kv_heads,
        "kv_channels": attention.head_dim,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "ffn_dropout": 0.0,
        "normalization": model.norm,
        "make_vocab_size_divisible_by": job.padded_to,
        "share_embeddings_and_output_weights": model.tie_word_embeddings,
        "position_embedding_type": "learned_absolute" if model.num_learned_positions else "rope",
        "activation": "swiglu" if shape.gated else "gelu",
        "transformer_block_type": "pre_ln",
        "has_bias": bias,
    }
    if not model.num_learned_positions:
        result["position_freq_base"] = _UNSET
    if shape.window:
        result["sliding_window_size"] = shape.window
    return result


def _experts(moe: Moe) -> Yaml:
    return {
        "num_experts": moe.num_experts,
        "frequency": 1,
        "dropout": 0.0,
        "capacity_factor": 0.0,
        "dropless": True,
        "routing_algorithm": "top_k",
        "top_k": moe.experts_per_token,
        "output_router_logits": True,
        "router_aux_loss_coef": 0.02,
        "normalize_top_k_affinities": moe.experts_per_token > 1,
    }


def _precision(kind: str) -> Yaml:
    # weights in BF16 with FP32 copies and FP32 gradient sums; the hub's models are built in BF16, the GPT is cast
    return {
        "type": "mixed_precision",
        "master_weights": True,
        "fp32_grad_acc": True,
        "xla_use_bf16": "0",
        "xla_downcast_bf16": "1" if kind == "megatron" else "0",
        "neuron_rt_stochastic_rounding_en": "0",
    }


def _hub_config(job: Job, shape: Shape, kind: str) -> dict[str, object]:
    model, attention = job.model, shape.attention
    of_experts = {}
    if shape.moe is not None:
        of_experts = {"num_local_experts": shape.moe.num_experts, "num_experts_per_tok": shape.moe.experts_per_token}
    llama = kind == "hf_llama"
    return {
        "architectures": ["LlamaForCausalLM" if llama else "MixtralForCausalLM"],
        "model_type": "llama" if llama else "mixtral",
        "hidden_size": model.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": attention.num_heads,
        "num_key_value_heads": attention.num_kv_heads if isinstance(attention, Attention) else attention.num_heads,
        **of_experts,
        "hidden_act": "silu",
        "vocab_size": model.vocab_size,
        "max_position_embeddings": int(job.plan.seq_length),
        "tie_word_embeddings": model.tie_word_embeddings,
    }


def _script(job: Job, kind: str, cores: int, title: str) -> str:
    names, words = rendezvous(job, job.ranks_per_node * cores)
    names |= {
        "NXDT_PATH": "?folder of a neuronx-distributed-training checkout",
        "DATA_PATH": "?prefix of the tokenized data" if kind == "megatron" else "?folder of the tokenized data set",
        "EXPERIMENT_PATH": "experiments",
        "COMPILER_CACHE": "neuron_cache",
        "SAVE_INTERVAL": "1000",
        "LEARNING_RATE": "3e-4",
    }
    overrides = {
        "exp_manager.exp_dir": "$EXPERIMENT_PATH",
        "exp_manager.checkpoint_callback_params.every_n_train_steps": "$SAVE_INTERVAL",
        "compiler_cache_url": "$COMPILER_CACHE",
        "model.optim.lr": "$LEARNING_RATE",
    }
    if kind == "megatron":
        names["TOKENIZER_PATH"] = "?folder of the tokenizer"
        overrides |= {"data.data_prefix": "[1.0,$DATA_PATH]", "data.tokenizer.type": "$TOKENIZER_PATH"}
    else:
        overrides |= {"data.train_dir": "$DATA_PATH", "model.model_config": "$HERE/config.json"}
    if not job.model.num_learned_positions:
        names["ROPE_THETA"] = "10000"
        overrides["model.position_freq_base" if kind == "megatron" else "model.rope_theta"] = "$ROPE_THETA"
    call = [*words, '"$NXDT_PATH/examples/training_orchestrator.py"', '--config-path "$HERE"', "--config-name config"]
    lines = [" ".join(call), *(f'  "{key}={value}"' for key, value in overrides.items())]
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            *header(job, title),
            "set -euo pipefail",
            "",
            "# to set: where things are, and which node this is",
            *variables(names),
            'HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"',
            "export FI_PROVIDER=efa FI_EFA_USE_DEVICE_RDMA=1 FI_EFA_FORK_SAFE=1 HYDRA_FULL_ERROR=1",
            "",
            *(line + " \\" for line in lines[:-1]),
            lines[-1],
            "",
        ]
    )
