"""The parallel plan: how many ways each axis is split. One plan, or a million along the candidate axis."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.errors import ScenarioError, unknown_name

IntLike = int | NDArray[np.int64]
RECOMPUTE: Final = ("none", "selective", "full")
"""Kinds of activation recomputation; a plan holds the index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Sizes of all parallel axes; each an int, or an array [candidate].

    Ranks: tensor x context x pipeline x data = world size. Experts are cut out of tensor x context x data:
    expert data parallelism = tensor x context x data / (expert_tensor x expert). `zero_stage` 0 to 3 shards optimizer
    state, gradients, weights over `shard_size` ranks (FSDP is 3; HSDP is 3 with shard_size below data x context).
    `recompute` indexes RECOMPUTE, `schedule` indexes mapping.schedules.SCHEDULES. Batches count sequences.
    """

    tensor_parallel_size: IntLike = 1
    pipeline_parallel_size: IntLike = 1
    virtual_pipeline_size: IntLike = 1
    context_parallel_size: IntLike = 1
    expert_parallel_size: IntLike = 1
    expert_tensor_parallel_size: IntLike = 1
    data_parallel_size: IntLike = 1
    zero_stage: IntLike = 1
    shard_size: IntLike = 0
    micro_batch_size: IntLike = 1
    global_batch_size: IntLike = 1
    seq_length: IntLike = 4096
    sequence_parallel: IntLike = 0
    recompute: IntLike = 0
    schedule: IntLike = 1

    @property
    def num_ranks(self) -> IntLike:
        """World size."""
        return (
            self.tensor_parallel_size
            * self.pipeline_parallel_size
            * self.context_parallel_size
            * self.data_parallel_size
        )

    @property
    def num_micro_batches(self) -> IntLike:
        """Micro-batches that each pipeline runs in a step (gradient accumulation)."""
        return self.global_batch_size // (self.micro_batch_size * self.data_parallel_size)

    @property
    def data_shard_size(self) -> IntLike:
        """Ranks that hold the same weights of the dense part: data x context."""
        return self.data_parallel_size * self.context_parallel_size

    @property
    def zero_shard_size(self) -> IntLike:
        """Ranks that ZeRO shards over: `shard_size` where given, else all that hold the same weights."""
        return np.where(np.asarray(self.shard_size) > 0, self.shard_size, self.data_shard_size)

    def as_arrays(self) -> Plan:
        """The same plans with every size an array of at least one candidate, so that formulas see one kind of shape."""
        return Plan(**{each.name: np.atleast_1d(getattr(self, each.name)) for each in dataclasses.fields(self)})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the candidates: that of all sizes broadcast together."""
        return np.broadcast_shapes(*(np.shape(getattr(self, each.name)) for each in dataclasses.fields(self)))

    def at(self, index: int) -> Plan:
        """One candidate of an array of plans, counted along its flattened shape, as plain ints."""
        where = np.unravel_index(index, self.shape or (1,))
        sizes = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return Plan(**{name: int(np.broadcast_to(size, self.shape or (1,))[where]) for name, size in sizes.items()})

    def distinct(self, axes: Sequence[str]) -> tuple[Plan, NDArray[np.int64]]:
        """The plans that differ in some of their sizes.

        Args:
            axes: names of the sizes that count; all others are left at their defaults
        Returns: plans [distinct], and for each candidate which of them it has, in the shape of those sizes broadcast
        """
        sizes = {name: np.asarray(getattr(self, name)) for name in axes}
        shape = np.broadcast_shapes(*(size.shape for size in sizes.values()))
        key = np.zeros((), dtype=np.int64)
        for size in sizes.values():
            if size.size > 1:  # what all plans share tells none apart
                values, code = np.unique(size, return_inverse=True)
                key = key * len(values) + code.reshape(size.shape)
        _, first, where = np.unique(np.broadcast_to(key, shape), return_index=True, return_inverse=True)
        rows = {name: np.broadcast_to(size, shape).ravel()[first] for name, size in sizes.items()}
        return Plan(**rows), where.reshape(shape)

    def describe(self) -> str:
        """The plan in a line, the field's abbreviations, defaults left out."""
        parts = [
            ("TP", self.tensor_parallel_size, 1),
            ("PP", self.pipeline_parallel_size, 1),
            ("VP", self.virtual_pipeline_size, 1),
            ("CP", self.context_parallel_size, 1),
            ("EP", self.expert_parallel_size, 1),
            ("ETP", self.expert_tensor_parallel_size, 1),
            ("DP", self.data_parallel_size, 0),
            ("ZeRO", self.zero_stage, -1),
            ("MBS", self.micro_batch_size, 0),
            ("GBS", self.global_batch_size, 0),
        ]
        text = " ".join(f"{name}{value}" for name, value, default in parts if value != default)
        text += " SP" if self.sequence_parallel else ""
        return text + (f" recompute={RECOMPUTE[int(self.recompute)]}" if self.recompute else "")


def stack_plans(plans: Sequence[Plan]) -> Plan:
    """Many single plans as one plan of arrays [candidate]."""
    return Plan(
        **{
            each.name: np.array([getattr(plan, each.name) for plan in plans], dtype=np.int64)
            for each in dataclasses.fields(Plan)
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A plan that cannot run, and why. A value, not an exception (design D8)."""

    reason: str
    needed: float = 0.0
    available: float = 0.0
    unit: str = ""

    def __str__(self) -> str:
        if not self.unit:
            return self.reason
        return f"{self.reason}: needs {self.needed:.4g} {self.unit}, has {self.available:.4g} {self.unit}"


def recompute_index(name: str) -> int:
    """Index of a recomputation in RECOMPUTE.

    Raises: ScenarioError for an unknown name
    """
    if name not in RECOMPUTE:
        raise unknown_name("recompute", name, RECOMPUTE, error=ScenarioError)
    return RECOMPUTE.index(name)
