"""MusicGen: a decoder over several streams of audio codes, with attention to a text in every layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.reader import Reader
from ultratwin.workload.model import NO_MLP, Layer, Mlp, Model

_TEXT_TOKENS: Final = 64
"""Tokens of the text where the config does not say: prompts for music are a sentence or two."""


def read_musicgen(reader: Reader) -> Model:
    """A MusicGen decoder: each layer attends to the audio so far, then to the text, then has a plain MLP.

    The codebooks are shifted against each other, so that a step predicts one code of each: a step is one token of the
    model, with as many embedding tables and heads as codebooks.
    Source: Copet et al. 2023 (arXiv 2306.05284)
    """
    hidden = reader.size("hidden_size")
    own = reader.attention(hidden)
    text = replace(own, cross=True, window=reader.size("text_length", default=_TEXT_TOKENS))
    mlp = Mlp(intermediate_size=reader.size("ffn_dim", default=4 * hidden), gated=False)
    # a decoder's layer is two of ours: norm, attention; norm, attention to the text, norm, MLP
    both = (Layer(attention=own, mlp=NO_MLP, num_norms=1), Layer(attention=text, mlp=mlp, num_norms=2))
    codes = reader.size("vocab_size") * reader.size("num_codebooks", default=4)
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=codes,
        layers=both * reader.layers("num_hidden_layers"),
        norm="layernorm",
        max_seq_length=reader.size("max_position_embeddings", default=2048),
        notes=(*reader.notes, "the text encoder and the audio codec are not counted"),
    )


FAMILY: Final = Family(
    name="musicgen",
    model_types=("musicgen_decoder", "musicgen_melody_decoder"),
    classes=("MusicgenForCausalLM", "MusicgenMelodyForCausalLM"),
    read=read_musicgen,
)
