"""What a layer does, per token, before anybody shards it: operators, parameters, saved activations.

Each says how it may be split: its `split` names the axis that divides it.

    "column", "row"   tensor parallelism divides the matrix's columns n or rows k
    "tensor"          divided by tensor parallelism (heads, intermediate channels)
    "sequence"        divided by tensor parallelism only where sequence parallelism is on, else repeated on every rank
    "expert"          divided by expert parallelism, and by expert-tensor parallelism inside an expert
    "vocabulary"      divided by tensor parallelism, on the first or last pipeline stage
    "none"            the same on every tensor-parallel rank
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Split = Literal["column", "row", "tensor", "sequence", "expert", "vocabulary", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """Tokens x k times k x n. An expert matrix is applied to each expert's share of the tokens.

    `is_scan`: the products of a chunked scan, as one of the same work per token; it has no stored weights, and no
    recipe computes it in a low precision.
    """

    name: str
    n: int
    k: int
    split: Split
    is_expert: bool = False
    is_scan: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCore:
    """Scores, softmax and weighted sum of one layer's heads over the sequence."""

    name: str
    num_heads: int
    num_kv_heads: int
    head_dim: int
    head_dim_v: int
    window: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """A memory-bound operator: elements read and written per token, forward and backward.

    `kind` is one of the memory-bound kernels (norm, elementwise, rope, softmax). `is_expert`: once per routed copy.
    `is_scan`: part of a scan over many tokens (see Gemm).
    """

    name: str
    kind: str
    forward_elements: float
    backward_elements: float
    split: Split
    is_expert: bool = False
    is_scan: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A weight: how many elements, divided how."""

    name: str
    elements: int
    split: Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """An activation that the backward pass needs: elements per token, bytes of each, divided how.

    `dropped_by`: the recomputation that no longer keeps it: "selective" (attention core or expert activations),
    else "full" (all but the layer's input). `is_expert`: once per routed copy of a token.
    """

    name: str
    elements: float
    element_bytes: float
    split: Split
    dropped_by: Literal["selective", "full"] = "full"
    is_expert: bool = False


Operator = Gemm | AttentionCore | Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a layer (attention, feed-forward, ...), as operators, weights and saved activations."""

    operators: tuple[Operator, ...]
    parameters: tuple[Parameter, ...]
    saved: tuple[Saved, ...]
