"""Qwen3-Next and Qwen3.5: three layers of gated delta rule for each of gated full attention; experts or dense."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.llama import shared
from ultratwin.workload.architectures.qwen_moe import experts
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import GatedDeltaNet, Layer, Mixer, Mlp, Model, Moe


def read_qwen_next(reader: Reader) -> Model:
    """A Qwen3-Next-shaped model. Without `layer_types` the last layer of each interval has full attention."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    bias = reader.flag("attention_bias", default=False)
    gate = reader.flag("attn_output_gate", default=True)
    full = replace(reader.attention(hidden), qkv_bias=bias, output_bias=bias, qk_norm=True, output_gate=gate)
    linear = _gated_delta_net(reader)
    period = reader.size("full_attention_interval", default=4)
    types = reader.choices("layer_types", count)
    is_full = [each == "full_attention" for each in types[:count]] or [(i + 1) % period == 0 for i in range(count)]
    mixers: list[Mixer] = [full if each else linear for each in is_full]
    step, only_dense = reader.size("decoder_sparse_step", default=1), reader.indices("mlp_only_layers")
    sparse: Mlp | Moe = experts(reader) if reader.has("num_experts") else Mlp(intermediate_size=1)
    dense = Mlp(intermediate_size=reader.size("intermediate_size", default=1 if isinstance(sparse, Moe) else None))
    moe = sparse if isinstance(sparse, Moe) else dense
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=shared(
            tuple(
                Layer(attention=mixer, mlp=dense if index in only_dense or (index + 1) % step else moe)
                for index, mixer in enumerate(mixers)
            )
        ),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=False),
        max_seq_length=reader.size("max_position_embeddings", default=32768, at_most=MOST_ENTRIES),
        num_mtp_modules=reader.size(
            "mtp_num_hidden_layers", "num_nextn_predict_layers", default=0, at_least=0, at_most=100
        ),
        notes=tuple(reader.notes),
    )


def _gated_delta_net(reader: Reader) -> GatedDeltaNet:
    values = reader.size("linear_num_value_heads")
    keys = reader.size("linear_num_key_heads")
    if values % keys:
        reader.faults.append(f"linear_num_value_heads = {values} is not a multiple of linear_num_key_heads = {keys}")
    return GatedDeltaNet(
        num_heads=values,
        num_kv_heads=keys,
        key_head_dim=reader.size("linear_key_head_dim"),
        value_head_dim=reader.size("linear_value_head_dim"),
        conv_kernel=reader.size("linear_conv_kernel_dim", default=4),
        state_element_bytes=reader.element_bytes("mamba_ssm_dtype", "mamba_ssm_cache_dtype", default=4),
    )


FAMILY: Final = Family(
    name="qwen-next",
    model_types=("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_5", "qwen3_5_moe"),
    classes=("Qwen3NextForCausalLM", "Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration"),
    read=read_qwen_next,
)
