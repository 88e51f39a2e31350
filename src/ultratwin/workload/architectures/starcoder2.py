"""StarCoder2: grouped queries, a plain MLP, biases everywhere, layer norms, one table for both ends, a window."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.llama import shared, windowed
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Layer, Mlp, Model


def read_starcoder2(reader: Reader) -> Model:
    """A StarCoder2-shaped model."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    bias = reader.flag("use_bias", default=True)
    attention = replace(reader.attention(hidden), qkv_bias=bias, output_bias=bias)
    mlp = Mlp(intermediate_size=reader.size("intermediate_size"), gated=False, bias=bias)
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=shared(tuple(Layer(attention=each, mlp=mlp) for each in windowed(reader, attention, count))),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=True),
        norm="layernorm",
        max_seq_length=reader.size("max_position_embeddings", default=16384, at_most=MOST_ENTRIES),
        notes=tuple(reader.notes),
    )


FAMILY: Final = Family(
    name="starcoder2", model_types=("starcoder2",), classes=("Starcoder2ForCausalLM",), read=read_starcoder2
)
