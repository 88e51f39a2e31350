"""Mixture-of-experts feed-forward block, with shared experts."""

from __future__ import annotations

from ultratwin.workload.layers.mlp import mlp_part
from ultratwin.workload.model import Mlp, Moe
from ultratwin.workload.operators import Gemm, Operator, Parameter, Part, Saved, Vector


def moe_part(moe: Moe, hidden_size: int) -> Part:
    """Router, permutation, experts as grouped matrices, un-permutation, shared experts.

    Equation: each token visits k of E experts, each w -> c f, f -> w; c = 2 if gated else 1; w is the hidden size, or
              the latent size between a projection down and one up again
    """
    inner, width = moe.expert_intermediate_size, moe.latent_size or hidden_size
    up = inner * (2 if moe.gated else 1)
    one_expert = width * up + inner * width + (up + width) * moe.bias
    latent = moe.latent_size
    operators: list[Operator] = [
        Gemm(name="router", n=moe.num_experts, k=hidden_size, split="none"),
        *((Gemm(name="latent down projection", n=latent, k=hidden_size, split="none"),) if latent else ()),
        Vector(
            name="route, permute",
            kind="elementwise",
            forward_elements=2 * width,
            backward_elements=2 * width,
            split="expert",
            is_expert=True,
        ),
        Gemm(name="expert up projection", n=up, k=width, split="column", is_expert=True),
        Vector(
            name="expert activation",
            kind="elementwise",
            forward_elements=up + inner,
            backward_elements=2 * up + inner,
            split="expert",
            is_expert=True,
        ),
        Gemm(name="expert down projection", n=width, k=inner, split="row", is_expert=True),
        Vector(
            name="un-permute, combine",
            kind="elementwise",
            forward_elements=2 * width,
            backward_elements=3 * width,
            split="expert",
            is_expert=True,
        ),
        *((Gemm(name="latent up projection", n=hidden_size, k=latent, split="none"),) if latent else ()),
    ]
    router = hidden_size * moe.num_experts + moe.num_experts * moe.router_bias
    parameters = [
        Parameter(name="router", elements=router + 2 * hidden_size * latent, split="none"),
        Parameter(name="experts", elements=one_expert * moe.num_experts, split="expert"),
    ]
    saved = [
        Saved(name="router input", elements=hidden_size, element_bytes=2, split="sequence"),
        Saved(name="router scores", elements=2 * moe.num_experts, element_bytes=4, split="none"),
        Saved(name="expert input", elements=width, element_bytes=2, split="expert", is_expert=True),
        Saved(
            name="expert up output",
            elements=up,
            element_bytes=2,
            split="expert",
            is_expert=True,
        ),
        Saved(
            name="expert activation output",
            elements=inner,
            element_bytes=2,
            split="expert",
            dropped_by="selective",
            is_expert=True,
        ),
    ]
    if moe.shared_intermediate_size:
        shared = mlp_part(Mlp(intermediate_size=moe.shared_intermediate_size, gated=moe.gated), hidden_size)
        operators += shared.operators
        parameters += shared.parameters
        parameters.append(Parameter(name="shared gate", elements=hidden_size * moe.shared_gate, split="none"))
        saved += shared.saved[1:]
    return Part(operators=tuple(operators), parameters=tuple(parameters), saved=tuple(saved))
