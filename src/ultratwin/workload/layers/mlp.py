"""Dense feed-forward block."""

from __future__ import annotations

from ultratwin.workload.model import Mlp
from ultratwin.workload.operators import Gemm, Parameter, Part, Saved, Vector


def mlp_part(mlp: Mlp, hidden_size: int) -> Part:
    """Up-projection (with the gate fused beside it), activation, down-projection; nothing of size 0.

    Equation: h -> c f, activation, f -> h; c = 2 if gated else 1
    Source: Korthikanti et al. 2022 (arXiv 2205.05198) section 4 for what is saved
    """
    if not mlp.intermediate_size:
        return Part(operators=(), parameters=(), saved=())
    inner = mlp.intermediate_size
    up = inner * (2 if mlp.gated else 1)
    return Part(
        operators=(
            Gemm(name="up projection", n=up, k=hidden_size, split="column"),
            Vector(
                name="activation",
                kind="elementwise",
                forward_elements=up + inner,
                backward_elements=2 * up + inner,
                split="tensor",
            ),
            Gemm(name="down projection", n=hidden_size, k=inner, split="row"),
        ),
        parameters=(
            Parameter(name="up weight", elements=hidden_size * up, split="tensor"),
            Parameter(name="down weight", elements=inner * hidden_size, split="tensor"),
            Parameter(name="mlp biases", elements=(up + hidden_size) * mlp.bias, split="none"),
        ),
        saved=(
            Saved(name="mlp input", elements=hidden_size, element_bytes=2, split="sequence"),
            Saved(name="up output", elements=up, element_bytes=2, split="tensor"),
            Saved(name="activation output", elements=inner, element_bytes=2, split="tensor"),
        ),
    )
