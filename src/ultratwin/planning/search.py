"""All layouts of a model on so many chips, evaluated array-first; the best, the front, and how flat the optimum is."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.chip import Array
from ultratwin.hardware.system import per_rank
from ultratwin.mapping.feasible import OUT_OF_MEMORY, REASONS, memory_fits, shape_reasons
from ultratwin.mapping.plan import Plan
from ultratwin.mapping.profile import Profile
from ultratwin.mapping.schedules import SCHEDULE_NAMES
from ultratwin.planning.evaluate import Setting, plan_memory
from ultratwin.planning.power.chip import step_energy_j
from ultratwin.planning.shortlist import Candidate, Flatness, Shortlist
from ultratwin.timing.step import step_times
from ultratwin.workload.model import Model, Moe

CHUNK: Final = 32_768
"""Candidates evaluated at once: few enough that their arrays stay in a core's cache."""
MICRO_BATCHES: Final = (1, 2, 4, 8)
GRID_AXES: Final = ("zero_stage", "recompute")
"""Axes that every layout is combined with, as axes of a grid: what doesn't depend on them is computed once."""
ONE_MICRO_BATCH: Final = "gradient shards (ZeRO 2) are only searched with one micro-batch, as each would be reduced"
NO_AXES: Final[Mapping[str, Sequence[int]]] = {}
NOT_ACROSS_A_PIPELINE: Final = "the framework has this ZeRO stage only without a pipeline"
_COLUMNS: Final = 131_072


