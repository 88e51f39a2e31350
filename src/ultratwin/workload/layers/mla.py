"""Multi-head latent attention (DeepSeek-V2, V3, Kimi-K2)."""

from __future__ import annotations

from ultratwin.workload.model import LatentAttention
from ultratwin.workload.operators import AttentionCore, Gemm, Operator, Parameter, Part, Saved, Vector


def latent_attention_part(mla: LatentAttention, hidden_size: int) -> Part:
    """Down- and up-projections of the latents, decoupled rotary keys, attention core; the indexer of a sparse one.

    Equation: q: h -> r_q -> a (d_n + d_r); kv: h -> r_kv + d_r, r_kv -> a (d_n + d_v); output: a d_v -> h
    Symbols: r_q, r_kv latent ranks; d_n, d_r, d_v head sizes without position, with rotary position, of values
    Source: DeepSeek-V2 (arXiv 2405.04434) section 2.1; DeepSeek-V3.2 (arXiv 2512.02556) section 2.1 for the indexer
    """
    heads, latent = mla.num_heads, mla.kv_lora_rank
    query = heads * (mla.nope_head_dim + mla.rope_head_dim)
    up = heads * (mla.nope_head_dim + mla.v_head_dim)
    value = heads * mla.v_head_dim
    down: tuple[Operator, ...] = (
        Gemm(name="q down projection", n=mla.q_lora_rank, k=hidden_size, split="none"),
        Gemm(name="q up projection", n=query, k=mla.q_lora_rank, split="column"),
    )
    if not mla.q_lora_rank:
        down = (Gemm(name="q projection", n=query, k=hidden_size, split="column"),)
    query_weights = mla.q_lora_rank * (hidden_size + query) + mla.q_lora_rank
    compressed = latent + mla.rope_head_dim
    indexer, index_weights = _indexer(mla, hidden_size)
    return Part(
        operators=(
            *down,
            Gemm(name="kv down projection", n=compressed, k=hidden_size, split="none"),
            Vector(
                name="latent norms",
                kind="norm",
                forward_elements=2 * (latent + mla.q_lora_rank),
                backward_elements=4 * (latent + mla.q_lora_rank),
                split="none",
            ),
            Gemm(name="kv up projection", n=up, k=latent, split="column"),
            Vector(
                name="rotary embedding and key assembly",
                kind="rope",
                forward_elements=4 * query,
                backward_elements=4 * query,
                split="tensor",
            ),
            *indexer,
            AttentionCore(
                name="latent attention",
                num_heads=heads,
                num_kv_heads=heads,
                head_dim=mla.nope_head_dim + mla.rope_head_dim,
                head_dim_v=mla.v_head_dim,
                window=mla.index_topk or None,
            ),
            Gemm(name="output projection", n=hidden_size, k=value, split="row"),
        ),
        parameters=(
            Parameter(
                name="q weights",
                elements=query_weights if mla.q_lora_rank else hidden_size * query,
                split="tensor",
            ),
            Parameter(name="kv down weight", elements=hidden_size * compressed + latent, split="none"),
            Parameter(name="indexer", elements=index_weights, split="none"),
            Parameter(name="kv up weight", elements=latent * up, split="tensor"),
            Parameter(name="output weight", elements=value * hidden_size, split="tensor"),
        ),
        saved=(
            Saved(name="latent input", elements=hidden_size, element_bytes=2, split="sequence"),
            Saved(name="latents", elements=2 * (mla.q_lora_rank + compressed), element_bytes=2, split="none"),
            Saved(name="q, k, v", elements=2 * query + value, element_bytes=2, split="tensor", dropped_by="selective"),
            Saved(name="attention output", elements=value, element_bytes=2, split="tensor"),
            Saved(name="softmax statistics", elements=heads, element_bytes=4, split="tensor"),
        ),
    )


def _indexer(mla: LatentAttention, hidden_size: int) -> tuple[tuple[Operator, ...], int]:
    """The indexer of sparse attention: every query meets all keys in few narrow heads. Also its weights."""
    if not mla.index_heads:
        return (), 0
    width, from_size = mla.index_heads * mla.index_head_dim, mla.q_lora_rank or hidden_size
    operators = (
        Gemm(name="index query projection", n=width, k=from_size, split="none"),
        Gemm(
            name="index key and weight projection", n=mla.index_head_dim + mla.index_heads, k=hidden_size, split="none"
        ),
        AttentionCore(
            name="indexer",
            num_heads=mla.index_heads,
            num_kv_heads=1,
            head_dim=mla.index_head_dim,
            head_dim_v=1,  # scores of all heads are weighed and added up
            window=None,
        ),
    )
    norm = 2 * mla.index_head_dim
    return operators, from_size * width + hidden_size * (mla.index_head_dim + mla.index_heads) + norm
