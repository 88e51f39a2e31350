"""Megatron-LM: flags of pretrain_gpt.py.

Flags as in NVIDIA/Megatron-LM at commit d98e8a64ddf34856e74b24714e3bedb2f5a39553 (August 2026): megatron/training/
arguments.py and the dataclasses that it makes flags of (TransformerConfig, ModelParallelConfig, training/config).
"""

from __future__ import annotations

from typing import ClassVar, Final

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
from ultratwin.workload.model import Attention, LatentAttention, Moe

Arguments = list[tuple[str, str | None]]

_PRECISION: Final[dict[str, Arguments]] = {
    "bf16": [("--bf16", None)],
    "fp16": [("--fp16", None)],
    "fp8": [("--bf16", None), ("--fp8-format", "hybrid"), ("--fp8-recipe", "delayed")],
    "fp8-block": [("--bf16", None), ("--fp8-format", "e4m3"), ("--fp8-recipe", "blockwise")],
    "mxfp8": [("--bf16", None), ("--fp8-format", "e4m3"), ("--fp8-recipe", "mxfp8")],
    "nvfp4": [("--bf16", None), ("--fp4-format", "e2m1"), ("--fp4-recipe", "nvfp4")],
}
_FSDP_STRATEGY: Final = {2: "optim_grads", 3: "optim_grads_params"}


