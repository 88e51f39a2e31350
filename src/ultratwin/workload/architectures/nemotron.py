"""Nemotron-4 and Minitron: layer norms, a plain MLP with squared ReLU, grouped queries, rotary positions."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Layer, Mlp, Model, uniform_layers


def read_nemotron(reader: Reader) -> Model:
    """A Nemotron-4-shaped model."""
    hidden = reader.size("hidden_size")
    bias = reader.flag("attention_bias", default=False)
    layer = Layer(
        attention=replace(
            reader.attention(hidden, head_dim=("head_dim", "kv_channels")), qkv_bias=bias, output_bias=bias
        ),
        mlp=Mlp(
            intermediate_size=reader.size("intermediate_size"), gated=False, bias=reader.flag("mlp_bias", default=False)
        ),
    )
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=uniform_layers(layer, reader.layers("num_hidden_layers")),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=False),
        norm="layernorm",
        max_seq_length=reader.size("max_position_embeddings", default=4096, at_most=MOST_ENTRIES),
        notes=tuple(reader.notes),
    )


FAMILY: Final = Family(name="nemotron", model_types=("nemotron",), classes=("NemotronForCausalLM",), read=read_nemotron)
