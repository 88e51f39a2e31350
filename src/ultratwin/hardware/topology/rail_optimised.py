"""A rail-optimised fabric: adapter i of every node of a block is on leaf i, so equal places meet after one switch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.hardware.topology.axis import Integers
from ultratwin.hardware.topology.fabric import ScaleOut


@dataclass(frozen=True, slots=True, kw_only=True)
class RailOptimised(ScaleOut):
    """InfiniBand of DGX SuperPODs: a block (scalable unit) has as many leaves as there are rails.

    `rails`: adapters of one node; a domain of several nodes has several adapters on each leaf.
    """

    rails: int

    kind: ClassVar[str] = "rail_optimised"

    def __post_init__(self) -> None:
        super(RailOptimised, self).__post_init__()
        if self.rails < 1 or self.num_lanes % self.rails:
            raise ScenarioError(
                f"{self.num_lanes} adapters of a domain do not spread evenly over {self.rails} rails",
                allowed="a number of rails that divides the adapters",
            )

    @property
    def domains_per_leaf(self) -> int:
        return max(1, self.ports_down // self.lanes_per_leaf)

    @property
    def lanes_per_leaf(self) -> int:
        return self.num_lanes // self.rails

    def slot_of(self, lane: Integers) -> Integers:
        return np.asarray(lane % self.rails, dtype=np.int64)
