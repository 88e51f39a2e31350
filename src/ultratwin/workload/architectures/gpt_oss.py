"""GPT-OSS: experts in every layer, biases, attention sinks, every other layer with a short sliding window."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.llama import shared
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Layer, Model, Moe


def read_gpt_oss(reader: Reader) -> Model:
    """A GPT-OSS-shaped model. Without `layer_types` the even layers (from 0) have the window."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    bias = reader.flag("attention_bias", default=True)
    full = replace(reader.attention(hidden), qkv_bias=bias, output_bias=bias, sinks=True)
    narrow = replace(full, window=reader.size("sliding_window", at_most=MOST_ENTRIES))
    types = reader.choices("layer_types", count)
    windows = [each == "sliding_attention" for each in types[:count]] or [index % 2 == 0 for index in range(count)]
    num_experts, used = reader.experts(
        "num_local_experts", "num_experts", per_token=("num_experts_per_tok", "experts_per_token")
    )
    moe = Moe(
        num_experts=num_experts,
        experts_per_token=used,
        expert_intermediate_size=reader.size("intermediate_size"),
        bias=True,
        router_bias=True,
    )
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=shared(tuple(Layer(attention=narrow if short else full, mlp=moe) for short in windows)),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=False),
        max_seq_length=reader.size("max_position_embeddings", default=131072, at_most=MOST_ENTRIES),
        notes=tuple(reader.notes),
    )


FAMILY: Final = Family(name="gpt-oss", model_types=("gpt_oss",), classes=("GptOssForCausalLM",), read=read_gpt_oss)
