"""Switch: the switch of a domain adds and multicasts; between domains a tree."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from ultratwin.simulation.network.flows import Phase, Step, joined
from ultratwin.simulation.network.machine import Machine
from ultratwin.simulation.network.schedules.schedule import Schedule
from ultratwin.simulation.network.schedules.tree import tree_flows


class Switch(Schedule):
    """NVLink SHARP: a chip sends its buffer up and its part of the sum, and receives the same, (1 + 1/r) S each way."""

    name: ClassVar[str] = "switch"
    operations: ClassVar[frozenset[str]] = frozenset({"all_reduce"})
    uses_channels: ClassVar[bool] = True

    def why_not(self, machine: Machine) -> str:
        axes = [axis for axis in machine.domain.axes if axis.size > 1]
        return "" if len(axes) == 1 and axes[0].kind == "switch" else "the domain is not one switch"

    def phases(self, operation: str, machine: Machine) -> tuple[Phase, ...]:
        size, number = machine.domain.size, machine.topology.num_domains
        at = next(index for index, axis in enumerate(machine.domain.axes) if axis.size > 1)
        links = machine.domain.offsets[at] + np.arange(2 * size)
        depth = math.log2(number)
        inside = machine.through(
            np.repeat(np.arange(size), 2), links, np.full(2 * size, 1.0 + 1.0 / size),
            steps=size - 1.0 if number == 1 else depth, one_group=number > 1,
        )  # fmt: skip
        if number == 1:
            return (
                Phase(name="switch", steps=(Step(flows=inside),), num_groups=1, up_pipe="switch",
                      chunk_share=1.0 / size),
            )  # fmt: skip
        edges = tree_flows(machine, 1.0 / size, steps=depth)
        return (
            Phase(
                name="switch and tree", steps=(Step(flows=joined([edges, inside])),), num_groups=1, up_pipe="switch",
                out_pipe="tree", chunk_share=1.0 / (size * number),
            ),
        )  # fmt: skip
