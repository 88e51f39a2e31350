"""Questions to a topology: parts and links by level, the path of a pair, bisection, what a loss takes away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.errors import ScenarioError, unknown_name
from ultratwin.hardware.topology.fabric import ScaleOut
from ultratwin.hardware.topology.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLevel:
    """Links of one level of the whole machine. `bytes_per_s`: of one link, one direction."""

    name: str
    num_links: int
    bytes_per_s: float
    latency_s: float
    bisection_bytes_per_s: float
    bisection_of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One link on a path."""

    link: str
    bytes_per_s: float
    latency_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What losing one part takes away: chips that are cut off, and the share of a level's rate that is left.

    `scope`: whose rate it is.
    """

    part: str
    chips_lost: int
    level: str
    scope: str
    left_frac: float
    note: str


def link_levels(topology: Topology) -> tuple[LinkLevel, ...]:
    """Every level of links, from the chip outwards; cables, not directions, are counted."""
    domain, found = topology.domain, []
    for axis in domain.axes:
        if axis.size == 1:
            continue
        per_chip = axis.ports / 2.0 if axis.kind != "ring" else (1.0 if getattr(axis, "closed", True) else 0.0)
        links = topology.num_endpoints * per_chip
        if axis.kind == "ring" and not getattr(axis, "closed", True):
            links = topology.num_endpoints * (axis.size - 1) / axis.size
        found.append(
            LinkLevel(
                name=axis.name,
                num_links=round(links),
                bytes_per_s=axis.port_bytes_per_s,
                latency_s=axis.latency_s,
                bisection_bytes_per_s=axis.bisection_bytes_per_s() * (domain.size // axis.size),
                bisection_of="one domain",
            )
        )
    return tuple(found) + (_fabric_levels(topology.fabric) if topology.fabric else ())


def _fabric_levels(fabric: ScaleOut) -> tuple[LinkLevel, ...]:
    nics = fabric.num_domains * fabric.num_lanes
    counts = {"adapter to leaf": nics}
    if fabric.has_spines:
        counts["leaf to spine"] = fabric.num_leaves * fabric.leaf_uplinks
    if fabric.num_pods > 1:
        counts["spine to core"] = round(counts["leaf to spine"] / fabric.pod_oversubscription)
    return tuple(
        LinkLevel(
            name=name, num_links=count, bytes_per_s=fabric.nic_bytes_per_s, latency_s=fabric.hop_s,
            bisection_bytes_per_s=count * fabric.nic_bytes_per_s / 2.0, bisection_of="the cluster",
        )
        for name, count in counts.items()
    )  # fmt: skip


def parts(topology: Topology, chips_per_node: int) -> dict[str, int]:
    """How many of each part the machine has, by name."""
    fabric = topology.fabric
    found = {"chips": topology.num_endpoints, "hosts": -(-topology.num_endpoints // chips_per_node),
             "scale-up domains": topology.num_domains}  # fmt: skip
    if fabric is not None:
        found |= {"network adapters (one per chip)": topology.num_endpoints, "leaf switches": fabric.num_leaves}
        found |= {"spine switches": fabric.num_spines, "core switches": fabric.num_cores}
        found |= {"pods": fabric.num_pods}
    return {name: count for name, count in found.items() if count}


def path(topology: Topology, source: int, target: int) -> tuple[Hop, ...]:
    """The links that a flow between two chips crosses, in order; a fabric's parallel links are named by their level.

    Raises: ScenarioError for a chip that the machine does not have
    """
    for chip in (source, target):
        if not 0 <= chip < topology.num_endpoints:
            raise ScenarioError(f"there is no chip {chip:,}", allowed=f"0 to {topology.num_endpoints - 1:,}")
    size, domain = topology.domain.size, topology.domain
    (at, start), (to, end) = divmod(source, size), divmod(target, size)
    if at == to:
        found = domain.hops(np.array([start]), np.array([end]))
        rate, latency = domain.link_bytes_per_s(), domain.link_latency_s()
        return tuple(
            Hop(link=domain.link_name(int(link)), bytes_per_s=float(rate[link]), latency_s=float(latency[link]))
            for link in found.link
        )
    fabric = topology.between_domains()
    level = meeting_level(fabric, at, start, to, end)
    names = [f"adapter of chip {source} up"]
    names += [f"leaf {_leaf(fabric, at, start)} up"] * (level > 0) + [f"pod {_pod(fabric, at)} up"] * (level > 1)
    names += [f"pod {_pod(fabric, to)} down"] * (level > 1) + [f"leaf {_leaf(fabric, to, end)} down"] * (level > 0)
    names += [f"adapter of chip {target} down"]
    return tuple(Hop(link=name, bytes_per_s=fabric.nic_bytes_per_s, latency_s=fabric.hop_s) for name in names)


def meeting_level(fabric: ScaleOut, domain: int, lane: int, other: int, other_lane: int) -> int:
    """Where two adapters' ways meet: 0 on one leaf, 1 on the spines of one pod, 2 on the core."""
    if _leaf(fabric, domain, lane) == _leaf(fabric, other, other_lane):
        return 0
    return 1 if _pod(fabric, domain) == _pod(fabric, other) else 2


