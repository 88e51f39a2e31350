"""All ways to serve a model on a pool: every split of a replica, number format and batch limit, array-first.

A point is a replica at some load: its steady state in closed form (serving_point). Rejected splits are counted by
reason. What serves a given load under given limits is chosen from the points (serving_choice).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.chip import Array, Number
from ultratwin.hardware.system import Pool, per_rank
from ultratwin.mapping.serving import ServingPlan, kv_capacity_tokens, weight_bytes
from ultratwin.planning.front import pareto_front, thinned
from ultratwin.planning.search import divisors
from ultratwin.planning.serving.mix import BatchLimits, Load, Speculation
from ultratwin.planning.serving.nodes import Served
from ultratwin.planning.serving.point import open_states
from ultratwin.planning.serving.steady_state import SteadyState
from ultratwin.timing.serving import ServingSetting
from ultratwin.workload.model import LatentAttention, Model, Moe

SHARES: Final = np.concatenate([np.geomspace(0.002, 0.2, 20), np.linspace(0.22, 0.94, 24), [0.955, 0.97, 0.985, 1.0]])
"""Loads that every replica is looked at under, as shares of the most requests that an iteration can end."""
_MANY: Final = ((120, 1), (480, 2), (10**9, 4))
"""Plans, and how many of the loads are left out for so many: every second, three of four."""
ROLE_FRONT: Final = 48
"""Replicas of each role that are combined with each other: so many of all, and so many of those that take least."""
TOKEN_BUDGETS: Final = (2048, 4096, 8192, 16384)
HEADS: Final = "attention heads, or their groups, do not divide among the tensor-parallel ranks"
LAYERS: Final = "more pipeline stages than layers"
EXPERTS: Final = "experts do not divide among the expert-parallel ranks"
DOMAIN: Final = "tensor-parallel ranks reach beyond the scale-up domain"
WEIGHTS: Final = "the weights do not fit into memory"
CACHE: Final = "not one request's keys and values fit beside the weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """What a search is free in. `sizes`: ranks of a replica; fixed sizes of the plan by their name in ServingPlan.

    `groups`: whether attention may have several groups even where they share no experts with each other
    """

    sizes: tuple[int, ...]
    fixed: Mapping[str, int] = dataclasses.field(default_factory=dict)
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    memory_utilization_frac: float | None = None
    groups: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plans:
    """Splits that can run, [plan], and what each can hold; why the others can't, counted; the least missing bytes."""

    plan: ServingPlan
    limits: BatchLimits
    num_ranks: NDArray[np.int64]
    num_candidates: int
    rejected: dict[str, int]
    least_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Replicas at loads, [point]: all plans of a share together. `plan_index`: which of `plans` a point has."""

    setting: ServingSetting
    plans: Plans
    state: SteadyState
    plan_index: NDArray[np.int64]
    num_chips: Array
    """Chips of a replica."""

    @property
    def num_points(self) -> int:
        """How many steady states were computed."""
        return len(self.plan_index)

    def some(self, at: NDArray[np.int64]) -> Points:
        """Some of the points, in that order."""
        state = self.state

        def some(value: Array) -> Array:
            value = np.asarray(value)
            return value[..., at] if value.ndim and value.shape[-1] == self.num_points else value

        mix = dataclasses.replace(
            state.mix, **{each.name: some(getattr(state.mix, each.name)) for each in dataclasses.fields(state.mix)}
        )
        fields = {e.name: some(getattr(state, e.name)) for e in dataclasses.fields(state) if e.name != "mix"}
        return dataclasses.replace(
            self, state=dataclasses.replace(state, **fields, mix=mix), plan_index=self.plan_index[at],
            num_chips=self.num_chips[at],
        )  # fmt: skip

    def one_plan(self, at: int) -> tuple[ServingPlan, BatchLimits]:
        """The plan of a point, as plain ints, and what it may run at once."""
        index, limits = int(self.plan_index[at]), self.plans.limits
        values = {each.name: np.ravel(getattr(limits, each.name)) for each in dataclasses.fields(limits)}
        own = {name: float(value[index if len(value) > 1 else 0]) for name, value in values.items()}
        return self.plans.plan.at(index), BatchLimits(**own)


def role_front(points: Points, time_s: Array, miss: Array) -> NDArray[np.int64]:
    """Replicas of a role that none beats in both its time and its requests per chip.

    They are evenly thinned out; those that take fewest chips and keep their objectives (`miss` is at most 1) all stay.
    """
    chips = points.num_chips / np.maximum(points.state.request_rate, 1e-300)
    front = pareto_front(np.stack([time_s, chips]))
    cheapest = front[miss[front] <= 1.0][-ROLE_FRONT:]  # the front is sorted by time
    # of times that differ by less than a hundredth one is enough to show
    apart = front[pareto_front(np.stack([hundredths(time_s[front]), chips[front]]))]
    return np.union1d(thinned(apart, ROLE_FRONT), cheapest)


def hundredths(time_s: Array) -> Array:
    """The logarithm of times, as coarse as they can be told apart: what differs by less than a hundredth is one."""
    return np.asarray(np.round(np.log(np.maximum(time_s, 1e-9)), 2))


def replica_sizes(pool: Pool, most: int) -> tuple[int, ...]:
    """Sizes of a replica that are tried: powers of two and 3 x 2^k, whole nodes and domains, up to `most` ranks."""
    ranks = per_rank(pool)
    sizes = {2**power * factor for power in range(12) for factor in (1, 3)}
    sizes |= {ranks.domain.size, ranks.chips_per_node}
    return tuple(sorted(size for size in sizes if 1 <= size <= most))


def search_plans(setting: ServingSetting, axes: Axes, load: Load) -> Plans:
    """All splits of all replica sizes that can run, with every token budget.

    Args:
        setting: model, pool, formats, engine; axes: what is free; load: whose context sizes windows and states
    """
    columns = _columns(setting.model, axes)
    total = len(columns["tensor_parallel_size"])
    counted: Counter[str] = Counter()
    keep = _shapes(setting, columns, counted)
    columns = {name: column[keep] for name, column in columns.items()}
    budgets = columns.pop("max_num_batched_tokens")
    plan = ServingPlan(**columns)
    limits, spare = _limits(setting, plan, axes, load, budgets)
    needs = np.asarray(load.prompt_tokens + load.output_tokens, dtype=np.float64)
    fits, holds = spare > 0, np.asarray(limits.kv_tokens) / np.asarray(plan.attention_data_parallel_size) >= needs
    for reason, count in ((WEIGHTS, np.count_nonzero(~fits)), (CACHE, np.count_nonzero(fits & ~holds))):
        if count:
            counted[reason] += int(count)
    at = np.flatnonzero(fits & holds)
    chosen = ServingPlan(**{name: column[at] for name, column in columns.items()})
    return Plans(
        plan=chosen,
        limits=dataclasses.replace(
            limits, kv_tokens=np.asarray(limits.kv_tokens)[at], max_num_batched_tokens=budgets[at].astype(np.float64)
        ),
        num_ranks=np.asarray(chosen.num_ranks),
        num_candidates=total,
        rejected=dict(counted.most_common()),
        least_bytes=float(np.min(-spare, where=~fits, initial=np.inf)),
    )


def _columns(model: Model, axes: Axes) -> dict[str, NDArray[np.int64]]:
    """Every combination of sizes whose product is a replica's, as arrays."""
    experts = num_experts(model)
    shared = (
        axes.groups or experts > 1 or any(isinstance(each.attention, LatentAttention) for each in model.layer_kinds())
    )
    budgets = TOKEN_BUDGETS if axes.max_num_batched_tokens is None else (axes.max_num_batched_tokens,)

    def tried(name: str, values: Sequence[int]) -> Sequence[int]:
        return [axes.fixed[name]] if name in axes.fixed else values

    rows = []
    for size in axes.sizes:
        for tensor in tried("tensor_parallel_size", divisors(size)):
            for data in tried("attention_data_parallel_size", divisors(size) if shared else [1]):
                stages = size // max(tensor * data, 1)
                if tensor * data * stages != size or stages not in tried("pipeline_parallel_size", [stages]):
                    continue
                ways = sorted({1, tensor * data}) if experts > 1 else [1]
                for expert in tried("expert_parallel_size", ways):
                    rows += [(tensor, stages, data, expert, budget) for budget in budgets]
    names = ("tensor_parallel_size", "pipeline_parallel_size", "attention_data_parallel_size", "expert_parallel_size",
             "max_num_batched_tokens")  # fmt: skip
    table = np.array(rows, dtype=np.int64).reshape(-1, len(names))
    return {name: table[:, at] for at, name in enumerate(names)}


