"""A transformer in Megatron-LM's words: what its command line calls the sizes. Dense or with experts."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Attention, LatentAttention, Layer, Mlp, Model, Moe, NormKind


def read_megatron(reader: Reader) -> Model:
    """A Megatron GPT. Defaults are Megatron's: layer norms, biases, learned positions, a plain MLP, tied tables."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_layers", "num_hidden_layers")
    gated = reader.flag("swiglu", "gated_linear_unit", default=False)
    bias = reader.flag("add_bias_linear", default=not reader.flag("disable_bias_linear", default=False))
    attention = _attention(reader, hidden, bias)
    # Megatron keeps the work of a gated MLP near that of a plain one, in steps of 64
    width = 64 * max(1, int(hidden * 4 * 2 / 3) // 64) if gated else 4 * hidden
    ffn = reader.size("ffn_hidden_size", default=width)
    dense = Layer(attention=attention, mlp=Mlp(intermediate_size=ffn, gated=gated, bias=bias))
    sparse = replace(dense, mlp=_moe(reader, ffn, gated)) if reader.has("num_experts", "num_moe_experts") else dense
    kind: NormKind = "rmsnorm" if reader.text("normalization", "LayerNorm").lower() == "rmsnorm" else "layernorm"
    length = reader.size("max_position_embeddings", "seq_length", default=2048, at_most=MOST_ENTRIES)
    learned = reader.text("position_embedding_type", "learned_absolute") == "learned_absolute"
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("padded_vocab_size", "vocab_size"),
        layers=tuple(sparse if each else dense for each in reader.sparse_layers("moe_layer_freq", count)),
        tie_word_embeddings=not reader.flag("untie_embeddings_and_output_weights", default=False),
        norm=kind,
        num_learned_positions=length if learned else 0,
        max_seq_length=length,
        notes=tuple(reader.notes),
    )


def _attention(reader: Reader, hidden: int, bias: bool) -> Attention | LatentAttention:
    if reader.flag("multi_latent_attention", default=False):
        return LatentAttention(
            num_heads=reader.size("num_attention_heads"),
            q_lora_rank=reader.size("q_lora_rank", default=0, at_least=0),
            kv_lora_rank=reader.size("kv_lora_rank"),
            nope_head_dim=reader.size("qk_head_dim"),
            rope_head_dim=reader.size("qk_pos_emb_head_dim"),
            v_head_dim=reader.size("v_head_dim"),
        )
    return replace(
        reader.attention(hidden, kv_heads=("num_query_groups",), head_dim=("kv_channels", "head_dim")),
        qkv_bias=bias or reader.flag("add_qkv_bias", default=False),
        output_bias=bias,
        qk_norm=reader.flag("qk_layernorm", default=False),
    )


def _moe(reader: Reader, ffn: int, gated: bool) -> Moe:
    num_experts, used = reader.experts(
        "num_experts", "num_moe_experts", per_token=("moe_router_topk",), default_per_token=2
    )
    return Moe(
        num_experts=num_experts,
        experts_per_token=used,
        expert_intermediate_size=reader.size("moe_ffn_hidden_size", default=ffn),
        shared_intermediate_size=reader.size("moe_shared_expert_intermediate_size", default=0, at_least=0),
        gated=gated,
    )


FAMILY: Final = Family(
    name="megatron", model_types=("megatron", "megatron_gpt", "gpt"), classes=("MegatronGPT",), read=read_megatron
)
