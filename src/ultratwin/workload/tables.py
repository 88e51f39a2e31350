"""All operators of a model as static arrays [operator, 1], so that one formula call covers them all.

Owners: one per layer kind, in the order of Model.layer_kinds(), then the embedding, then the head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np

from ultratwin.hardware.chip import Array
from ultratwin.workload.layers import embedding_part, head_part, layer_parts
from ultratwin.workload.model import Layer, Model, Moe
from ultratwin.workload.operators import AttentionCore, Gemm, Parameter, Part, Saved, Vector

VectorKind = Literal["norm", "elementwise", "rope", "softmax", "embedding"]
VECTOR_KINDS: Final[tuple[VectorKind, ...]] = ("norm", "elementwise", "rope", "softmax", "embedding")


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmTable:
    """Matrix products. All arrays are [gemm, 1]; flags are 0 or 1; `owner_sum` is [owner, gemm].

    `is_scan`: work of a recurrent layer's scan over many tokens; it reads no weights, and one new token per sequence
    runs none of it, but reads and writes the sequence's state (workload.kv_cache).
    """

    names: tuple[str, ...]
    n: Array
    k: Array
    is_column: Array
    is_row: Array
    is_replicated: Array
    is_expert: Array
    is_vocabulary: Array
    is_scan: Array
    num_experts: Array
    experts_per_token: Array
    is_low: tuple[int, ...]
    is_high: tuple[int, ...]
    owner_sum: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorTable:
    """Memory-bound operators of one kind: elements per token [operator, 1], how they are split, `owner_sum`.

    `is_scan`: as in GemmTable.
    """

    kind: VectorKind
    forward: Array
    backward: Array
    is_tensor: Array
    is_sequence: Array
    is_expert: Array
    is_scan: Array
    experts_per_token: Array
    owner_sum: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightTable:
    """Parameters by owner and split: [owner, 1] each."""

    tensor: Array
    expert: Array
    vocabulary: Array
    replicated: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedTable:
    """Saved bytes per token by owner [owner, 1]: what stays under each recomputation, by split.

    Keys: (dropped_by, split) with split one of tensor, sequence, expert, none.
    """

    bytes_per_token: dict[tuple[str, str], Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTables:
    """A model as arrays. `layer_share` [kind, 1] is each kind's share of the layers."""

    gemms: GemmTable
    vectors: tuple[VectorTable, ...]
    cores: tuple[tuple[int, AttentionCore], ...]
    weights: WeightTable
    saved: SavedTable
    layer_share: Array
    num_owners: int
    moe: tuple[Moe | None, ...]
    num_mtp_modules: int
    vocab_size: int
    hidden_size: int


@lru_cache(maxsize=256)
def operator_tables(model: Model) -> OperatorTables:
    """The arrays of a model; cached, as every formula starts from them."""
    vocab = model.vocab_size
    kinds = model.layer_kinds()
    owners: list[tuple[Part, ...]] = [layer_parts(kind, model.hidden_size, model.norm) for kind in kinds]
    owners.append((embedding_part(vocab, model.hidden_size, model.num_learned_positions),))
    owners.append((head_part(vocab, model.hidden_size, model.norm, tied=model.tie_word_embeddings),))
    moe = tuple(kind.mlp if isinstance(kind.mlp, Moe) else None for kind in kinds)
    operators = [(i, op) for i, parts in enumerate(owners) for part in parts for op in part.operators]
    return OperatorTables(
        gemms=_gemm_table([(i, op) for i, op in operators if isinstance(op, Gemm)], moe, len(owners)),
        vectors=tuple(
            _vector_table(kind, found, moe, len(owners))
            for kind in VECTOR_KINDS
            if (found := [(i, op) for i, op in operators if isinstance(op, Vector) and op.kind == kind])
        ),
        cores=tuple((i, op) for i, op in operators if isinstance(op, AttentionCore)),
        weights=_weight_table([[each for part in parts for each in part.parameters] for parts in owners]),
        saved=_saved_table([[each for part in parts for each in part.saved] for parts in owners], moe),
        layer_share=_column([_share(model.layers, kind) for kind in kinds]),
        num_owners=len(owners),
        moe=moe,
        num_mtp_modules=model.num_mtp_modules,
        vocab_size=vocab,
        hidden_size=model.hidden_size,
    )


