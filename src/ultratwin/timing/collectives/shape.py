"""The shape of a scale-up domain as one group of its ranks sees it: axes, and how far the group reaches along each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ultratwin.hardware.chip import Array, Number
from ultratwin.hardware.system import Domain
from ultratwin.hardware.topology.entries import known_shape
from ultratwin.hardware.topology.product import Product
from ultratwin.hardware.topology.ring import Ring

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainAxis:
    """A row of chips along one coordinate: its kind of links, its chips, its share of a chip's scale-up rate.

    `closed`: whether a ring's last chip is linked to its first.
    """

    kind: str
    size: float
    share: float
    closed: bool = True

    @property
    def ring_share(self) -> float:
        """Share of the rate that rings along it use: half of a line's, whose closing flow goes back over its links."""
        return self.share if self.closed else self.share / 2.0


def axes_of(domain: Product, bytes_per_s: float) -> tuple[DomainAxis, ...]:
    """The axes of a domain, or of a slice of one, whose chips have so much scale-up rate in all."""
    return tuple(
        DomainAxis(
            kind=axis.kind, size=float(axis.size), share=axis.bytes_per_s / bytes_per_s,
            closed=not isinstance(axis, Ring) or axis.closed,
        )
        for axis in domain.axes
        if axis.size > 1
    )  # fmt: skip


def torus_axes(domain: Domain) -> tuple[DomainAxis, ...]:
    """The axes of a torus by its shape in the catalogue; empty where it is none, or its sides are not known."""
    shape = known_shape(domain.link, domain.size) if domain.topology.startswith("torus") else None
    if shape is None:
        return ()
    return tuple(
        DomainAxis(kind=kind, size=float(side), share=share)
        for kind, side, share in zip(shape.kinds, shape.sides, shape.rate_shares, strict=True)
    )


@cache
def even_axes(topology: str, size: float) -> tuple[DomainAxis, ...]:
    """The axes of a domain of which only the kind is known: equal sides, equal shares.

    Example:
        >>> [axis.size for axis in even_axes("torus-2d", 16)]
        [4.0, 4.0]
    """
    number = {"torus-2d": 2, "torus-3d": 3}.get(topology, 1)
    kind = topology if topology in ("switch", "mesh") else "ring"
    side = max(float(size), 2.0) ** (1.0 / number)
    return (DomainAxis(kind=kind, size=side, share=1.0 / number),) * number


def sides(ranks: Number, axes: tuple[DomainAxis, ...]) -> list[Array]:
    """How many ranks of a group lie along each axis: neighbours first, the group fills one axis after the other.

    Example:
        >>> [float(side) for side in sides(8.0, even_axes("torus-2d", 16))]
        [4.0, 2.0]
    """
    found: list[Array] = []
    left: Array = np.asarray(ranks, dtype=np.float64)
    for axis in axes:
        reached = np.clip(left, 1.0, axis.size)
        side: Array = np.where(reached < 1.0 + _ROUNDING, 1.0, reached)
        found.append(side)
        left = left / side
    return found


def ring_rate_share(axes: tuple[DomainAxis, ...], lengths: list[Array]) -> Number:
    """Share of a chip's scale-up rate that rings over the axes of a group use: the axes that it reaches along.

    Equation: sum of the ring shares of axes with two ranks or more
    """
    parts = [axis.ring_share * (length > 1.0) for axis, length in zip(axes, lengths, strict=True)]
    found: Number = np.sum(parts, axis=0)
    return found


def crossings(axes: tuple[DomainAxis, ...], lengths: list[Array], ranks: Number) -> Number:
    """Parts that pass the fullest link of an all-to-all among ranks of one domain, in time at the whole scale-up rate.

    Equation: max over axes i of (r / g_i) h_i / share_i;  h = floor(g^2 / 4) on a ring, twice that on a line or an
              arc of a ring, g-1 through a switch, d-1 where all d are linked to each other
    Args:
        axes: of the domain, d_i chips each
        lengths: g_i, ranks along each axis
        ranks: r of the group in the domain
    Returns: c: with parts of p bytes it takes c p / B
    Source: derived: parts go along the axes one after the other, so that r / g_i of them share each row's pair
    """
    needed = [
        ranks / length * _pairs_on_a_link(axis, length) / axis.share for axis, length in zip(axes, lengths, strict=True)
    ]
    found: Number = np.max(np.stack(np.broadcast_arrays(*needed)), axis=0)
    return found


def _pairs_on_a_link(axis: DomainAxis, length: Array) -> Number:
    """Pairs of a row whose parts pass one link, in links of the axis's whole rate: h."""
    if axis.kind == "ring":
        is_line = (length < axis.size * (1.0 - _ROUNDING)) | (not axis.closed)
        return np.floor(length * length / 4.0 + _ROUNDING) * np.where(is_line, 2.0, 1.0)
    if axis.kind == "switch":
        return length - 1.0
    return np.where(length > 1.0, axis.size - 1.0, 0.0)
