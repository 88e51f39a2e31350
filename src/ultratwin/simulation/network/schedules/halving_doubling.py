"""Recursive halving and doubling: few steps over growing distances."""

from __future__ import annotations

from typing import ClassVar

from ultratwin.simulation.network.flows import Phase
from ultratwin.simulation.network.machine import Machine
from ultratwin.simulation.network.schedules.axes import inside_axes
from ultratwin.simulation.network.schedules.schedule import PASSES, REDUCTIONS, Schedule, fabric_exchange


class HalvingDoubling(Schedule):
    """Inside one domain, or between domains of one chip each.

    In a domain of several axes the message is cut into a part for each, and part p begins with axis p.
    """

    name: ClassVar[str] = "recursive_halving_doubling"
    operations: ClassVar[frozenset[str]] = REDUCTIONS

    def why_not(self, machine: Machine) -> str:
        if machine.domain.size > 1 and machine.topology.num_domains > 1:
            return "it is for the chips of one domain; hierarchical uses it between domains"
        return ""

    def phases(self, operation: str, machine: Machine) -> tuple[Phase, ...]:
        passes = PASSES[operation]
        if machine.domain.size == 1:
            return (fabric_exchange(machine, 1.0, passes=passes),)
        ways = ["halving" for axis in machine.domain.axes if axis.size > 1]
        return (inside_axes(machine, ways, rotated=True, there=True, back=passes == 2, pipe=self.name),)
