"""Jamba, Bamba and Granite 4: a few layers of attention among many of Mamba, a feed-forward part after each."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.llama import shared
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Layer, Mamba, Mamba2, Mixer, Mlp, Model, Moe


def read_jamba(reader: Reader) -> Model:
    """A Jamba: layer i has attention if i mod period is the offset; so for experts with theirs."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    width = reader.size("intermediate_size")
    mamba = Mamba(
        inner_size=hidden * reader.size("mamba_expand", default=2, at_most=100),
        state_size=reader.size("mamba_d_state", default=16),
        step_rank=_step_rank(reader, hidden),
        conv_kernel=reader.size("mamba_d_conv", default=4),
        conv_bias=reader.flag("mamba_conv_bias", default=True),
        projection_bias=reader.flag("mamba_proj_bias", default=False),
        inner_norms=True,
        state_element_bytes=reader.element_bytes("mamba_ssm_cache_dtype", default=2),
    )
    num_experts, used = reader.experts("num_experts", per_token=("num_experts_per_tok",), default_per_token=2)
    moe = Moe(num_experts=num_experts, experts_per_token=used, expert_intermediate_size=width)
    dense, attention = Mlp(intermediate_size=width), reader.attention(hidden)
    mixing = reader.size("attn_layer_period", default=8), reader.size("attn_layer_offset", default=4, at_least=0)
    routing = reader.size("expert_layer_period", default=2), reader.size("expert_layer_offset", default=1, at_least=0)
    layers = tuple(
        Layer(
            attention=attention if index % mixing[0] == mixing[1] else mamba,
            mlp=moe if num_experts > 1 and index % routing[0] == routing[1] else dense,
        )
        for index in range(count)
    )
    return _model(reader, hidden, layers, tied=False)


def read_bamba(reader: Reader) -> Model:
    """A Bamba: dense, attention in the layers that `attn_layer_indices` lists."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    full = reader.indices("attn_layer_indices")
    attention, mamba = reader.attention(hidden), _mamba2(reader, hidden)
    mlp = Mlp(intermediate_size=reader.size("intermediate_size"), bias=reader.flag("mlp_bias", default=False))
    mixers: list[Mixer] = [attention if index in full else mamba for index in range(count)]
    return _model(reader, hidden, tuple(Layer(attention=each, mlp=mlp) for each in mixers), tied=False)


def read_granite_hybrid(reader: Reader) -> Model:
    """A Granite 4: `layer_types` says which layers have attention; a shared MLP, beside experts if there are any."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    types = reader.choices("layer_types", count) or ("mamba",) * count
    bias = reader.flag("attention_bias", default=False)
    attention = replace(reader.attention(hidden), qkv_bias=bias, output_bias=bias)
    mamba: Mixer = _mamba2(reader, hidden) if "mamba" in types else attention
    common = reader.size("shared_intermediate_size", default=1024)
    mlp: Mlp | Moe = Mlp(intermediate_size=common)
    if reader.size("num_local_experts", default=0, at_least=0):
        num_experts, used = reader.experts("num_local_experts", per_token=("num_experts_per_tok",))
        mlp = Moe(
            num_experts=num_experts,
            experts_per_token=used,
            expert_intermediate_size=reader.size("intermediate_size"),
            shared_intermediate_size=common,
        )
    mixers: list[Mixer] = [mamba if each == "mamba" else attention for each in types[:count]]
    return _model(reader, hidden, tuple(Layer(attention=each, mlp=mlp) for each in mixers), tied=True)


def _step_rank(reader: Reader, hidden: int) -> int:
    """The rank of the step size: `auto` is a sixteenth of the hidden size."""
    if reader.config.get("mamba_dt_rank") in (None, "auto"):
        return -(-hidden // 16)
    return reader.size("mamba_dt_rank")


def _mamba2(reader: Reader, hidden: int) -> Mamba2:
    heads = reader.size("mamba_n_heads", default=128)
    inner = hidden * reader.size("mamba_expand", default=2, at_most=100)
    if reader.config.get("mamba_d_head") in (None, "auto"):
        head_dim = max(1, inner // heads)
    else:
        head_dim = reader.size("mamba_d_head")
    return Mamba2(
        num_heads=heads,
        head_dim=head_dim,
        state_size=reader.size("mamba_d_state", default=256),
        num_groups=reader.size("mamba_n_groups", default=1),
        conv_kernel=reader.size("mamba_d_conv", default=4),
        chunk_size=reader.size("mamba_chunk_size", default=256),
        conv_bias=reader.flag("mamba_conv_bias", default=True),
        projection_bias=reader.flag("mamba_proj_bias", default=False),
        state_element_bytes=reader.element_bytes("mamba_ssm_cache_dtype", default=2),
    )


def _model(reader: Reader, hidden: int, layers: tuple[Layer, ...], *, tied: bool) -> Model:
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=shared(layers),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=tied),
        max_seq_length=reader.size("max_position_embeddings", default=131072, at_most=MOST_ENTRIES),
        notes=tuple(reader.notes),
    )


JAMBA: Final = Family(name="jamba", model_types=("jamba",), classes=("JambaForCausalLM",), read=read_jamba)
BAMBA: Final = Family(name="bamba", model_types=("bamba",), classes=("BambaForCausalLM",), read=read_bamba)
GRANITE_HYBRID: Final = Family(
    name="granite-hybrid",
    model_types=("granitemoehybrid",),
    classes=("GraniteMoeHybridForCausalLM",),
    read=read_granite_hybrid,
)
