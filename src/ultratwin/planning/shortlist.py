"""What a search keeps of what it has seen: the best plans, those close to the best, and the Pareto front."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.chip import Array
from ultratwin.mapping.plan import Plan
from ultratwin.planning.front import pareto_front

WITHIN_FRAC: Final = 0.03
"""Plans so close to the best count as equally good: less than the twin's own error tells apart."""
_AXES: Final = tuple(each.name for each in dataclasses.fields(Plan))
_STEP, _ENERGY, _MEMORY = range(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A plan with its step time, the energy of a step (per chip, with its share of host and network) and its memory."""

    plan: Plan
    step_s: float
    energy_j: float
    memory_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Flatness:
    """How many plans lie within WITHIN_FRAC of the best, and the values that each axis has among them."""

    num_plans: int
    values: dict[str, tuple[int, ...]]

    @property
    def shared(self) -> dict[str, int]:
        """The axes on which all of them agree."""
        return {axis: values[0] for axis, values in self.values.items() if len(values) == 1}


class _Kept:
    """Plans [axis, kept] and their values [value, kept]: step, energy, memory."""

    def __init__(self) -> None:
        self.plans: NDArray[np.int64] = np.empty((len(_AXES), 0), dtype=np.int64)
        self.values: Array = np.empty((3, 0))

    def join(self, plans: NDArray[np.int64], values: Array) -> None:
        self.plans = np.concatenate([self.plans, plans], axis=1)
        self.values = np.concatenate([self.values, values], axis=1)

    def keep(self, at: NDArray[np.int64]) -> None:
        self.plans, self.values = self.plans[:, at], self.values[:, at]

    def candidates(self) -> tuple[Candidate, ...]:
        return tuple(
            Candidate(
                plan=Plan(**dict(zip(_AXES, map(int, plan), strict=True))),
                step_s=float(values[_STEP]), energy_j=float(values[_ENERGY]), memory_bytes=float(values[_MEMORY]),
            )
            for plan, values in zip(self.plans.T, self.values.T, strict=True)
        )  # fmt: skip


class Shortlist:
    """The best `keep` plans by an objective, those within WITHIN_FRAC of the best, and the front of all three values.

    Chunks of plans are added in turn; what is kept does not depend on how they were cut.
    """

    def __init__(self, *, keep: int, objective: str) -> None:
        self._keep = keep
        self._objective = _ENERGY if objective in ("energy", "carbon") else _STEP
        self._near, self._front = _Kept(), _Kept()
        self._limit = np.inf

    def add(self, plan: Plan, step_s: Array, energy_j: Array, memory_bytes: Array) -> None:
        """Adds plans, all of the shape of `step_s`, which is infinite where a plan can't run."""
        feasible = np.flatnonzero(np.isfinite(step_s))
        if len(feasible) == 0:
            return
        shape = step_s.shape
        values = np.stack([each.ravel()[feasible] for each in (step_s, energy_j, memory_bytes)])
        near = np.flatnonzero(values[self._objective] <= self._cut(values[self._objective]))
        self._near.join(_columns(plan, feasible[near], shape), values[:, near])
        self._trim()
        front = pareto_front(values)
        self._front.join(_columns(plan, feasible[front], shape), values[:, front])
        self._front.keep(pareto_front(self._front.values))

    def _cut(self, seen: Array) -> float:
        """No plan above it can be among the kept ones."""
        kth = np.partition(seen, self._keep - 1)[self._keep - 1] if len(seen) > self._keep else np.inf
        return min(self._limit, max(float(kth), float(seen.min()) * (1 + WITHIN_FRAC)))

    def _trim(self) -> None:
        """Sorts by objective, memory, sizes; drops what is neither among the first nor close to the best."""
        goal = self._near.values[self._objective]
        order = np.lexsort((*self._near.plans[::-1], self._near.values[_MEMORY], goal))
        close = goal[order] <= goal[order[0]] * (1 + WITHIN_FRAC)
        close[: self._keep] = True
        self._near.keep(order[close])
        if len(order) >= self._keep:
            self._limit = float(self._near.values[self._objective].max())

    def best(self) -> tuple[Candidate, ...]:
        """The best plans, best first."""
        first = _Kept()
        first.join(self._near.plans[:, : self._keep], self._near.values[:, : self._keep])
        return first.candidates()

    def front(self) -> tuple[Candidate, ...]:
        """Plans that no other beats in step time, energy and memory at once, fastest first."""
        return self._front.candidates()

    def flatness(self) -> Flatness:
        """Which plans are as good as the best."""
        goal = self._near.values[self._objective]
        near = goal <= goal[:1] * (1 + WITHIN_FRAC) if len(goal) else np.zeros(0, dtype=bool)
        plans = self._near.plans[:, near]
        return Flatness(
            num_plans=plans.shape[1],
            values={axis: tuple(np.unique(row).tolist()) for axis, row in zip(_AXES, plans, strict=True)},
        )


def _columns(plan: Plan, at: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The sizes of some plans, counted along the flattened shape, [axis, plan]."""
    where = np.unravel_index(at, shape)
    return np.stack([np.broadcast_to(np.asarray(getattr(plan, name)), shape)[where] for name in _AXES])
