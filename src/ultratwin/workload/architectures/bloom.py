"""BLOOM: ALiBi, a norm on the embeddings, layer norms, biases everywhere, one table for both ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Layer, Mlp, Model, uniform_layers


def read_bloom(reader: Reader) -> Model:
    """A BLOOM-shaped model."""
    hidden = reader.size("hidden_size", "n_embed")
    attention = reader.attention(hidden, heads=("n_head", "num_attention_heads"))
    layer = Layer(
        attention=replace(attention, qkv_bias=True, output_bias=True),
        mlp=Mlp(intermediate_size=4 * hidden, gated=False, bias=True),
    )
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=uniform_layers(layer, reader.layers("n_layer", "num_hidden_layers")),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=True),
        norm="layernorm",
        embedding_norm=True,
        max_seq_length=reader.size("seq_length", default=2048, at_most=MOST_ENTRIES),
        notes=tuple(reader.notes),
    )


FAMILY: Final = Family(name="bloom", model_types=("bloom",), classes=("BloomForCausalLM",), read=read_bloom)
