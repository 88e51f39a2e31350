"""Multi-head, grouped-query and multi-query attention."""

from __future__ import annotations

from ultratwin.workload.model import Attention
from ultratwin.workload.operators import AttentionCore, Gemm, Parameter, Part, Saved, Vector


def attention_part(attention: Attention, hidden_size: int) -> Part:
    """Projections, rotary embedding and attention core.

    Equation: QKV: h -> (a + 2 g) d; core over a heads of d; output: a d -> h
    Symbols: h hidden size, a heads, g key/value heads, d head size
    Source: Korthikanti et al. 2022 (arXiv 2205.05198) section 4 for what is saved
    """
    query = attention.num_heads * attention.head_dim
    key_value = 2 * attention.num_kv_heads * attention.head_dim
    biases = (query + key_value) * attention.qkv_bias + hidden_size * attention.output_bias
    small = biases + 2 * attention.head_dim * attention.qk_norm + attention.num_heads * attention.sinks
    rotated = query + key_value / 2
    return Part(
        operators=(
            Gemm(name="qkv projection", n=query + key_value, k=hidden_size, split="column"),
            Vector(
                name="rotary embedding",
                kind="rope",
                forward_elements=2 * rotated * (2 if attention.qk_norm else 1),
                backward_elements=2 * rotated * (2 if attention.qk_norm else 1),
                split="tensor",
            ),
            AttentionCore(
                name="attention",
                num_heads=attention.num_heads,
                num_kv_heads=attention.num_kv_heads,
                head_dim=attention.head_dim,
                head_dim_v=attention.head_dim,
                window=attention.window,
            ),
            Gemm(name="output projection", n=hidden_size, k=query, split="row"),
        ),
        parameters=(
            Parameter(name="qkv weight", elements=hidden_size * (query + key_value), split="tensor"),
            Parameter(name="output weight", elements=query * hidden_size, split="tensor"),
            Parameter(name="attention biases and norms", elements=small, split="none"),
        ),
        saved=(
            Saved(name="qkv input", elements=hidden_size, element_bytes=2, split="sequence"),
            Saved(name="q, k, v", elements=query + key_value, element_bytes=2, split="tensor"),
            Saved(name="attention output", elements=query, element_bytes=2, split="tensor"),
            Saved(name="softmax statistics", elements=attention.num_heads, element_bytes=4, split="tensor"),
        ),
    )
