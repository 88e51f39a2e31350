"""The model as its layers: sizes only. Nothing here knows how many chips there are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

NormKind = Literal["rmsnorm", "layernorm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Multi-head, grouped-query or multi-query attention over full, sliding-window or chunked context.

    `window` is how many keys a query sees at most (sliding window or attention chunk); None is all before it.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    window: int | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    sinks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention (MLA): queries and keys/values through low-rank latents, as in DeepSeek-V2/V3.

    `q_lora_rank` is 0 where queries are not compressed.
    """

    num_heads: int
    q_lora_rank: int
    kv_lora_rank: int
    nope_head_dim: int
    rope_head_dim: int
    v_head_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlp:
    """Feed-forward block: two matrices, or three if gated (SwiGLU, GeGLU)."""

    intermediate_size: int
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Moe:
    """Mixture of experts: a router picks `experts_per_token` of `num_experts`; shared experts see every token.

    `shared_intermediate_size` is of all shared experts together, 0 if there are none.
    """

    num_experts: int
    experts_per_token: int
    expert_intermediate_size: int
    shared_intermediate_size: int = 0
    gated: bool = True
    bias: bool = False
    shared_gate: bool = False
    router_bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One transformer layer: an attention and a feed-forward part, each after its norm.

    `num_norms` counts norms of the hidden size: 2, or 4 with norms after each part too, 1 where both parts share one.
    `parallel_residual`: both parts read the layer's input and are added together (GPT-NeoX, Falcon).
    """

    attention: Attention | LatentAttention
    mlp: Mlp | Moe
    num_norms: int = 2
    parallel_residual: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A decoder-only transformer.

    `layers` is in order; equal layers are the same object, so that formulas run once per kind.
    `num_mtp_modules`: multi-token-prediction modules, each a layer and a 2h x h projection, trained with the rest.
    `norm_bias`: layer norms have a bias beside their weight; without meaning for RMS norms.
    """

    id: str
    hidden_size: int
    vocab_size: int
    layers: tuple[Layer, ...]
    tie_word_embeddings: bool = False
    norm: NormKind = "rmsnorm"
    norm_bias: bool = True
    num_learned_positions: int = 0
    max_seq_length: int = 8192
    num_mtp_modules: int = 0
    embedding_norm: bool = False
    notes: tuple[str, ...] = field(default=())
    _kinds: tuple[Layer, ...] = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # found once: hashing a hundred layers at every look-up took a third of a plan's evaluation
        object.__setattr__(self, "_kinds", tuple(dict.fromkeys(self.layers)))
        object.__setattr__(self, "_hash", hash((self.id, self.hidden_size, self.vocab_size, self._kinds)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def num_layers(self) -> int:
        """How many layers, embeddings and head not counted."""
        return len(self.layers)

    def layer_kinds(self) -> tuple[Layer, ...]:
        """The distinct layers, in order of first use."""
        return self._kinds


def uniform_layers(layer: Layer, count: int) -> tuple[Layer, ...]:
    """`count` times the same layer."""
    return (layer,) * count
