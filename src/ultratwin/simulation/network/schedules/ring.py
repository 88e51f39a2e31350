"""Ring: chunks go round all chips."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ultratwin.simulation.network.flows import Phase, Step, joined
from ultratwin.simulation.network.machine import Machine
from ultratwin.simulation.network.schedules.schedule import PASSES, REDUCTIONS, Schedule, domain_ring, ring_step


class Ring(Schedule):
    """Inside one domain rings over all links; between domains r rings, each of which leaves by another adapter.

    A chunk crosses the fabric on N-1 of its n-1 steps, so a step's latency is that share of the outer one; the inner
    hops come on top.
    """

    name: ClassVar[str] = "ring"
    operations: ClassVar[frozenset[str]] = REDUCTIONS
    uses_channels: ClassVar[bool] = True

    def why_not(self, machine: Machine) -> str:
        return ""

    def phases(self, operation: str, machine: Machine) -> tuple[Phase, ...]:
        size, number = machine.domain.size, machine.topology.num_domains
        ranks, passes = size * number, PASSES[operation]
        if number == 1:
            steps = passes * (ranks - 1)
            return (domain_ring(machine, 1.0 / ranks, repeats=steps, name="ring", own_repeats=steps),)
        domains, crossing = np.arange(number), (number - 1) / (ranks - 1)
        parts = [
            machine.between(
                domains, (domains + 1) % number, np.full(number, 1.0 / ranks / size),
                steps=crossing, by_lane=False,
            )
        ]  # fmt: skip
        if size > 1:
            parts.append(ring_step(machine, 1.0 / ranks, steps=crossing, one_group=True))
        return (
            Phase(
                name="ring", steps=(Step(flows=joined(parts), repeats=passes * (ranks - 1)),), num_groups=1,
                out_pipe="ring", chunk_share=1.0 / ranks, after_steps=passes * (ranks - number),
            ),
        )  # fmt: skip
