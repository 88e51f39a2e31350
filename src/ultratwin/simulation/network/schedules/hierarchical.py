"""Hierarchical: inside each domain, then between domains on what each chip holds, then inside again."""

from __future__ import annotations

from typing import ClassVar

from ultratwin.simulation.network.flows import Phase
from ultratwin.simulation.network.machine import Machine
from ultratwin.simulation.network.schedules.schedule import (
    PASSES,
    REDUCTIONS,
    Schedule,
    domain_ring,
    fabric_exchange,
)


class Hierarchical(Schedule):
    """Rings inside, halving and doubling between, as Neuron's runtime does it."""

    name: ClassVar[str] = "hierarchical"
    operations: ClassVar[frozenset[str]] = REDUCTIONS

    def why_not(self, machine: Machine) -> str:
        return "" if machine.topology.num_domains > 1 else "there is one domain"

    def phases(self, operation: str, machine: Machine) -> tuple[Phase, ...]:
        size, passes = machine.domain.size, PASSES[operation]
        between = fabric_exchange(machine, 1.0 / size, passes=passes)
        if size == 1:
            return (between,)
        inside = domain_ring(machine, 1.0 / size, repeats=size - 1, name="reduce-scatter inside")
        gather = domain_ring(machine, 1.0 / size, repeats=size - 1, name="all-gather inside")
        if operation == "all_reduce":
            return (inside, between, gather)
        return (inside, between) if operation == "reduce_scatter" else (between, gather)
