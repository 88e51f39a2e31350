"""Axes: along one axis of the domain after the other, each on what the axes before have left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from ultratwin.errors import ScenarioError, unknown_name
from ultratwin.simulation.network.flows import Flows, Integers, Phase, Step, joined
from ultratwin.simulation.network.machine import Machine
from ultratwin.simulation.network.schedules.schedule import (
    PASSES,
    REDUCTIONS,
    Schedule,
    exchange_shares,
    fabric_exchange,
    partners,
)

USUAL: Final = {"ring": "ring", "switch": "halving", "mesh": "direct"}
WAYS: Final = ("ring", "one-way ring", "halving", "direct")
"""How the chips along one axis reduce: round both ways, round one way, halving and doubling, all at once."""


@dataclass(frozen=True, slots=True)
class Axes(Schedule):
    """Reduce-scatter along each axis, exchange between domains, all-gather back.

    `ways`: one of WAYS for each axis of more than one chip, innermost first; the usual one of its kind where empty.
    `rotated`: the message is cut into a part for each axis, as large as its share of the rate, and part p begins with
    axis p, so that all axes carry something all the time.
    """

    ways: tuple[str, ...] = ()
    rotated: bool = False

    name: ClassVar[str] = "axes"
    operations: ClassVar[frozenset[str]] = REDUCTIONS

    def why_not(self, machine: Machine) -> str:
        return "" if machine.domain.size > 1 else "a domain is one chip"

    def phases(self, operation: str, machine: Machine) -> tuple[Phase, ...]:
        passes, size = PASSES[operation], machine.domain.size
        if machine.topology.num_domains == 1:
            return (inside_axes(machine, self.ways, rotated=self.rotated, there=True, back=passes == 2),)
        found = []
        if operation != "all_gather":
            found.append(inside_axes(machine, self.ways, rotated=self.rotated, there=True, back=False))
        found.append(fabric_exchange(machine, 1.0 / size, passes=passes))
        if operation != "reduce_scatter":
            found.append(inside_axes(machine, self.ways, rotated=self.rotated, there=False, back=True))
        return tuple(found)


def inside_axes(
    machine: Machine, ways: Sequence[str], *, rotated: bool, there: bool, back: bool, pipe: str = "ring"
) -> Phase:
    """The reduce-scatter (`there`) and all-gather (`back`) along the axes of every domain."""
    used = [at for at, axis in enumerate(machine.domain.axes) if axis.size > 1]
    chosen = list(ways) or [USUAL[machine.domain.axes[at].kind] for at in used]
    if len(chosen) != len(used) or any(way not in WAYS for way in chosen):
        bad = next((way for way in chosen if way not in WAYS), f"{len(chosen)} ways")
        raise unknown_name(f"way along {len(used)} axes", bad, WAYS, error=ScenarioError)
    parts = len(used) if rotated else 1
    rates = [machine.domain.axes[at].ring_bytes_per_s for at in used]
    steps: list[Step] = []
    for part in range(parts):
        order = [(part + at) % len(used) for at in range(len(used))]
        share, own = rates[part] / sum(rates) if rotated else 1.0, []
        for at in order:
            own += axis_steps(machine, used[at], chosen[at], share, (part, parts))
            share /= machine.domain.axes[used[at]].size
        steps += own if there else []
        steps += reversed(own) if back else []
    return Phase(
        name="axis by axis", steps=tuple(steps), num_groups=parts * len(machine.domains), up_pipe=pipe,
        chunk_share=1.0 / machine.domain.size,
    )  # fmt: skip


def axis_steps(machine: Machine, at: int, way: str, share: float, group: tuple[int, int]) -> list[Step]:
    """A reduce-scatter of a share of the message along one axis, all rows of all domains at once.

    Flows stay in their row, so that one row stands for all where they are alike.
    """
    axis, stride = machine.domain.axes[at], machine.domain.strides[at]
    size = axis.size
    rows = machine.domain.size // size if machine.rows_alike else 1
    places = np.arange(size) * stride if machine.rows_alike else np.arange(machine.domain.size)
    here = axis.coordinate(places, stride)

    def flows(to: Integers, part: float) -> Flows:
        return machine.inside(
            places, places + (to - here) * stride, np.full(len(places), part), group=group[0], groups=group[1],
            copies=float(rows),
        )  # fmt: skip

    if way == "halving":
        return [
            Step(flows=flows(partners(size, distance)[here], share * part)) for distance, part in exchange_shares(size)
        ]
    if way == "direct":
        return [Step(flows=joined([flows((here + shift) % size, share / size) for shift in range(1, size)]))]
    shifts = axis.next_ports() if way == "ring" else ((1, 1.0),)
    parts = [flows((here + shift) % size, share / size * part) for shift, part in shifts]
    return [Step(flows=joined(parts), repeats=size - 1)]
