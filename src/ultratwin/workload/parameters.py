"""How many parameters a model has, part by part. Other modules take the parts; people read the two totals."""

from __future__ import annotations

from functools import cache

from ultratwin.workload.model import (
    Attention,
    GatedDeltaNet,
    LatentAttention,
    Layer,
    LightningAttention,
    Mamba,
    Mamba2,
    Mixer,
    Mlp,
    Model,
    Moe,
)


@cache
def parameter_count(model: Model, *, include_mtp: bool = False) -> int:
    """All parameters, as model cards count them.

    Equation:  P = V h (1 or 2) + positions h + sum over layers (attention + feed-forward + norms) + last norm
    Args:
        model: sizes of the model
        include_mtp: count the multi-token-prediction modules, which published totals leave out
    Returns: parameters [1]
    Source: counted from the weight shapes that the architecture defines
    Example:
        >>> from ultratwin.workload.model import Attention, Layer, Mlp, Model, uniform_layers
        >>> attention = Attention(num_heads=32, num_kv_heads=8, head_dim=128)
        >>> layer = Layer(attention=attention, mlp=Mlp(intermediate_size=14336))
        >>> parameter_count(Model(id="8b", hidden_size=4096, vocab_size=128256, layers=uniform_layers(layer, 32)))
        8030261248
    """
    layers = sum(layer_parameters(model, layer) * count for layer, count in _counted(model).items())
    mtp = model.num_mtp_modules * mtp_module_parameters(model) if include_mtp else 0
    return embedding_parameters(model) + layers + head_parameters(model) + mtp


def active_parameter_count(model: Model, *, include_embedding: bool = True) -> int:
    """Parameters that one token meets: all but the experts that the router does not pick.

    Args:
        model: sizes of the model
        include_embedding: count the input embedding table, of which a token reads one row. Published figures differ.
    Returns: parameters [1]; equal to `parameter_count` for a dense model
    Source: counted from the weight shapes that the architecture defines
    """
    idle = sum(_idle_parameters(model, layer) * count for layer, count in _counted(model).items())
    table = 0 if include_embedding or model.tie_word_embeddings else model.vocab_size * model.hidden_size
    return parameter_count(model) - idle - table


def embedding_parameters(model: Model) -> int:
    """Token and position tables, and the norm after them if there is one."""
    norm = norm_parameters(model) if model.embedding_norm else 0
    return (model.vocab_size + model.num_learned_positions) * model.hidden_size + norm


def head_parameters(model: Model) -> int:
    """The last norm, and the output projection unless it is the token table again."""
    return norm_parameters(model) + (0 if model.tie_word_embeddings else model.vocab_size * model.hidden_size)


def norm_parameters(model: Model) -> int:
    """One norm over the hidden size."""
    return model.hidden_size * (2 if model.norm == "layernorm" and model.norm_bias else 1)


def layer_parameters(model: Model, layer: Layer) -> int:
    """One layer with its norms."""
    return (
        attention_parameters(model.hidden_size, layer.attention)
        + mlp_parameters(model.hidden_size, layer.mlp)
        + layer.num_norms * norm_parameters(model)
    )


def mtp_module_parameters(model: Model) -> int:
    """One multi-token-prediction module: a layer like the last, a 2h x h projection, three norms; tables are shared."""
    return layer_parameters(model, model.layers[-1]) + 2 * model.hidden_size**2 + 3 * norm_parameters(model)


def attention_parameters(hidden_size: int, attention: Mixer) -> int:
    """Projections of queries, keys, values and output, their biases, and norms inside; or another mixer's weights."""
    if isinstance(attention, Attention):
        return _attention_parameters(hidden_size, attention)
    if isinstance(attention, LatentAttention):
        return _latent_attention_parameters(hidden_size, attention)
    if isinstance(attention, Mamba2):
        return _mamba2_parameters(hidden_size, attention)
    if isinstance(attention, Mamba):
        return _mamba_parameters(hidden_size, attention)
    if isinstance(attention, GatedDeltaNet):
        return _gated_delta_net_parameters(hidden_size, attention)
    return _lightning_attention_parameters(hidden_size, attention)


def _attention_parameters(hidden_size: int, attention: Attention) -> int:
    if not attention.num_heads:
        return 0
    queries = attention.num_heads * attention.head_dim
    keys = attention.num_kv_heads * attention.head_dim
    values = attention.num_heads * attention.value_width
    into = queries + attention.output_gate * values + keys + attention.num_kv_heads * attention.value_width
    biases = attention.qkv_bias * into + attention.output_bias * hidden_size
    normed = queries + keys if attention.qk_norm_over_all else 2 * attention.head_dim
    return hidden_size * (values + into) + biases + attention.qk_norm * normed + attention.sinks * attention.num_heads


