"""Nemotron-H, Nemotron Nano 2 and Nemotron 3: blocks of Mamba-2, attention, plain MLP or experts, one norm each."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.llama import shared
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader, shown
from ultratwin.workload.model import NO_ATTENTION, NO_MLP, Layer, Mamba2, Mixer, Mlp, Model, Moe

_BLOCKS: Final = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}


def read_nemotron_h(reader: Reader) -> Model:
    """A Nemotron-H-shaped model: a mixer and the feed-forward block after it make one layer here."""
    hidden = reader.size("hidden_size")
    blocks = _blocks(reader)
    bias = reader.flag("attention_bias", default=False)
    parts: dict[str, Mixer | Mlp | Moe] = {}
    if "attention" in blocks:
        attention = reader.attention(hidden, head_dim=("head_dim", "attention_head_dim"))
        parts["attention"] = replace(attention, qkv_bias=bias, output_bias=bias)
    if "mamba" in blocks:
        parts["mamba"] = _mamba(reader)
    if "mlp" in blocks:
        width = reader.size("intermediate_size")
        parts["mlp"] = Mlp(intermediate_size=width, gated=False, bias=reader.flag("mlp_bias", default=False))
    if "moe" in blocks:
        parts["moe"] = _moe(reader)
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=shared(paired([parts[each] for each in blocks])),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=False),
        max_seq_length=reader.size("max_position_embeddings", default=8192, at_most=MOST_ENTRIES),
        # a module here is an attention and a feed-forward block, as in the layers that they follow
        num_mtp_modules=reader.size("num_nextn_predict_layers", default=0, at_least=0, at_most=100),
        notes=tuple(reader.notes),
    )


def paired(blocks: list[Mixer | Mlp | Moe]) -> tuple[Layer, ...]:
    """Blocks of one part each as layers of a mixer and a feed-forward part; where one is lacking, half a layer."""
    layers: list[Layer] = []
    waiting: Mixer | None = None
    for block in blocks:
        if isinstance(block, Mlp | Moe):
            mixer: Mixer = NO_ATTENTION if waiting is None else waiting
            layers.append(Layer(attention=mixer, mlp=block, num_norms=1 if waiting is None else 2))
            waiting = None
            continue
        if waiting is not None:
            layers.append(Layer(attention=waiting, mlp=NO_MLP, num_norms=1))
        waiting = block
    if waiting is not None:
        layers.append(Layer(attention=waiting, mlp=NO_MLP, num_norms=1))
    return tuple(layers)


def _blocks(reader: Reader) -> list[str]:
    """The kind of each block, from a text of letters or a list of words."""
    listed = reader.config.get("layers_block_type")
    if isinstance(listed, list) and listed:
        names = [each if isinstance(each, str) else "" for each in listed]
    else:
        names = [_BLOCKS.get(letter, letter) for letter in reader.text("hybrid_override_pattern")]
    wrong = [each for each in names if each not in _BLOCKS.values()]
    if wrong or not names:
        what = f"hybrid_override_pattern has {shown(wrong[0])}" if wrong else "hybrid_override_pattern is missing"
        reader.faults.append(f"{what}: M (Mamba-2), * (attention), - (MLP) and E (experts) are known")
    return [each for each in names[:10_000] if each in _BLOCKS.values()] or ["attention"]


def _mamba(reader: Reader) -> Mamba2:
    return Mamba2(
        num_heads=reader.size("mamba_num_heads"),
        head_dim=reader.size("mamba_head_dim"),
        state_size=reader.size("ssm_state_size"),
        num_groups=reader.size("n_groups", "mamba_n_groups", default=8),
        conv_kernel=reader.size("conv_kernel", "mamba_d_conv", default=4),
        chunk_size=reader.size("chunk_size", "mamba_chunk_size", default=128),
        conv_bias=reader.flag("use_conv_bias", "mamba_conv_bias", default=True),
        projection_bias=reader.flag("mamba_proj_bias", "use_bias", default=False),
        state_element_bytes=reader.element_bytes("mamba_ssm_cache_dtype", default=2),
    )


def _moe(reader: Reader) -> Moe:
    num_experts, used = reader.experts("n_routed_experts", per_token=("num_experts_per_tok",))
    shared_width = reader.size("moe_shared_expert_intermediate_size", default=0, at_least=0)
    return Moe(
        num_experts=num_experts,
        experts_per_token=used,
        expert_intermediate_size=reader.size("moe_intermediate_size"),
        shared_intermediate_size=shared_width * reader.size("n_shared_experts", default=1, at_least=0),
        gated=False,
        router_bias=True,
        latent_size=reader.size("moe_latent_size", default=0, at_least=0),
    )


FAMILY: Final = Family(
    name="nemotron-h", model_types=("nemotron_h",), classes=("NemotronHForCausalLM",), read=read_nemotron_h
)
