"""Multi-head, grouped-query and multi-query attention."""

from __future__ import annotations

from ultratwin.workload.model import Attention
from ultratwin.workload.operators import AttentionCore, Gemm, Parameter, Part, Saved, Vector


def attention_part(attention: Attention, hidden_size: int) -> Part:
    """Projections, rotary embedding and attention core; nothing where there are no heads.

    Equation: QKV: h -> (a + 2 g) d, and a d more for an output gate; core over a heads of d; output: a d -> h. Of
              attention to another sequence: Q only, as keys and values are projected once
    Symbols: h hidden size, a heads, g key/value heads, d head size
    Source: Korthikanti et al. 2022 (arXiv 2205.05198) section 4 for what is saved
    """
    if not attention.num_heads:
        return Part(operators=(), parameters=(), saved=())
    query = attention.num_heads * attention.head_dim
    key_value = attention.num_kv_heads * (attention.head_dim + attention.value_width)
    keys, value = attention.num_kv_heads * attention.head_dim, attention.num_heads * attention.value_width
    into = query + value * attention.output_gate + key_value
    biases = into * attention.qkv_bias + hidden_size * attention.output_bias
    normed = query + keys if attention.qk_norm_over_all else 2 * attention.head_dim
    small = biases + normed * attention.qk_norm + attention.num_heads * attention.sinks
    rotated = query + keys
    # a text's keys and values are projected once: what is left for each query is its own projection
    projected = query if attention.cross else into
    return Part(
        operators=(
            Gemm(name="qkv projection", n=projected, k=hidden_size, split="column"),
            *(() if attention.cross else (_rotary(rotated * (2 if attention.qk_norm else 1)),)),
            AttentionCore(
                name="attention",
                num_heads=attention.num_heads,
                num_kv_heads=attention.num_kv_heads,
                head_dim=attention.head_dim,
                head_dim_v=attention.value_width,
                window=attention.window,
            ),
            *((_output_gate(value),) if attention.output_gate else ()),
            Gemm(name="output projection", n=hidden_size, k=value, split="row"),
        ),
        parameters=(
            Parameter(name="qkv weight", elements=hidden_size * into, split="tensor"),
            Parameter(name="output weight", elements=value * hidden_size, split="tensor"),
            Parameter(name="attention biases and norms", elements=small, split="none"),
        ),
        saved=(
            Saved(name="qkv input", elements=hidden_size, element_bytes=2, split="sequence"),
            Saved(name="q, k, v", elements=into, element_bytes=2, split="tensor"),
            Saved(name="attention output", elements=value, element_bytes=2, split="tensor"),
            Saved(name="softmax statistics", elements=attention.num_heads, element_bytes=4, split="tensor"),
        ),
    )


def _rotary(width: int) -> Vector:
    return Vector(
        name="rotary embedding", kind="rope", forward_elements=2 * width, backward_elements=2 * width, split="tensor"
    )


def _output_gate(width: int) -> Vector:
    return Vector(
        name="output gate", kind="elementwise", forward_elements=3 * width, backward_elements=5 * width, split="tensor"
    )
