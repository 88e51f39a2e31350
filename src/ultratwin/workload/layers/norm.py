"""Norms and residual additions around the parts of a layer."""

from __future__ import annotations

from ultratwin.workload.operators import Parameter, Part, Saved, Vector


def norm_part(num_norms: int, hidden_size: int, norm: str) -> Part:
    """All norms of a layer and its two residual additions.

    Elements per token: a norm reads and writes h forward, reads 3 h and writes h backward (gradient, input, output
    gradient kept for the weight's); an addition reads 2 h and writes h, and is free backward.
    """
    weights = num_norms * hidden_size * (2 if norm == "layernorm" else 1)
    return Part(
        operators=(
            Vector(
                name="norms",
                kind="norm",
                forward_elements=2 * num_norms * hidden_size,
                backward_elements=4 * num_norms * hidden_size,
                split="sequence",
            ),
            Vector(
                name="residual additions",
                kind="elementwise",
                forward_elements=2 * 3 * hidden_size,
                backward_elements=2 * 3 * hidden_size,
                split="sequence",
            ),
        ),
        parameters=(Parameter(name="norms", elements=weights, split="none"),),
        saved=(
            Saved(name="norm inputs", elements=num_norms * hidden_size, element_bytes=2, split="sequence"),
            Saved(name="norm statistics", elements=2 * num_norms, element_bytes=4, split="sequence"),
        ),
    )
