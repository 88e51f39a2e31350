"""Llama and what kept its shape: Mistral, Qwen2, Qwen3, Phi-3, Granite, OLMo-2, EXAONE-4, MiMo, ERNIE, Hunyuan.

RMS norms, rotary positions, gated MLP.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Attention, Layer, Mlp, Model

# model types whose config.json does not say it, but whose code does
_QKV_BIAS: Final = frozenset(("qwen2", "Qwen2ForCausalLM"))
_QK_NORM: Final = frozenset(("qwen3", "qwen3_vl_text", "Qwen3ForCausalLM", "exaone4", "hunyuan_v1_dense"))
_QK_NORM_OVER_ALL: Final = frozenset(("olmo2", "Olmo2ForCausalLM", "olmo3", "Olmo3ForCausalLM"))
_WINDOW_OFF: Final = _QKV_BIAS | (_QK_NORM - {"exaone4"}) | {"qwen2_moe", "qwen3_moe", "mimo"}


def read_llama(reader: Reader) -> Model:
    """A Llama-shaped model. `sliding_window` counts unless `use_sliding_window` is false (Qwen: unless it is true)."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    names, over_all = reader.names, not _QK_NORM_OVER_ALL.isdisjoint(reader.names)
    bias = reader.flag("attention_bias", "qkv_bias", "use_bias", "bias", default=False)
    attention = replace(
        reader.attention(hidden),
        qkv_bias=bias or not _QKV_BIAS.isdisjoint(names),
        output_bias=bias and reader.flag("attention_out_bias", default="mimo" not in names),
        qk_norm=over_all or reader.flag("use_qk_norm", default=not _QK_NORM.isdisjoint(names)),
        qk_norm_over_all=over_all,
    )
    mlp = Mlp(intermediate_size=reader.size("intermediate_size"), bias=reader.flag("mlp_bias", default=False))
    layers = tuple(Layer(attention=each, mlp=mlp) for each in windowed(reader, attention, count))
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=shared(layers),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=False),
        max_seq_length=reader.size("max_position_embeddings", default=2048, at_most=MOST_ENTRIES),
        notes=tuple(reader.notes),
    )


def windowed(reader: Reader, attention: Attention, count: int) -> list[Attention]:
    """The attention of each layer: `layer_types` says which have the window; else all, but Qwen's first layers."""
    used = reader.flag("use_sliding_window", default=_WINDOW_OFF.isdisjoint(reader.names))
    if not used or not reader.has("sliding_window"):
        return [attention] * count
    narrow = replace(attention, window=reader.size("sliding_window", at_most=MOST_ENTRIES))
    types = reader.choices("layer_types", count)
    if types:
        return [narrow if each == "sliding_attention" else attention for each in types[:count]]
    full = reader.size("max_window_layers", default=0, at_least=0) if reader.has("use_sliding_window") else 0
    return [attention if index < full else narrow for index in range(count)]


def shared(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The same layers, equal ones as one object."""
    first: dict[Layer, Layer] = {}
    return tuple(first.setdefault(layer, layer) for layer in layers)


FAMILY: Final = Family(
    name="llama",
    model_types=(
        *("llama", "mistral", "ministral", "ministral3", "qwen2", "qwen2_5_vl_text", "qwen3", "qwen3_vl_text", "phi3"),
        *("granite", "olmo2", "olmo3", "exaone4", "mimo", "smollm3", "seed_oss", "ernie4_5", "hunyuan_v1_dense"),
    ),
    classes=(
        *("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Phi3ForCausalLM"),
        *("Olmo2ForCausalLM", "Olmo3ForCausalLM"),
    ),
    read=read_llama,
)
