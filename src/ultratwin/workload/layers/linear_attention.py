"""Linear attention: gated delta rule (Qwen3-Next, Qwen3.5) and lightning attention (MiniMax-01, MiniMax-M1)."""

from __future__ import annotations

from ultratwin.workload.layers.ssm import convolution, gated_norm, scan_pass
from ultratwin.workload.model import GatedDeltaNet, LightningAttention
from ultratwin.workload.operators import Gemm, Parameter, Part, Saved, Vector


def gated_delta_net_part(net: GatedDeltaNet, hidden_size: int) -> Part:
    """Projections of q, k, v, gate, of decay and rate; short convolution; chunked delta rule; gated norm; output.

    Equation: in: h -> 2 K + 2 V and h -> 2 a; conv over 2 K + V channels; out: V -> h; scan, FLOP per token and head:
              2 Q (3 dk + 2 dv) + 6 dk dv (scores, inverse applied to k and v, outputs; state in, out, updated)
    Symbols: a value heads, K = key heads x dk, V = a dv, Q tokens of a chunk
    Source: Yang et al. 2024 (arXiv 2412.06464) section 3.3; Qwen3-Next for the projections
    """
    heads, key = net.num_heads, net.num_kv_heads * net.key_head_dim
    value = heads * net.value_head_dim
    channels = 2 * key + value
    into = channels + value
    # so that n x k products of the table are the scan's
    depth = net.chunk_size * (3 * net.key_head_dim / net.value_head_dim + 2) + 3 * net.key_head_dim
    return Part(
        operators=(
            Gemm(name="q, k, v, gate projection", n=into, k=hidden_size, split="column"),
            Gemm(name="decay and rate projection", n=2 * heads, k=hidden_size, split="column"),
            convolution(channels),
            *_delta_rule_passes(net),
            Gemm(name="chunked delta rule", n=value, k=max(1, round(depth)), split="column", is_scan=True),
            gated_norm(value),
            Gemm(name="output projection", n=hidden_size, k=value, split="row"),
        ),
        parameters=(
            Parameter(name="input weights", elements=hidden_size * (into + 2 * heads), split="tensor"),
            Parameter(name="convolution, decay, rate", elements=channels * net.conv_kernel + 2 * heads, split="tensor"),
            Parameter(name="output weight", elements=value * hidden_size, split="tensor"),
            Parameter(name="gated norm", elements=net.value_head_dim, split="none"),
        ),
        saved=(
            Saved(name="mixer input", elements=hidden_size, element_bytes=2, split="sequence"),
            Saved(name="q, k, v, gate", elements=into + 2 * heads, element_bytes=2, split="tensor"),
            Saved(name="convolution output", elements=channels, element_bytes=2, split="tensor"),
            Saved(
                name="chunk states",
                elements=value * net.key_head_dim / net.chunk_size,
                element_bytes=2,
                split="tensor",
            ),
            Saved(name="scan output, normed", elements=2 * value, element_bytes=2, split="tensor"),
        ),
    )


def _delta_rule_passes(net: GatedDeltaNet) -> tuple[Vector, ...]:
    """What the kernels of the chunked delta rule hand to each other through memory, in units of two bytes.

    Scores K K' of a chunk are written and read in 32 bits while they are inverted; the inverse turns k and v into w and
    u; a sequential kernel makes states (one for each chunk) and new values of these; the last one makes outputs.
    Source: the kernels of flash-linear-attention (fla/ops/gated_delta_rule), which SGLang, TensorRT-LLM and vLLM run
    """
    key, value = net.num_kv_heads * net.key_head_dim, net.num_heads * net.value_head_dim
    scores, wide = net.num_heads * net.chunk_size, net.num_heads * net.key_head_dim
    states = value * net.key_head_dim / net.chunk_size
    return (
        scan_pass(5 * key + 5 * scores, "norms of q and k, scores, inverse"),
        scan_pass(key + 2 * value + scores + wide, "keys and values of chunks"),
        scan_pass(key + wide + 2 * value + states, "states of chunks"),
        scan_pass(2 * key + 2 * value + states, "outputs of chunks"),
    )


def lightning_attention_part(attention: LightningAttention, hidden_size: int) -> Part:
    """Projections of q, k, v and of the output's gate, chunked linear attention with decay, norm, output.

    Equation: in: h -> 3 w; gate: h -> w; out: w -> h; scan, FLOP per token: 2 w (Q + 2 d): scores and their product
              with values within a chunk (causal), state in and out
    Symbols: d head size, w = heads x d, Q tokens of a chunk
    Source: Qin et al. 2024 (arXiv 2401.04658) section 3; MiniMax-01 (arXiv 2501.08313) section 2.2
    """
    width = attention.num_heads * attention.head_dim
    depth = attention.chunk_size + 2 * attention.head_dim
    return Part(
        operators=(
            Gemm(name="qkv projection", n=3 * width, k=hidden_size, split="column"),
            Gemm(name="gate projection", n=width, k=hidden_size, split="column"),
            scan_pass(4 * width),
            Gemm(name="chunked linear attention", n=width, k=depth, split="column", is_scan=True),
            gated_norm(width),
            Gemm(name="output projection", n=hidden_size, k=width, split="row"),
        ),
        parameters=(
            Parameter(name="qkv and gate weights", elements=4 * hidden_size * width, split="tensor"),
            Parameter(name="output weight", elements=width * hidden_size, split="tensor"),
            Parameter(name="norm", elements=width, split="tensor"),
        ),
        saved=(
            Saved(name="mixer input", elements=hidden_size, element_bytes=2, split="sequence"),
            Saved(name="q, k, v, gate", elements=4 * width, element_bytes=2, split="tensor"),
            Saved(name="scan output, normed", elements=2 * width, element_bytes=2, split="tensor"),
        ),
    )
