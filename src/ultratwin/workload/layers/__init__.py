"""Layer kinds: one kind, one file, one line in KINDS. Each makes operators, weights, saved activations of sizes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from ultratwin.workload.layers.attention import attention_part
from ultratwin.workload.layers.embedding import embedding_part, head_part
from ultratwin.workload.layers.linear_attention import gated_delta_net_part, lightning_attention_part
from ultratwin.workload.layers.mla import latent_attention_part
from ultratwin.workload.layers.mlp import mlp_part
from ultratwin.workload.layers.moe import moe_part
from ultratwin.workload.layers.norm import norm_part
from ultratwin.workload.layers.ssm import mamba2_part, mamba_part
from ultratwin.workload.model import (
    Attention,
    GatedDeltaNet,
    LatentAttention,
    Layer,
    LightningAttention,
    Mamba,
    Mamba2,
    Mlp,
    Model,
    Moe,
)
from ultratwin.workload.operators import Part

KINDS: Final[tuple[tuple[type, Callable[[Any, int], Part]], ...]] = (
    (Attention, attention_part),
    (LatentAttention, latent_attention_part),
    (Mamba2, mamba2_part),
    (Mamba, mamba_part),
    (GatedDeltaNet, gated_delta_net_part),
    (LightningAttention, lightning_attention_part),
    (Mlp, mlp_part),
    (Moe, moe_part),
)


def part_of(sizes: object, hidden_size: int) -> Part:
    """The part that a layer kind's sizes describe.

    Raises: TypeError for a kind without a line in KINDS
    """
    for kind, build in KINDS:
        if type(sizes) is kind:
            return build(sizes, hidden_size)
    raise TypeError(f"no layer kind for {type(sizes).__name__}")


@lru_cache(maxsize=4096)
def layer_parts(layer: Layer, hidden_size: int, norm: str) -> tuple[Part, Part, Part]:
    """Attention (or another mixer), feed-forward and norms (with the residual additions) of one layer."""
    return (
        part_of(layer.attention, hidden_size),
        part_of(layer.mlp, hidden_size),
        norm_part(layer.num_norms, hidden_size, norm),
    )


__all__ = ["KINDS", "Model", "embedding_part", "head_part", "layer_parts", "part_of"]
