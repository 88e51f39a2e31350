"""An axis of a scale-up domain: a row of chips along one coordinate, and the links between them.

A domain is a product of axes (product.py): a torus has a ring along each, NVLink one switch, a Trainium3 UltraServer
sleds, racks and twins. Each chip has the same links, so a link is named by chip and port, and nothing is listed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import Array

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hops:
    """Links that flows cross: flow and link of each crossing, [crossing]."""

    flow: Integers
    link: Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis(ABC):
    """`size` chips in a row. `bytes_per_s`: of one chip, one direction, all its links of this axis together.

    `latency_s` is of one link. Ports number the links that leave a chip, and the one that reaches it from a switch.
    """

    name: str
    size: int
    bytes_per_s: float
    latency_s: float

    kind: ClassVar[str]

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ScenarioError(f"axis {self.name} has {self.size} chips", allowed="1 or more")
        if not 0 < self.bytes_per_s < float("inf"):
            raise ScenarioError(f"axis {self.name} has a rate of {self.bytes_per_s:g} B/s", allowed="above 0, finite")
        if not 0 <= self.latency_s < float("inf"):
            raise ScenarioError(f"axis {self.name} has a latency of {self.latency_s:g} s", allowed="0 or more, finite")

    @property
    @abstractmethod
    def ports(self) -> int:
        """Links that are named by one chip."""

    @property
    @abstractmethod
    def port_bytes_per_s(self) -> float:
        """Rate of each."""

    @abstractmethod
    def port_name(self, port: int) -> str:
        """What people call it, such as x+."""

    @abstractmethod
    def hops(self, chips: Integers, to: Integers, stride: int) -> Hops:
        """The way of flows from chips to others of their row.

        Args:
            chips: where each flow starts, a number within the domain, [flow]
            to: the coordinate along this axis where it ends, [flow]
            stride: how far apart neighbours of this axis are numbered
        Returns: crossings; a link is chip x ports + port
        """

    @abstractmethod
    def next_ports(self) -> tuple[tuple[int, float], ...]:
        """Rings that the links can carry at once: shift to the neighbour and share of the rate of each."""

    @property
    def ring_bytes_per_s(self) -> float:
        """Rate of a chip that these rings reach together, one direction."""
        return self.bytes_per_s

    @abstractmethod
    def bisection_bytes_per_s(self) -> float:
        """One direction, across the middle of one row."""

    def coordinate(self, chips: Integers, stride: int) -> Integers:
        """Where chips stand along this axis, [chip]."""
        return np.asarray(chips // stride % self.size, dtype=np.int64)


def no_hops() -> Hops:
    """Nothing is crossed."""
    nothing = np.zeros(0, dtype=np.int64)
    return Hops(flow=nothing, link=nothing)


def rates(axis: Axis, num_chips: int) -> Array:
    """Rate of every link of an axis in a domain, [chip x ports]."""
    return np.full(num_chips * axis.ports, axis.port_bytes_per_s)
