"""What all schedules have in common: patterns of flows inside a domain and between domains.

Sizes are shares of the message S, by the nccl-tests convention: the whole array of an all-gather, reduce-scatter or
all-to-all, each rank's buffer of an all-reduce.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Final

import numpy as np

from ultratwin.simulation.network.flows import Flows, Integers, Phase, Step, joined
from ultratwin.simulation.network.machine import Machine

PASSES: Final = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1}
"""An all-reduce is a reduce-scatter and an all-gather."""
REDUCTIONS: Final = frozenset(PASSES)


class Schedule(ABC):
    """How a collective's flows follow one another. `name` is that of the algorithm in timing/collectives.

    `uses_channels`: whether it runs over the channels of a library, which drive a limited number of adapters.
    """

    name: ClassVar[str]
    operations: ClassVar[frozenset[str]]
    uses_channels: ClassVar[bool] = False

    @abstractmethod
    def why_not(self, machine: Machine) -> str:
        """Why it can't run on a machine; empty if it can."""

    @abstractmethod
    def phases(self, operation: str, machine: Machine) -> tuple[Phase, ...]:
        """The phases of a collective of all chips, one after the other."""


def neighbours(machine: Machine) -> Iterator[tuple[Integers, Integers, float]]:
    """Rings over all links of a domain: places, the next place of each, and the ring's share of a chip's rate.

    A product of rings splits into edge-disjoint rings over all chips (Kotzig 1973; Foregger 1978), so that a step loads
    every link with one chunk; which ring a link belongs to does not matter to its load.
    """
    domain = machine.domain
    places, whole = np.arange(domain.size), sum(axis.ring_bytes_per_s for axis in domain.axes if axis.size > 1)
    for axis, stride in zip(domain.axes, domain.strides, strict=True):
        if axis.size == 1:
            continue
        at = axis.coordinate(places, stride)
        for shift, share in axis.next_ports():
            to = (at + shift) % axis.size
            yield places, places + (to - at) * stride, share * axis.ring_bytes_per_s / whole


def ring_step(machine: Machine, share: float, *, steps: float = 1.0, one_group: bool = False) -> Flows:
    """Every chip passes a chunk to its neighbour inside the domain, over all its links at once."""
    rings = list(neighbours(machine))
    return joined(
        [
            machine.inside(
                at, to, np.full(len(at), share * part), steps=steps, group=ring, groups=len(rings), one_group=one_group
            )
            for ring, (at, to, part) in enumerate(rings)
        ]
    )


def num_rings(machine: Machine) -> int:
    """Rings that `ring_step` runs at once inside one domain."""
    return len(list(neighbours(machine)))


def exchange_shares(number: int) -> list[tuple[int, float]]:
    """Distance and share of each step of halving, or doubling in reverse, over so many ranks.

    Powers of two exchange with the partner whose number differs in one bit; other numbers send round the circle, the
    last step the rest (Bruck et al., IEEE TPDS 8, 1997). Either way (n-1)/n is sent in ceil(log2 n) steps.
    """
    steps = math.ceil(math.log2(number)) if number > 1 else 0
    return [(1 << step, min(1 << step, number - (1 << step)) / number) for step in reversed(range(steps))]


def partners(number: int, distance: int) -> Integers:
    """The rank that each rank sends to in an exchange."""
    ranks = np.arange(number)
    return np.asarray(ranks ^ distance if number & (number - 1) == 0 else (ranks + distance) % number)


def fabric_exchange(machine: Machine, share: float, *, pipe: str = "ring", passes: int = 2) -> Phase:
    """Halving and doubling between domains, each lane on its own; `share` of the message is what one lane holds."""
    number = machine.topology.num_domains
    there = [
        Step(flows=machine.between(np.arange(number), partners(number, distance), np.full(number, share * part)))
        for distance, part in exchange_shares(number)
    ]
    back = tuple(reversed(there)) if passes == 2 else ()
    return Phase(
        name="between domains", steps=(*there, *back), num_groups=machine.lane_groups, out_pipe=pipe,
        chunk_share=share / number,
    )  # fmt: skip


def fabric_ring(machine: Machine, share: float, *, passes: int = 2) -> Phase:
    """Rings between domains, each lane on its own; `share` of the message is what one lane holds."""
    number = machine.topology.num_domains
    domains = np.arange(number)
    flows = machine.between(domains, (domains + 1) % number, np.full(number, share / number))
    return Phase(
        name="ring between domains", steps=(Step(flows=flows, repeats=passes * (number - 1)),),
        num_groups=machine.lane_groups, out_pipe="ring", chunk_share=share / number,
    )  # fmt: skip


def domain_ring(machine: Machine, share: float, *, repeats: int, name: str, own_repeats: float = 0.0) -> Phase:
    """Rings inside every domain: `share` of the message is what each chip sends in a step."""
    return Phase(
        name=name, steps=(Step(flows=ring_step(machine, share), repeats=repeats),),
        num_groups=len(machine.domains) * num_rings(machine), chunk_share=share, own_repeats=own_repeats,
    )  # fmt: skip
