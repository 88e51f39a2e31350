"""Which deployment is cheapest as the price of one system's chips moves against the other's.

Dollars of a deployment are c_a p_a + c_b p_b: over the price ratio p_b / p_a, the cheapest of all are the corners of
the convex hull of (c_a, c_b), and where one takes over from the next follows from their difference.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ultratwin.hardware.chip import Array
from ultratwin.planning.front import pareto_front
from ultratwin.planning.serving.deployment import Deployment, deployment_of
from ultratwin.planning.serving.ways import Wanted, Ways, rented_chips


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What is cheapest while a chip of the second system costs `low` to `high` times as much as one of the first.

    chips: rented of the first and of the second system, of the deployment
    """

    low: float
    high: float
    chips: tuple[float, float]
    deployment: Deployment


def price_segments(found: Sequence[Ways], systems: tuple[str, str], wanted: Wanted) -> tuple[Segment, ...]:
    """The cheapest deployments that keep the objectives, by the price ratio of two systems, from 0 to infinity."""
    tables = [
        (ways, chips)
        for ways in found
        if (chips := _chips_per_request(ways, systems)) is not None and np.isfinite(chips).any()
    ]
    if not tables:
        return ()
    everything = np.concatenate([chips for _, chips in tables], axis=1)
    owner = np.concatenate([np.full(chips.shape[1], at) for at, (_, chips) in enumerate(tables)])
    row = np.concatenate([np.arange(chips.shape[1]) for _, chips in tables])
    corners = lower_hull(everything, pareto_front(everything).tolist())
    ratios = [0.0]
    for one, two in itertools.pairwise(corners):
        more = everything[:, two] - everything[:, one]
        ratios.append(float(-more[0] / more[1]))
    segments = []
    for at, (low, high) in zip(corners, zip(ratios, [*ratios[1:], math.inf], strict=True), strict=True):
        option = deployment_of(tables[owner[at]][0], wanted, int(row[at]))
        chips = everything[:, at] * option.request_rate
        segments.append(Segment(low=low, high=high, chips=(float(chips[0]), float(chips[1])), deployment=option))
    return tuple(segments)


def _chips_per_request(ways: Ways, systems: tuple[str, str]) -> Array | None:
    """Rented chips of both systems over requests per second, [2, deployment]; infinite where an objective is missed."""
    taken = np.zeros((2, len(ways.table.miss)))
    for side, count in zip(ways.sides, ways.table.replicas, strict=True):
        if side.system.id not in systems:
            return None
        taken[systems.index(side.system.id)] += rented_chips(side.system, side.points.num_chips, count)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((ways.table.miss <= 1.0) & (ways.table.rate > 0), taken / ways.table.rate, np.inf)


def lower_hull(values: Array, front: Sequence[int]) -> list[int]:
    """The corners of a front, sorted by the first value, that are least for some weights of both.

    Example:
        >>> lower_hull(np.array([[0.0, 1.0, 2.0], [2.0, 1.5, 0.0]]), [0, 1, 2])
        [0, 2]
    """
    corners: list[int] = []
    for at in front:
        while len(corners) > 1 and _bends_out(values, corners[-2], corners[-1], at):
            corners.pop()
        corners.append(at)
    return corners


def _bends_out(values: Array, first: int, middle: int, last: int) -> bool:
    """Whether the middle lies on or above the line between the others."""
    one, two = values[:, middle] - values[:, first], values[:, last] - values[:, first]
    return bool(one[0] * two[1] - one[1] * two[0] <= 0)
