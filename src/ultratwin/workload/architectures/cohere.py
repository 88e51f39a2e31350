"""Cohere Command R, R7B and A: attention and a gated MLP side by side, layer norms without bias, one table."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.llama import shared
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Layer, Mlp, Model


def read_cohere(reader: Reader) -> Model:
    """A Command R; of the second kind (R7B, A) all but each fourth layer have a window."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    bias = reader.flag("attention_bias", default=False)
    full = replace(
        reader.attention(hidden), qkv_bias=bias, output_bias=bias, qk_norm=reader.flag("use_qk_norm", default=False)
    )
    attentions = [full] * count
    if not reader.names.isdisjoint(("cohere2", "Cohere2ForCausalLM")):
        narrow = replace(full, window=reader.size("sliding_window", default=4096, at_most=MOST_ENTRIES))
        period = reader.size("sliding_window_pattern", "_sliding_window_pattern", default=4)
        types = reader.choices("layer_types", count)
        all_of = [each == "full_attention" for each in types[:count]] or [(i + 1) % period == 0 for i in range(count)]
        attentions = [full if each else narrow for each in all_of]
    mlp = Mlp(intermediate_size=reader.size("intermediate_size"))
    layers = tuple(Layer(attention=each, mlp=mlp, num_norms=1, parallel_residual=True) for each in attentions)
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=shared(layers),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=True),
        norm="layernorm",
        norm_bias=False,
        max_seq_length=reader.size("max_position_embeddings", default=8192, at_most=MOST_ENTRIES),
        notes=tuple(reader.notes),
    )


FAMILY: Final = Family(
    name="cohere",
    model_types=("cohere", "cohere2"),
    classes=("CohereForCausalLM", "Cohere2ForCausalLM"),
    read=read_cohere,
)
