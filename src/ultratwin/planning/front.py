"""Pareto fronts: what no other candidate beats in one respect without losing in another."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.chip import Array

_SWEEPS: Final = 4
"""Rounds that drop whatever one strong candidate dominates, before the exact pass."""
_PAIRS: Final = 256
"""Candidates of which all pairs are compared at once."""


def pareto_front(values: Array) -> NDArray[np.int64]:
    """The candidates that no other dominates: none is as small in every value and smaller in one.

    Of candidates with equal values the first stays. Candidates with an infinite value are never on the front.
    Args:
        values: what is to be small, [value, candidate]
    Returns: indices, sorted by the first value, then the others, then the index
    Example:
        >>> pareto_front(np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])).tolist()
        [0, 1]
    """
    at = np.flatnonzero(np.isfinite(values).all(axis=0))
    left = values[:, at]
    for sweep in range(_SWEEPS):
        if len(at) < 2:
            break
        # what is strong in all values at once drops most, then what is least in each
        score = np.log(np.maximum(left, 1e-300)).sum(axis=0) if sweep == 0 else left[sweep % len(left)]
        kept = ~_beaten(left, left[:, _strongest(left, score)], equals=False)
        at, left = at[kept], left[:, kept]
    order = np.lexsort((at, *left[::-1]))
    at, left = at[order], left[:, order]
    front = []
    while len(at) > _PAIRS:
        # nothing that comes later in this order can beat the first
        front.append(at[0])
        kept = ~_beaten(left, left[:, 0], equals=True)
        at, left = at[kept], left[:, kept]
    earlier = np.tri(len(at), k=-1, dtype=bool).T
    for row in left:
        earlier &= row[:, None] <= row
    return np.concatenate([np.array(front, dtype=np.int64), at[~earlier.any(axis=0)]])


def thinned(front: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of a front, evenly along it."""
    if len(front) <= most:
        return front
    return front[np.unique(np.linspace(0, len(front) - 1, most).round().astype(np.int64))]


def _beaten(values: Array, point: Array, *, equals: bool) -> NDArray[np.bool_]:
    """Which candidates a point is no larger than in any value; `equals`: also those that are the same as it."""
    worse: NDArray[np.bool_] = values[0] >= point[0]
    same: NDArray[np.bool_] = values[0] == point[0]
    for row, value in zip(values[1:], point[1:], strict=True):
        worse &= row >= value
        if not equals:
            same &= row == value
    return worse if equals else worse & ~same


def _strongest(values: Array, score: Array) -> int:
    """The candidate of the least score that is least in the other values too."""
    ties = np.flatnonzero(score == score.min())
    return int(ties[np.lexsort(values[::-1, ties])[0]])
