"""A system: pools of one chip kind each, joined by scale-up domains and a scale-out fabric (design D7)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from ultratwin.catalogue import loader
from ultratwin.catalogue.facts import Fact
from ultratwin.catalogue.schema import SystemEntry
from ultratwin.errors import CatalogueError
from ultratwin.hardware.chip import Chip, Number, load_chip


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A scale-up domain: chips that reach each other by load and store, over torus links or through switches.

    `bytes_per_s` is per chip, one direction. `link` is the catalogue's id of the link.
    """

    size: int
    topology: str
    link: str
    bytes_per_s: Number
    latency_s: Number


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabric:
    """The scale-out network between domains. `bytes_per_s` is per chip, one direction.

    `step_delay_s`: what each step of a collective takes longer than the link and library need, where a job measured it
    (a slow proxy, a busy host); it hits every collective of the job, inside domains too.
    """

    link: str
    bytes_per_s: Number
    latency_s: Number
    step_delay_s: Number = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Chips of one kind with their hosts and scale-up domains.

    `ranks_per_chip`: how many ranks of a parallel plan one chip holds (NeuronCores on Trainium1: 2; else 1).
    `host_power_w`, `network_power_w`: per chip, beside the chip's own.
    """

    chip: Chip
    domain: Domain
    fabric: Fabric
    chips_per_node: int
    ranks_per_chip: int = 1
    host_power_w: Number = 0.0
    network_power_w: Number = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What can be bought or rented: pools, how many chips a unit has, and how large it can grow."""

    id: str
    name: str
    pools: tuple[Pool, ...]
    unit_chips: int
    max_chips: int
    hypothetical: bool
    facts: Mapping[str, Fact]

    @property
    def pool(self) -> Pool:
        """The pool of a system that has only one."""
        (only,) = self.pools
        return only


_DEFAULT_SCALE_OUT_LATENCY_S = 15e-6
_DEFAULT_SCALE_UP_LATENCY_S = 1.5e-6


def load_system(name: str) -> System:
    """A system of the catalogue by id or alias.

    Raises: CatalogueError if nobody has that name
    """
    system_id = loader.resolve("systems", name)
    entry = loader.entry("systems", system_id)
    if not isinstance(entry, SystemEntry):
        raise CatalogueError(f"{system_id} is not a system")
    figures = entry.figures

    def si(key: str, default: float) -> float:
        return figures[key].si if key in figures else default

    unit = int(si("num_chips", 1))
    pool = Pool(
        chip=load_chip(entry.chip),
        domain=Domain(
            size=int(si("domain_size", 1)),
            topology=entry.scale_up_topology,
            link=entry.scale_up,
            bytes_per_s=si("scale_up_bytes_per_s", 0.0),
            latency_s=si("scale_up_latency_s", _DEFAULT_SCALE_UP_LATENCY_S),
        ),
        fabric=Fabric(
            link=entry.scale_out,
            bytes_per_s=si("scale_out_bytes_per_s", 0.0),
            latency_s=si("scale_out_latency_s", _DEFAULT_SCALE_OUT_LATENCY_S),
        ),
        chips_per_node=int(si("chips_per_node", unit)),
        host_power_w=si("host_power_w", 0.0),
        network_power_w=si("network_power_w", 0.0),
    )
    return System(
        id=system_id,
        name=entry.name,
        pools=(pool,),
        unit_chips=unit,
        max_chips=int(si("max_chips", unit)),
        hypothetical=entry.hypothetical,
        facts=figures,
    )


def per_rank(pool: Pool) -> Pool:
    """The pool as its ranks see it: rates, memory and power of a chip divided among the ranks on it.

    Links are shared evenly too; a domain and a node hold `ranks_per_chip` times as many ranks as chips.
    """
    share = pool.ranks_per_chip
    if share == 1:
        return pool
    chip = pool.chip
    part = dataclasses.replace(
        chip,
        peak_flop_per_s={key: value / share for key, value in chip.peak_flop_per_s.items()},
        memory_bytes=chip.memory_bytes / share,
        memory_bytes_per_s=chip.memory_bytes_per_s / share,
        num_cores=chip.num_cores / share,
        l2_bytes=chip.l2_bytes / share,
        tdp_w=chip.tdp_w / share,
    )
    return dataclasses.replace(
        pool,
        chip=part,
        domain=dataclasses.replace(
            pool.domain, size=pool.domain.size * share, bytes_per_s=pool.domain.bytes_per_s / share
        ),
        fabric=dataclasses.replace(pool.fabric, bytes_per_s=pool.fabric.bytes_per_s / share),
        chips_per_node=pool.chips_per_node * share,
        ranks_per_chip=1,
        host_power_w=pool.host_power_w / share,
        network_power_w=pool.network_power_w / share,
    )
