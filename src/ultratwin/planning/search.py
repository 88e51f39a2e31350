"""All layouts of a model on so many chips, evaluated array-first, and the best of them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.system import per_rank
from ultratwin.mapping.feasible import REASONS
from ultratwin.mapping.plan import Plan
from ultratwin.mapping.schedules import SCHEDULE_NAMES
from ultratwin.planning.evaluate import Evaluation, Setting, evaluate
from ultratwin.workload.model import Model, Moe

CHUNK: Final = 8192
"""Candidates evaluated at once: few enough that their arrays stay in a core's cache."""
MICRO_BATCHES: Final = (1, 2, 4, 8)


def divisors(value: int) -> list[int]:
    """All divisors, ascending.

    Example:
        >>> divisors(12)
        [1, 2, 3, 4, 6, 12]
    """
    small = [i for i in range(1, int(value**0.5) + 1) if value % i == 0]
    return sorted({*small, *(value // i for i in small)})


def options(model: Model, num_ranks: int, domain_size: int, fixed: Mapping[str, int]) -> dict[str, Sequence[int]]:
    """The values that a search tries on each axis; an axis that is fixed has only that one."""
    experts = max((layer.mlp.num_experts for layer in model.layer_kinds() if isinstance(layer.mlp, Moe)), default=1)
    powers = [2**i for i in range(12)]
    axes: dict[str, Sequence[int]] = {
        "tensor_parallel_size": [
            size for size in divisors(num_ranks) if size <= domain_size and size in (*powers, 3, 6, 12, 24)
        ],
        "pipeline_parallel_size": [size for size in divisors(num_ranks) if size <= model.num_layers],
        "virtual_pipeline_size": [1, *(v for v in divisors(model.num_layers) if 1 < v <= 16)],
        "context_parallel_size": [size for size in powers[:6] if num_ranks % size == 0],
        "expert_parallel_size": [size for size in divisors(experts) if num_ranks % size == 0],
        "expert_tensor_parallel_size": [1],
        "micro_batch_size": MICRO_BATCHES,
        "zero_stage": [1, 3],
        "recompute": [0, 1, 2],
    }
    return {name: [fixed[name]] if name in fixed else values for name, values in axes.items()}


def candidates(model: Model, num_ranks: int, domain_size: int, fixed: Mapping[str, int]) -> Iterator[Plan]:
    """All combinations of the options whose sizes divide the ranks, in chunks of arrays [candidate]."""
    axes = options(model, num_ranks, domain_size, fixed)
    names = list(axes)
    sizes = [len(axes[name]) for name in names]
    values = [np.asarray(axes[name], dtype=np.int64) for name in names]
    total = int(np.prod(sizes))
    for start in range(0, total, 16 * CHUNK):
        index = np.unravel_index(np.arange(start, min(start + 16 * CHUNK, total)), sizes)
        columns = {name: value[at] for name, value, at in zip(names, values, index, strict=True)}
        columns = _laid_out(columns, num_ranks, fixed)
        for at in range(0, len(columns["zero_stage"]), CHUNK):
            yield Plan(**{name: column[at : at + CHUNK] for name, column in columns.items()})


def _laid_out(
    columns: dict[str, NDArray[np.int64]], num_ranks: int, fixed: Mapping[str, int]
) -> dict[str, NDArray[np.int64]]:
    """Drops what cannot divide the ranks, and derives data parallelism, sequence parallelism and schedule."""
    used = columns["tensor_parallel_size"] * columns["pipeline_parallel_size"] * columns["context_parallel_size"]
    chunks = columns["virtual_pipeline_size"]
    keep = (num_ranks % used == 0) & ((chunks == 1) | (columns["pipeline_parallel_size"] > 1))
    if "data_parallel_size" in fixed:
        keep &= num_ranks // used == fixed["data_parallel_size"]
    columns = {name: column[keep] for name, column in columns.items()}
    tensor = columns["tensor_parallel_size"]
    columns["data_parallel_size"] = num_ranks // used[keep]
    derived = {
        "sequence_parallel": (tensor > 1).astype(np.int64),
        "schedule": np.where(
            columns["virtual_pipeline_size"] > 1, SCHEDULE_NAMES.index("interleaved"), SCHEDULE_NAMES.index("1f1b")
        ),
    }
    columns |= {name: value for name, value in derived.items() if name not in fixed}
    constants = {name: value for name, value in fixed.items() if name not in columns}
    return columns | {name: np.full(len(tensor), value, dtype=np.int64) for name, value in constants.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search found: the best plans, best first, and why the others cannot run.

    `rejected` counts candidates by reason. `step_s`, `memory_bytes` are of `plans`.
    """

    plans: tuple[Plan, ...]
    step_s: tuple[float, ...]
    memory_bytes: tuple[float, ...]
    num_candidates: int
    num_feasible: int
    rejected: dict[str, int]
    least_memory_bytes: float


def search(setting: Setting, num_ranks: int, fixed: Mapping[str, int], keep: int = 10) -> Found:
    """The fastest layouts of a model on a pool.

    Args:
        setting: model, pool, number formats, framework
        num_ranks: ranks to use
        fixed: axes that are given, by their name in Plan (batch and sequence length always are)
        keep: how many plans to return
    Returns: best first; ties go to the plan with less memory, then the smaller sizes in the order of Plan's fields
    """
    domain = per_rank(setting.pool).domain.size
    best: list[tuple[float, float, tuple[int, ...], Plan]] = []
    rejected: Counter[str] = Counter()
    total = feasible = 0
    least = np.inf
    for plan in candidates(setting.model, num_ranks, domain, fixed):
        result = evaluate(setting, plan, num_ranks, domain_size=0.0 if "tensor_parallel_size" in fixed else domain)
        total += len(result.codes)
        feasible += int((result.codes == 0).sum())
        least = min(
            least, float(np.min(np.where(result.codes != 0, result.memory.total_bytes, np.inf), initial=np.inf))
        )
        rejected.update(
            {
                REASONS[code]: int(n)
                for code, n in zip(*np.unique(result.codes, return_counts=True), strict=True)
                if code
            }
        )
        best = sorted(best + _top(result, keep), key=lambda each: each[:3])[:keep]
    return Found(
        plans=tuple(each[3] for each in best),
        step_s=tuple(each[0] for each in best),
        memory_bytes=tuple(each[1] for each in best),
        num_candidates=total,
        num_feasible=feasible,
        rejected=dict(rejected.most_common()),
        least_memory_bytes=float(least),
    )


def _top(result: Evaluation, keep: int) -> list[tuple[float, float, tuple[int, ...], Plan]]:
    times = np.where(result.codes == 0, result.times.total_s, np.inf)
    order = np.argsort(times, kind="stable")[: 4 * keep]
    found = []
    for at in order:
        if np.isfinite(times[at]):
            plan = result.plan.at(int(at))
            key = tuple(int(getattr(plan, each.name)) for each in dataclasses.fields(plan))
            found.append((float(times[at]), float(np.asarray(result.memory.total_bytes)[at]), key, plan))
    return found
