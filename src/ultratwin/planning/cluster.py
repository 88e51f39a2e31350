"""The question of `ultratwin cluster`: what a machine of so many chips is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ultratwin.errors import ScenarioError
from ultratwin.hardware.failures import SECONDS_PER_DAY, Layout, load_rates, machine_parts
from ultratwin.hardware.system import System, load_system
from ultratwin.hardware.topology.entries import FabricEntry, fabric_entry
from ultratwin.hardware.topology.queries import LOSSES, Hop, LinkLevel, Loss, link_levels, loss, parts, path
from ultratwin.hardware.topology.topology import Topology, build_topology, chips_per_rack
from ultratwin.planning.run import price_figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What a machine is. `power_w`: by part at full load, before PUE; `usd_per_hour`: by offer, empty if none is known.

    `failures_per_day`: that interrupt a job on all of it, by class of part as low, expected, high, of the rates
    `rates`. `way`: links between two chips, if they were asked for. `assumed`: figures that nobody has published, with
    their ranges.
    """

    system: System
    topology: Topology
    parts: Mapping[str, int]
    levels: tuple[LinkLevel, ...]
    losses: tuple[Loss, ...]
    power_w: Mapping[str, float]
    power_low_w: float
    power_high_w: float
    usd_per_hour: Mapping[str, float]
    racks: int
    rates: str
    failures_per_day: Mapping[str, tuple[float, float, float]]
    way: tuple[Hop, ...]
    assumed: tuple[str, ...]

    @property
    def total_power_w(self) -> float:
        """Of chips, hosts and network."""
        return sum(self.power_w.values())


def describe_cluster(system: str, num_chips: int | None = None, ends: tuple[int, int] | None = None) -> Cluster:
    """A cluster of a system.

    Args:
        system: name in the catalogue
        num_chips: how many; one unit of the system if None
        ends: two chips whose way to each other is asked for
    Raises: ScenarioError where the system does not hold so many, or has no such chip
    """
    found = load_system(system)
    topology = build_topology(found, found.unit_chips if num_chips is None else num_chips)
    pool, chips = found.pool, topology.num_endpoints
    up, out = fabric_entry(pool.domain.link), fabric_entry(pool.fabric.link)
    per_rack = chips_per_rack(found)
    power = {
        "chips at their limit": float(pool.chip.tdp_w) * chips,
        "hosts": float(pool.host_power_w) * chips,
        "scale-out network": float(pool.network_power_w) * chips,
    }
    low, high = _power_range(found, chips)
    offers, per_unit = price_figures(found.id)
    return Cluster(
        system=found,
        topology=topology,
        parts=parts(topology, pool.chips_per_node),
        levels=link_levels(topology),
        losses=_losses(topology, per_rack),
        power_w=power,
        power_low_w=low,
        power_high_w=high,
        usd_per_hour={offer: fact.si * 3600.0 * chips / per_unit for offer, fact in offers.items()},
        racks=-(-chips // per_rack),
        rates=load_rates(pool.chip.id).name,
        failures_per_day=_failures_per_day(found, chips, per_rack),
        way=path(topology, *ends) if ends else (),
        assumed=_assumed(up, "domain") + (_assumed(out, "fabric") if topology.fabric is not None else ()),
    )


def _failures_per_day(system: System, chips: int, per_rack: int) -> dict[str, tuple[float, float, float]]:
    """Interruptions of a job on all chips, in the machine's first year."""
    node = system.pool.chips_per_node
    layout = Layout(chips=chips, chips_per_node=min(node, chips), chips_per_rack=per_rack, unit_chips=min(node, chips))
    found = {}
    for part in machine_parts(load_rates(system.pool.chip.id), layout):
        rate = float(part.expected_failures(SECONDS_PER_DAY))
        found[part.name] = (rate * part.low, rate, rate * part.high)
    return found


def _losses(topology: Topology, per_rack: int) -> tuple[Loss, ...]:
    found = []
    for part in LOSSES:
        try:
            found.append(loss(topology, part, per_rack))
        except ScenarioError:  # a machine without such a part loses none
            continue
    return tuple(found)


def _power_range(system: System, chips: int) -> tuple[float, float]:
    low = high = 0.0
    for facts, key in ((system.pool.chip.facts, "tdp_w"), (system.facts, "host_power_w"),
                       (system.facts, "network_power_w")):  # fmt: skip
        if key in facts:
            ends = facts[key].range_si
            low, high = low + ends[0] * chips, high + ends[1] * chips
    return low, high


def _assumed(entry: FabricEntry | None, what: str) -> tuple[str, ...]:
    if entry is None:
        return (f"{what}: nothing is known of its wiring; a non-blocking one is taken",)
    figures = [
        f"{what}: {name} {fact.value:g} {fact.unit}".rstrip() + f" ({fact.low:g} to {fact.high:g})"
        for name, fact in entry.figures.items()
        if fact.status == "assumed"
    ]
    return tuple(figures)
