"""A ring (or, without the closing link, a line) of chips: one axis of a torus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ultratwin.hardware.topology.axis import Axis, Hops, Integers, no_hops


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring(Axis):
    """Port 0 leads to the next chip, port 1 to the one before; half of the rate each.

    `closed`: whether the last chip is linked to the first. A slice of a torus that does not fill an axis is a line.
    Flows take the shorter way; where both are equal, even places send forward and odd ones back. A ring of two has both
    its cables between the same chips.
    """

    closed: bool = True

    kind: ClassVar[str] = "ring"

    @property
    def ports(self) -> int:
        return 2

    @property
    def port_bytes_per_s(self) -> float:
        return self.bytes_per_s if self._is_pair else self.bytes_per_s / 2.0

    @property
    def _is_pair(self) -> bool:
        return self.closed and self.size == 2

    def port_name(self, port: int) -> str:
        return f"{self.name}{'+-'[port]}"

    def hops(self, chips: Integers, to: Integers, stride: int) -> Hops:
        at = self.coordinate(chips, stride)
        ahead = (to - at) % self.size
        back = self.size - ahead
        forward = (ahead < back) | ((ahead == back) & (at % 2 == 0)) | self._is_pair if self.closed else to >= at
        count = np.where(forward, ahead, (at - to) % self.size)
        direction = np.where(forward, 1, -1)
        if not count.any():
            return no_hops()
        flows, links = [], []
        for hop in range(int(count.max())):
            on = np.flatnonzero(count > hop)
            place = (at[on] + hop * direction[on]) % self.size
            chip = chips[on] + (place - at[on]) * stride
            flows.append(on)
            links.append(chip * 2 + (direction[on] < 0))
        return Hops(flow=np.concatenate(flows), link=np.concatenate(links))

    def next_ports(self) -> tuple[tuple[int, float], ...]:
        return ((1, 1.0),) if self._is_pair else ((1, 0.5), (-1, 0.5))

    @property
    def ring_bytes_per_s(self) -> float:
        return self.bytes_per_s if self.closed else self.bytes_per_s / 2.0  # a line's closing flow goes back over it

    def bisection_bytes_per_s(self) -> float:
        return self.port_bytes_per_s * (2.0 if self.closed else 1.0) if self.size > 1 else 0.0
