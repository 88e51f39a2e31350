"""Experts with sliding windows in most layers: MiMo-V2 (wider keys than values, sinks) and Step-3.5 to 3.7."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.llama import shared
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Attention, Layer, Mlp, Model, Moe


def read_mimo_v2(reader: Reader) -> Model:
    """A MiMo-V2: `hybrid_layer_pattern` has 1 where a layer has a window, `moe_layer_freq` 1 where it has experts."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    full = replace(reader.attention(hidden), value_head_dim=reader.size("v_head_dim", default=0, at_least=0))
    narrow = _narrow(reader, hidden, full)
    windows = reader.sparse_layers("hybrid_layer_pattern", count)
    attentions = [narrow if each else full for each in windows]
    return _model(reader, hidden, attentions, reader.sparse_layers("moe_layer_freq", count))


def read_step(reader: Reader) -> Model:
    """A Step-3.5-shaped model: `layer_types` says which layers have a window; the first layers are dense."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    full = reader.attention(hidden)
    narrow = replace(full, window=reader.size("sliding_window", at_most=MOST_ENTRIES))
    types = reader.choices("layer_types", count)
    attentions = [narrow if each == "sliding_attention" else full for each in types[:count]] or [full] * count
    first = reader.size("first_k_dense_replace", default=0, at_least=0)
    return _model(reader, hidden, attentions, [index >= first for index in range(count)])


def _narrow(reader: Reader, hidden: int, full: Attention) -> Attention:
    """The attention of layers with a window, whose heads have their own keys in the config."""
    if not reader.has("swa_num_attention_heads"):
        return replace(full, window=reader.size("sliding_window", at_most=MOST_ENTRIES))
    own = reader.attention(
        hidden, heads=("swa_num_attention_heads",), kv_heads=("swa_num_key_value_heads",), head_dim=("swa_head_dim",)
    )
    return replace(
        own,
        window=reader.size("sliding_window", "sliding_window_size", at_most=MOST_ENTRIES),
        value_head_dim=reader.size("swa_v_head_dim", default=0, at_least=0),
        sinks=reader.flag("add_swa_attention_sink_bias", default=False),
    )


def _model(reader: Reader, hidden: int, attentions: list[Attention], sparse: list[bool]) -> Model:
    num_experts, used = reader.experts("n_routed_experts", "num_experts", per_token=("num_experts_per_tok",))
    moe = Moe(
        num_experts=num_experts,
        experts_per_token=used,
        expert_intermediate_size=reader.size("moe_intermediate_size"),
        shared_intermediate_size=reader.size("share_expert_dim", default=0, at_least=0),
        router_bias=True,
    )
    dense = Mlp(intermediate_size=reader.size("intermediate_size"))
    pairs = zip(attentions, sparse, strict=True)
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=shared(tuple(Layer(attention=each, mlp=moe if has else dense) for each, has in pairs)),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=False),
        max_seq_length=reader.size("max_position_embeddings", default=131072, at_most=MOST_ENTRIES),
        num_mtp_modules=reader.size("num_nextn_predict_layers", default=0, at_least=0, at_most=100),
        notes=tuple(reader.notes),
    )


MIMO_V2: Final = Family(
    name="mimo-v2", model_types=("mimo_v2_flash",), classes=("MiMoV2FlashForCausalLM",), read=read_mimo_v2
)
STEP: Final = Family(name="step", model_types=("step3p5", "step3p7"), classes=("Step3p5ForCausalLM",), read=read_step)
