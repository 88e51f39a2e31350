"""The catalogue's files on how chips are wired: catalogue/data/fabrics, one for each kind of link."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final, Literal

import msgspec

from ultratwin.catalogue import loader
from ultratwin.catalogue.facts import RANGED, Fact, Status
from ultratwin.errors import CatalogueError

DIRECTORY: Final = "fabrics"
FIGURES: Final = {
    "switch_ports": "number",  # of one leaf, spine or core switch: the most that it can be split into
    "switch_bytes_per_s": "byte_per_s",  # of one switch: ports at an adapter's rate are this over that
    "leaf_ports": "number",  # of a leaf's ports, those that face adapters
    "leaf_oversubscription": "number",  # rate of a leaf's ports to adapters over its uplinks'
    "pod_oversubscription": "number",  # rate of a pod's links to leaves over those to the core
    "pod_leaves": "number",  # leaves of one pod
    "hop_s": "second",  # through one switch
    "switch_w": "watt",  # of one switch, optics included
    "chips_per_rack": "number",
}


Slices = Literal["rows", "boxes", "cubes"]


class Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a domain of `chips` is laid out: its axes, their kinds, sizes and shares of a chip's rate.

    `kinds` holds ring, switch or mesh for each axis; `shares` sum to 1. `slices`: parts of a domain are its first rows,
    or boxes of the most even sides; a part's ring is closed where it has all chips of its axis, of "cubes" (4 x 4 x 4,
    joined by optical switches) where every side is a multiple of four.
    """

    chips: int
    axes: tuple[str, ...]
    sides: tuple[int, ...]
    kinds: tuple[str, ...]
    shares: tuple[float, ...] = ()
    slices: Slices = "rows"
    status: Status
    source: str
    note: str = ""

    @property
    def rate_shares(self) -> tuple[float, ...]:
        """Shares of a chip's rate, equal ones where none are given."""
        return self.shares or (1.0 / len(self.axes),) * len(self.axes)


class FabricEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the chips of a link are wired: shapes of domains (scale-up) or a kind of fabric (scale-out).

    `links`: ids of catalogue/data/links that it holds for.
    """

    name: str
    links: tuple[str, ...]
    kind: Literal["product", "clos", "rail_optimised"]
    routing: str = "spray"
    shapes: tuple[Shape, ...] = ()
    figures: dict[str, Fact] = {}
    note: str = ""

    def si(self, name: str, default: float = 0.0) -> float:
        """A figure in SI."""
        return self.figures[name].si if name in self.figures else default


@cache
def fabric_entries() -> Mapping[str, FabricEntry]:
    """Every file, by link id.

    Raises: CatalogueError with all faults of a file
    """
    found: dict[str, FabricEntry] = {}
    for path in sorted((loader.DATA / DIRECTORY).glob("*.toml")):
        entry: FabricEntry = loader.read_toml(path, FabricEntry)
        faults = [fault for name, fact in entry.figures.items() for fault in _faults(name, fact)]
        faults += [fault for shape in entry.shapes for fault in _shape_faults(shape)]
        if faults:
            raise CatalogueError("; ".join(faults), where=str(path))
        found |= dict.fromkeys(entry.links, entry)
    return found


def fabric_entry(link: str) -> FabricEntry | None:
    """The file of a link, None where nothing is known of it."""
    return fabric_entries().get(link)


def known_shape(link: str, chips: int) -> Shape | None:
    """How a domain of so many chips is laid out, None where no file says so."""
    entry = fabric_entry(link)
    return next((shape for shape in entry.shapes if shape.chips == chips), None) if entry else None


def _faults(name: str, fact: Fact) -> list[str]:
    if name not in FIGURES:
        return [f"figures.{name} is not a known figure of {DIRECTORY}"]
    faults = [] if fact.dimension == FIGURES[name] else [f"figures.{name} is a {fact.dimension}"]
    faults += [f"figures.{name}: unknown source {each}" for each in fact.source.split() if each not in loader.sources()]
    if fact.status in RANGED and (fact.low is None or fact.high is None):
        faults.append(f"figures.{name} is {fact.status} and needs low and high")
    if fact.si <= 0:
        faults.append(f"figures.{name} is not above 0")
    return faults


def _shape_faults(shape: Shape) -> list[str]:
    product = 1
    for side in shape.sides:
        product *= side
    faults = []
    if product != shape.chips:
        faults.append(f"sides {shape.sides} hold {product} chips, not {shape.chips}")
    if not len(shape.axes) == len(shape.sides) == len(shape.kinds):
        faults.append(f"the shape of {shape.chips} chips names axes, sides and kinds of different number")
    if shape.shares and (len(shape.shares) != len(shape.axes) or abs(sum(shape.shares) - 1.0) > 1e-6):
        faults.append(f"shares {shape.shares} do not sum to 1")
    return faults + [f"unknown source {each}" for each in shape.source.split() if each not in loader.sources()]