def _shapes(
    setting: ServingSetting, columns: Mapping[str, NDArray[np.int64]], counted: Counter[str]
) -> NDArray[np.intp]:
    """Combinations whose sizes divide what they split; the others are counted, each under its first reason."""
    model, domain = setting.model, per_rank(setting.pool).domain.size
    tensor, stages = columns["tensor_parallel_size"], columns["pipeline_parallel_size"]
    keep = np.ones(len(tensor), dtype=bool)
    for reason, good in (
        (DOMAIN, tensor <= domain),
        (HEADS, tensor_divides(model, tensor)),
        (LAYERS, stages <= model.num_layers),
        (EXPERTS, num_experts(model) % columns["expert_parallel_size"] == 0),
    ):
        count = int(np.count_nonzero(keep & ~good))
        if count:
            counted[reason] += count
        keep &= good
    return np.flatnonzero(keep)


def tensor_divides(model: Model, tensor: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether tensor-parallel ranks share heads evenly: each has as many, and key heads divide or repeat."""
    good = np.ones(np.shape(tensor), dtype=bool)
    for layer in model.layer_kinds():
        heads = int(getattr(layer.attention, "num_heads", 0))
        groups = int(getattr(layer.attention, "num_kv_heads", 0)) or heads
        if heads:
            good &= heads % tensor == 0
            good &= (groups % tensor == 0) | (tensor % max(groups, 1) == 0)
    return good


def num_experts(model: Model) -> int:
    """Routed experts of a layer; 1 where the model has none."""
    return max((each.mlp.num_experts for each in model.layer_kinds() if isinstance(each.mlp, Moe)), default=1)


def _limits(
    setting: ServingSetting, plan: ServingPlan, axes: Axes, load: Load, budgets: NDArray[np.int64]
) -> tuple[BatchLimits, Array]:
    """Batch limits of each plan, and the bytes that its weights leave free."""
    chip, engine = per_rank(setting.pool).chip, setting.engine
    data = np.asarray(plan.attention_data_parallel_size, dtype=np.float64)
    used = engine.memory_utilization_frac if axes.memory_utilization_frac is None else axes.memory_utilization_frac
    per_group = kv_capacity_tokens(
        setting.model, chip, setting.formats, plan, engine, max_num_batched_tokens=budgets / data,
        memory_utilization_frac=used, typical_context=float(np.mean(load.decode_context)),
    )  # fmt: skip
    sequences = float(engine.max_num_seqs) if axes.max_num_seqs is None else float(axes.max_num_seqs)
    spare = used * np.asarray(chip.memory_bytes) - weight_bytes(setting.model, setting.formats, plan)
    return (
        BatchLimits(
            max_num_seqs=sequences,
            max_num_batched_tokens=budgets.astype(np.float64),
            kv_tokens=np.asarray(per_group) * data,
            block_size=float(engine.block_size),
        ),
        np.asarray(spare),
    )


def some_plans(plans: Plans, at: NDArray[np.int64]) -> Plans:
    """Some of the plans, in that order."""

    def some(value: Number) -> Array:
        value = np.asarray(value)
        return value[at] if value.ndim else value

    limits = {each.name: some(getattr(plans.limits, each.name)) for each in dataclasses.fields(plans.limits)}
    return dataclasses.replace(
        plans, plan=sizes_at(plans.plan, at), num_ranks=plans.num_ranks[at], limits=BatchLimits(**limits)
    )


def sizes_at(plan: ServingPlan, at: NDArray[np.int64]) -> ServingPlan:
    """Some of arrays of plans, in that order."""
    values = {each.name: np.asarray(getattr(plan, each.name)) for each in dataclasses.fields(plan)}
    return ServingPlan(**{name: value[at] if value.ndim else value for name, value in values.items()})


def search_shares(num_plans: int) -> Array:
    """The loads that so many plans are looked at under; the highest is always among them."""
    step = next(step for most, step in _MANY if num_plans <= most)
    return SHARES[::-1][::step][::-1]


def search_points(
    setting: ServingSetting, plans: Plans, load: Load, speculation: Speculation, *, burstiness: float = 1.0,
    total_rate: float | None = None,
) -> Points:  # fmt: skip
    """The steady state of every plan under many shares of the most that it can serve.

    Args: total_rate: of the fleet, which replicas share evenly [1/s]; None: each stands alone
    """
    shares = search_shares(len(plans.num_ranks))
    served = Served(setting=setting, load=load, speculation=speculation)
    state = open_states(served, plans.plan, plans.limits, shares, burstiness, total_rate)
    count = len(plans.num_ranks)
    return Points(
        setting=setting,
        plans=plans,
        state=state,
        plan_index=np.tile(np.arange(count), len(shares)),
        num_chips=np.tile(plans.num_ranks / setting.pool.ranks_per_chip, len(shares)),
    )
