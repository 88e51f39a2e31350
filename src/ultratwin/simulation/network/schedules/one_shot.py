"""One-shot: every chip reads all buffers of its domain whole and adds them itself."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ultratwin.simulation.network.flows import Phase, Step
from ultratwin.simulation.network.machine import Machine
from ultratwin.simulation.network.schedules.mesh import pairs, too_many_pairs
from ultratwin.simulation.network.schedules.schedule import Schedule


class OneShot(Schedule):
    """One step at the price of n - 1 whole messages; every further peer costs half a step."""

    name: ClassVar[str] = "one_shot"
    operations: ClassVar[frozenset[str]] = frozenset({"all_reduce"})

    def why_not(self, machine: Machine) -> str:
        return too_many_pairs(machine) if machine.topology.num_domains == 1 else "it is for the chips of one domain"

    def phases(self, operation: str, machine: Machine) -> tuple[Phase, ...]:
        size = machine.domain.size
        source, target = pairs(size)
        flows = machine.inside(source, target, np.ones(len(source)), steps=1.0 + 0.5 * (size - 2))
        return (
            Phase(
                name="one-shot", steps=(Step(flows=flows),), num_groups=len(machine.domains), up_pipe="one_shot",
                chunk_share=1.0,
            ),
        )  # fmt: skip
