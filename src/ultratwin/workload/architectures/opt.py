"""OPT: learned positions (two more than the length), layer norms, biases everywhere, one table for both ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Layer, Mlp, Model, uniform_layers


def read_opt(reader: Reader) -> Model:
    """An OPT-shaped model."""
    hidden = reader.size("hidden_size")
    bias = reader.flag("enable_bias", default=True)
    if reader.size("word_embed_proj_dim", default=hidden) != hidden:
        reader.faults.append("word_embed_proj_dim differs from hidden_size: projected embeddings are not supported")
    positions = reader.size("max_position_embeddings", at_most=MOST_ENTRIES)
    layer = Layer(
        attention=replace(reader.attention(hidden), qkv_bias=bias, output_bias=bias),
        mlp=Mlp(intermediate_size=reader.size("ffn_dim"), gated=False, bias=bias),
    )
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=uniform_layers(layer, reader.layers("num_hidden_layers")),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=True),
        norm="layernorm",
        num_learned_positions=positions + 2,
        max_seq_length=positions,
        notes=tuple(reader.notes),
    )


FAMILY: Final = Family(name="opt", model_types=("opt",), classes=("OPTForCausalLM",), read=read_opt)
