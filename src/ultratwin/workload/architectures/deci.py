"""Models of a search over architectures: a Llama whose layers differ in key/value heads (DeciLM-7B), or in that, in
the width of the MLP, and in whether they have attention at all (Llama-Nemotron Super and Ultra).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.llama import shared
from ultratwin.workload.architectures.reader import MOST_ENTRIES, MOST_WIDTH, Reader, shown
from ultratwin.workload.model import NO_ATTENTION, NO_MLP, Attention, Layer, Mlp, Model


def read_deci(reader: Reader) -> Model:
    """A model whose layers are described one by one."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    attention = reader.attention(hidden)
    if reader.has("block_configs"):
        layers = _blocks(reader, attention, hidden, count)
    else:
        mlp = Mlp(intermediate_size=reader.size("intermediate_size"))
        layers = tuple(
            Layer(attention=replace(attention, num_kv_heads=each), mlp=mlp)
            for each in _key_value_heads(reader, attention, count)
        )
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=shared(layers),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=False),
        max_seq_length=reader.size("max_position_embeddings", default=2048, at_most=MOST_ENTRIES),
        notes=tuple(reader.notes),
    )


def _key_value_heads(reader: Reader, attention: Attention, count: int) -> list[int]:
    key = "num_key_value_heads_per_layer"
    value = reader.config.get(key)
    if value is None:
        return [attention.num_kv_heads] * count
    if not isinstance(value, list) or len(value) < count or not all(_divides(each, attention) for each in value):
        reader.faults.append(f"{key} = {shown(value)} does not divide {attention.num_heads} heads in {count} layers")
        return [attention.num_kv_heads] * count
    return [int(each) for each in value[:count]]


def _divides(value: object, attention: Attention) -> bool:
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return 0 < value <= attention.num_heads and attention.num_heads % value == 0


def _blocks(reader: Reader, attention: Attention, hidden: int, count: int) -> tuple[Layer, ...]:
    """Layers of `block_configs`: heads per key/value head, and the MLP's width as a multiple of the hidden size."""
    value = reader.config.get("block_configs")
    if not isinstance(value, list) or len(value) < count or not all(isinstance(each, dict) for each in value):
        reader.faults.append(f"block_configs = {shown(value)} is not a list of a table for each of {count} layers")
        return (Layer(attention=attention, mlp=NO_MLP),)
    layers = []
    for block in value[:count]:
        inner = reader.inner(block)
        heads, mlp = inner.part("attention"), inner.part("ffn")
        no_attention = heads.flag("no_op", "replace_with_linear", default=False)
        no_mlp = mlp.flag("no_op", "replace_with_linear", default=False)
        group = 1 if no_attention else heads.size("n_heads_in_group", default=1)
        if attention.num_heads % group:
            reader.faults.append(f"n_heads_in_group = {group} does not divide {attention.num_heads} heads")
            group = 1
        own = replace(attention, num_kv_heads=max(1, attention.num_heads // group))
        layers.append(
            Layer(
                attention=NO_ATTENTION if no_attention else own,
                mlp=NO_MLP if no_mlp else Mlp(intermediate_size=_width(mlp, hidden)),
                num_norms=2 - no_attention - no_mlp,
            )
        )
    return tuple(layers)


def _width(mlp: Reader, hidden: int) -> int:
    """Two thirds of the multiple of the hidden size, rounded up to 256 (Llama's rule)."""
    if mlp.has("intermediate_size"):
        return mlp.size("intermediate_size")
    multiple = mlp.config.get("ffn_mult")
    if isinstance(multiple, bool) or not isinstance(multiple, int | float) or not 0 < multiple < MOST_WIDTH:
        mlp.faults.append(f"ffn_mult = {shown(multiple)} is not a number above 0")
        return 1
    return -(-int(2 * multiple * hidden / 3) // 256) * 256


FAMILY: Final = Family(
    name="deci",
    model_types=("deci", "deci_lm", "nemotron-nas"),
    classes=("DeciLMForCausalLM",),
    read=read_deci,
)
