"""The question of `ultratwin collective`: how long a collective of all chips takes, by size, at a fidelity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from ultratwin.errors import ScenarioError, unknown_name
from ultratwin.hardware.system import load_system
from ultratwin.hardware.topology.entries import fabric_entry
from ultratwin.hardware.topology.fabric import ROUTINGS
from ultratwin.hardware.topology.topology import Topology, build_topology
from ultratwin.simulation.network.faults import Faults
from ultratwin.simulation.network.machine import make_machine
from ultratwin.simulation.network.run import OPERATIONS, Simulator
from ultratwin.timing.collectives import ALGORITHMS, Network, collective_time_s
from ultratwin.timing.collectives.shape import axes_of
from ultratwin.timing.communication import wires_of

_NONE: Final = Faults()
FIDELITIES: Final = ("bound", "analytic", "event")
ELEMENT_BYTES: Final = 4.0
"""What nccl-tests counts in unless told otherwise: float."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveQuestion:
    """A collective of all chips of a cluster. `algorithm`: empty for the one that the library would choose.

    `routing`: "spray", "ecmp", or empty for the fabric's own. Faults and routing matter to events only.
    """

    operation: str
    system: str
    num_chips: int
    sizes_bytes: tuple[float, ...]
    fidelity: str = "analytic"
    algorithm: str = ""
    faults: Faults = _NONE
    routing: str = ""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveRow:
    """One line of the table, as nccl-tests prints it."""

    size_bytes: float
    count: float
    time_s: float
    algorithm_bytes_per_s: float
    bus_bytes_per_s: float
    algorithm: str
    bound_by: str = ""
    num_flows: float = 0.0
    num_classes: int = 0
    num_events: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveAnswer:
    """Times of all sizes, and the machine that they are for."""

    question: CollectiveQuestion
    topology: Topology
    rows: tuple[CollectiveRow, ...]


def answer_collective(question: CollectiveQuestion) -> CollectiveAnswer:
    """Times of a collective by size.

    Raises: ScenarioError for a collective, algorithm, fidelity, size, fault or routing that can't be
    """
    _check(question)
    system = load_system(question.system)
    topology = build_topology(system, question.num_chips)
    network = wires_of(system.pool).network
    if network.axes:  # a slice of a torus has sides of its own, and may be open
        network = replace(network, axes=axes_of(topology.domain, float(system.pool.domain.bytes_per_s)))
    if question.fidelity == "event":
        rows = _event_rows(question, topology, network, system.pool.fabric.link)
    else:
        rows = [_closed_row(question, topology, network, size) for size in question.sizes_bytes]
    return CollectiveAnswer(question=question, topology=topology, rows=tuple(rows))


def _check(question: CollectiveQuestion) -> None:
    if question.operation not in OPERATIONS:
        raise unknown_name("collective", question.operation, OPERATIONS, error=ScenarioError)
    if question.fidelity not in FIDELITIES:
        raise unknown_name("fidelity", question.fidelity, FIDELITIES, error=ScenarioError)
    if question.routing and question.routing not in ROUTINGS:
        raise unknown_name("routing", question.routing, ROUTINGS, error=ScenarioError)
    if question.num_chips < 2:
        raise ScenarioError(f"{question.num_chips} chips have nobody to talk to", allowed="2 or more")
    check_sizes(question.sizes_bytes)
    if question.fidelity != "event" and (question.faults != _NONE or question.routing):
        raise ScenarioError(
            f"slow links, stragglers, lost rails and routing do not show at fidelity {question.fidelity}",
            hint="--fidelity event simulates them",
        )
    names = [each.name for each in ALGORITHMS if question.operation in each.operations]
    if question.fidelity == "bound" and question.algorithm:
        raise ScenarioError("a bound holds for every algorithm", hint="leave --algorithm out")
    if question.fidelity == "analytic" and question.algorithm and question.algorithm not in names:
        raise unknown_name(f"algorithm for {question.operation}", question.algorithm, names, error=ScenarioError)


def check_sizes(sizes: Sequence[float]) -> None:
    """Whether sizes can be asked for: at least one, each above zero, growing.

    Raises: ScenarioError otherwise
    """
    if not sizes:
        raise ScenarioError("no sizes", allowed="such as 1MB:16GB")
    for size in sizes:
        if not 0 < size < 1e18:
            raise ScenarioError(f"a message of {size:g} bytes", allowed="above 0, below 1 EB")
    if any(later <= before for before, later in pairwise(sizes)):
        raise ScenarioError("sizes are out of order", allowed="growing sizes, the smallest first")


def doubling_sizes(low: float, high: float) -> tuple[float, ...]:
    """Sizes from low to high, each twice the one before.

    Example:
        >>> doubling_sizes(1e6, 5e6)
        (1000000.0, 2000000.0, 4000000.0)
    """
    if not 0 < low <= high:
        raise ScenarioError(
            f"sizes from {low:g} to {high:g} bytes are out of order", allowed="LOW:HIGH with 0 < LOW <= HIGH"
        )
    number = int(np.floor(np.log2(high / low) + 1e-9)) + 1
    return tuple(low * 2.0**step for step in range(number))


