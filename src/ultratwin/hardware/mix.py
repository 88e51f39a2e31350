"""Mixed systems: shares of several systems, and the fabric that joins them.

Two kinds of chips share one scale-up domain where both speak its link, or are domains of their own on one scale-out
network. Which links speak to each other: catalogue/data/joins, one file for each fabric.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import msgspec
import numpy as np

from ultratwin.catalogue import loader
from ultratwin.catalogue.schema import SystemEntry
from ultratwin.errors import CatalogueError, ScenarioError, unknown_name
from ultratwin.hardware.chip import Number
from ultratwin.hardware.system import System, load_system
from ultratwin.hardware.topology.entries import DIRECTORY as FABRICS
from ultratwin.hardware.topology.entries import FabricEntry

DIRECTORY: Final = "joins"
OWN: Final = "own"
"""The join of shares of one and the same system: its own domains and fabric."""


class JoinEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A fabric that joins chips of different kinds: one file of catalogue/data/joins.

    `links`: ids of catalogue/data/links that speak to each other over it, those of the fabric of the same id in
    catalogue/data/fabrics if empty; `needs`: the one that at least one side must have, any if empty.
    `hypothetical`: no source says that the fabric joins such chips.
    """

    name: str
    kind: Literal["scale-up", "scale-out"]
    source: str
    links: tuple[str, ...] = ()
    needs: str = ""
    hypothetical: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolShare:
    """So many units of one system."""

    system: System
    units: int

    @property
    def chips(self) -> int:
        """Chips of all units."""
        return self.units * self.system.unit_chips


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """What chips of different shares reach each other over.

    fabric: id in catalogue/data/joins, or OWN; links: that each share has of it, in their order
    domain_links: link inside the domains of each share, which tells whose library moves the bytes
    bytes_per_s: per chip, one direction; the slowest share counts; latency_s: the longest one way
    domain_chips: that one scale-up domain holds of all kinds together; 1 for a scale-out network
    """

    kind: Literal["scale-up", "scale-out"]
    fabric: str
    links: tuple[str, ...]
    domain_links: tuple[str, ...]
    bytes_per_s: Number
    latency_s: Number
    domain_chips: int
    hypothetical: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Shares of systems, and what joins them. One share alone is a system as ever, its join its own network.

    `notes`: what was taken for something else.
    """

    shares: tuple[PoolShare, ...]
    join: Join
    notes: tuple[str, ...] = ()

    @property
    def chips(self) -> int:
        """Chips of all shares."""
        return sum(each.chips for each in self.shares)

    @property
    def hypothetical(self) -> bool:
        """Whether a part of it, or how it is joined, is only assumed to exist."""
        return self.join.hypothetical or any(each.system.hypothetical for each in self.shares)


@cache
def join_entries() -> Mapping[str, JoinEntry]:
    """Every fabric that joins kinds of chips, by id.

    Raises: CatalogueError for a link or source that the catalogue lacks
    """
    found: dict[str, JoinEntry] = {}
    for path in sorted((loader.DATA / DIRECTORY).glob("*.toml")):
        entry: JoinEntry = loader.read_toml(path, JoinEntry)
        if not entry.links:
            wired: FabricEntry = loader.read_toml(loader.DATA / FABRICS / path.name, FabricEntry)
            entry = msgspec.structs.replace(entry, links=wired.links)
        faults = [f"unknown link {each}" for each in entry.links if each not in loader.ids("links")]
        faults += [f"unknown source {each}" for each in entry.source.split() if each not in loader.sources()]
        if entry.needs and entry.needs not in entry.links:
            faults.append(f"needs {entry.needs}, which is not among its links")
        if faults:
            raise CatalogueError("; ".join(faults), where=str(path))
        found[path.stem] = entry
    return found


def parse_pools(text: str, *, where: str = "--pools", default_units: int = 1) -> tuple[PoolShare, ...]:
    """Shares from "trn3-gen2-ultraserver:36,gb200-nvl72:8": names of systems and how many units of each.

    A chip's name stands for the system that holds most of them in one scale-up domain: "rubin" is a Vera Rubin NVL72.
    Raises: ScenarioError, CatalogueError for a text that names no systems, or more units than can be built
    Example:
        >>> [(share.system.id, share.chips) for share in parse_pools("trn3:2,rubin:1")]
        [('trn3-gen2-ultraserver', 288), ('vr-nvl72', 72)]
    """
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise ScenarioError(f'"{text}" leaves a pool empty', where=where, allowed="SYSTEM[:UNITS],SYSTEM[:UNITS]")
    return tuple(_share(word, where, default_units) for word in words)


def _share(word: str, where: str, default_units: int) -> PoolShare:
    name, colon, count = (part.strip() for part in word.rpartition(":"))
    if not colon:
        name, count = word, str(default_units)
    if not name:
        raise ScenarioError(f'"{word}" names no system', where=where, allowed="SYSTEM[:UNITS]")
    if not count.isdecimal() or not (int(count) or not colon):
        raise ScenarioError(
            f'"{count}" units of {name}', where=where, allowed="a whole number above 0, as in trn3-gen2-ultraserver:36"
        )
    system = pool_system(name)
    share = PoolShare(system=system, units=int(count))
    if share.chips > system.max_chips:
        raise ScenarioError(
            f"{share.units:,} x {system.id} are {share.chips:,} chips", where=where,
            allowed=f"at most {system.max_chips // system.unit_chips:,} units ({system.max_chips:,} chips)",
        )  # fmt: skip
    return share


def pool_system(name: str) -> System:
    """The system of a name; of a chip's name, the system that has most of them in one domain (ties: the first by id).

    Raises: CatalogueError if nobody has that name
    """
    try:
        return load_system(name)
    except CatalogueError as error:
        try:
            chip = loader.resolve("chips", name)
        except CatalogueError:
            raise error from None
        able = [load_system(each) for each in loader.ids("systems") if _chip_of(each) == chip]
        if not able:
            raise error from None
        return max(able, key=lambda each: (each.pool.domain.size, -each.unit_chips))


def _chip_of(system_id: str) -> str:
    entry = loader.entry("systems", system_id)
    return entry.chip if isinstance(entry, SystemEntry) else ""


def joins_of(systems: Sequence[System], fabrics: Sequence[str] = ()) -> tuple[Join, ...]:
    """Every fabric that joins all of these systems, the fastest first, hypothetical ones last unless named.

    Shares of one and the same system are joined by its own network, whatever is named.
    Args:
        fabrics: ids of catalogue/data/joins to choose from; all if empty
    Raises: ScenarioError for a fabric that the catalogue lacks
    """
    for name in fabrics:
        if name not in join_entries():
            raise unknown_name("fabric", name, join_entries(), error=ScenarioError)
    if len({each.id for each in systems}) == 1:
        return own_joins(systems[0], len(systems))
    found = [
        _join(name, entry, systems)
        for name, entry in join_entries().items()
        if (not fabrics or name in fabrics) and _speaks(entry, systems)
    ]
    # what exists comes before what is only assumed to, unless it is asked for by name
    return tuple(sorted(found, key=lambda e: (e.hypothetical and not fabrics, -float(np.max(e.bytes_per_s)), e.fabric)))


def own_joins(system: System, num_shares: int = 1) -> tuple[Join, ...]:
    """What chips of one system reach each other over: inside its scale-up domain, and between domains if it can."""
    pool = system.pool
    domains = (pool.domain.link,) * num_shares
    inside = Join(
        kind="scale-up", fabric=OWN, links=domains, domain_links=domains, bytes_per_s=pool.domain.bytes_per_s,
        latency_s=pool.domain.latency_s, domain_chips=pool.domain.size, hypothetical=False,
    )  # fmt: skip
    between = Join(
        kind="scale-out", fabric=OWN, links=(pool.fabric.link,) * num_shares, domain_links=domains,
        bytes_per_s=pool.fabric.bytes_per_s, latency_s=pool.fabric.latency_s, domain_chips=1, hypothetical=False,
    )  # fmt: skip
    # a single node has no network: its replicas share the one domain; chips without a domain have the network only
    can = [each for each in (inside, between) if float(np.max(each.bytes_per_s)) > 0]
    return tuple(can) or (inside,)


def _link(entry: JoinEntry, system: System) -> str:
    return system.pool.domain.link if entry.kind == "scale-up" else system.pool.fabric.link


def _speaks(entry: JoinEntry, systems: Sequence[System]) -> bool:
    links = [_link(entry, each) for each in systems]
    return all(link in entry.links for link in links) and (not entry.needs or entry.needs in links)


def _join(name: str, entry: JoinEntry, systems: Sequence[System]) -> Join:
    pools = [each.pool for each in systems]
    ways = [each.domain if entry.kind == "scale-up" else each.fabric for each in pools]
    speed, latency = ways[0].bytes_per_s, ways[0].latency_s
    for way in ways[1:]:
        speed, latency = np.minimum(speed, way.bytes_per_s), np.maximum(latency, way.latency_s)
    inside = entry.kind == "scale-up"
    return Join(
        kind=entry.kind, fabric=name, links=tuple(_link(entry, each) for each in systems),
        domain_links=tuple(each.domain.link for each in pools), bytes_per_s=speed, latency_s=latency,
        domain_chips=min(each.domain.size for each in pools) if inside else 1, hypothetical=entry.hypothetical,
    )  # fmt: skip


def join_pools(shares: Sequence[PoolShare], fabric: str | Sequence[str] = "") -> Mix:
    """The shares, joined by the fastest fabric that all of them have; a hypothetical one only if named or nothing else.

    Where none joins them, a system of the same chips on another network may stand in for one (`notes`).
    Args:
        fabric: ids of catalogue/data/joins ("efa", "nvlink-fusion", ...), or one text "nvlink-fusion,efa"
    Raises: ScenarioError if none of them joins all shares; it says which fabrics each has
    Example:
        >>> mix = join_pools(parse_pools("trn2.48xlarge:1,p6-b200.48xlarge:1"))
        >>> mix.join.fabric, float(mix.join.bytes_per_s)
        ('efa', 25000000000.0)
    """
    if not shares:
        raise ScenarioError("no pools are given", allowed="SYSTEM[:UNITS],SYSTEM[:UNITS]")
    names = [name.strip() for name in fabric.split(",") if name.strip()] if isinstance(fabric, str) else list(fabric)
    joins = joins_of([each.system for each in shares], names)
    if not joins:
        other = _stand_in(shares, names)
        if other is None:
            raise no_join([each.system for each in shares], names)
        return dataclasses.replace(join_pools(other[0], names), notes=(other[1],))
    if joins[0].fabric == OWN:
        chips = sum(each.chips for each in shares)
        fits = [each for each in joins if each.kind == "scale-out" or chips <= each.domain_chips]
        return Mix(shares=tuple(shares), join=(fits or joins)[0])
    return Mix(shares=tuple(shares), join=joins[0])


def no_join(systems: Sequence[System], fabrics: Sequence[str] = ()) -> ScenarioError:
    """The error for systems that nothing joins."""
    have = "; ".join(f"{each.id} has {', '.join(fabrics_of(each)) or 'none'}" for each in systems)
    able = [each.fabric for each in joins_of(systems)]
    return ScenarioError(
        f"no fabric{' of ' + ', '.join(fabrics) if fabrics else ''} joins {' and '.join(e.id for e in systems)}",
        allowed=f"a fabric that all have: {have}",
        hint=f"--fabric {','.join(able)}" if able else "pools with a fabric in common",
    )  # fmt: skip


def _stand_in(shares: Sequence[PoolShare], fabrics: Sequence[str]) -> tuple[tuple[PoolShare, ...], str] | None:
    """The shares with one system for another of the same chips in domains as large, so that a fabric joins them.

    Only where one exists: clouds and makers sell the same racks on different networks.
    """
    for at, share in enumerate(shares):
        for name in loader.ids("systems"):
            if name == share.system.id or _chip_of(name) != share.system.pool.chip.id:
                continue
            other = load_system(name)
            changed = (*shares[:at], dataclasses.replace(share, system=other), *shares[at + 1 :])
            joins = joins_of([each.system for each in changed], fabrics)
            old = share.system
            same = (other.pool.domain.size, other.unit_chips) == (old.pool.domain.size, old.unit_chips)
            if same and joins and not joins[0].hypothetical:
                return changed, f"{share.system.id} is taken as {name}: the same chips, which {joins[0].fabric} joins"
    return None


def fabrics_of(system: System) -> tuple[str, ...]:
    """Fabrics of catalogue/data/joins that a system's links speak, with the link."""
    return tuple(
        f"{name} ({_link(entry, system)})"
        for name, entry in join_entries().items()
        if _link(entry, system) in entry.links
    )
