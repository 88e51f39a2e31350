"""What a machine is wired like: equal scale-up domains in a scale-out fabric. Built from a system of the catalogue."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from ultratwin.catalogue import loader
from ultratwin.errors import ScenarioError, required
from ultratwin.hardware.system import Pool, System, load_system
from ultratwin.hardware.topology.axis import Axis
from ultratwin.hardware.topology.clos import Clos
from ultratwin.hardware.topology.entries import FabricEntry, Shape, Slices, fabric_entry, known_shape
from ultratwin.hardware.topology.fabric import ScaleOut
from ultratwin.hardware.topology.mesh import Mesh
from ultratwin.hardware.topology.product import Product
from ultratwin.hardware.topology.rail_optimised import RailOptimised
from ultratwin.hardware.topology.ring import Ring
from ultratwin.hardware.topology.switch import Switch

AXES: Final[tuple[type[Axis], ...]] = (Ring, Switch, Mesh)
FABRICS: Final[tuple[type[ScaleOut], ...]] = (Clos, RailOptimised)
_AXIS_NAMES: Final = ("x", "y", "z")
_SWITCH_PORTS: Final = 64
_CHIPS_PER_RACK: Final = 32
_HOP_S: Final = 0.6e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """N equal domains, chip d r + i being place i of domain d. `fabric` is None where there is one domain.

    `num_chips`: chips that were asked for; the domains hold up to one domain's worth more.
    """

    name: str
    num_chips: int
    domain: Product
    num_domains: int
    fabric: ScaleOut | None

    @property
    def num_endpoints(self) -> int:
        """Chips of all its domains."""
        return self.domain.size * self.num_domains

    def between_domains(self) -> ScaleOut:
        """The scale-out fabric.

        Raises: ScenarioError where there is one domain, which has none
        """
        return required(
            self.fabric, f"{self.name} of {self.num_chips:,} chips is one domain", hint="ask for more chips"
        )


def build_topology(system: System | str, num_chips: int) -> Topology:
    """The topology of a number of chips of a system, from the catalogue's figures.

    Args:
        system: a system or its name
        num_chips: how many; more than one domain is rounded up to whole domains, fewer fill rows of one
    Returns: its structure; nothing in it grows with the chips
    Raises: ScenarioError where the system does not hold so many, or the chips do not fill rows of a domain
    """
    system = load_system(system) if isinstance(system, str) else system
    check_size(system, num_chips)
    pool = system.pool
    size = min(pool.domain.size, num_chips)
    shape = known_shape(pool.domain.link, pool.domain.size)
    domain = part_of_domain(build_domain(pool), size, slices=shape.slices if shape else "rows")
    num_domains = math.ceil(num_chips / size)
    fabric = None if num_domains == 1 else build_fabric(pool, num_domains)
    return Topology(name=system.id, num_chips=num_chips, domain=domain, num_domains=num_domains, fabric=fabric)


def check_size(system: System, num_chips: int) -> None:
    """Whether a system holds so many chips.

    Raises: ScenarioError with what it holds and the smallest system of the same chip that holds more
    """
    if num_chips < 1:
        raise ScenarioError(f"{num_chips:,} chips are no cluster", allowed="1 or more")
    if num_chips <= system.max_chips:
        return
    holds = (f"{system.max_chips:,} chips at most (of {system.unit_chips} in a unit)"
             if system.max_chips > system.unit_chips else f"{system.unit_chips} chips")  # fmt: skip
    systems = _existing()
    larger = [each for each in systems if each.max_chips >= num_chips and each.pool.chip.id == system.pool.chip.id]
    if larger:
        hint = f"{larger[0].id} holds {larger[0].max_chips:,} of the same chip"
    else:
        most = max(systems, key=lambda each: (each.max_chips, "cluster" in each.id))
        hint = f"no system of this chip holds so many; the largest of all is {most.id} with {most.max_chips:,}"
    raise ScenarioError(f"{system.id} does not hold {num_chips:,} chips", allowed=f"it holds {holds}", hint=hint)


def _existing() -> list[System]:
    """Systems that exist, from the smallest to the largest; of equal ones clusters come first."""
    found = [load_system(each) for each in loader.ids("systems")]
    return sorted(
        (each for each in found if not each.hypothetical),
        key=lambda each: (each.max_chips, "cluster" not in each.id, each.id),
    )


def chips_per_rack(system: System) -> int:
    """Chips of one rack: a unit's share of its racks, or what its link's file says; four nodes of eight else."""
    if "num_racks" in system.facts:
        return int(system.unit_chips / system.facts["num_racks"].si)
    entry = fabric_entry(system.pool.domain.link)
    return int(entry.si("chips_per_rack", _CHIPS_PER_RACK)) if entry is not None else _CHIPS_PER_RACK


def build_domain(pool: Pool) -> Product:
    """The whole scale-up domain of a pool, by the shape of its size in catalogue/data/fabrics."""
    shape = known_shape(pool.domain.link, pool.domain.size) or _plain_shape(pool)
    kinds = {each.kind: each for each in AXES}
    if unknown := [kind for kind in shape.kinds if kind not in kinds]:
        raise ScenarioError(f"unknown kinds of axes: {', '.join(unknown)}", allowed=", ".join(kinds))
    rate = float(pool.domain.bytes_per_s) or float(pool.fabric.bytes_per_s)
    return Product(
        axes=tuple(
            kinds[kind](name=name, size=side, bytes_per_s=rate * share, latency_s=float(pool.domain.latency_s))
            for name, side, kind, share in zip(shape.axes, shape.sides, shape.kinds, shape.rate_shares, strict=True)
        )
    )


def _plain_shape(pool: Pool) -> Shape:
    """The shape of a domain that no file describes: one axis, or equal sides of a torus.

    Raises: ScenarioError for a torus whose size is no square or cube
    """
    size, topology = pool.domain.size, pool.domain.topology
    if not topology.startswith("torus"):
        kind = topology if topology in ("ring", "mesh") else "switch"
        return Shape(chips=size, axes=("link",), sides=(size,), kinds=(kind,), status="derived", source="")
    axes = 3 if topology == "torus-3d" else 2
    side = round(size ** (1.0 / axes))
    if side**axes != size:
        raise ScenarioError(
            f"a {topology} of {size} chips does not close: {side} to the power of {axes} is {side**axes}",
            where=pool.domain.link, allowed="a file in catalogue/data/fabrics with the sides of this size",
        )  # fmt: skip
    return Shape(
        chips=size, axes=_AXIS_NAMES[:axes], sides=(side,) * axes, kinds=("ring",) * axes, status="derived", source=""
    )  # fmt: skip


def part_of_domain(domain: Product, size: int, *, slices: Slices = "rows") -> Product:
    """A slice of a domain: whole rows of all axes but the last that is begun, or the most even box.

    Raises: ScenarioError for a size that does not fill it, with sizes that do
    """
    if size == domain.size:
        return domain
    sides = _rows(domain, size) if slices == "rows" else _box(domain, size)
    if not sides:
        raise ScenarioError(
            f"{size:,} chips do not fill rows of a domain of {' x '.join(str(axis.size) for axis in domain.axes)}",
            allowed=f"for example {', '.join(str(each) for each in _fillings(domain, size))}",
        )
    closed = slices == "cubes" and all(side % 4 == 0 for side in sides)
    return Product(
        axes=tuple(_shortened(axis, side, closed=closed) for axis, side in zip(domain.axes, sides, strict=True))
    )


def _rows(domain: Product, size: int) -> tuple[int, ...]:
    sides, left = [], size
    for axis in domain.axes:
        side = min(axis.size, left)
        if left % side:
            return ()
        sides.append(side)
        left //= side
    return tuple(sides) if left == 1 else ()


def _box(domain: Product, size: int) -> tuple[int, ...]:
    """Sides of the most even box of so many chips that fits; empty if there is none."""
    boxes: list[tuple[int, ...]] = [()]
    for axis in domain.axes:
        boxes = [(*box, side) for box in boxes for side in range(1, axis.size + 1) if size % side == 0]
    found = [box for box in boxes if math.prod(box) == size]
    return min(found, key=lambda box: (max(box) / min(box), any(side % 4 for side in box), box), default=())


def _fillings(domain: Product, size: int) -> list[int]:
    """Sizes near to one, of the rows that can be filled."""
    row, found = 1, set()
    for axis in domain.axes:
        found |= {row * count for count in range(1, axis.size + 1)}
        row *= axis.size
    return sorted(sorted(found, key=lambda each: (abs(each - size), each))[:4])


def _shortened(axis: Axis, size: int, *, closed: bool) -> Axis:
    if size == axis.size:
        return axis
    if isinstance(axis, Ring):
        return replace(axis, size=size, closed=closed)
    if isinstance(axis, Mesh):  # links to chips that take no part stay idle
        return replace(axis, size=size, bytes_per_s=axis.port_bytes_per_s * max(size - 1, 1))
    return replace(axis, size=size)


def build_fabric(pool: Pool, num_domains: int) -> ScaleOut:
    """The scale-out fabric of a pool's domains; a non-blocking Clos of 64-port switches where no file knows more."""
    entry = fabric_entry(pool.fabric.link) or FabricEntry(name="", links=(), kind="clos")
    rate, size = float(pool.fabric.bytes_per_s), pool.domain.size
    if not 0 < rate < math.inf:
        raise ScenarioError(f"the fabric of {pool.fabric.link} has a rate of {rate:g} B/s", allowed="above 0, finite")
    ports = int(min(entry.si("switch_ports", _SWITCH_PORTS), entry.si("switch_bytes_per_s", math.inf) // rate))
    common = {
        "num_domains": num_domains,
        "num_lanes": size,
        "nic_bytes_per_s": rate,
        "switch_ports": ports,
        "hop_s": entry.si("hop_s", _HOP_S),
        "leaf_oversubscription": entry.si("leaf_oversubscription", 1.0),
        "pod_oversubscription": entry.si("pod_oversubscription", 1.0),
        "pod_leaves": int(entry.si("pod_leaves")),
        "leaf_ports": int(entry.si("leaf_ports")),
        "routing": entry.routing,
    }
    if entry.kind == "rail_optimised":
        rails = math.gcd(size, pool.chips_per_node)
        return RailOptimised(rails=rails, **common)  # type: ignore[arg-type]
    return Clos(**common)  # type: ignore[arg-type]
