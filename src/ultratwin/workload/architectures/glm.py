"""GLM-4: dense, with norms around each part; GLM-4.5 to 4.7: leading dense layers, then fine and shared experts."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.llama import shared
from ultratwin.workload.architectures.reader import MOST_ENTRIES, Reader
from ultratwin.workload.model import Attention, Layer, Mlp, Model, Moe, uniform_layers


def read_glm(reader: Reader) -> Model:
    """A dense GLM-4. The newer kind (0414) has norms after each part too."""
    hidden = reader.size("hidden_size")
    layer = Layer(
        attention=_attention(reader, hidden, bias=True),
        mlp=Mlp(intermediate_size=reader.size("intermediate_size")),
        num_norms=2 if reader.names.isdisjoint(("glm4", "Glm4ForCausalLM")) else 4,
    )
    return _model(reader, hidden, uniform_layers(layer, reader.layers("num_hidden_layers")))


def read_glm_moe(reader: Reader) -> Model:
    """A GLM-4.5-shaped model. The first `first_k_dense_replace` layers are dense."""
    hidden = reader.size("hidden_size")
    count = reader.layers("num_hidden_layers")
    attention = _attention(reader, hidden, bias=False)
    num_experts, used = reader.experts("n_routed_experts", "num_experts", per_token=("num_experts_per_tok",))
    width = reader.size("moe_intermediate_size")
    moe = Moe(
        num_experts=num_experts,
        experts_per_token=used,
        expert_intermediate_size=width,
        shared_intermediate_size=width * reader.size("n_shared_experts", default=0, at_least=0),
        router_bias=True,
    )
    dense = Mlp(intermediate_size=reader.size("intermediate_size"))
    first = reader.size("first_k_dense_replace", default=0, at_least=0)
    layers = tuple(Layer(attention=attention, mlp=dense if index < first else moe) for index in range(count))
    return _model(reader, hidden, shared(layers))


def _attention(reader: Reader, hidden: int, *, bias: bool) -> Attention:
    return replace(
        reader.attention(hidden),
        qkv_bias=reader.flag("attention_bias", default=bias),
        qk_norm=reader.flag("use_qk_norm", default="dots1" in reader.names),
    )


def _model(reader: Reader, hidden: int, layers: tuple[Layer, ...]) -> Model:
    return Model(
        id=reader.model_id,
        hidden_size=hidden,
        vocab_size=reader.size("vocab_size"),
        layers=layers,
        tie_word_embeddings=reader.flag("tie_word_embeddings", default=False),
        max_seq_length=reader.size("max_position_embeddings", default=131072, at_most=MOST_ENTRIES),
        num_mtp_modules=reader.size("num_nextn_predict_layers", default=0, at_least=0, at_most=100),
        notes=tuple(reader.notes),
    )


GLM: Final = Family(
    name="glm", model_types=("glm", "glm4"), classes=("GlmForCausalLM", "Glm4ForCausalLM"), read=read_glm
)
GLM_MOE: Final = Family(
    name="glm-moe",
    model_types=("glm4_moe", "glm4v_moe_text", "dots1"),
    classes=("Glm4MoeForCausalLM", "Dots1ForCausalLM"),
    read=read_glm_moe,
)
