"""What a served sequence keeps in memory: keys and values by token, windows of them, states that do not grow."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.chip import Number
from ultratwin.workload.model import (
    Attention,
    GatedDeltaNet,
    LatentAttention,
    LightningAttention,
    Mamba,
    Mamba2,
    Mixer,
    Model,
)

_CONVOLUTION_BYTES: Final = 2
_INDEX_SCALE_BYTES: Final = 4


def kv_bytes_per_token(model: Model, kv_bytes: float = 2.0) -> float:
    """Bytes that each token keeps, in layers that see all of the context.

    Equation: sum over layers of g (d + d_v) b (grouped heads), (r + d_r) b (latent attention), and d_i + 4 for the key
              of a sparse attention's indexer (one byte each, and a scale)
    Symbols: g key/value heads, d and d_v size of keys and values, r latent rank, d_r rotary size, d_i size of an index
             key, b kv_bytes
    Args:
        model: sizes
        kv_bytes: of one stored number [byte]
    Returns: bytes per token of all layers, before tensor parallelism divides heads [byte]
    Source: grouped-query attention (arXiv 2305.13245); DeepSeek-V2 (arXiv 2405.04434) table 1; DeepSeek-V3.2
        (arXiv 2512.02556) for the index key in FP8
    Example:
        >>> from ultratwin.workload.load import load_model
        >>> kv_bytes_per_token(load_model("llama3.1-70b")) / 1024
        320.0
        >>> kv_bytes_per_token(load_model("deepseek-v3")) / 1000
        70.272
    """
    return float(
        sum(_token_bytes(layer.attention, kv_bytes, 1.0) for layer in model.layers if not _window(layer.attention))
    )


def windowed(model: Model, kv_bytes: float = 2.0) -> list[tuple[int, float]]:
    """Layers that keep a window of the context only.

    Equation: min(tokens, w) 2 g d b for each layer; here 2 g d b summed over the layers of one w
    Args:
        model: sizes
        kv_bytes: of one stored number [byte]
    Returns: (tokens of the window, bytes per token of all layers that have it), narrowest first
    """
    found: dict[int, float] = {}
    for layer in model.layers:
        if window := _window(layer.attention):
            found[window] = found.get(window, 0.0) + float(_token_bytes(layer.attention, kv_bytes, 1.0))
    return sorted(found.items())


def state_bytes_per_sequence(model: Model) -> float:
    """Bytes of the states of recurrent layers: they do not grow with the sequence.

    Equation: a d n b_s (Mamba-2), i n b_s (Mamba), a dk dv b_s (delta rule), a d d b_s (lightning attention), and
              2 (taps - 1) channels for the inputs that a short convolution still needs
    Symbols: a heads, d head size, n state size, i channels, dk and dv key and value head size, b_s bytes of a number
    Args:
        model: sizes
    Returns: bytes per sequence of all layers, before tensor parallelism divides heads [byte]
    Source: Dao and Gu 2024 (arXiv 2405.21060); Yang et al. 2024 (arXiv 2412.06464); MiniMax-01 (arXiv 2501.08313)
    """
    return float(sum(_state_bytes(layer.attention) for layer in model.layers))


def kv_bytes_per_rank(
    model: Model, kv_bytes: float, tensor_parallel_size: Number | NDArray[np.int64]
) -> tuple[Number, Number, Number]:
    """What one tensor-parallel rank keeps: as above, divided as engines divide it.

    Equation: grouped heads: max(g / TP, 1) instead of g; latents and index keys are on every rank; states: over TP
    Args:
        model: sizes
        kv_bytes: of one stored number [byte]
        tensor_parallel_size: TP [candidate]
    Returns: bytes per token of layers that see all; bytes per sequence of full windows; bytes per sequence of states,
        each [candidate]
    """
    ways = np.asarray(tensor_parallel_size, dtype=np.float64)
    full: Number = np.zeros(())
    windows: Number = np.zeros(())
    for kind in model.layer_kinds():
        count, window = sum(layer is kind or layer == kind for layer in model.layers), _window(kind.attention)
        per_token = count * _token_bytes(kind.attention, kv_bytes, ways)
        full = full + (0.0 if window else per_token)
        windows = windows + per_token * window
    return full, windows, state_bytes_per_sequence(model) / ways


def state_elements(mixer: Mixer) -> int:
    """Numbers of one layer's recurrent state, without its convolution's inputs; 0 for attention."""
    if isinstance(mixer, Mamba2):
        return mixer.num_heads * mixer.head_dim * mixer.state_size
    if isinstance(mixer, Mamba):
        return mixer.inner_size * mixer.state_size
    if isinstance(mixer, GatedDeltaNet):
        return mixer.num_heads * mixer.key_head_dim * mixer.value_head_dim
    if isinstance(mixer, LightningAttention):
        return mixer.num_heads * mixer.head_dim**2
    return 0


def _state_bytes(mixer: Mixer) -> int:
    if isinstance(mixer, Attention | LatentAttention):
        return 0
    return state_elements(mixer) * mixer.state_element_bytes + _convolution_inputs(mixer) * _CONVOLUTION_BYTES


def _convolution_inputs(mixer: Mixer) -> int:
    if isinstance(mixer, Mamba2):
        channels = mixer.num_heads * mixer.head_dim + 2 * mixer.num_groups * mixer.state_size
        return (mixer.conv_kernel - 1) * channels
    if isinstance(mixer, Mamba):
        return (mixer.conv_kernel - 1) * mixer.inner_size
    if isinstance(mixer, GatedDeltaNet):
        channels = 2 * mixer.num_kv_heads * mixer.key_head_dim + mixer.num_heads * mixer.value_head_dim
        return (mixer.conv_kernel - 1) * channels
    return 0


def _window(mixer: Mixer) -> int:
    """Tokens that are kept; 0 for all. Sparse attention sees a part of the context, but keeps all of it."""
    return (mixer.window or 0) if isinstance(mixer, Attention) else 0


def _token_bytes(mixer: Mixer, kv_bytes: float, tensor: Number) -> Number:
    if isinstance(mixer, LatentAttention):
        index = mixer.index_head_dim + _INDEX_SCALE_BYTES if mixer.index_heads else 0
        return (mixer.kv_lora_rank + mixer.rope_head_dim) * kv_bytes + index
    if isinstance(mixer, Attention):
        heads = np.maximum(mixer.num_kv_heads / np.asarray(tensor), min(mixer.num_kv_heads, 1))
        return heads * (mixer.head_dim + mixer.value_width) * kv_bytes
    return 0.0
