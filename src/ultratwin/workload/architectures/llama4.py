"""Llama 4: experts in every layer or every other one, three of four layers see only their chunk of the context."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.llama import shared
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Attention, Layer, Mlp, Model, Moe


def read_llama4(reader: Reader) -> Model:
    """The text part of a Llama 4. Layer i (from 0) has experts if (i + 1) is a multiple of the interleave step."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    dense = Mlp(intermediate_size=reader.size("intermediate_size_mlp"))
    moe = _moe(reader)
    step = reader.size("interleave_moe_layer_step", default=1)
    listed = reader.indices("moe_layers")
    sparse = listed or frozenset(index for index in range(count) if (index + 1) % step == 0)
    attentions = _attentions(reader, hidden, count)
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=shared(
            tuple(Layer(attention=each, mlp=moe if i in sparse else dense) for i, each in enumerate(attentions))
        ),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=False),
        max_seq_length=reader.size("max_position_embeddings", default=131072, at_most=MOST_ENTRIES),
        notes=tuple(reader.notes),
    )


def _moe(reader: Reader) -> Moe:
    num_experts, used = reader.experts("num_local_experts", per_token=("num_experts_per_tok",))
    width = reader.size("intermediate_size")
    return Moe(
        num_experts=num_experts,
        experts_per_token=used,
        expert_intermediate_size=width,
        shared_intermediate_size=width,
    )


def _attentions(reader: Reader, hidden: int, count: int) -> list[Attention]:
    """Chunked attention where the layer has rotary positions, full attention where it has none (every fourth)."""
    bias = reader.flag("attention_bias", default=False)
    full = replace(reader.attention(hidden), qkv_bias=bias, output_bias=bias)
    chunk = reader.size("attention_chunk_size", default=8192, at_most=MOST_ENTRIES)
    chunked = replace(full, window=chunk)
    types = reader.choices("layer_types", count)
    if types:
        return [chunked if each == "chunked_attention" else full for each in types[:count]]
    rotary = reader.config.get("no_rope_layers")  # 1 where the layer has rotary positions, despite the name
    if isinstance(rotary, list) and rotary:
        return [chunked if flag else full for flag in reader.sparse_layers("no_rope_layers", count)]
    every = reader.size("no_rope_layer_interval", default=4)
    return [full if (index + 1) % every == 0 else chunked for index in range(count)]


FAMILY: Final = Family(
    name="llama4",
    model_types=("llama4_text", "llama4"),
    classes=("Llama4ForCausalLM", "Llama4ForConditionalGeneration"),
    read=read_llama4,
)
