"""GPT-NeoX and Pythia: rotary positions, layer norms, biases everywhere, a plain MLP beside the attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Layer, Mlp, Model, uniform_layers


def read_gpt_neox(reader: Reader) -> Model:
    """A GPT-NeoX-shaped model."""
    hidden = reader.size("hidden_size")
    bias = reader.flag("attention_bias", default=True)
    layer = Layer(
        attention=replace(reader.attention(hidden), qkv_bias=bias, output_bias=bias),
        mlp=Mlp(intermediate_size=reader.size("intermediate_size"), gated=False, bias=True),
        parallel_residual=reader.flag("use_parallel_residual", default=True),
    )
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=uniform_layers(layer, reader.layers("num_hidden_layers")),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=False),
        norm="layernorm",
        max_seq_length=reader.size("max_position_embeddings", default=2048, at_most=MOST_ENTRIES),
        notes=tuple(reader.notes),
    )


FAMILY: Final = Family(name="gpt-neox", model_types=("gpt_neox",), classes=("GPTNeoXForCausalLM",), read=read_gpt_neox)
