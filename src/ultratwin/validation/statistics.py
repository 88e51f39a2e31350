"""Error statistics of a group of rows, alone or pooled over sources of equal weight."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Relative errors e = predicted / measured - 1 of some rows.

    median, mean, worst: of |e|; bias_median, bias_mean: of e; inside_frac: share of measurements in [low, high].
    """

    num_rows: int
    median: float
    mean: float
    worst: float
    bias_median: float
    bias_mean: float
    inside_frac: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """How often a yes-or-no prediction is right, and the four cases: predicted first, then measured."""

    num_rows: int
    right_frac: float
    yes_yes: int
    yes_no: int
    no_yes: int
    no_no: int


def source_weights(sources: Sequence[str]) -> Floats:
    """Weight of each row so that every source weighs the same.

    Equation: w = 1 / (rows of the source)
    Example:
        >>> source_weights(["a", "a", "b"]).tolist()
        [0.5, 0.5, 1.0]
    """
    counts = Counter(sources)
    return np.array([1.0 / counts[each] for each in sources], dtype=np.float64)


def weighted_median(values: Floats, weights: Floats) -> float:
    """The value that splits the weight in half; the mean of two where the half falls between them.

    Args: values [row]; weights [row], above zero
    Example:
        >>> weighted_median(np.array([0.1, 0.3, 0.2]), np.array([1.0, 1.0, 2.0]))
        0.2
        >>> weighted_median(np.array([0.1, 0.3]), np.array([1.0, 1.0]))
        0.2
    """
    order = np.argsort(values, kind="stable")
    ranked, reached = values[order], np.cumsum(weights[order])
    half = reached[-1] / 2
    at = int(np.searchsorted(reached, half * (1 - 1e-12)))
    between = math.isclose(reached[at], half, rel_tol=1e-12) and at + 1 < len(ranked)
    return float((ranked[at] + ranked[at + 1]) / 2) if between else float(ranked[at])


def errors(predicted: Floats, measured: Floats, inside: Floats, weights: Floats) -> Errors:
    """Statistics of relative errors.

    Args: predicted, measured [row], above zero; inside: 1 where the range holds the measurement [row]; weights [row]
    """
    signed = predicted / measured - 1
    return Errors(
        num_rows=len(signed),
        median=weighted_median(np.abs(signed), weights),
        mean=float(np.average(np.abs(signed), weights=weights)),
        worst=float(np.abs(signed).max()),
        bias_median=weighted_median(signed, weights),
        bias_mean=float(np.average(signed, weights=weights)),
        inside_frac=float(np.average(inside, weights=weights)),
    )


def verdicts(predicted: Floats, measured: Floats, weights: Floats) -> Verdicts:
    """Statistics of yes-or-no predictions, 0 or 1 each, [row]."""
    yes, was = predicted > 0.5, measured > 0.5
    return Verdicts(
        num_rows=len(yes),
        right_frac=float(np.average(yes == was, weights=weights)),
        yes_yes=int((yes & was).sum()),
        yes_no=int((yes & ~was).sum()),
        no_yes=int((~yes & was).sum()),
        no_no=int((~yes & ~was).sum()),
    )
