"""GPT-2 and GPT-3: learned positions, layer norms, biases everywhere, a plain MLP, one table for both ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Layer, Mlp, Model, uniform_layers


def read_gpt2(reader: Reader) -> Model:
    """A GPT-2-shaped model."""
    hidden = reader.size("n_embd", "hidden_size")
    attention = replace(
        reader.attention(hidden, heads=("n_head", "num_attention_heads")), qkv_bias=True, output_bias=True
    )
    mlp = Mlp(intermediate_size=reader.size("n_inner", "intermediate_size", default=4 * hidden), gated=False, bias=True)
    positions = reader.size("n_positions", "n_ctx", "max_position_embeddings", at_most=MOST_ENTRIES)
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=uniform_layers(Layer(attention=attention, mlp=mlp), reader.layers("n_layer", "num_hidden_layers")),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=True),
        norm="layernorm",
        num_learned_positions=positions,
        max_seq_length=positions,
        notes=tuple(reader.notes),
    )


FAMILY: Final = Family(name="gpt2", model_types=("gpt2",), classes=("GPT2LMHeadModel",), read=read_gpt2)