class Megatron(Launcher):
    """NVIDIA Megatron-LM with Transformer Engine."""

    name = "megatron"
    title = "Megatron-LM"
    families: ClassVar[tuple[str, ...]] = ("nvidia", "amd")

    def files(self, job: Job) -> dict[str, str]:
        """One script, launch.sh."""
        self.check_schedule(job, ("1f1b", "interleaved"))
        self.check_precision(job, _PRECISION)
        shape = self.shape(job.model)
        self._check_model(job, shape)
        names, words = rendezvous(job, job.ranks_per_node)
        names |= {
            "MEGATRON_PATH": "?folder of a Megatron-LM checkout",
            "DATA_PATH": "?prefix of the tokenized data (without .bin and .idx)",
            "TOKENIZER_MODEL": "?folder or hub id of the tokenizer",
            "CHECKPOINT_PATH": "checkpoints",
            "SAVE_INTERVAL": "1000",
            "LEARNING_RATE": "3e-4",
            "ROTARY_BASE": "10000",
        }
        arguments = [
            *self._model(job, shape), *self._experts(job, shape), *self._layout(job), *self._sharding(job),
            *self._precision(job), *_training(job),
        ]  # fmt: skip
        lines = [
            "#!/usr/bin/env bash",
            *header(job, self.title),
            "set -euo pipefail",
            "",
            "# to set: where things are, and which node this is. The last two do not change the time of a step",
            *variables(names),
            *_environment(job),
            "",
            *command([*words, '"$MEGATRON_PATH/pretrain_gpt.py"'], arguments),
            "",
        ]
        return {"launch.sh": "\n".join(lines)}

    def _check_model(self, job: Job, shape: Shape) -> None:
        if shape.parallel_residual:
            raise self.refusal(
                f"{job.model.id} adds attention and feed-forward in parallel", allowed="one after another"
            )
        if shape.num_norms != 2:
            raise self.refusal(f"{job.model.id} has {shape.num_norms} norms in a layer", allowed="2")
        if job.model.embedding_norm:
            raise self.refusal(f"{job.model.id} has a norm after its embedding")
        if job.model.norm == "layernorm" and not job.model.norm_bias:
            raise self.refusal(
                f"{job.model.id} has layer norms without bias", allowed="layer norms with bias, RMS norms"
            )
        if shape.moe and shape.moe.shared_intermediate_size and shape.moe.bias:
            raise self.refusal(
                f"{job.model.id} has biases in its shared experts", allowed="shared experts without bias"
            )

    def _model(self, job: Job, shape: Shape) -> Arguments:
        model, plan = job.model, job.plan
        positions = model.num_learned_positions
        if positions and positions < int(plan.seq_length):
            raise self.refusal(
                f"the plan has sequences of {plan.seq_length:,} tokens, and the model learned {positions:,} positions",
                hint=f"fix --seq-length {positions}",
            )
        rotary: Arguments = [("--rotary-base", "$ROTARY_BASE")]
        return [
            ("--use-mcore-models", None),
            ("--transformer-impl", "transformer_engine"),
            ("--num-layers", str(model.num_layers)),
            ("--hidden-size", str(model.hidden_size)),
            ("--ffn-hidden-size", str(shape.intermediate_size)),
            *_attention(shape),
            *self._biases(job, shape),
            *([("--swiglu", None)] if shape.gated else []),
            ("--normalization", "RMSNorm" if model.norm == "rmsnorm" else "LayerNorm"),
            ("--position-embedding-type", "learned_absolute" if positions else "rope"),
            *([] if positions else rotary),
            ("--seq-length", str(plan.seq_length)),
            ("--max-position-embeddings", str(positions or plan.seq_length)),
            ("--vocab-size", str(model.vocab_size)),
            ("--make-vocab-size-divisible-by", str(job.padded_to)),
            *([] if model.tie_word_embeddings else [("--untie-embeddings-and-output-weights", None)]),
            *([("--mtp-num-layers", str(model.num_mtp_modules))] if model.num_mtp_modules else []),
            ("--attention-dropout", "0.0"),
            ("--hidden-dropout", "0.0"),
        ]

    def _biases(self, job: Job, shape: Shape) -> Arguments:
        attention = shape.attention
        of_qkv = isinstance(attention, Attention) and attention.qkv_bias
        of_output = isinstance(attention, Attention) and attention.output_bias
        of_blocks = {block.bias for block in (shape.dense, shape.moe) if block is not None}
        if of_blocks == {True} and of_output and of_qkv:
            # Megatron fuses neither biases of experts with dropout
            return [("--no-bias-dropout-fusion", None)] if shape.moe else []
        if True in of_blocks or of_output:
            raise self.refusal(
                f"{job.model.id} has biases in some of its matrices", allowed="all, none, or those of queries and keys"
            )
        return [("--disable-bias-linear", None), *([("--add-qkv-bias", None)] if of_qkv else [])]

    def _experts(self, job: Job, shape: Shape) -> Arguments:
        moe = shape.moe
        if moe is None:
            return []
        plan = job.plan
        shared: Arguments = [("--moe-shared-expert-intermediate-size", str(moe.shared_intermediate_size))]
        if moe.shared_gate:
            shared.append(("--moe-shared-expert-gate", None))
        return [
            ("--num-experts", str(moe.num_experts)),
            *([] if all(shape.experts) else [("--moe-layer-freq", pattern(shape.experts))]),
            ("--moe-router-topk", str(moe.experts_per_token)),
            ("--moe-ffn-hidden-size", str(moe.expert_intermediate_size)),
            *(shared if moe.shared_intermediate_size else []),
            *_router(moe),
            ("--moe-grouped-gemm", None),
            ("--moe-token-dispatcher-type", "alltoall"),
            ("--expert-model-parallel-size", str(plan.expert_parallel_size)),
            ("--expert-tensor-parallel-size", str(plan.expert_tensor_parallel_size)),
        ]

    def _layout(self, job: Job) -> Arguments:
        plan, model = job.plan, job.model
        stages, chunks = int(plan.pipeline_parallel_size), int(plan.virtual_pipeline_size)
        result: Arguments = [
            ("--tensor-model-parallel-size", str(plan.tensor_parallel_size)),
            ("--pipeline-model-parallel-size", str(stages)),
            ("--context-parallel-size", str(plan.context_parallel_size)),
            *([("--sequence-parallel", None)] if plan.sequence_parallel else []),
        ]
        if stages > 1 and model.num_layers % (stages * chunks):
            sizes = chunk_layers(model.num_layers, stages, chunks)
            result.append(("--pipeline-model-parallel-layout", stage_layout(sizes, model.num_mtp_modules)))
        elif chunks > 1:
            result.append(("--num-virtual-stages-per-pipeline-rank", str(chunks)))
        if job.recompute == "selective":
            result.append(("--recompute-granularity", "selective"))
        if job.recompute == "full":
            result += [("--recompute-granularity", "full"), ("--recompute-method", "uniform")]
            result.append(("--recompute-num-layers", "1"))
        return result

    def _sharding(self, job: Job) -> Arguments:
        plan = job.plan
        stage = int(plan.zero_stage)
        copies = int(plan.data_shard_size) // int(plan.zero_shard_size)
        result: Arguments = [("--overlap-grad-reduce", None)]
        if stage == 0:
            return result
        result += [("--use-distributed-optimizer", None), ("--overlap-param-gather", None)]
        if stage >= 2:
            if int(plan.pipeline_parallel_size) > 1:
                raise self.refusal(
                    f"the plan uses ZeRO stage {stage} with a pipeline",
                    allowed="ZeRO 0 and 1 with a pipeline; 2 and 3 (Megatron-FSDP) without",
                    hint="fix --zero-stage 1, or --pipeline-parallel-size 1",
                )
            result += [("--use-megatron-fsdp", None), ("--ckpt-format", "fsdp_dtensor")]
            result.append(("--data-parallel-sharding-strategy", _FSDP_STRATEGY[stage]))
        if copies > 1:
            result.append(("--num-distributed-optimizer-instances", str(copies)))
        return result

    def _precision(self, job: Job) -> Arguments:
        result = list(_PRECISION[job.recipe.name])
        stage = int(job.plan.zero_stage)
        if job.recipe.weight_gather in ("fp8", "mxfp8") and stage > 0:
            result.append(("--fp8-param-gather", None))
            if job.recipe.weight_gather == "mxfp8" and stage == 1:
                result.append(("--reuse-grad-buf-for-mxfp8-param-ag", None))
        return result


