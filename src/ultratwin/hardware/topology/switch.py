"""Chips on a switch (or several in parallel) that is never the bottleneck: each has a way up and a way down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ultratwin.hardware.topology.axis import Axis, Hops, Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch(Axis):
    """Port 0 leads up to the switch, port 1 down from it, each at the whole rate: NVLink, sleds of Trainium3."""

    kind: ClassVar[str] = "switch"

    @property
    def ports(self) -> int:
        return 2

    @property
    def port_bytes_per_s(self) -> float:
        return self.bytes_per_s

    def port_name(self, port: int) -> str:
        return f"{self.name} {('up', 'down')[port]}"

    def hops(self, chips: Integers, to: Integers, stride: int) -> Hops:
        at = self.coordinate(chips, stride)
        on = np.flatnonzero(to != at)
        other = chips[on] + (to[on] - at[on]) * stride
        links = np.concatenate([chips[on] * 2, other * 2 + 1])
        return Hops(flow=np.concatenate([on, on]), link=links)

    def next_ports(self) -> tuple[tuple[int, float], ...]:
        return ((1, 1.0),)

    def bisection_bytes_per_s(self) -> float:
        return self.bytes_per_s * (self.size // 2)
