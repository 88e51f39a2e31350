"""Mixtral: a Llama whose every MLP is a mixture of experts. Grok-1 has the same shape with four norms a layer."""

from __future__ import annotations

from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.llama import shared, windowed
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Layer, Model, Moe


def read_mixtral(reader: Reader) -> Model:
    """A Mixtral-shaped model."""
    return _read(reader, tied=False, num_norms=2)


def read_grok1(reader: Reader) -> Model:
    """Grok-1: a norm before and after each part, one table for both ends."""
    return _read(reader, tied=True, num_norms=4)


def _read(reader: Reader, *, tied: bool, num_norms: int) -> Model:
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    num_experts, used = reader.experts(
        "num_local_experts", "num_experts", per_token=("num_experts_per_tok", "num_selected_experts")
    )
    moe = Moe(
        num_experts=num_experts, experts_per_token=used, expert_intermediate_size=reader.size("intermediate_size")
    )
    attentions = windowed(reader, reader.attention(hidden), count)
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=shared(tuple(Layer(attention=each, mlp=moe, num_norms=num_norms) for each in attentions)),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=tied),
        max_seq_length=reader.size("max_position_embeddings", default=8192, at_most=MOST_ENTRIES),
        notes=tuple(reader.notes),
    )


MIXTRAL: Final = Family(name="mixtral", model_types=("mixtral",), classes=("MixtralForCausalLM",), read=read_mixtral)
GROK1: Final = Family(
    name="grok-1", model_types=("grok-1", "grok_1"), classes=("Grok1ModelForCausalLM",), read=read_grok1
)
