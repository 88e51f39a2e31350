"""Llama and what kept its shape: Mistral, Qwen2, Qwen3, Phi-3. Pre-norm, RMS norms, rotary positions, gated MLP."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Attention, Layer, Mlp, Model

# model types whose config.json does not say it, but whose code does
_QKV_BIAS: Final = ("qwen2",)
_QK_NORM: Final = ("qwen3",)


def read_llama(reader: Reader) -> Model:
    """A Llama-shaped model. `sliding_window` counts unless `use_sliding_window` is false."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    kind = reader.text("model_type", "llama")
    bias = reader.flag("attention_bias", "qkv_bias", "bias", default=False)
    attention = replace(
        reader.attention(hidden),
        qkv_bias=bias or kind in _QKV_BIAS,
        output_bias=bias,
        qk_norm=kind in _QK_NORM,
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
    if not reader.has("sliding_window") or not reader.flag("use_sliding_window", default=True):
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
    model_types=("llama", "mistral", "ministral", "qwen2", "qwen3", "phi3"),
    classes=("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Phi3ForCausalLM"),
    read=read_llama,
)
