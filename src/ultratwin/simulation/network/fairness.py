"""Max-min fair rates: every flow grows alike until a link that it crosses is full."""

from __future__ import annotations

from typing import Final

import numpy as np

from ultratwin.hardware.chip import Array
from ultratwin.simulation.network.flows import Integers

_EQUAL: Final = 1.0 + 1e-12


def max_min_rates(capacity: Array, flow: Integers, link: Integers, weight: Array, active: Array) -> Array:
    """Rates of active flows, none of which can grow without a slower or equal one shrinking.

    Args:
        capacity: of each link [byte/s], [link]
        flow, link, weight: crossings; a flow of rate r loads its link with weight x r
        active: 1 for flows that send, 0 for others, [flow]
    Returns: rates [byte/s], [flow]; 0 for flows that do not send, inf for those that cross no link
    Source: progressive filling; Bertsekas and Gallager, Data Networks (1992), section 6.5.2
    Example: a link of 10 shared by two flows, one of which also crosses a link of 2
        >>> max_min_rates(np.array([10.0, 2.0]), np.array([0, 1, 1]), np.array([0, 0, 1]), np.ones(3), np.ones(2))
        array([8., 2.])
    """
    rate = np.where(active > 0, np.inf, 0.0)
    growing = np.where(active > 0, 1.0, 0.0)
    growing *= np.bincount(flow, minlength=len(active)) > 0
    left = capacity.astype(float)
    level = 0.0
    while True:
        on = growing[flow] * weight
        load = np.bincount(link, weights=on, minlength=len(capacity))
        busy = load > 0
        if not busy.any():
            return rate
        room = np.full(len(capacity), np.inf)
        room[busy] = left[busy] / load[busy]
        grow = float(room.min())
        level += grow
        full = room <= grow * _EQUAL
        left -= grow * load
        stopped = np.bincount(flow, weights=full[link] & (on > 0), minlength=len(active)) > 0
        rate[stopped] = level
        growing[stopped] = 0.0
