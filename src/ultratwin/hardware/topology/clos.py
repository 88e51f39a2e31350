"""A Clos of two or three levels whose leaves stand with their domains: EFA, data-centre networks of TPU pods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ultratwin.hardware.topology.fabric import ScaleOut


@dataclass(frozen=True, slots=True, kw_only=True)
class Clos(ScaleOut):
    """A leaf takes whole domains where they fit; a larger domain is spread evenly over leaves of its own."""

    kind: ClassVar[str] = "clos"

    @property
    def domains_per_leaf(self) -> int:
        return max(1, self.ports_down // self.num_lanes)

    @property
    def lanes_per_leaf(self) -> int:
        # the largest even split: leaves of one domain carry the same load
        most = min(self.ports_down, self.num_lanes)
        return next(count for count in range(most, 0, -1) if self.num_lanes % count == 0)
