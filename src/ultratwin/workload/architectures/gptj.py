"""GPT-J: rotary positions, one layer norm before attention and a plain MLP side by side, a bias on the output head."""

from __future__ import annotations

from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Layer, Mlp, Model, uniform_layers


def read_gptj(reader: Reader) -> Model:
    """A GPT-J-shaped model; the head's bias (one number per word) is not counted."""
    hidden = reader.size("n_embd", "hidden_size")
    layer = Layer(
        attention=reader.attention(hidden, heads=("n_head", "num_attention_heads"), kv_heads=()),
        mlp=Mlp(intermediate_size=reader.size("n_inner", default=4 * hidden), gated=False, bias=True),
        num_norms=1,
        parallel_residual=True,
    )
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=uniform_layers(layer, reader.layers("n_layer", "num_hidden_layers")),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=False),
        norm="layernorm",
        max_seq_length=reader.size("n_positions", "max_position_embeddings", default=2048, at_most=MOST_ENTRIES),
        notes=tuple(reader.notes),
    )


FAMILY: Final = Family(name="gpt-j", model_types=("gptj",), classes=("GPTJForCausalLM",), read=read_gptj)
