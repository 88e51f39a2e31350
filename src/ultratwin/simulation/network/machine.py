"""A topology with its faults as numbered links, folded: of what is alike, one stands for all.

Domains without a fault of their own do the same inside, so one of them is kept; lanes (the chips of one place of every
domain) without a fault do the same between domains, so one of them is kept for each kind of leaf. `folded=False` keeps
all of them, for checking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import Array
from ultratwin.hardware.topology.fabric import ScaleOut
from ultratwin.hardware.topology.product import Product
from ultratwin.hardware.topology.topology import Topology
from ultratwin.simulation.network.classes import Links
from ultratwin.simulation.network.faults import FABRIC_LEVELS, Faults, check_faults
from ultratwin.simulation.network.flows import Crossings, Flows, Integers, make_flows

INSIDE: Final = 0
ADAPTER: Final = 1
LEAF: Final = 2
POD: Final = 3
MOST_HASHED: Final = 20_000
"""Chips whose flows are hashed one by one."""
LEVEL_NAMES: Final = ("inside a domain", "adapters", "leaf to spine", "spine to core")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """Kinds of lanes, [kind]: one lane of each, how many it stands for, how many of those share a leaf, which kind of
    leaf; `slots` leaves of a row are of that kind of leaf."""

    lane: Integers
    count: Array
    per_leaf: Array
    slot: Integers
    slots: Array
    rows: tuple[int, ...]
    """One leaf of a row for each kind of leaf."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Links are numbered: those of the kept domains, then two for each adapter, leaf and pod (up, down).

    `link_latency`: whether flows take the latency of the links that they cross; a library's steps have it in them.
    """

    topology: Topology
    faults: Faults
    domains: Integers
    domain_count: Array
    lanes: Lanes
    links: Links
    starts: tuple[int, int, int, int]
    routing: str
    seed: int
    link_latency: bool
    folded: bool

    @property
    def domain(self) -> Product:
        return self.topology.domain

    @property
    def fabric(self) -> ScaleOut:
        """The scale-out fabric of a machine of several domains."""
        return self.topology.between_domains()

    @property
    def rows_alike(self) -> bool:
        """Whether all rows of chips along an axis are alike, so that one stands for all."""
        inside = any(each.level not in FABRIC_LEVELS for each in self.faults.slow_links)
        return self.folded and not inside and not self.faults.stragglers

    @property
    def lane_groups(self) -> int:
        """Groups of lanes that go at their own pace; hashed flows all meet, and are kept in step."""
        return 1 if self.routing == "ecmp" else len(self.lanes.lane)

    def inside(
        self, source: Integers, target: Integers, share: Array, *, steps: float = 1.0, group: int = 0, groups: int = 1,
        one_group: bool = False, copies: float = 1.0,
    ) -> Flows:  # fmt: skip
        """The same flows inside every domain.

        Args:
            source, target: places of a domain, [flow]
            share: of the message, [flow]
            steps: of the library that their latency counts
            group, groups: to which of so many groups of a domain they belong
            one_group: whether all domains are one group
            copies: how many flows of a domain each stands for
        """
        hops = self.domain.hops(source, target)
        number = None if one_group else (group, groups)
        found = self._copies(Crossings(flow=hops.flow, link=hops.link), source, share, steps, number)
        return found if copies == 1.0 else replace(found, count=found.count * copies)

    def through(
        self, source: Integers, link: Integers, share: Array, *, steps: float = 0.0, one_group: bool = False
    ) -> Flows:
        """Flows inside every domain over one link each, as to a switch that adds."""
        crossings = Crossings(flow=np.arange(len(share)), link=link)
        return self._copies(crossings, source, share, steps, None if one_group else (0, 1))

    def _copies(
        self, hops: Crossings, source: Integers, share: Array, steps: float, group: tuple[int, int] | None
    ) -> Flows:
        number, kept, links = len(share), len(self.domains), len(self.domain.link_bytes_per_s())
        at = np.repeat(np.arange(kept), number)
        hop_s = np.bincount(hops.flow, weights=self.domain.link_latency_s()[hops.link], minlength=number)
        copy = np.repeat(np.arange(kept), len(hops.flow))
        return make_flows(
            share=np.tile(share, kept),
            steps=steps,
            hop_s=np.tile(hop_s, kept) * self.link_latency + self.delay_s(self.domains[at], np.tile(source, kept)),
            count=self.domain_count[at],
            group=0 if group is None else at * group[1] + group[0],
            crossings=[
                Crossings(flow=np.tile(hops.flow, kept) + copy * number, link=np.tile(hops.link, kept) + copy * links)
            ],
        )

    def between(
        self, source: Integers, target: Integers, share: Array, *, steps: float = 1.0, by_lane: bool = True
    ) -> Flows:
        """Flows between domains, one on each lane; lost rails' shares go over the others.

        Args:
            source, target: domains, [flow]
            share: of the message on one lane, [flow]
            steps: of the library that their latency counts
            by_lane: whether the lanes are groups of their own
        """
        lanes, fabric = self.lanes, self.fabric
        kinds, number = len(lanes.lane), len(source)
        kind = np.tile(np.arange(kinds), number)
        at, to = np.repeat(source, kinds), np.repeat(target, kinds)
        use = fabric.num_lanes / (fabric.num_lanes - self.faults.lost_rails)
        if self.routing == "ecmp":
            crossings, level = self._hashed(at, to, kind)
        else:
            crossings, level = self.spread(at, to, kind, kind)
        switches = np.array([fabric.num_hops(each) + 1 for each in range(3)])[level]
        return make_flows(
            share=np.repeat(np.asarray(share, dtype=float), kinds) * use,
            steps=steps,
            hop_s=switches * fabric.hop_s * self.link_latency + self.delay_s(at, lanes.lane[kind]),
            count=lanes.count[kind],
            group=kind if by_lane and self.lane_groups > 1 else 0,
            crossings=crossings,
        )

    def adapter(self, domain: Integers, kind: Integers, down: int) -> Integers:
        """The link of adapters, by domain and kind of lane."""
        return np.asarray(self.starts[1] + (domain * len(self.lanes.lane) + kind) * 2 + down, dtype=np.int64)

    def leaf(self, domain: Integers, kind: Integers, down: int) -> Integers:
        """The link of the leaves that adapters are on."""
        block = self.fabric.block_of(domain)
        return np.asarray(
            self.starts[2] + (block * len(self.lanes.rows) + self.lanes.slot[kind]) * 2 + down, dtype=np.int64
        )  # fmt: skip

    def pod(self, domain: Integers, down: int) -> Integers:
        """The link of the pods that domains are in."""
        return np.asarray(self.starts[3] + self.fabric.pod_of(domain) * 2 + down, dtype=np.int64)

    def spread(
        self, source: Integers, target: Integers, kind: Integers, other: Integers
    ) -> tuple[list[Crossings], Integers]:
        """Crossings of flows spread evenly over parallel links, and where their ways meet (0 leaf, 1 pod, 2 core)."""
        fabric, lanes = self.fabric, self.lanes
        same_leaf = (fabric.block_of(source) == fabric.block_of(target)) & (lanes.slot[kind] == lanes.slot[other])
        level = np.where(same_leaf, 0, np.where(fabric.pod_of(source) == fabric.pod_of(target), 1, 2))
        every = np.arange(len(source))
        up, across = np.flatnonzero(level > 0), np.flatnonzero(level > 1)
        return [
            Crossings(flow=every, link=self.adapter(source, kind, 0)),
            Crossings(flow=every, link=self.adapter(target, other, 1)),
            Crossings(flow=up, link=self.leaf(source[up], kind[up], 0), weight=lanes.per_leaf[kind[up]]),
            Crossings(flow=up, link=self.leaf(target[up], other[up], 1), weight=lanes.per_leaf[other[up]]),
            Crossings(flow=across, link=self.pod(source[across], 0), weight=lanes.count[kind[across]]),
            Crossings(flow=across, link=self.pod(target[across], 1), weight=lanes.count[other[across]]),
        ], level

    def _hashed(self, source: Integers, target: Integers, kind: Integers) -> tuple[list[Crossings], Integers]:
        """As `spread`, each flow on one uplink of its leaf and of its pod, and down the same way, by a seeded hash."""
        fabric = self.fabric
        spread, level = self.spread(source, target, kind, kind)
        uplinks = fabric.leaf_uplinks
        cores = max(1, round(fabric.leaves_per_pod * uplinks / fabric.pod_oversubscription))
        key = (source * fabric.num_lanes + self.lanes.lane[kind]) * np.int64(2_147_483_647) + target
        spine, core = _hash(key, self.seed) % uplinks, _hash(key, self.seed + 1) % cores
        found = spread[:2]
        # hashed links are numbered behind all others: a switch's own link, then one of its uplinks
        for each, base, of, ports in ((spread[2:4], 2, spine, uplinks), (spread[4:], 3, core, cores)):
            start = self.starts[base]
            found += [
                Crossings(
                    flow=one.flow,
                    link=start + ((one.link - start) // 2 * ports + of[one.flow]) * 2 + (one.link - start) % 2,
                )
                for one in each
            ]  # fmt: skip
        return found, level

    def delay_s(self, domain: Integers, place: Integers) -> Array:
        """How much later chips send, by domain and place."""
        found = np.zeros(len(domain))
        for each in self.faults.stragglers:
            at, lane = divmod(each.chip, self.domain.size)
            found += np.where((domain == at) & (place == lane), each.delay_s, 0.0)
        return found

    def link_name(self, link: int) -> str:
        """What people call a link."""
        at = sum(link >= start for start in self.starts[1:])
        if at == INSIDE:
            return self.domain.link_name(link % len(self.domain.link_bytes_per_s()))
        return f"{LEVEL_NAMES[at]} {('up', 'down')[(link - self.starts[at]) % 2]}"


def _hash(keys: Integers, seed: int) -> Integers:
    mixed = keys.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**64)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    return np.asarray((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(2), dtype=np.int64)


def make_machine(
    topology: Topology, faults: Faults | None = None, *, folded: bool = True, routing: str = "spray", seed: int = 0,
    link_latency: bool = False,
) -> Machine:  # fmt: skip
    """A topology's links with faults applied.

    Raises: ScenarioError for faults that the machine can't have, or more hashed flows than can be simulated
    """
    faults = faults or Faults()
    check_faults(faults, topology)
    fabric = topology.fabric
    if routing == "ecmp" and topology.num_endpoints > MOST_HASHED:
        raise ScenarioError(
            f"ecmp hashes each of {topology.num_endpoints:,} chips' flows on its own", allowed=f"up to {MOST_HASHED:,}",
            hint="--routing spray takes any number",
        )  # fmt: skip
    keep_all = not folded
    domains, counts = _kept_domains(topology, faults, keep_all=keep_all)
    lanes = _lanes(topology, faults, keep_all=keep_all or routing == "ecmp")
    inside = len(domains) * len(topology.domain.link_bytes_per_s())
    sizes = [inside, 0, 0, 0]
    rates = [np.tile(topology.domain.link_bytes_per_s(), len(domains))]
    if fabric is not None:
        uplinks, cores = 1, 1
        if routing == "ecmp":
            uplinks = fabric.leaf_uplinks
            cores = max(1, round(fabric.leaves_per_pod * uplinks / fabric.pod_oversubscription))
        blocks = -(-topology.num_domains // fabric.domains_per_leaf)
        sizes[1:] = [topology.num_domains * len(lanes.lane) * 2, blocks * len(lanes.rows) * uplinks * 2,
                     fabric.num_pods * cores * 2]  # fmt: skip
        values = (fabric.nic_bytes_per_s, fabric.leaf_up_bytes_per_s / uplinks, fabric.pod_up_bytes_per_s / cores)
        rates += [np.full(size, value) for size, value in zip(sizes[1:], values, strict=True)]
    starts = tuple(int(each) for each in np.cumsum([0, *sizes[:-1]]))
    machine = Machine(
        topology=topology, faults=faults, domains=domains, domain_count=counts, lanes=lanes,
        links=Links(bytes_per_s=np.concatenate(rates), level=np.repeat(np.arange(4), sizes)),
        starts=starts, routing=routing, seed=seed, link_latency=link_latency, folded=folded,  # type: ignore[arg-type]
    )  # fmt: skip
    _slow_down(machine)
    return machine


def _kept_domains(topology: Topology, faults: Faults, *, keep_all: bool) -> tuple[Integers, Array]:
    number, size = topology.num_domains, topology.domain.size
    if keep_all:
        return np.arange(number), np.ones(number)
    marked = {each.index // size for each in faults.slow_links if each.level not in FABRIC_LEVELS}
    marked |= {each.chip // size for each in faults.stragglers}
    plain = next((each for each in range(number) if each not in marked), None)
    kept = sorted(marked) + ([] if plain is None else [plain])
    counts = [1.0] * len(marked) + ([] if plain is None else [float(number - len(marked))])
    return np.array(kept, dtype=np.int64), np.array(counts)


def _lanes(topology: Topology, faults: Faults, *, keep_all: bool) -> Lanes:
    """Kinds of lanes. Lost rails are the last lanes."""
    fabric, size = topology.fabric, topology.domain.size
    if fabric is None:
        none = np.zeros(0, dtype=np.int64)
        return Lanes(lane=none, count=np.zeros(0), per_leaf=np.zeros(0), slot=none, slots=np.zeros(0), rows=())
    every = np.arange(size - faults.lost_rails)
    slot = fabric.slot_of(every)
    alone = {each.index % size for each in faults.slow_links if each.level == "adapter"}
    alone |= {each.chip % size for each in faults.stragglers}
    rows = {each.index % fabric.slots_per_domain for each in faults.slow_links if each.level == "leaf"}
    rows |= {int(slot[lane]) for lane in alone if lane < len(every)}
    lost = set(fabric.slot_of(np.arange(size - faults.lost_rails, size)).tolist())
    kinds: dict[tuple[int, int], list[int]] = {}
    for lane in every.tolist():
        row = int(slot[lane])
        own_row = row if keep_all or row in rows or row in lost else -1
        kinds.setdefault((own_row, lane if keep_all or lane in alone else -1), []).append(lane)
    names = sorted({key[0] for key in kinds})
    members = [kinds[key] for key in kinds]
    slots = [len({int(slot[lane]) for lane in each}) for each in members]
    return Lanes(
        lane=np.array([each[0] for each in members]),
        count=np.array([float(len(each)) for each in members]),
        per_leaf=np.array([len(each) / number for each, number in zip(members, slots, strict=True)]),
        slot=np.array([names.index(key[0]) for key in kinds]),
        slots=np.array(slots, dtype=float),
        rows=tuple(names),
    )  # fmt: skip


def _slow_down(machine: Machine) -> None:
    """Applies slow links to the rates, both directions."""
    size, rates = machine.domain.size, machine.links.bytes_per_s
    for each in machine.faults.slow_links:
        for link in _links_of(machine, each.level, each.index, size):
            rates[link] *= each.left_frac


def _links_of(machine: Machine, level: str, index: int, size: int) -> Integers:
    domain, place = divmod(index, size)
    if level not in FABRIC_LEVELS:
        at = [axis.name for axis in machine.domain.axes].index(level)
        ports = machine.domain.axes[at].ports
        copy = int(np.flatnonzero(machine.domains == domain)[0]) * len(machine.domain.link_bytes_per_s())
        return np.asarray(copy + machine.domain.offsets[at] + place * ports + np.arange(ports))
    start: Callable[[int], int] = machine.starts.__getitem__
    if level == "adapter":
        kind = np.flatnonzero(machine.lanes.lane == place)
        first = start(ADAPTER) + (domain * len(machine.lanes.lane) + kind) * 2
        return np.concatenate([first, first + 1])
    at, number = (LEAF, len(machine.lanes.rows)) if level == "leaf" else (POD, 1)
    if level == "leaf":
        block, row = divmod(index, machine.fabric.slots_per_domain)
        if row not in machine.lanes.rows:  # only lost rails are on it
            return np.zeros(0, dtype=np.int64)
        index = block * number + machine.lanes.rows.index(row)
    ends = [*machine.starts[1:], len(machine.links.bytes_per_s)]
    blocks = -(-machine.topology.num_domains // machine.fabric.domains_per_leaf)
    each = (ends[at] - start(at)) // (machine.fabric.num_pods if level == "pod" else blocks * number)
    return np.asarray(start(at) + index * each + np.arange(each))