def _latent_attention_parameters(hidden_size: int, attention: LatentAttention) -> int:
    heads, rank = attention.num_heads, attention.kv_lora_rank
    query_width = heads * (attention.nope_head_dim + attention.rope_head_dim)
    if attention.q_lora_rank:
        queries = attention.q_lora_rank * (hidden_size + 1 + query_width)
    else:
        queries = hidden_size * query_width
    down = hidden_size * (rank + attention.rope_head_dim) + rank
    up = rank * heads * (attention.nope_head_dim + attention.v_head_dim)
    indexer = _indexer_parameters(hidden_size, attention) if attention.index_heads else 0
    return queries + down + up + heads * attention.v_head_dim * hidden_size + indexer


def _indexer_parameters(hidden_size: int, attention: LatentAttention) -> int:
    """Queries from the compressed ones, one key with its layer norm, one weight per head."""
    dim, heads = attention.index_head_dim, attention.index_heads
    return (attention.q_lora_rank or hidden_size) * heads * dim + hidden_size * (dim + heads) + 2 * dim


def _mamba2_parameters(hidden_size: int, mamba: Mamba2) -> int:
    inner = mamba.num_heads * mamba.head_dim
    channels = inner + 2 * mamba.num_groups * mamba.state_size
    into = inner + channels + mamba.num_heads
    biases = mamba.projection_bias * (into + hidden_size) + channels * mamba.conv_bias
    return hidden_size * (into + inner) + channels * mamba.conv_kernel + 3 * mamba.num_heads + inner + biases


def _mamba_parameters(hidden_size: int, mamba: Mamba) -> int:
    inner, selected = mamba.inner_size, mamba.step_rank + 2 * mamba.state_size
    biases = mamba.projection_bias * (2 * inner + hidden_size) + inner * (mamba.conv_bias + 1)
    scan = inner * (selected + mamba.step_rank + mamba.state_size + 1 + mamba.conv_kernel)
    return 3 * hidden_size * inner + scan + selected * mamba.inner_norms + biases


def _gated_delta_net_parameters(hidden_size: int, net: GatedDeltaNet) -> int:
    value = net.num_heads * net.value_head_dim
    channels = 2 * net.num_kv_heads * net.key_head_dim + value
    projections = hidden_size * (channels + 2 * value + 2 * net.num_heads)
    return projections + channels * net.conv_kernel + 2 * net.num_heads + net.value_head_dim


def _lightning_attention_parameters(hidden_size: int, attention: LightningAttention) -> int:
    width = attention.num_heads * attention.head_dim
    return 5 * hidden_size * width + width


def mlp_parameters(hidden_size: int, mlp: Mlp | Moe) -> int:
    """A feed-forward part: matrices and biases, or router, experts and shared experts."""
    if isinstance(mlp, Mlp):
        return _block_parameters(hidden_size, mlp.intermediate_size, gated=mlp.gated, bias=mlp.bias)
    router = mlp.num_experts * (hidden_size + mlp.router_bias) + 2 * hidden_size * mlp.latent_size
    shared = _block_parameters(hidden_size, mlp.shared_intermediate_size, gated=mlp.gated, bias=False)
    return router + mlp.num_experts * expert_parameters(hidden_size, mlp) + shared + mlp.shared_gate * hidden_size


def expert_parameters(hidden_size: int, moe: Moe) -> int:
    """One routed expert."""
    width = moe.latent_size or hidden_size
    return _block_parameters(width, moe.expert_intermediate_size, gated=moe.gated, bias=moe.bias)


def _block_parameters(hidden_size: int, width: int, *, gated: bool, bias: bool) -> int:
    into = 2 if gated else 1
    return (into + 1) * hidden_size * width + bias * (into * width + hidden_size)


def _idle_parameters(model: Model, layer: Layer) -> int:
    if isinstance(layer.mlp, Mlp):
        return 0
    return (layer.mlp.num_experts - layer.mlp.experts_per_token) * expert_parameters(model.hidden_size, layer.mlp)


def _counted(model: Model) -> dict[Layer, int]:
    counts: dict[Layer, int] = {}
    for layer in model.layers:
        counts[layer] = counts.get(layer, 0) + 1
    return counts
