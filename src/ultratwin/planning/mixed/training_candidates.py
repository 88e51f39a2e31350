"""Layouts of a job on two kinds of chips that a search tries, in batches [1, candidate] (a grid of one row).

Stages: rows of layouts for the stages of each kind, paired where they take equally many sequences at once; the pairs
whose balanced stages are fastest first; for each pair the divisions of the layers close to the balance.
Groups: the best layouts of each kind alone, every pair, with the shares of micro-batches that end together.
Tensor: every layout whose tensor-parallel groups have half of their ranks on each kind.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.chip import Array
from ultratwin.hardware.system import per_rank
from ultratwin.mapping.feasible import shape_reasons
from ultratwin.mapping.memory import activation_bytes
from ultratwin.mapping.plan import Plan, stack_plans
from ultratwin.mapping.schedules import SCHEDULE_NAMES, by_schedule
from ultratwin.mapping.sharding import shard, weights
from ultratwin.planning.evaluate import Setting
from ultratwin.planning.front import pareto_front
from ultratwin.planning.mixed.training_stages import STAGE_SCHEDULES
from ultratwin.planning.mixed.training_step import MixedPlan
from ultratwin.planning.search import divisors, layouts, options
from ultratwin.timing.step import step_times
from ultratwin.workload.tables import operator_tables

Integers = NDArray[np.int64]
PAIRS: Final = 3_072
"""Pairs of layouts in a batch: times the divisions of the layers about 32,768 candidates, as in planning/search.py."""
ROWS: Final = 8
"""Layouts that are kept for so many stages and sequences at once: of those that no other beats in time and memory."""
CHUNKS: Final = (2, 3, 4, 6, 8)
"""Model chunks per stage that interleaved schedules are tried with."""
AROUND: Final = np.array([-1, 0, 1, 2])
"""Layers per stage, or micro-batches, that are tried around the balance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Layouts for some stages on one kind, each [row].

    layer_s: one layer's micro-batch; state_bytes: of a layer, with its optimizer state; saved_bytes: activations of a
    layer and micro-batch; room_bytes: of a rank
    """

    columns: Mapping[str, Integers]
    layer_s: Array
    state_bytes: Array
    saved_bytes: Array
    room_bytes: float

    @property
    def wave(self) -> Integers:
        """Sequences that all replicas take at once."""
        return self.columns["micro_batch_size"] * self.columns["data_parallel_size"]

    def at(self, index: Integers) -> Rows:
        """Some of the rows."""
        return dataclasses.replace(
            self,
            columns={name: column[index] for name, column in self.columns.items()},
            layer_s=self.layer_s[index],
            state_bytes=self.state_bytes[index],
            saved_bytes=self.saved_bytes[index],
        )


def plain_zero_stage(setting: Setting, fixed: Mapping[str, int]) -> int:
    """The ZeRO stage of mixed layouts: optimizer state sharded, if the framework has that, else its first."""
    if "zero_stage" in fixed:
        return fixed["zero_stage"]
    stages = [each for each in setting.profile.zero_stages if each in setting.profile.pipeline_zero_stages]
    return 1 if 1 in stages or not stages else stages[0]


def stage_rows(setting: Setting, ranks: int, fixed: Mapping[str, int]) -> Rows | None:
    """Layouts of some pipeline stages on all ranks of a kind; None if none can be laid out."""
    free = {name: each for name, each in fixed.items() if name not in _PIPELINE}
    plain = _plain_schedule(setting)
    axes = options(setting, ranks, free) | {"schedule": [plain], "virtual_pipeline_size": [1]}
    found = []
    for columns in layouts(axes, ranks, {}):
        columns = {**columns, **{name: np.array([each]) for name, each in free.items()}}
        columns |= {"zero_stage": np.array([plain_zero_stage(setting, fixed)])}
        kept = _laid_out(setting, columns, ranks, fixed)
        if kept is not None:
            found.append(kept)
    if not found:
        return None
    joined = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    again = np.asarray(axes["recompute"], dtype=np.int64)
    size = len(joined["micro_batch_size"])
    joined = {name: np.tile(column, len(again)) for name, column in joined.items()}
    return _fronts(_costed(setting, joined | {"recompute": np.repeat(again, size)}))


_PIPELINE: Final = ("pipeline_parallel_size", "virtual_pipeline_size", "schedule")


def _plain_schedule(setting: Setting) -> int:
    names = [name for name in setting.profile.schedules if name in STAGE_SCHEDULES and name != "interleaved"]
    return SCHEDULE_NAMES.index(names[0] if names else "1f1b")


def _laid_out(
    setting: Setting, columns: Mapping[str, Any], ranks: int, fixed: Mapping[str, int]
) -> dict[str, Integers] | None:
    """The columns of the layouts whose sizes divide, all of one length; None if there are none."""
    size = len(columns["data_parallel_size"])
    full = {name: np.broadcast_to(column, (size,)) for name, column in columns.items()}
    domain = 0.0 if "tensor_parallel_size" in fixed else float(per_rank(setting.pool).domain.size)
    codes = np.broadcast_to(shape_reasons(setting.model, Plan(**full), ranks, domain_size=domain), (size,))
    alive = np.flatnonzero(codes == 0)
    return {name: column[alive] for name, column in full.items()} if len(alive) else None


def _costed(setting: Setting, columns: dict[str, Integers]) -> Rows:
    """What a layer takes under each layout: time, and memory by its two kinds."""
    plan, profile = Plan(**columns), setting.profile
    times = step_times(setting.model, setting.pool, as_grid(plan), setting.recipe, profile)
    tables = operator_tables(setting.model)
    held = weights(tables, plan, profile.vocab_multiple)
    saved, _ = activation_bytes(tables, plan, shard(plan, tables.vocab_size, profile.vocab_multiple), profile)
    ways = np.asarray(plan.expert_parallel_size) * plan.expert_tensor_parallel_size
    copies = np.maximum(np.asarray(plan.tensor_parallel_size) * plan.data_shard_size // ways, 1)
    sharded = np.asarray(plan.zero_stage) > 0
    kept = profile.parameter_bytes + profile.gradient_bytes
    state = (held.layer_dense + held.layer_expert) * kept + profile.optimizer_bytes * (
        held.layer_dense / np.where(sharded, plan.zero_shard_size, 1) + held.layer_expert / np.where(sharded, copies, 1)
    )
    shape = columns["micro_batch_size"].shape
    room = float(per_rank(setting.pool).chip.memory_bytes) - float(profile.context_bytes)
    return Rows(
        columns=columns,
        layer_s=np.broadcast_to(times.layer.total, (1, *shape))[0],
        state_bytes=np.broadcast_to(state, shape),
        saved_bytes=np.broadcast_to(saved, shape),
        room_bytes=room / (1.0 + float(profile.allocator_frac)),
    )


def as_grid(plan: Plan) -> Plan:
    """Plans [candidate] as a grid [1, candidate], in which layers that are alike are timed once."""
    sizes = {each.name: np.asarray(getattr(plan, each.name)) for each in dataclasses.fields(plan)}
    return Plan(**{name: size[None] if size.ndim else size for name, size in sizes.items()})


def _fronts(rows: Rows) -> Rows:
    """Of the rows with equally many stages and sequences at once, some that no other beats in time and memory."""
    stages = rows.columns["pipeline_parallel_size"]
    values = np.stack([rows.layer_s, rows.state_bytes, rows.saved_bytes])
    order = np.lexsort((rows.layer_s, stages, rows.wave))
    key = np.stack([rows.wave[order], stages[order]])
    starts = np.flatnonzero(np.r_[True, np.any(key[:, 1:] != key[:, :-1], axis=0)])
    kept = []
    for begin, end in zip(starts, [*starts[1:], len(order)], strict=True):
        group = order[begin:end]
        front = group[pareto_front(values[:, group])]
        spaced = np.unique(np.linspace(0, len(front) - 1, min(ROWS, len(front))).round().astype(int))
        kept.append(front[spaced])
    return rows.at(np.concatenate(kept))


def staged_batches(
    sides: Sequence[Setting], rows: Sequence[Rows], fixed: Mapping[str, int], schedule: int, chunks: int,
    *, wanted: int | None = None, most_s: Callable[[], float] = lambda: float("inf"),
) -> Iterator[MixedPlan]:  # fmt: skip
    """Plans of one pipeline over both kinds in this order, in batches, those that seem fastest first.

    Args: wanted: layers of the first kind, where they are given; most_s: what can't be faster is left out [s]
    """
    layers, batch = sides[0].model.num_layers, fixed["global_batch_size"]
    first, second = _paired(*rows, layers=layers // chunks, wanted=fixed.get("pipeline_parallel_size"))
    if not len(first.layer_s):
        return
    split, step = _balanced(first, second, layers, batch, schedule, chunks, wanted)
    order = np.argsort(step, kind="stable")
    order = order[: np.count_nonzero(np.isfinite(step))]
    # a small batch first: what it finds spares most of the rest
    for begin, end in itertools.pairwise((0, *range(PAIRS // 8, len(order) + PAIRS, PAIRS))):
        at = order[begin:end]
        at = at[step[at] <= most_s()]
        if not len(at):
            return
        a, b = first.at(at), second.at(at)
        near = _divisions(a, b, split[at], layers, chunks) if wanted is None else np.full((len(at), 1), wanted)
        ways = near.shape[1]
        more = {"schedule": np.array(schedule), "virtual_pipeline_size": np.array(chunks)}
        plans = tuple(
            as_grid(Plan(**{**{name: np.repeat(c, ways) for name, c in each.columns.items()}, **more}))
            for each in (a, b)
        )
        held = near.reshape(1, -1)
        yield MixedPlan(sides=plans, layers=(held, layers - held))


def _paired(first: Rows, second: Rows, *, layers: int, wanted: int | None) -> tuple[Rows, Rows]:
    """Every pair of rows that take equally many sequences at once, with no more stages than layers."""
    left, right = [], []
    for wave in np.intersect1d(first.wave, second.wave):
        i, j = np.flatnonzero(first.wave == wave), np.flatnonzero(second.wave == wave)
        left.append(np.repeat(i, len(j)))
        right.append(np.tile(j, len(i)))
    none = np.zeros(0, dtype=np.int64)
    i, j = (np.concatenate([*each, none]) for each in (left, right))
    stages = first.columns["pipeline_parallel_size"][i] + second.columns["pipeline_parallel_size"][j]
    good = (stages <= layers) if wanted is None else (stages == wanted)
    return first.at(i[good]), second.at(j[good])


def _balanced(
    first: Rows, second: Rows, layers: int, batch: int, schedule: int, chunks: int, wanted: int | None
) -> tuple[Array, Array]:
    """Layers of the first kind with which both kinds' stages take equally long, if memory allows; and the step's time.

    Equation: L_1 = L (p_1 / t_1) / (p_1 / t_1 + p_2 / t_2), between what memory asks for; T = (m + (p - 1) / v) t
    Returns: layers, not rounded, and seconds without what beside the layers takes time; infinite if nothing fits
    """
    one, two = first.columns["pipeline_parallel_size"], second.columns["pipeline_parallel_size"]
    stages, micro_batches = one + two, (batch // first.wave).astype(np.float64)
    most = []
    for rows, own, before in ((first, one, 0), (second, two, one)):
        flying = by_schedule(
            np.array(schedule), "micro_batches_in_flight", before, stages, micro_batches, np.array(chunks)
        )
        most.append(own * np.floor(rows.room_bytes / (rows.state_bytes + rows.saved_bytes * flying)))
    low, high = np.maximum(layers - most[1], 1), np.minimum(most[0], layers - 1)
    speed = one / first.layer_s, two / second.layer_s
    split = np.clip(layers * speed[0] / (speed[0] + speed[1]), low, np.maximum(high, low))
    split = split if wanted is None else np.full_like(split, wanted)
    slowest = np.maximum(split / speed[0], (layers - split) / speed[1])
    step = (micro_batches + (stages - 1) / chunks) * slowest
    return split, np.where(low <= high, step, np.inf)


def _divisions(first: Rows, second: Rows, split: Array, layers: int, chunks: int) -> Integers:
    """Layers of the first kind close to a balance, [pair, division]: full stages of either kind, and the nearest."""
    found = []
    for rows, share in ((first, split), (second, layers - split)):
        stages = rows.columns["pipeline_parallel_size"]
        full = (np.floor(share / stages / chunks)[:, None] + AROUND) * (chunks * stages)[:, None]
        found.append(full if rows is first else layers - full)
    found += [np.floor(split)[:, None], np.ceil(split)[:, None]]
    return np.asarray(np.clip(np.concatenate(found, axis=1), 1, layers - 1), dtype=np.int64)


def grouped_batch(sides: Sequence[Setting], best: Sequence[Sequence[Plan]], batch: int) -> MixedPlan:
    """Every pair of layouts of both kinds, with the shares of the global batch that end about together.

    Equation: m_1 t_1 + b_1 = m_2 t_2 + b_2, m_1 w_1 + m_2 w_2 = G
    Symbols: m micro-batches, t the slowest stage, b bubble, w sequences at once, G global batch; m_2 is rounded up:
        some replicas of the second kind are a micro-batch short
    """
    plans = [stack_plans(each) for each in best]
    i, j = (each.ravel() for each in np.meshgrid(*(np.arange(len(each)) for each in best), indexing="ij"))
    at = (np.repeat(i, len(AROUND)), np.repeat(j, len(AROUND)))
    slowest, bubble, wave, unit = [], [], [], []
    for setting, plan, index in zip(sides, plans, at, strict=True):
        times = step_times(setting.model, setting.pool, plan, setting.recipe, setting.profile)
        slowest.append(np.broadcast_to(times.timing.slowest_s, plan.shape)[index])
        bubble.append(np.broadcast_to(times.once["pipeline bubble"], plan.shape)[index])
        wave.append((np.asarray(plan.micro_batch_size) * plan.data_parallel_size)[index])
        # interleaved schedules take groups of as many micro-batches as there are stages
        unit.append(np.where(np.asarray(plan.virtual_pipeline_size) > 1, plan.pipeline_parallel_size, 1)[index])
    rate = slowest[1] / wave[1]
    balance = (batch * rate + bubble[1] - bubble[0]) / (slowest[0] + wave[0] * rate)
    near = np.tile(AROUND, len(i))
    ones = np.clip((np.floor(balance / unit[0]) + near) * unit[0], unit[0], None)
    twos = np.ceil(np.maximum(batch - ones * wave[0], 1) / (wave[1] * unit[1])) * unit[1]
    found = []
    for plan, index, count, own in zip(plans, at, (ones, twos), wave, strict=True):
        columns = {each.name: np.asarray(getattr(plan, each.name))[index] for each in dataclasses.fields(plan)}
        columns["global_batch_size"] = (count * own).astype(np.int64)
        found.append(as_grid(Plan(**columns)))
    layers = sides[0].model.num_layers
    return MixedPlan(sides=tuple(found), layers=(layers, layers))


def tensor_batches(sides: Sequence[Setting], ranks: int, fixed: Mapping[str, int]) -> Iterator[Plan]:
    """Layouts whose tensor-parallel groups have half of their ranks on each kind; one size of them in a batch."""
    setting = sides[0]
    narrow = min(int(per_rank(each.pool).domain.size) for each in sides)
    free = {name: each for name, each in fixed.items() if name != "tensor_parallel_size"}
    sizes = [each for each in divisors(ranks) if each % 2 == 0 and each <= 2 * narrow and each & (each - 1) == 0]
    asked = fixed.get("tensor_parallel_size")
    for size in sizes if asked is None else [asked] * (asked % 2 == 0):
        given = {**free, "tensor_parallel_size": size}
        axes = options(setting, ranks, given)
        axes = axes | {"virtual_pipeline_size": [1], "schedule": [_plain_schedule(setting)]}
        for columns in layouts(axes, ranks, {}):
            columns = {**columns, **{name: np.array([each]) for name, each in free.items()}}
            columns |= {"zero_stage": np.array([plain_zero_stage(setting, fixed)])}
            kept = _laid_out(setting, columns, ranks, {"tensor_parallel_size": size})
            if kept is None:
                continue
            again = np.asarray(axes["recompute"], dtype=np.int64)
            for begin in range(0, len(kept["micro_batch_size"]), PAIRS):
                some = {name: np.tile(column[begin : begin + PAIRS], len(again)) for name, column in kept.items()}
                some["recompute"] = np.repeat(again, len(some["micro_batch_size"]) // len(again))
                yield as_grid(Plan(**some))


__all__ = [
    "Rows", "as_grid", "grouped_batch", "plain_zero_stage", "stage_rows", "staged_batches", "tensor_batches",
]  # fmt: skip