def _attention(shape: Shape) -> Arguments:
    attention = shape.attention
    result: Arguments = [("--num-attention-heads", str(attention.num_heads))]
    if isinstance(attention, LatentAttention):
        result += [("--multi-latent-attention", None), ("--qk-layernorm", None)]
        if attention.q_lora_rank:
            result.append(("--q-lora-rank", str(attention.q_lora_rank)))
        return [
            *result,
            ("--kv-lora-rank", str(attention.kv_lora_rank)),
            ("--qk-head-dim", str(attention.nope_head_dim)),
            ("--qk-pos-emb-head-dim", str(attention.rope_head_dim)),
            ("--v-head-dim", str(attention.v_head_dim)),
            ("--kv-channels", str(attention.v_head_dim)),
        ]
    result.append(("--kv-channels", str(attention.head_dim)))
    if attention.num_kv_heads != attention.num_heads:
        result += [("--group-query-attention", None), ("--num-query-groups", str(attention.num_kv_heads))]
    if attention.qk_norm:
        result.append(("--qk-layernorm", None))
    if attention.sinks:
        result.append(("--softmax-type", "learnable"))
    if shape.window:
        # Megatron counts the keys before a query, the twin the query's own too
        result.append(("--window-size", f"({shape.window - 1},0)"))
        if not all(shape.windowed):
            result.append(("--window-attn-skip-freq", pattern(shape.windowed)))
    return result


def _router(moe: Moe) -> Arguments:
    balance: Arguments = [("--moe-router-load-balancing-type", "aux_loss"), ("--moe-aux-loss-coeff", "1e-2")]
    if moe.router_bias and not moe.bias:
        # a bias that only steers the choice (DeepSeek-V3); where all matrices have biases, so has the router
        return [
            ("--moe-router-score-function", "sigmoid"),
            ("--moe-router-enable-expert-bias", None),
            ("--moe-router-load-balancing-type", "none"),
        ]
    if moe.experts_per_token == 1:
        balance.append(("--moe-router-pre-softmax", None))  # a softmax over the one chosen would always be 1
    return balance


def _training(job: Job) -> Arguments:
    return [
        ("--micro-batch-size", str(job.plan.micro_batch_size)),
        ("--global-batch-size", str(job.plan.global_batch_size)),
        ("--train-iters", str(job.num_steps)),
        ("--lr", "$LEARNING_RATE"),
        ("--lr-decay-style", "cosine"),
        ("--data-path", "$DATA_PATH"),
        ("--split", "99,1,0"),
        ("--tokenizer-type", "HuggingFaceTokenizer"),
        ("--tokenizer-model", "$TOKENIZER_MODEL"),
        ("--save", "$CHECKPOINT_PATH"),
        ("--load", "$CHECKPOINT_PATH"),
        ("--save-interval", "$SAVE_INTERVAL"),
        ("--log-interval", "1"),
        ("--log-throughput", None),
    ]


def _environment(job: Job) -> list[str]:
    if int(job.plan.zero_stage) >= 2:
        return ["unset CUDA_DEVICE_MAX_CONNECTIONS  # Megatron-FSDP refuses 1"]
    return ["export CUDA_DEVICE_MAX_CONNECTIONS=1  # tensor and context parallelism demand it up to Hopper"]


def pattern(flags: tuple[bool, ...]) -> str:
    """Which layers have something, as Megatron's list expression.

    Example:
        >>> pattern((False,) * 3 + (True,) * 58), pattern((True, False) * 18)
        ('[0]*3+[1]*58', '[1,0]*18')
    """
    for period in range(1, len(flags) // 2 + 1):
        if len(flags) % period == 0 and flags == flags[:period] * (len(flags) // period) and period <= 8:
            return f"[{','.join(str(int(each)) for each in flags[:period])}]*{len(flags) // period}"
    runs: list[list[int]] = []
    for each in flags:
        if runs and runs[-1][0] == int(each):
            runs[-1][1] += 1
        else:
            runs.append([int(each), 1])
    return "+".join(f"[{value}]*{count}" for value, count in runs)


def stage_layout(sizes: list[int], num_mtp_modules: int) -> str:
    """Layers of every stage and chunk as Megatron writes them: E embedding, t layer, m MTP module, L loss.

    Example:
        >>> stage_layout([1, 2, 1], 1)
        'Et|tt|tmL'
    """
    parts = ["t" * size for size in sizes]
    parts[0] = "E" + parts[0]
    parts[-1] += "m" * num_mtp_modules + "L"
    return "|".join(parts)
