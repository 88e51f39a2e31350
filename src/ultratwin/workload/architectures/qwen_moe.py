"""Qwen2-MoE and Qwen3-MoE: a Qwen whose MLPs are mixtures of fine experts, with some dense layers if it says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.llama import shared, windowed
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Layer, Mlp, Model, Moe


def read_qwen_moe(reader: Reader) -> Model:
    """A Qwen-MoE-shaped model. Layer i (from 0) has experts if (i + 1) is a multiple of `decoder_sparse_step`."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    third = reader.names.isdisjoint(("qwen2_moe", "Qwen2MoeForCausalLM"))
    bias = reader.flag("attention_bias", default=False)
    qkv_bias = reader.flag("qkv_bias", default=bias if third else True)
    attention = replace(reader.attention(hidden), qkv_bias=qkv_bias, output_bias=bias, qk_norm=third)
    dense = Mlp(intermediate_size=reader.size("intermediate_size"))
    moe = experts(reader)
    period = reader.size("decoder_sparse_step", default=1)
    only_dense = reader.indices("mlp_only_layers")
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=shared(
            tuple(
                Layer(attention=each, mlp=dense if index in only_dense or (index + 1) % period else moe)
                for index, each in enumerate(windowed(reader, attention, count))
            )
        ),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=False),
        max_seq_length=reader.size("max_position_embeddings", default=32768, at_most=MOST_ENTRIES),
        notes=tuple(reader.notes),
    )


def experts(reader: Reader) -> Moe:
    """The routed experts of a Qwen layer, and the shared one with its gate if there is one."""
    num_experts, used = reader.experts("num_experts", per_token=("num_experts_per_tok",))
    common = reader.size("shared_expert_intermediate_size", default=0, at_least=0)
    return Moe(
        num_experts=num_experts,
        experts_per_token=used,
        expert_intermediate_size=reader.size("moe_intermediate_size"),
        shared_intermediate_size=common,
        shared_gate=common > 0,
    )


FAMILY: Final = Family(
    name="qwen-moe",
    model_types=("qwen2_moe", "qwen3_moe", "qwen3_vl_moe_text", "qwen3_omni_moe_text"),
    classes=("Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM"),
    read=read_qwen_moe,
)
