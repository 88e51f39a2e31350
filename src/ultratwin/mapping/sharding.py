"""What one rank holds and computes under a plan: tokens, rows of experts, weights; and where its groups lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ultratwin.hardware.chip import Array, Number
from ultratwin.mapping.plan import Plan
from ultratwin.workload.tables import GemmTable, OperatorTables, VectorTable


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupShape:
    """A group of ranks on the machine: `ranks_per_domain` in each of `num_domains` scale-up domains, [candidate]."""

    ranks_per_domain: Number
    num_domains: Number

    @property
    def num_ranks(self) -> Number:
        """Ranks in the group."""
        return self.ranks_per_domain * self.num_domains


def group_shape(size: Number, stride: Number, domain_size: Number) -> GroupShape:
    """Where a group of `size` ranks, `stride` apart, lies on domains of `domain_size` ranks.

    Ranks are numbered tensor, context, data, pipeline, the first fastest (Megatron's order), and fill domains in turn.
    Equation: r = clip(floor(D / stride), 1, n); N = n / r
    """
    inside = np.clip(domain_size // np.maximum(stride, 1), 1, np.maximum(size, 1))
    return GroupShape(ranks_per_domain=inside, num_domains=np.maximum(size, 1) / inside)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Per-rank sizes of one micro-batch, [candidate].

    `vocabulary`: rows of the padded vocabulary; `tokens`: seen by tensor-parallel matrices;
    `sequence_tokens`: where sequence parallelism splits them further;
    `routed_tokens`: of `tokens`, those whose expert copies this rank computes (before the top-k factor).
    """

    tensor: Number
    expert: Number
    expert_tensor: Number
    vocabulary: Number
    tokens: Number
    sequence_tokens: Number
    routed_tokens: Number


def vocabulary_rows(vocab_size: int, multiple: Number, tensor: Number) -> Number:
    """Rows of the embedding on one rank; frameworks pad the vocabulary so that every rank holds a round number.

    Equation: ceil(V / (TP u)) u
    """
    return np.ceil(vocab_size / (tensor * multiple)) * multiple


def shard(plan: Plan, vocab_size: int = 1, vocab_multiple: Number = 1) -> Shard:
    """Per-rank sizes of a micro-batch.

    Equation: tokens = b s / CP; sequence tokens = tokens / TP under sequence parallelism;
              routed tokens = tokens ETP / TP (tensor ranks route different tokens unless they share experts)
    """
    tensor = np.asarray(plan.tensor_parallel_size, dtype=np.float64)
    expert_tensor = np.asarray(plan.expert_tensor_parallel_size, dtype=np.float64)
    tokens = np.asarray(plan.micro_batch_size, dtype=np.float64) * plan.seq_length / plan.context_parallel_size
    return Shard(
        tensor=tensor,
        expert=np.asarray(plan.expert_parallel_size, dtype=np.float64),
        expert_tensor=expert_tensor,
        vocabulary=vocabulary_rows(vocab_size, vocab_multiple, tensor),
        tokens=tokens,
        sequence_tokens=np.where(np.asarray(plan.sequence_parallel) > 0, tokens / tensor, tokens),
        routed_tokens=tokens * expert_tensor / tensor,
    )


def gemm_shapes(table: GemmTable, sizes: Shard) -> tuple[Array, Array, Array, Array]:
    """m, n, k and groups of every matrix product on one rank, [gemm, candidate].

    Expert products are grouped: E / EP experts with routed tokens x top-k / (E / EP) rows each.
    """
    ways = np.where(table.is_expert > 0, sizes.expert_tensor, sizes.tensor)
    n = np.where(table.is_vocabulary > 0, sizes.vocabulary, table.n / np.where(table.is_column > 0, ways, 1.0))
    k = table.k / np.where(table.is_row > 0, ways, 1.0)
    groups = np.where(table.is_expert > 0, np.maximum(table.num_experts / sizes.expert, 1.0), 1.0)
    rows = np.where(table.is_replicated > 0, sizes.sequence_tokens, sizes.tokens)
    m = np.where(table.is_expert > 0, sizes.routed_tokens * table.experts_per_token / groups, rows)
    return m, n, k, groups


def vector_elements(table: VectorTable, sizes: Shard) -> tuple[Array, Array]:
    """Elements moved forward and backward by every memory-bound operator on one rank, [operator, candidate]."""
    tokens = np.where(table.is_sequence > 0, sizes.sequence_tokens, sizes.tokens)
    tokens = np.where(table.is_tensor > 0, sizes.tokens / sizes.tensor, tokens)
    tokens = np.where(table.is_expert > 0, sizes.routed_tokens * table.experts_per_token, tokens)
    return table.forward * tokens, table.backward * tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Elements that one rank holds, [candidate]: per layer (mean over kinds), embedding and head.

    Dense and expert weights are kept apart, as they are replicated over different groups.
    """

    layer_dense: Number
    layer_expert: Number
    embedding: Number
    head: Number


def weights(tables: OperatorTables, plan: Plan, vocab_multiple: Number = 1) -> Weights:
    """Elements of weights on one rank before ZeRO shards them."""
    table = tables.weights
    tensor = plan.tensor_parallel_size
    ways = np.asarray(plan.expert_parallel_size) * plan.expert_tensor_parallel_size
    share = tables.layer_share
    kinds = slice(0, tables.num_owners - 2)
    rows = vocabulary_rows(tables.vocab_size, vocab_multiple, np.asarray(tensor, dtype=np.float64)) * tables.hidden_size
    return Weights(
        layer_dense=float((table.tensor[kinds] * share).sum()) / tensor
        + float((table.replicated[kinds] * share).sum()),
        layer_expert=float((table.expert[kinds] * share).sum()) / ways,
        embedding=rows + float(table.replicated[-2, 0]),
        head=np.where(table.vocabulary[-1, 0] > 0, rows, 0.0) + float(table.replicated[-1, 0]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """How layers lie on pipeline stages, [candidate]: layers of the fullest, the first and the last stage."""

    most: Number
    first: Number
    last: Number
    layers: float


def uniform_stages(num_layers: int, plan: Plan) -> Stages:
    """Equal chunks; where they don't divide, the first and the last stage hold fewer layers, beside embedding and head.

    Equation: c = ceil(L / (p v)); of the p v c - L missing layers the last stage goes without half, the first without
        the rest, each at most one per chunk; more are missing in stages between them
    """
    stages, chunks = np.asarray(plan.pipeline_parallel_size), np.asarray(plan.virtual_pipeline_size)
    most = -(-num_layers // (stages * chunks)) * chunks
    missing = most * stages - num_layers
    from_last = np.minimum(-(-missing // 2), chunks)
    first, last = most - np.minimum(missing - from_last, chunks), most - from_last
    # a pipeline of two stages has none but these
    return Stages(most=np.where(stages > 2, most, np.maximum(first, last)), first=first, last=last, layers=num_layers)


def cost_balanced_stages(num_layers: int, plan: Plan, layer_cost: float, head_cost: float) -> Stages:
    """Layers go to stages by cumulative cost, so the head's stage holds fewer (nanotron).

    Equation: T = L c + H; stage i ends with the layer whose cumulative cost passes (i + 1) T / p
    """
    stages = np.asarray(plan.pipeline_parallel_size)
    per_stage = (num_layers * layer_cost + head_cost) / stages / layer_cost
    before_last = np.minimum(np.ceil(per_stage * (stages - 1) - 1e-9), num_layers)
    last = np.where(stages > 1, num_layers - before_last, num_layers)
    first = np.where(stages > 1, np.minimum(np.ceil(per_stage - 1e-9), num_layers), num_layers)
    most = np.where(stages > 2, np.minimum(np.ceil(per_stage - 1e-9), num_layers), np.maximum(first, last))
    return Stages(most=np.maximum(most, np.maximum(first, last)), first=first, last=last, layers=num_layers)
