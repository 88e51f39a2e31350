"""Precision recipes: which format each part of a training step computes, keeps and sends in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ultratwin.errors import ScenarioError, unknown_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One way to train with low precision.

    `gemm`: format of the layers' linear products, forward and for input gradients; `weight_gemm`: of weight gradients;
    `high`: of what stays: attention, router, output head, norms. `quantize_passes`: how often an operand of a low
    product is read in `high` and written low (once per row-wise copy, twice where a transposed copy is made too).
    `weight_gather`: format in which sharded weights are gathered.
    """

    name: str
    gemm: str
    weight_gemm: str
    high: str
    quantize_passes: float = 0.0
    weight_gather: str = "bf16"

    @property
    def is_low(self) -> bool:
        """Whether linear products run below 16 bits."""
        return self.gemm != self.high


RECIPES: Final[tuple[Recipe, ...]] = (
    Recipe(name="bf16", gemm="bf16", weight_gemm="bf16", high="bf16"),
    Recipe(name="fp16", gemm="fp16", weight_gemm="fp16", high="fp16", weight_gather="fp16"),
    # Transformer Engine: per-tensor scaling (delayed or current), one cast and one transpose per operand
    Recipe(name="fp8", gemm="fp8", weight_gemm="fp8", high="bf16", quantize_passes=1.0, weight_gather="fp8"),
    # DeepSeek-V3: 1x128 and 128x128 blocks, both orientations of activations are quantised
    Recipe(name="fp8-block", gemm="fp8", weight_gemm="fp8", high="bf16", quantize_passes=2.0),
    # MX: 32-element blocks along the reduction, so each operand is quantised twice (rows and columns)
    Recipe(name="mxfp8", gemm="mxfp8", weight_gemm="mxfp8", high="bf16", quantize_passes=2.0, weight_gather="mxfp8"),
    Recipe(name="mxfp4", gemm="mxfp4", weight_gemm="mxfp8", high="bf16", quantize_passes=2.0),
    # NVFP4 pre-training: Hadamard transform and stochastic rounding around the casts
    Recipe(name="nvfp4", gemm="nvfp4", weight_gemm="nvfp4", high="bf16", quantize_passes=3.0),
    Recipe(name="int8", gemm="int8", weight_gemm="int8", high="bf16", quantize_passes=2.0),
)


def recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises: ScenarioError for an unknown name
    """
    for each in RECIPES:
        if each.name == name.lower():
            return each
    raise unknown_name("precision", name, [each.name for each in RECIPES], error=ScenarioError)
