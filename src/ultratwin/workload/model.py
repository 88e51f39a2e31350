"""The model as its layers: sizes only. Nothing here knows how many chips there are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

NormKind = Literal["rmsnorm", "layernorm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Multi-head, grouped-query or multi-query attention over full, sliding-window or chunked context.

    `window` is how many keys a query sees at most (sliding window or attention chunk); None is all before it.
    `qk_norm_over_all`: the norms of queries and keys span all heads, not each (OLMo-2, MiniMax-M2). `output_gate`: a
    gate as wide as the queries, projected beside them, multiplies the output (Qwen3-Next). `value_head_dim`: where
    values are not as wide as keys, else 0. No heads: no attention. `cross`: keys and values are those of another
    sequence, a text of `window` tokens, projected once for all queries.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    window: int | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    qk_norm_over_all: bool = False
    output_gate: bool = False
    sinks: bool = False
    value_head_dim: int = 0
    cross: bool = False

    @property
    def value_width(self) -> int:
        """Size of a head's values."""
        return self.value_head_dim or self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention (MLA): queries and keys/values through low-rank latents, as in DeepSeek-V2/V3.

    `q_lora_rank` is 0 where queries are not compressed. With `index_topk` the attention is sparse: an indexer of
    `index_heads` heads of `index_head_dim` scores all keys, and each query sees the best `index_topk` (DeepSeek-V3.2);
    a layer without index heads uses the choice of an earlier one (GLM-5.2).
    """

    num_heads: int
    q_lora_rank: int
    kv_lora_rank: int
    nope_head_dim: int
    rope_head_dim: int
    v_head_dim: int
    index_heads: int = 0
    index_head_dim: int = 0
    index_topk: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mamba2:
    """A state-space layer of the second kind: each of `num_heads` heads keeps a `head_dim` x `state_size` state.

    `num_groups` of heads share the vectors B and C. `conv_kernel`: taps of the short convolution before the scan;
    `state_element_bytes`: of the state that a sequence keeps while it is served; `chunk_size`: tokens that the scan
    takes at a time.
    """

    num_heads: int
    head_dim: int
    state_size: int
    num_groups: int = 1
    conv_kernel: int = 4
    chunk_size: int = 256
    conv_bias: bool = True
    projection_bias: bool = False
    state_element_bytes: int = 4

    @property
    def num_kv_heads(self) -> int:
        """What tensor parallelism divides, or repeats, beside the heads: the groups."""
        return self.num_groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Mamba:
    """A state-space layer of the first kind: each of `inner_size` channels keeps `state_size` numbers (Jamba).

    `inner_norms`: norms of the step size, B and C.
    """

    inner_size: int
    state_size: int
    step_rank: int
    conv_kernel: int = 4
    conv_bias: bool = True
    projection_bias: bool = False
    inner_norms: bool = False
    state_element_bytes: int = 4

    @property
    def num_heads(self) -> int:
        """What tensor parallelism divides: the channels."""
        return self.inner_size

    @property
    def num_kv_heads(self) -> int:
        """As many as heads: nothing is shared between channels."""
        return self.inner_size


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedDeltaNet:
    """Linear attention with the gated delta rule (Qwen3-Next, Qwen3.5): a key x value state for each value head.

    `num_heads` are the value heads; `num_kv_heads` the query/key heads, each shared by some of them.
    """

    num_heads: int
    num_kv_heads: int
    key_head_dim: int
    value_head_dim: int
    conv_kernel: int = 4
    chunk_size: int = 64
    state_element_bytes: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LightningAttention:
    """Linear attention with a fixed decay per head (MiniMax-01, MiniMax-M1): a head_dim x head_dim state for each."""

    num_heads: int
    head_dim: int
    chunk_size: int = 256
    state_element_bytes: int = 4

    @property
    def num_kv_heads(self) -> int:
        """As many as heads."""
        return self.num_heads


Recurrent = Mamba2 | Mamba | GatedDeltaNet | LightningAttention
"""Mixers whose memory of a sequence does not grow with it."""

Mixer = Attention | LatentAttention | Recurrent
"""What exchanges information between the tokens of a sequence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlp:
    """Feed-forward block: two matrices, or three if gated (SwiGLU, GeGLU). Of size 0: none."""

    intermediate_size: int
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Moe:
    """Mixture of experts: a router picks `experts_per_token` of `num_experts`; shared experts see every token.

    `shared_intermediate_size` is of all shared experts together, 0 if there are none. With `latent_size` the routed
    experts work on tokens projected down to it, and their sum is projected up again (Nemotron 3).
    """

    num_experts: int
    experts_per_token: int
    expert_intermediate_size: int
    shared_intermediate_size: int = 0
    gated: bool = True
    bias: bool = False
    shared_gate: bool = False
    router_bias: bool = False
    latent_size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One transformer layer: an attention (or another mixer) and a feed-forward part, each after its norm.

    `num_norms` counts norms of the hidden size: 2, or 4 with norms after each part too, 1 where both parts share one.
    `parallel_residual`: both parts read the layer's input and are added together (GPT-NeoX, Falcon).
    """

    attention: Mixer
    mlp: Mlp | Moe
    num_norms: int = 2
    parallel_residual: bool = False

    @property
    def num_parts(self) -> int:
        """How many of the two parts it has; tensor parallelism sums after each."""
        has_attention = not isinstance(self.attention, Attention) or self.attention.num_heads > 0
        return has_attention + (isinstance(self.mlp, Moe) or self.mlp.intermediate_size > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A decoder-only transformer.

    `layers` is in order; equal layers are the same object, so that formulas run once per kind.
    `num_mtp_modules`: multi-token-prediction modules, each a layer and a 2h x h projection, trained with the rest.
    `stored_format`: the number format of its checkpoint, where it is a quantised one.
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
    stored_format: str = ""
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


NO_ATTENTION: Final = Attention(num_heads=0, num_kv_heads=1, head_dim=0)
NO_MLP: Final = Mlp(intermediate_size=0)
"""Half a layer: blocks of one part only, as hybrids and pruned models have them."""


def uniform_layers(layer: Layer, count: int) -> tuple[Layer, ...]:
    """`count` times the same layer."""
    return (layer,) * count