def _share(layers: Sequence[Layer], kind: Layer) -> float:
    return sum(layer is kind or layer == kind for layer in layers) / len(layers)


def _column(values: Sequence[float]) -> Array:
    return np.array(values, dtype=np.float64)[:, None]


def _owner_sum(owner_of: Sequence[int], num_owners: int) -> Array:
    matrix = np.zeros((num_owners, len(owner_of)))
    matrix[list(owner_of), np.arange(len(owner_of))] = 1.0
    return matrix


def _experts(moe: Sequence[Moe | None], owner: int, value: Callable[[Moe], float]) -> float:
    found = moe[owner] if owner < len(moe) else None
    return 1.0 if found is None else value(found)


def _gemm_table(gemms: Sequence[tuple[int, Gemm]], moe: Sequence[Moe | None], num_owners: int) -> GemmTable:
    # the router, the output head and scans stay in the higher precision of every recipe
    high = tuple(at for at, (_, op) in enumerate(gemms) if op.is_scan or op.name in ("router", "output head"))
    return GemmTable(
        names=tuple(op.name for _, op in gemms),
        n=_column([op.n for _, op in gemms]),
        k=_column([op.k for _, op in gemms]),
        is_column=_column([op.split == "column" for _, op in gemms]),
        is_row=_column([op.split == "row" for _, op in gemms]),
        is_replicated=_column([op.split == "none" for _, op in gemms]),
        is_expert=_column([op.is_expert for _, op in gemms]),
        is_vocabulary=_column([op.name == "output head" for _, op in gemms]),
        is_scan=_column([op.is_scan for _, op in gemms]),
        num_experts=_column([_experts(moe, i, lambda each: each.num_experts) for i, _ in gemms]),
        experts_per_token=_column([_experts(moe, i, lambda each: each.experts_per_token) for i, _ in gemms]),
        is_low=tuple(at for at in range(len(gemms)) if at not in high),
        is_high=high,
        owner_sum=_owner_sum([i for i, _ in gemms], num_owners),
    )


def _vector_table(
    kind: VectorKind, vectors: Sequence[tuple[int, Vector]], moe: Sequence[Moe | None], num_owners: int
) -> VectorTable:
    return VectorTable(
        kind=kind,
        forward=_column([op.forward_elements for _, op in vectors]),
        backward=_column([op.backward_elements for _, op in vectors]),
        is_tensor=_column([op.split in ("tensor", "vocabulary") for _, op in vectors]),
        is_sequence=_column([op.split == "sequence" for _, op in vectors]),
        is_expert=_column([op.is_expert for _, op in vectors]),
        is_scan=_column([op.is_scan for _, op in vectors]),
        experts_per_token=_column([_experts(moe, i, lambda each: each.experts_per_token) for i, _ in vectors]),
        owner_sum=_owner_sum([i for i, _ in vectors], num_owners),
    )


def _weight_table(parameters: Sequence[Sequence[Parameter]]) -> WeightTable:
    def total(split: str) -> Array:
        return _column([sum(each.elements for each in owner if each.split == split) for owner in parameters])

    return WeightTable(
        tensor=total("tensor"), expert=total("expert"), vocabulary=total("vocabulary"), replicated=total("none")
    )


def _saved_table(saved: Sequence[Sequence[Saved]], moe: Sequence[Moe | None]) -> SavedTable:
    table: dict[tuple[str, str], Array] = {}
    for i, owner in enumerate(saved):
        for each in owner:
            copies = _experts(moe, i, lambda found: found.experts_per_token) if each.is_expert else 1.0
            key = (each.dropped_by, each.split)
            column = table.setdefault(key, np.zeros((len(saved), 1)))
            column[i] += each.elements * each.element_bytes * copies
    return SavedTable(bytes_per_token=table)
