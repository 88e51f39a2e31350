"""Falcon: attention and a plain MLP side by side, few key/value heads, layer norms, one table for both ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Attention, Layer, Mlp, Model, uniform_layers


def read_falcon(reader: Reader) -> Model:
    """A Falcon-shaped model, of the first kind (7B: one norm, one key/value head) or the new one (two norms)."""
    hidden = reader.size("hidden_size")
    new = reader.flag("new_decoder_architecture", default=False)
    parallel = reader.flag("parallel_attn", default=True)
    bias = reader.flag("bias", default=False)
    layer = Layer(
        attention=replace(_attention(reader, hidden, new), qkv_bias=bias, output_bias=bias),
        mlp=Mlp(intermediate_size=reader.size("ffn_hidden_size", default=4 * hidden), gated=False, bias=bias),
        num_norms=reader.size("num_ln_in_parallel_attn", default=2 if new or not parallel else 1, at_most=2),
        parallel_residual=parallel or new,
    )
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=uniform_layers(layer, reader.layers("num_hidden_layers", "n_layer")),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=True),
        norm="layernorm",
        max_seq_length=reader.size("max_position_embeddings", default=2048, at_most=MOST_ENTRIES),
        notes=tuple(reader.notes),
    )


def _attention(reader: Reader, hidden: int, new: bool) -> Attention:
    heads = ("num_attention_heads", "n_head")
    if new:
        return reader.attention(hidden, heads=heads, kv_heads=("num_kv_heads", "n_head_kv"))
    attention = reader.attention(hidden, heads=heads, kv_heads=())
    return replace(attention, num_kv_heads=1) if reader.flag("multi_query", default=True) else attention


FAMILY: Final = Family(
    name="falcon",
    model_types=("falcon", "RefinedWeb", "RefinedWebModel"),
    classes=("FalconForCausalLM", "RWForCausalLM"),
    read=read_falcon,
)
