"""DeepSeek-V2, V3, V3.2, R1, Kimi-K2 and GLM-5: latent attention (sparse in V3.2 and GLM-5), leading dense layers,
fine experts with shared ones, MTP.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.llama import shared
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import LatentAttention, Layer, Mlp, Model, Moe


def read_deepseek(reader: Reader) -> Model:
    """A DeepSeek-V2- or V3-shaped model."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    attention = LatentAttention(
        num_heads=reader.size("num_attention_heads"),
        q_lora_rank=reader.size("q_lora_rank", default=0, at_least=0),
        kv_lora_rank=reader.size("kv_lora_rank"),
        nope_head_dim=reader.size("qk_nope_head_dim"),
        rope_head_dim=reader.size("qk_rope_head_dim"),
        v_head_dim=reader.size("v_head_dim"),
    )
    dense: Mlp | Moe = Mlp(intermediate_size=reader.size("intermediate_size"))
    sparse = dense
    first = count
    if reader.has("n_routed_experts"):
        sparse = _moe(reader)
        first = reader.size("first_k_dense_replace", default=0, at_least=0)
    period = reader.size("moe_layer_freq", default=1)
    blocks = [sparse if index >= first and index % period == 0 else dense for index in range(count)]
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=shared(
            tuple(
                Layer(attention=each, mlp=block)
                for each, block in zip(_attentions(reader, attention, count), blocks, strict=True)
            )
        ),
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=False),
        max_seq_length=reader.size("max_position_embeddings", default=2048, at_most=MOST_ENTRIES),
        num_mtp_modules=reader.size("num_nextn_predict_layers", default=0, at_least=0, at_most=100),
        notes=tuple(reader.notes),
    )


def _attentions(reader: Reader, attention: LatentAttention, count: int) -> list[LatentAttention]:
    """The attention of each layer: with `index_topk` sparse. Layers of indexer type "shared" have no indexer."""
    if not reader.has("index_topk"):
        return [attention] * count
    own = replace(
        attention,
        index_heads=reader.size("index_n_heads"),
        index_head_dim=reader.size("index_head_dim"),
        index_topk=reader.size("index_topk", at_most=MOST_ENTRIES),
    )
    borrowed = replace(own, index_heads=0, index_head_dim=0)
    types = reader.choices("indexer_types", count)
    return [borrowed if each == "shared" else own for each in types[:count]] or [own] * count


def _moe(reader: Reader) -> Moe:
    num_experts, used = reader.experts("n_routed_experts", per_token=("num_experts_per_tok",))
    width = reader.size("moe_intermediate_size")
    return Moe(
        num_experts=num_experts,
        experts_per_token=used,
        expert_intermediate_size=width,
        shared_intermediate_size=width * reader.size("n_shared_experts", default=0, at_least=0),
        # the bias that balances the load without an auxiliary loss
        router_bias=reader.text("topk_method") == "noaux_tc",
    )


FAMILY: Final = Family(
    name="deepseek",
    model_types=("deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "glm_moe_dsa", "glm4_moe_lite"),
    classes=(
        *("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "DeepseekV32ForCausalLM"),
        *("GlmMoeDsaForCausalLM", "Glm4MoeLiteForCausalLM"),
    ),
    read=read_deepseek,
)
