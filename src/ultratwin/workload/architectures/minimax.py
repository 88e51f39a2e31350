"""MiniMax: lightning and full attention in turn (Text-01, M1), full attention in every layer (M2); experts in all."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.llama import shared
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Layer, LightningAttention, Mixer, Model, Moe


def read_minimax(reader: Reader) -> Model:
    """A MiniMax-Text-01 or M1. `attn_type_list` has 1 where attention is full; else every eighth layer has it."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    full = reader.attention(hidden)
    linear = LightningAttention(
        num_heads=full.num_heads, head_dim=full.head_dim, chunk_size=reader.size("block_size", default=256)
    )
    types = reader.choices("layer_types", count)
    if types:
        is_full = [each == "full_attention" for each in types[:count]]
    elif reader.has("attn_type_list"):
        is_full = reader.sparse_layers("attn_type_list", count)
    else:
        is_full = [(index + 1) % 8 == 0 for index in range(count)]
    moe = _moe(reader, router_bias=False)
    mixers: list[Mixer] = [full if each else linear for each in is_full]
    return _model(reader, hidden, tuple(Layer(attention=each, mlp=moe) for each in mixers))


def read_minimax_m2(reader: Reader) -> Model:
    """A MiniMax-M2: norms over all queries and keys, a bias that balances the router."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    attention = replace(
        reader.attention(hidden),
        qk_norm=reader.flag("use_qk_norm", default=True),
        qk_norm_over_all=reader.text("qk_norm_type", "per_layer") == "per_layer",
    )
    moe = _moe(reader, router_bias=reader.flag("use_routing_bias", default=True))
    return _model(reader, hidden, (Layer(attention=attention, mlp=moe),) * count)


def _moe(reader: Reader, *, router_bias: bool) -> Moe:
    num_experts, used = reader.experts("num_local_experts", per_token=("num_experts_per_tok",))
    return Moe(
        num_experts=num_experts,
        experts_per_token=used,
        expert_intermediate_size=reader.size("intermediate_size"),
        shared_intermediate_size=reader.size("shared_intermediate_size", default=0, at_least=0),
        router_bias=router_bias,
    )


def _model(reader: Reader, hidden: int, layers: tuple[Layer, ...]) -> Model:
    modules = reader.size("num_mtp_modules", default=0, at_least=0, at_most=100)
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=shared(layers),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=False),
        max_seq_length=reader.size("max_position_embeddings", default=131072, at_most=MOST_ENTRIES),
        num_mtp_modules=modules if reader.flag("use_mtp", default=modules > 0) else 0,
        notes=tuple(reader.notes),
    )


MINIMAX: Final = Family(
    name="minimax",
    model_types=("minimax", "minimax_text_01", "minimax_m1"),
    classes=("MiniMaxForCausalLM", "MiniMaxText01ForCausalLM", "MiniMaxM1ForCausalLM"),
    read=read_minimax,
)
MINIMAX_M2: Final = Family(
    name="minimax-m2", model_types=("minimax_m2",), classes=("MiniMaxM2ForCausalLM",), read=read_minimax_m2
)
