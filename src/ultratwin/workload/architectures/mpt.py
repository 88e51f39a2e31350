"""MPT: ALiBi or learned positions, layer norms, usually no biases at all, a plain MLP, one table for both ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Layer, Mlp, Model, uniform_layers


def read_mpt(reader: Reader) -> Model:
    """An MPT-shaped model. Its `attn_config` says the kind of attention and of positions."""
    hidden = reader.size("d_model", "hidden_size")
    inner = reader.part("attn_config")
    attention = reader.attention(hidden, heads=("n_heads",), kv_heads=("kv_n_heads",))
    if inner.text("attn_type") == "multiquery_attention":
        attention = replace(attention, num_kv_heads=1)
    elif inner.has("kv_n_heads"):
        attention = replace(attention, num_kv_heads=inner.size("kv_n_heads"))
        if attention.num_heads % attention.num_kv_heads:
            reader.faults.append(f"n_heads = {attention.num_heads} is not a multiple of attn_config.kv_n_heads")
    bias = not reader.flag("no_bias", default=False)
    attention = replace(attention, qkv_bias=bias, output_bias=bias)
    mlp = Mlp(
        intermediate_size=hidden * reader.size("expansion_ratio", default=4, at_most=1000), gated=False, bias=bias
    )
    positions = reader.size("max_seq_len", at_most=MOST_ENTRIES)
    # the hub's class has ALiBi where attn_config is silent
    learned = reader.flag("learned_pos_emb", default=True) and not (
        inner.flag("alibi", default=True) or inner.flag("rope", default=False)
    )
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=uniform_layers(Layer(attention=attention, mlp=mlp), reader.layers("n_layers")),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=True),
        norm="layernorm",
        norm_bias=bias,
        num_learned_positions=positions if learned else 0,
        max_seq_length=positions,
        notes=tuple(reader.notes),
    )


FAMILY: Final = Family(name="mpt", model_types=("mpt",), classes=("MPTForCausalLM", "MptForCausalLM"), read=read_mpt)