def _leaf(fabric: ScaleOut, domain: int, lane: int) -> int:
    return int(fabric.block_of(np.asarray(domain))) * fabric.slots_per_domain + int(fabric.slot_of(np.asarray(lane)))


def _pod(fabric: ScaleOut, domain: int) -> int:
    return int(fabric.pod_of(np.asarray(domain)))


_AROUND: Final = "spraying goes round it; hashed flows are moved"
LOSSES: Final = ("chip", "link", "adapter", "leaf", "spine", "core", "rack", "domain")


def loss(topology: Topology, part: str, chips_per_rack: int) -> Loss:
    """What one lost part takes away.

    Args:
        topology: the machine
        part: one of LOSSES
        chips_per_rack: how many a rack holds
    Returns: chips that no longer take part, and how much of the rate of the narrowest thing around it is left
    Raises: ScenarioError for a part that the machine does not have
    """
    known = [each for each in LOSSES if topology.fabric is not None or each not in ("adapter", "leaf", "spine", "core")]
    if part not in known:
        raise unknown_name("part", part, known, error=ScenarioError)
    size = topology.domain.size
    if part in ("chip", "link", "rack", "domain"):
        return _domain_loss(topology, part, min(chips_per_rack, topology.num_endpoints), size)
    fabric = topology.between_domains()
    adapters = fabric.domains_per_leaf * fabric.lanes_per_leaf
    pod_spines = max(1, fabric.num_spines // fabric.num_pods)
    match part:
        case "adapter":
            left = 1.0 - 1.0 / fabric.num_lanes
            return Loss(part=part, chips_lost=0, level="adapter to leaf", scope="its domain", left_frac=left,
                        note="its chip sends through its neighbours' adapters")  # fmt: skip
        case "leaf":
            cut_off = fabric.lanes_per_leaf == fabric.num_lanes
            return Loss(part=part, chips_lost=adapters if cut_off else 0, level="adapter to leaf",
                        scope=f"each of the {min(fabric.domains_per_leaf, fabric.num_domains)} domains below it",
                        left_frac=1.0 - fabric.lanes_per_leaf / fabric.num_lanes,
                        note="its domains are cut off" if cut_off else "adapters on other leaves go on")  # fmt: skip
        case "spine":
            if not fabric.has_spines:
                raise ScenarioError("the fabric has no spine switches", hint="one leaf holds all adapters")
            return Loss(
                part=part,
                chips_lost=0,
                level="leaf to spine",
                scope="its pod",
                left_frac=1.0 - 1.0 / pod_spines,
                note=_AROUND,
            )
    if not fabric.num_cores:
        raise ScenarioError("the fabric has no core switches", hint="one pod holds everything")
    return Loss(
        part=part,
        chips_lost=0,
        level="spine to core",
        scope="the cluster",
        left_frac=1.0 - 1.0 / fabric.num_cores,
        note=_AROUND,
    )


def _domain_loss(topology: Topology, part: str, chips_per_rack: int, size: int) -> Loss:
    domain = topology.domain
    if part == "link":
        axis = max(domain.axes, key=lambda each: each.port_bytes_per_s)
        left = max(0.0, 1.0 - axis.port_bytes_per_s / domain.bytes_per_s) if domain.bytes_per_s else 0.0
        note = "an axis that is a ring loses one of its two ways" if axis.kind == "ring" else "other ways are left"
        return Loss(
            part=part, chips_lost=0, level=axis.name, scope="its chip, one direction", left_frac=left,
            note=note if left else "the chip is cut off",
        )  # fmt: skip
    lost = {"chip": 1, "rack": chips_per_rack, "domain": size}[part]
    whole = -(-lost // size)
    held_up = min(whole * size, topology.num_endpoints)
    note = f"a plan that needs whole domains loses {held_up:,} chips" if held_up > lost else "whole domains"
    return Loss(part=part, chips_lost=lost, level="all", scope="the cluster",
                left_frac=1.0 - lost / topology.num_endpoints, note=note)  # fmt: skip
