"""Token embedding on the first stage; final norm, output head and loss on the last."""

from __future__ import annotations

from ultratwin.workload.operators import Gemm, Parameter, Part, Saved, Vector


def embedding_part(vocab_size: int, hidden_size: int, num_learned_positions: int) -> Part:
    """Table look-up; its gradient is a scatter-add over the rows that were seen."""
    return Part(
        operators=(
            Vector(
                name="embedding",
                kind="embedding",
                forward_elements=2 * hidden_size,
                backward_elements=3 * hidden_size,
                split="none",
            ),
        ),
        parameters=(
            Parameter(name="embedding", elements=vocab_size * hidden_size, split="vocabulary"),
            Parameter(name="positions", elements=num_learned_positions * hidden_size, split="none"),
        ),
        saved=(),
    )


def head_part(vocab_size: int, hidden_size: int, norm: str, *, tied: bool) -> Part:
    """Final norm, logits, cross-entropy in FP32 (Megatron's vocabulary-parallel loss).

    Elements per token and vocabulary entry of the loss, in units of two bytes: logits read as 16 bits and written as
    32 (3), maximum, exponential, sum and division read and write 32 bits (8); backward writes the gradient (3).
    """
    return Part(
        operators=(
            Vector(
                name="final norm",
                kind="norm",
                forward_elements=2 * hidden_size,
                backward_elements=4 * hidden_size,
                split="sequence",
            ),
            Gemm(name="output head", n=vocab_size, k=hidden_size, split="column"),
            Vector(
                name="cross-entropy",
                kind="softmax",
                forward_elements=11 * vocab_size,
                backward_elements=3 * vocab_size,
                split="tensor",
            ),
        ),
        parameters=(
            Parameter(name="final norm", elements=hidden_size * (2 if norm == "layernorm" else 1), split="none"),
            Parameter(name="head", elements=0 if tied else vocab_size * hidden_size, split="vocabulary"),
        ),
        saved=(
            Saved(name="head input", elements=2 * hidden_size, element_bytes=2, split="sequence"),
            Saved(name="logits", elements=vocab_size, element_bytes=4, split="tensor"),
        ),
    )
