"""Replicas at the loads that whole numbers of them get, between the loads that a search looks at.

A search looks at each plan under loads a few hundredths apart; a fleet of n replicas gives each an n-th of its load.
Between two loads everything is a line: what users feel bends upwards with the load, so a line is never below it.
"""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from ultratwin.hardware.chip import Array
from ultratwin.planning.serving.search import Points
from ultratwin.planning.serving.steady_state import SteadyState

_STEPS: Final = ((480, 144), (10**9, 48))
"""Plans, and how many numbers of replicas are tried of each up to five times the fewest that serve the load."""
_MORE: Final = np.geomspace(5.0, 500.0, 21)[1:]
"""Numbers that are tried above, over the fewest: down to the least load of a search."""
_BARELY: Final = 1.0 + 1e-12


def whole_replicas(points: Points, request_rate: float) -> Points:
    """All plans of some points of a search, each at the loads of n, n + 1, ... replicas, n the fewest that serve it.

    Args:
        points: of one search, loads ascending; request_rate: of the fleet, with what is kept free [1/s]
    Returns: points, [count x plan]; loads below the least that was looked at feel as that one does
    """
    plans = len(points.plans.num_ranks)
    if not plans:
        return points
    rates = np.maximum.accumulate(points.state.request_rate.reshape(-1, plans), axis=0)
    fewest = np.maximum(np.ceil(request_rate / np.maximum(rates[-1], 1e-300) / _BARELY), 1.0)
    counts = _counts(fewest)
    asked = request_rate / counts
    above = np.clip((rates[:, None, :] < asked[None]).sum(axis=0), 1, len(rates) - 1)
    each = np.arange(plans)
    low, high = rates[above - 1, each], rates[above, each]
    share = np.clip((asked - low) / np.maximum(high - low, 1e-300), 0.0, 1.0)

    def between(value: Array) -> Array:
        """A field at the asked loads, [..., count x plan]."""
        value = np.asarray(value)
        if not value.ndim or value.shape[-1] != points.num_points:
            return value
        grid = value.reshape(*value.shape[:-1], -1, plans)
        before, after = grid[..., above - 1, each], grid[..., above, each]
        with np.errstate(invalid="ignore"):
            found = before * (1.0 - share) + after * share
        # nothing of an endless end counts where its share is nothing
        found = np.where(share <= 0, before, np.where(share >= 1, after, found))
        return found.reshape(*value.shape[:-1], -1)

    state = points.state
    fields = {e.name: between(getattr(state, e.name)) for e in dataclasses.fields(state) if e.name != "mix"}
    mix = dataclasses.replace(
        state.mix, **{e.name: between(getattr(state.mix, e.name)) for e in dataclasses.fields(state.mix)}
    )
    fields["request_rate"] = (asked * _BARELY).ravel()
    return dataclasses.replace(
        points, state=SteadyState(**fields, mix=mix), plan_index=np.tile(each, len(counts)),
        num_chips=np.tile(points.num_chips[:plans], len(counts)),
    )  # fmt: skip


def _counts(fewest: Array) -> Array:
    """Numbers of replicas that are tried, [count, plan]; in small fleets each is one above the last, or more."""
    steps = next(steps for most, steps in _STEPS if len(fewest) <= most)
    times = np.concatenate([np.geomspace(1.0, 5.0, steps), _MORE])[:, None]
    rank = np.arange(len(times))[:, None]
    return np.asarray(rank + np.maximum.accumulate(np.ceil(fewest * times / _BARELY) - rank, axis=0))
