"""Every chip linked to every other one: xGMI, Gaudi."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ultratwin.hardware.topology.axis import Axis, Hops, Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh(Axis):
    """Port p leads to the chip p + 1 places further round, at an equal share of the rate."""

    kind: ClassVar[str] = "mesh"

    @property
    def ports(self) -> int:
        return max(self.size - 1, 1)

    @property
    def port_bytes_per_s(self) -> float:
        return self.bytes_per_s / self.ports

    def port_name(self, port: int) -> str:
        return f"{self.name}+{port + 1}"

    def hops(self, chips: Integers, to: Integers, stride: int) -> Hops:
        away = (to - self.coordinate(chips, stride)) % self.size
        on = np.flatnonzero(away)
        return Hops(flow=on, link=chips[on] * self.ports + away[on] - 1)

    def next_ports(self) -> tuple[tuple[int, float], ...]:
        # a complete digraph splits into n - 1 rings over all chips, but for 4 and 6 of them (Tillson, JCT B 29, 1980)
        return tuple((shift, 1.0 / self.ports) for shift in range(1, self.size)) or ((1, 1.0),)

    def bisection_bytes_per_s(self) -> float:
        half = self.size // 2
        return self.port_bytes_per_s * half * (self.size - half)
