"""Gemma 1 to 4: wide gated MLP, one table for both ends; from 2 on norms after each part and sliding windows."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.llama import shared
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Attention, Layer, Mlp, Model, Moe, uniform_layers

# the text part of Gemma 3 names only what differs from its class, whose vocabulary, heads and window these are
_GEMMA3_VOCAB: Final = 262208
_GEMMA3_HEADS: Final = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}
_GEMMA3_WINDOW: Final = 4096


def read_gemma(reader: Reader) -> Model:
    """A Gemma 1: full attention, two norms a layer."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    layer = Layer(attention=reader.attention(hidden), mlp=Mlp(intermediate_size=reader.size("intermediate_size")))
    return _model(reader, hidden, uniform_layers(layer, count), reader.size("vocab_size"))


def read_gemma2(reader: Reader) -> Model:
    """A Gemma 2: every other layer, from the first on, has the window; four norms a layer."""
    hidden = reader.size("hidden_size")
    attention = reader.attention(hidden)
    window = reader.size("sliding_window", default=4096, at_most=MOST_ENTRIES)
    return _model(reader, hidden, _layers(reader, attention, window, period=2), reader.size("vocab_size"))


def read_gemma3(reader: Reader) -> Model:
    """A Gemma 3: every sixth layer sees all, the others a window; norms of queries and keys."""
    hidden = reader.size("hidden_size")
    full = reader.defaulting(_GEMMA3_HEADS)
    attention = replace(full.attention(hidden), qk_norm=True)
    window = reader.size("sliding_window", default=_GEMMA3_WINDOW, at_most=MOST_ENTRIES)
    period = reader.size("sliding_window_pattern", "_sliding_window_pattern", default=6)
    vocab = reader.size("vocab_size", default=_GEMMA3_VOCAB)
    return _model(reader, hidden, _layers(reader, attention, window, period=period), vocab)


def read_gemma4(reader: Reader) -> Model:
    """A Gemma 4: layers that see all have fewer and wider heads; experts, where there are any, beside the MLP."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    own = replace(reader.attention(hidden), qk_norm=True)
    narrow = replace(own, window=reader.size("sliding_window", default=1024, at_most=MOST_ENTRIES))
    wide = replace(
        own,
        head_dim=reader.size("global_head_dim", default=own.head_dim),
        num_kv_heads=reader.size("num_global_key_value_heads", default=own.num_kv_heads),
    )
    types = reader.choices("layer_types", count)
    full = [each == "full_attention" for each in types[:count]] or [(i + 1) % 6 == 0 for i in range(count)]
    mlp = _gemma4_mlp(reader)
    layers = shared(tuple(Layer(attention=wide if each else narrow, mlp=mlp, num_norms=4) for each in full))
    return _model(reader, hidden, layers, reader.size("vocab_size", default=262144))


def _gemma4_mlp(reader: Reader) -> Mlp | Moe:
    width = reader.size("intermediate_size")
    if not reader.flag("enable_moe_block", default=False):
        return Mlp(intermediate_size=width)
    num_experts, used = reader.experts("num_experts", per_token=("top_k_experts", "num_experts_per_tok"))
    return Moe(
        num_experts=num_experts,
        experts_per_token=used,
        expert_intermediate_size=reader.size("moe_intermediate_size"),
        shared_intermediate_size=width,
    )


def _layers(reader: Reader, attention: Attention, window: int, *, period: int) -> tuple[Layer, ...]:
    """The last layer of each period is full, the others have the window, unless `layer_types` says otherwise."""
    count = reader.layers("num_hidden_layers")
    narrow = replace(attention, window=window)
    types = reader.choices("layer_types", count)
    full = [each == "full_attention" for each in types[:count]] or [(i + 1) % period == 0 for i in range(count)]
    mlp = Mlp(intermediate_size=reader.size("intermediate_size"))
    return shared(tuple(Layer(attention=attention if each else narrow, mlp=mlp, num_norms=4) for each in full))


def _model(reader: Reader, hidden: int, layers: tuple[Layer, ...], vocab: int) -> Model:
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=vocab,
        layers=layers,
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=True),
        max_seq_length=reader.size("max_position_embeddings", default=8192, at_most=MOST_ENTRIES),
        notes=tuple(reader.notes),
    )


GEMMA: Final = Family(name="gemma", model_types=("gemma",), classes=("GemmaForCausalLM",), read=read_gemma)
GEMMA2: Final = Family(name="gemma2", model_types=("gemma2",), classes=("Gemma2ForCausalLM",), read=read_gemma2)
GEMMA3: Final = Family(
    name="gemma3",
    model_types=("gemma3_text", "gemma3"),
    classes=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    read=read_gemma3,
)
GEMMA4: Final = Family(
    name="gemma4",
    model_types=("gemma4_text", "gemma4"),
    classes=("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration"),
    read=read_gemma4,
)
