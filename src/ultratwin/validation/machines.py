"""The machine of a truth row: a pool of the catalogue, with what the row's network text says about its fabric."""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from typing import Final

from ultratwin.catalogue import loader
from ultratwin.catalogue.schema import SystemEntry
from ultratwin.errors import CatalogueError
from ultratwin.hardware.system import Pool, load_system
from ultratwin.validation.rows import Skip

# fabric text -> link of the catalogue; the first that matches
_SCALE_OUT: Final = (
    (r"EFA ?v?1\b|EFA 4 ?x ?100", "efa-v1"),
    (r"EFA ?v?3", "efa-v3"),
    (r"EFA ?v?4", "efa-v4"),
    (r"EFA", "efa-v2"),
    (r"XDR", "infiniband-xdr"),
    (r"HDR", "infiniband-hdr"),
    (r"InfiniBand|NDR|\bIB\b|ConnectX|CX-?7", "infiniband-ndr"),
    (r"omni.?path", "omni-path-100"),
    (r"RoCE|RDMA|Ethernet", "roce"),
)
_KINDS: Final = ("node", "instance", "rack", "pod", "ultraserver", "cluster")


@cache
def chip_id(text: str) -> str:
    """The chip of the catalogue that a text names: by id or alias, else the longest spelling that the text holds.

    Letters and digits count alone, so that "NVIDIA H200-SXM 141GB HBM3e" holds "H200 SXM 141GB".

    Raises: Skip if it names none
    """
    try:
        return loader.resolve("chips", text)
    except CatalogueError:
        pass
    best, length, squeezed = "", 0, _squeezed(text)
    for each in loader.ids("chips"):
        entry = loader.entry("chips", each)
        for spelling in map(_squeezed, (each, entry.name, *entry.aliases)):
            # a number in a text doesn't hold a shorter one: H200 is no H20
            if len(spelling) > max(length, 2) and re.search(re.escape(spelling) + r"(?!(?<=\d)\d)", squeezed):
                best, length = each, len(spelling)
    if not best:
        raise Skip(f"the catalogue has no chip {text[:60]!r}" if text else "chip is empty")
    return best


def _squeezed(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


@cache
def _systems_of(chip_id: str) -> tuple[tuple[str, SystemEntry], ...]:
    found = []
    for system_id in loader.ids("systems"):
        entry = loader.entry("systems", system_id)
        if isinstance(entry, SystemEntry) and entry.chip == chip_id:
            found.append((system_id, entry))
    return tuple(sorted(found, key=lambda each: (each[1].hypothetical, _KINDS.index(each[1].kind), each[0])))


@cache
def pool_of(chip: str, network: str, ranks_per_chip: int = 1, chips_per_node: int = 0) -> Pool:
    """The pool that a row's chip and network texts describe.

    The system of that chip whose name, id or alias the text holds (the longest wins), else the chip's plain node;
    then fabric and rate as the text states them, such as "8x400Gb/s", "800 Gb/s per node" or "400 Gb/s per GPU".

    Raises: Skip if the catalogue has no such chip, or no system with it
    """
    try:
        chip_id = loader.resolve("chips", chip)
    except CatalogueError:
        raise Skip(f"the catalogue has no chip {chip!r}") from None
    systems = _systems_of(chip_id)
    if not systems:
        raise Skip(f"the catalogue has no system with {chip_id}")
    text = network.lower()
    best, length = systems[0][0], 0
    for system_id, entry in systems:
        for spelling in (system_id, entry.name, *entry.aliases):
            if spelling.lower() in text and len(spelling) > length:
                best, length = system_id, len(spelling)
    pool = load_system(best).pool
    fabric = pool.fabric
    link = next((value for pattern, value in _SCALE_OUT if re.search(pattern, network, re.IGNORECASE)), "")
    if link and not length:
        fabric = dataclasses.replace(fabric, link=link)
    if rate := stated_rate(network, pool.chips_per_node):
        fabric = dataclasses.replace(fabric, bytes_per_s=rate)
    return dataclasses.replace(
        pool,
        fabric=fabric,
        ranks_per_chip=ranks_per_chip,
        chips_per_node=chips_per_node or pool.chips_per_node,
    )


def stated_rate(text: str, chips_per_node: float) -> float:
    """Byte per second of one chip that a network text states, 0 if it states none.

    The largest of "n x r Gb/s" (adapters of a node), "r Gb/s per node" and "r Gb/s per GPU".
    """
    rates = [float(n) * float(r) / chips_per_node for n, r in re.findall(r"(\d+) ?x[^0-9,;]{0,40}?(\d+) ?Gb", text)]
    rates += [float(r) / chips_per_node for r in re.findall(r"(\d+) ?Gb/s [^,;]*?per node", text)]
    rates += [float(r) / chips_per_node for r in re.findall(r"(\d+) ?Gb/s inter-node", text)]
    rates += [float(r) for r in re.findall(r"(\d+) ?Gb/s per GPU", text)]
    rates += [float(n) * float(r) / chips_per_node for n, r in re.findall(r"(\d+)x [^,;()]*\((\d+) ?Gb", text)]
    return max(rates, default=0.0) / 8 * 1e9
