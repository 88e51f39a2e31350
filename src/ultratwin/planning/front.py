"""Pareto fronts: what no other candidate beats in one respect without losing in another."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.chip import Array

_SWEEPS: Final = 6
"""Rounds that drop whatever one strong candidate dominates, before the exact pass."""


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
    at = _without_the_plainly_dominated(values, at)
    at = at[np.lexsort((at, *values[::-1, at]))]
    left = values[:, at]
    kept = []
    while len(at):
        # nothing that comes later in this order can beat the first
        kept.append(at[0])
        beaten = (left >= left[:, :1]).all(axis=0)
        at, left = at[~beaten], left[:, ~beaten]
    return np.array(kept, dtype=np.int64)


def _without_the_plainly_dominated(values: Array, at: NDArray[np.int64]) -> NDArray[np.int64]:
    """Drops what the strongest candidates dominate: by each value alone, and by the product of all."""
    for sweep in range(_SWEEPS):
        if len(at) < 2:
            break
        here = values[:, at]
        alone = sweep % (len(values) + 1)
        score = here[alone] if alone < len(values) else np.log(np.maximum(here, 1e-300)).sum(axis=0)
        strong = here[:, _strongest(here, score)]
        worse = (here >= strong[:, None]).all(axis=0) & (here > strong[:, None]).any(axis=0)
        at = at[~worse]
    return at


def _strongest(here: Array, score: Array) -> int:
    """The candidate of the least score that is least in the other values too."""
    ties = np.flatnonzero(score == score.min())
    return int(ties[np.lexsort(here[::-1, ties])[0]])
