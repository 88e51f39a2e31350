"""What a served sequence keeps in memory: keys and values by token, and states that do not grow."""

from __future__ import annotations

from ultratwin.workload.model import Attention, LatentAttention, Layer, Model


def kv_bytes_per_token(model: Model, kv_bytes: float = 2.0) -> float:
    """Bytes that each token keeps, in layers that see all of the context.

    Equation: sum over layers of 2 g d kv (grouped heads) or (latent + rotary) kv (MLA)
    Args:
        model: sizes; kv_bytes: of one stored number [byte]
    Returns: bytes per token of all layers
    """
    return sum(_per_token(layer, kv_bytes) for layer in model.layers if _window(layer) is None)


def windowed(model: Model, kv_bytes: float = 2.0) -> list[tuple[int, float]]:
    """Layers that keep a window only: its tokens, and the bytes per token of all layers that have it."""
    found: dict[int, float] = {}
    for layer in model.layers:
        window = _window(layer)
        if window is not None:
            found[window] = found.get(window, 0.0) + _per_token(layer, kv_bytes)
    return sorted(found.items())


def state_bytes_per_sequence(model: Model) -> float:
    """Bytes of states that don't grow with the sequence (state-space and linear-attention layers)."""
    return 0.0


def _window(layer: Layer) -> int | None:
    return layer.attention.window if isinstance(layer.attention, Attention) else None


def _per_token(layer: Layer, kv_bytes: float) -> float:
    attention = layer.attention
    if isinstance(attention, LatentAttention):
        return (attention.kv_lora_rank + attention.rope_head_dim) * kv_bytes
    return 2.0 * attention.num_kv_heads * attention.head_dim * kv_bytes


__all__ = ["kv_bytes_per_token", "state_bytes_per_sequence", "windowed"]
