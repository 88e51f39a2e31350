"""A scale-up domain as a product of axes: torus, switch, mesh, or several levels of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import Array
from ultratwin.hardware.topology.axis import Axis, Hops, Integers, rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """Chips numbered along the axes, the first axis fastest. Flows go along the axes in that order."""

    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        names = [axis.name for axis in self.axes]
        if not names or len(set(names)) < len(names):
            raise ScenarioError(f"a domain's axes are named {names}", allowed="one axis or more, each name once")

    @property
    def size(self) -> int:
        """Chips of the domain."""
        return math.prod(axis.size for axis in self.axes)

    @property
    def strides(self) -> tuple[int, ...]:
        """How far apart neighbours along each axis are numbered."""
        return tuple(accumulate((axis.size for axis in self.axes[:-1]), mul, initial=1))

    @property
    def offsets(self) -> tuple[int, ...]:
        """The number of each axis's first link, and of the first that is none."""
        return tuple(accumulate((self.size * axis.ports for axis in self.axes), initial=0))

    @property
    def bytes_per_s(self) -> float:
        """Of one chip, one direction, all its links together."""
        return sum(axis.bytes_per_s for axis in self.axes if axis.size > 1)

    def link_bytes_per_s(self) -> Array:
        """Rate of every link, one direction, [link]."""
        return np.concatenate([rates(axis, self.size) for axis in self.axes])

    def link_latency_s(self) -> Array:
        """Latency of every link, [link]."""
        return np.repeat([axis.latency_s for axis in self.axes], [self.size * axis.ports for axis in self.axes])

    def link_name(self, link: int) -> str:
        """What people call a link, such as "x+ of chip 5"."""
        at = next(at for at, last in enumerate(self.offsets[1:]) if link < last)
        chip, port = divmod(link - self.offsets[at], self.axes[at].ports)
        return f"{self.axes[at].port_name(port)} of chip {chip}"

    def hops(self, source: Integers, target: Integers) -> Hops:
        """The links that flows cross, axis after axis.

        Args:
            source, target: chips of the domain, [flow]
        Returns: crossings; links are numbered as in `link_bytes_per_s`
        """
        at = np.asarray(source, dtype=np.int64)
        flows, links = [], []
        for axis, stride, offset in zip(self.axes, self.strides, self.offsets[:-1], strict=True):
            to = axis.coordinate(np.asarray(target), stride)
            found = axis.hops(at, to, stride)
            flows.append(found.flow)
            links.append(found.link + offset)
            at = at + (to - axis.coordinate(at, stride)) * stride
        return Hops(flow=np.concatenate(flows), link=np.concatenate(links))

    def bisection_bytes_per_s(self) -> float:
        """One direction, across the axis whose middle carries least."""
        cuts = [
            axis.bisection_bytes_per_s() * (self.size // axis.size) for axis in self.axes if axis.size > 1
        ]  # fmt: skip
        return min(cuts, default=0.0)