def divisors(value: int) -> list[int]:
    """All divisors, ascending.

    Example:
        >>> divisors(12)
        [1, 2, 3, 4, 6, 12]
    """
    small = [i for i in range(1, int(value**0.5) + 1) if value % i == 0]
    return sorted({*small, *(value // i for i in small)})


def options(
    setting: Setting, num_ranks: int, fixed: Mapping[str, int], wanted: Mapping[str, Sequence[int]] = NO_AXES
) -> dict[str, Sequence[int]]:
    """The values that a search tries on each axis: the fixed one, those that are wanted, or the usual ones."""
    model = setting.model
    domain_size = int(per_rank(setting.pool).domain.size)
    experts = _num_experts(model)
    powers = [2**i for i in range(12)]
    axes: dict[str, Sequence[int]] = {
        "schedule": [SCHEDULE_NAMES.index(name) for name in setting.profile.schedules],
        "tensor_parallel_size": [
            size for size in divisors(num_ranks) if size <= domain_size and size in (*powers, 3, 6, 12, 24)
        ],
        "pipeline_parallel_size": [size for size in divisors(num_ranks) if size <= model.num_layers],
        "virtual_pipeline_size": [1, *(v for v in divisors(model.num_layers) if 1 < v <= 16)],
        "context_parallel_size": [size for size in powers[:6] if num_ranks % size == 0],
        "expert_parallel_size": [size for size in divisors(experts) if num_ranks % size == 0],
        "expert_tensor_parallel_size": powers[:4] if experts > 1 else [1],
        "micro_batch_size": MICRO_BATCHES,
        "zero_stage": setting.profile.zero_stages,
        "recompute": [0, 1, 2],
    }
    return {name: [fixed[name]] if name in fixed else values for name, values in (axes | dict(wanted)).items()}


def _num_experts(model: Model) -> int:
    return max((layer.mlp.num_experts for layer in model.layer_kinds() if isinstance(layer.mlp, Moe)), default=1)


def layouts(
    axes: Mapping[str, Sequence[int]], num_ranks: int, fixed: Mapping[str, int]
) -> Iterator[dict[str, NDArray[np.int64]]]:
    """All combinations of the options but GRID_AXES whose sizes divide the ranks, in arrays [layout] of one schedule.

    A pipeline of one stage has no schedule and no chunks, chunks belong to the interleaved one, and experts are split
    by no more tensor ranks than there are: what else the options allow is the same layout again, or none.
    """
    axes = {name: each for name, each in axes.items() if name not in GRID_AXES}
    schedules = axes.pop("schedule")
    interleaved = SCHEDULE_NAMES.index("interleaved")
    names, sizes = list(axes), [len(each) for each in axes.values()]
    values = [np.asarray(each, dtype=np.int64) for each in axes.values()]
    for at, schedule in enumerate(schedules):
        for start in range(0, int(np.prod(sizes)), _COLUMNS):
            index = np.unravel_index(np.arange(start, min(start + _COLUMNS, int(np.prod(sizes)))), sizes)
            columns = {name: value[i] for name, value, i in zip(names, values, index, strict=True)}
            pipeline, chunks = columns["pipeline_parallel_size"], columns["virtual_pipeline_size"]
            keep = num_ranks % (columns["tensor_parallel_size"] * pipeline * columns["context_parallel_size"]) == 0
            keep &= columns["expert_tensor_parallel_size"] <= columns["tensor_parallel_size"]
            if "schedule" not in fixed:
                keep &= (chunks > 1) == (schedule == interleaved)
                if at != _first_plain(schedules):
                    keep &= pipeline > 1
            kept = {name: column[keep] for name, column in columns.items()} | {"schedule": np.array([schedule])}
            yield _laid_out(kept, num_ranks, fixed)


def _first_plain(schedules: Sequence[int]) -> int:
    """Where the schedule stands that layouts without a pipeline are counted under."""
    plain = [at for at, each in enumerate(schedules) if each != SCHEDULE_NAMES.index("interleaved")]
    return plain[0] if plain else 0


def _laid_out(
    columns: dict[str, NDArray[np.int64]], num_ranks: int, fixed: Mapping[str, int]
) -> dict[str, NDArray[np.int64]]:
    """Derives data and sequence parallelism, and adds what is fixed."""
    tensor = columns["tensor_parallel_size"]
    data = num_ranks // (tensor * columns["pipeline_parallel_size"] * columns["context_parallel_size"])
    derived = {"data_parallel_size": data, "sequence_parallel": (tensor > 1).astype(np.int64)}
    columns |= {name: value for name, value in derived.items() if name not in {**fixed, **columns}}
    return columns | {
        name: np.array([value]) for name, value in fixed.items() if name not in columns and name not in GRID_AXES
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search found: the best plans, best first, and why the others cannot run.

    `front` holds the plans that no other beats in step time, energy and memory at once, fastest first; `flatness` what
    the plans close to the best share. `rejected` counts candidates by reason. `least_memory_bytes` is of those that do
    not fit.
    """

    best: tuple[Candidate, ...]
    front: tuple[Candidate, ...]
    flatness: Flatness
    num_candidates: int
    num_feasible: int
    rejected: dict[str, int]
    least_memory_bytes: float

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The best plans."""
        return tuple(each.plan for each in self.best)

    @property
    def step_s(self) -> tuple[float, ...]:
        """Their step times."""
        return tuple(each.step_s for each in self.best)

    @property
    def memory_bytes(self) -> tuple[float, ...]:
        """Memory of their fullest ranks."""
        return tuple(each.memory_bytes for each in self.best)


def search(
    setting: Setting,
    num_ranks: int,
    fixed: Mapping[str, int],
    *,
    wanted: Mapping[str, Sequence[int]] = NO_AXES,
    keep: int = 10,
    objective: str = "time",
) -> Found:
    """The best layouts of a model on a pool: every combination of the options is evaluated or proved impossible.

    A layout that fits under no combination of GRID_AXES is not timed; nothing else is left out.
    Args:
        setting: model, pool, number formats, framework
        num_ranks: ranks to use
        fixed: axes that are given, by their name in Plan (batch and sequence length always are)
        wanted: values to try on some axes instead of the usual ones
        keep: how many plans to return
        objective: what is to be least: "time", or "energy" (cost and carbon follow them at a given size)
    Returns: best first; ties go to the plan with less memory, then the smaller sizes in the order of Plan's fields
    """
    axes = options(setting, num_ranks, fixed, wanted)
    grid = {
        "zero_stage": np.asarray(axes["zero_stage"], dtype=np.int64)[:, None, None],
        "recompute": np.asarray(axes["recompute"], dtype=np.int64)[:, None],
    }
    ways = len(axes["zero_stage"]) * len(axes["recompute"])
    counted: Counter[str] = Counter()
    shortlist = Shortlist(keep=keep, objective=objective)
    total, least = 0, np.inf
    domain = 0.0 if "tensor_parallel_size" in fixed else float(per_rank(setting.pool).domain.size)
    for columns in layouts(axes, num_ranks, fixed):
        size = len(columns["data_parallel_size"])
        total += size * ways
        codes = np.broadcast_to(shape_reasons(setting.model, Plan(**columns), num_ranks, domain_size=domain), (size,))
        counts = np.bincount(codes, minlength=len(REASONS)) * ways
        counted.update({REASONS[code]: int(n) for code, n in enumerate(counts) if code and n})
        alive = np.flatnonzero(codes == 0)
        for start in range(0, len(alive), max(CHUNK // ways, 1)):
            chosen = _taken(columns, alive[start : start + max(CHUNK // ways, 1)])
            least = min(
                least, _evaluated(setting, Plan(**chosen, **grid), counted, shortlist, free="zero_stage" not in fixed)
            )
    feasible = total - sum(counted.values())
    return Found(
        best=shortlist.best(),
        front=shortlist.front(),
        flatness=shortlist.flatness(),
        num_candidates=total,
        num_feasible=feasible,
        rejected=dict(counted.most_common()),
        least_memory_bytes=float(least),
    )


def _taken(columns: Mapping[str, Array | NDArray[np.int64]], at: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    return {name: column[at] if len(column) > 1 else column for name, column in columns.items()}  # type: ignore[misc]


def _evaluated(setting: Setting, plan: Plan, counted: Counter[str], shortlist: Shortlist, *, free: bool) -> float:
    """Memory of a grid of plans [zero, recompute, layout], then time of those that fit; returns the least that doesn't.

    `free`: ZeRO's stage is the search's own choice.
    """
    shape = plan.shape
    memory = np.broadcast_to(
        np.asarray(plan_memory(setting.model, setting.recipe, setting.profile, plan).total_bytes), shape
    )
    fits = memory_fits(memory, per_rank(setting.pool))
    allowed = _allowed(setting.profile, plan, counted) if free else np.ones((), dtype=bool)
    feasible = fits & allowed
    too_much = int(np.count_nonzero(allowed & ~fits))
    if too_much:
        counted[REASONS[OUT_OF_MEMORY]] += too_much
    least = float(np.min(memory, where=~fits, initial=np.inf)) if too_much else np.inf
    alive = np.flatnonzero(feasible.any(axis=(0, 1)))
    if len(alive) == 0:
        return least
    if len(alive) < shape[-1]:
        sizes = {each.name: np.asarray(getattr(plan, each.name)) for each in dataclasses.fields(plan)}
        plan = Plan(
            **{name: size[..., alive] if size.ndim and size.shape[-1] > 1 else size for name, size in sizes.items()}
        )
        memory, feasible = memory[..., alive], feasible[..., alive]
    times = step_times(setting.model, setting.pool, plan, setting.recipe, setting.profile)
    step = np.where(feasible, times.total_s, np.inf)
    energy = step_energy_j(times, setting.pool)
    shortlist.add(plan, step, np.broadcast_to(np.asarray(energy), step.shape), memory)
    return least


def _allowed(profile: Profile, plan: Plan, counted: Counter[str]) -> NDArray[np.bool_]:
    """Which plans of a grid have a stage of ZeRO that the search may choose; the others are counted."""
    stage = np.asarray(plan.zero_stage)
    alone = np.asarray(plan.pipeline_parallel_size) == 1
    across = alone | np.isin(stage, profile.pipeline_zero_stages)
    once = (stage != 2) | (np.asarray(plan.num_micro_batches) == 1)
    for reason, barred in ((NOT_ACROSS_A_PIPELINE, ~across), (ONE_MICRO_BATCH, across & ~once)):
        count = int(np.count_nonzero(np.broadcast_to(barred, plan.shape)))
        if count:
            counted[reason] += count
    return np.asarray(across & once)
