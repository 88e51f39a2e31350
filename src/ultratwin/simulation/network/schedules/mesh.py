"""Mesh: every chip exchanges its part with every other one of its domain at once."""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np

from ultratwin.simulation.network.flows import Phase, Step
from ultratwin.simulation.network.machine import Machine
from ultratwin.simulation.network.schedules.schedule import PASSES, REDUCTIONS, Schedule

MOST_CHIPS: Final = 1024
"""Chips of a domain whose pairs are simulated one by one."""


class Mesh(Schedule):
    """One step for each pass; every further peer costs half a step, a flag to write and to poll."""

    name: ClassVar[str] = "mesh"
    operations: ClassVar[frozenset[str]] = REDUCTIONS

    def why_not(self, machine: Machine) -> str:
        return too_many_pairs(machine) if machine.topology.num_domains == 1 else "it is for the chips of one domain"

    def phases(self, operation: str, machine: Machine) -> tuple[Phase, ...]:
        size, passes = machine.domain.size, PASSES[operation]
        source, target = pairs(size)
        flows = machine.inside(
            source, target, np.full(len(source), 1.0 / size), steps=1.0 + 0.5 * (size - 2) / passes
        )  # fmt: skip
        return (
            Phase(
                name="mesh", steps=(Step(flows=flows, repeats=passes),), num_groups=len(machine.domains),
                up_pipe="mesh", chunk_share=1.0 / size,
            ),
        )  # fmt: skip


def too_many_pairs(machine: Machine) -> str:
    """Why all pairs of a domain can't be simulated; empty if they can."""
    size = machine.domain.size
    return (
        f"all pairs of a domain of {size:,} chips are too many; {MOST_CHIPS:,} chips at most"
        if size > MOST_CHIPS
        else ""
    )


def pairs(size: int) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """All ordered pairs of different places."""
    source, target = np.divmod(np.arange(size * size), size)
    other = source != target
    return source[other], target[other]