def _row(question: CollectiveQuestion, ranks: int, size: float, time_s: float, algorithm: str) -> CollectiveRow:
    factor = (2.0 if question.operation == "all_reduce" else 1.0) * (ranks - 1) / ranks
    return CollectiveRow(
        size_bytes=size, count=size / ELEMENT_BYTES, time_s=time_s, algorithm_bytes_per_s=size / time_s,
        bus_bytes_per_s=size / time_s * factor, algorithm=algorithm,
    )  # fmt: skip


def _closed_row(question: CollectiveQuestion, topology: Topology, network: Network, size: float) -> CollectiveRow:
    ranks, domains = topology.domain.size, topology.num_domains
    if question.fidelity == "bound":
        time_s = bound_time_s(question.operation, size, network, ranks_per_domain=ranks, num_domains=domains)
        return _row(question, topology.num_endpoints, size, time_s, "any")
    name = question.algorithm or chosen_algorithm(question.operation, size, network, topology)
    time = collective_time_s(
        question.operation, size, network, ranks_per_domain=ranks, num_domains=domains, algorithm=name
    )
    if not np.isfinite(time):
        raise ScenarioError(f"{name} can't run here", hint="leave --algorithm out for the library's own choice")
    return _row(question, topology.num_endpoints, size, float(time), name)


def bound_time_s(
    operation: str, size_bytes: float, network: Network, *, ranks_per_domain: float, num_domains: float
) -> float:
    """The least time that any algorithm can take, from what every chip and every domain has to send.

    Equation: t = max(p (n-1)/n S / (B_up + B_out), p (N-1)/N S / (r B_out)), p = 2 for an all-reduce that no switch
    helps, else 1; all-to-all: max((n-1)/n S / (B_up + B_out), (N-1)/N S / B_out)
    Args:
        operation: as in collective_time_s
        size_bytes: S by the nccl-tests convention [byte]
        network: rates of one rank
        ranks_per_domain, num_domains: r and N
    Returns: seconds
    Source: derived; Chan et al., Concurrency and Computation 19 (2007) for the least traffic of one rank
    """
    ranks = ranks_per_domain * num_domains
    helped = network.in_network_reduction or network.scale_out_reduction
    passes = 2.0 if operation == "all_reduce" and not helped else 1.0
    up, out = float(network.scale_up_bytes_per_s), float(network.scale_out_bytes_per_s)
    chip = passes * (ranks - 1.0) / ranks * size_bytes / (up + out if num_domains > 1 else up or out)
    if num_domains <= 1:
        return chip
    adapters = 1.0 if operation == "all_to_all" else ranks_per_domain
    return max(chip, passes * (num_domains - 1.0) / num_domains * size_bytes / (adapters * out))


def chosen_algorithm(operation: str, size_bytes: float, network: Network, topology: Topology) -> str:
    """The algorithm that the library would choose by the closed forms."""
    names = [each.name for each in ALGORITHMS if operation in each.operations]
    best, *times = (
        float(
            collective_time_s(
                operation, size_bytes, network, ranks_per_domain=topology.domain.size,
                num_domains=topology.num_domains, algorithm=name,
            )
        )
        for name in (None, *names)
    )  # fmt: skip
    return names[int(np.argmin(np.abs(np.array(times) - best)))]


def _event_rows(
    question: CollectiveQuestion, topology: Topology, network: Network, fabric_link: str
) -> list[CollectiveRow]:
    entry = fabric_entry(fabric_link)
    routing = question.routing or (entry.routing if entry is not None else "spray")
    machine = make_machine(topology, question.faults, routing=routing, seed=question.seed)
    simulator = Simulator(machine=machine, profile=network.profile)
    rows = []
    for size in question.sizes_bytes:
        name = question.algorithm or chosen_algorithm(question.operation, size, network, topology)
        if not question.algorithm and simulator.algorithms(question.operation).get(name, "no such schedule"):
            name = "ring" if question.operation != "all_to_all" else "all_to_all"
        run = simulator.time(question.operation, size, name)
        row = _row(question, topology.num_endpoints, size, run.time_s, name)
        longest = max(run.phases, key=lambda phase: phase.seconds)
        rows.append(
            CollectiveRow(
                size_bytes=row.size_bytes, count=row.count, time_s=row.time_s,
                algorithm_bytes_per_s=row.algorithm_bytes_per_s, bus_bytes_per_s=row.bus_bytes_per_s, algorithm=name,
                bound_by=f"{longest.name}: {longest.bottleneck}", num_flows=run.num_flows,
                num_classes=run.num_classes, num_events=run.num_events,
            )
        )  # fmt: skip
    return rows
