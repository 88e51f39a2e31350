"""Tree: reduce to a root and broadcast back over two trees at once."""

from __future__ import annotations

import math
from typing import ClassVar, Final

import numpy as np

from ultratwin.simulation.network.flows import Flows, Integers, Phase, Step, joined
from ultratwin.simulation.network.machine import Machine
from ultratwin.simulation.network.schedules.schedule import Schedule, num_rings, ring_step

_CHAIN: Final = 8
"""Chips of a node, which a library links as a chain (NCCL: src/graph/tuning.cc)."""


class Tree(Schedule):
    """Double binary tree over domains, a chain inside each; the message is cut so finely that all edges are busy.

    Each domain is an inner node of one tree and a leaf of the other. Inside, a chip sends its share of a reduce-scatter
    and an all-gather at the same time.
    """

    name: ClassVar[str] = "tree"
    operations: ClassVar[frozenset[str]] = frozenset({"all_reduce"})
    uses_channels: ClassVar[bool] = True

    def why_not(self, machine: Machine) -> str:
        return ""

    def phases(self, operation: str, machine: Machine) -> tuple[Phase, ...]:
        size, number = machine.domain.size, machine.topology.num_domains
        if number == 1:
            return (_inside(machine),)
        depth = math.log2(number)
        edges = tree_flows(machine, 1.0 / size, steps=depth)
        inside = [ring_step(machine, 2.0 * (size - 1) / size, steps=depth, one_group=True)] if size > 1 else []
        return (
            Phase(
                name="tree", steps=(Step(flows=joined([edges, *inside])),), num_groups=1, out_pipe="tree",
                chunk_share=1.0 / (size * number), after_steps=size - 1.0,
            ),
        )  # fmt: skip


def _inside(machine: Machine) -> Phase:
    """A tree over the nodes of one domain, which are chains."""
    size = machine.domain.size
    chain = min(size, _CHAIN)
    steps = 2.0 * (math.log2(size / chain) + chain - 1.0)
    return Phase(
        name="tree", steps=(Step(flows=ring_step(machine, 2.0, steps=steps)),), num_groups=num_rings(machine),
        chunk_share=1.0 / chain,
    )  # fmt: skip


def tree_flows(machine: Machine, share: float, *, steps: float) -> Flows:
    """Flows over all edges of both trees, up and down, half of a lane's share on each tree."""
    child, parent = tree_edges(machine.topology.num_domains)
    source, target = np.concatenate([child, parent]), np.concatenate([parent, child])
    return machine.between(source, target, np.full(len(source), share / 2.0), steps=steps, by_lane=False)


def tree_edges(number: int) -> tuple[Integers, Integers]:
    """Child and parent of the edges of both trees over so many nodes, [edge].

    In the first tree a node's parent differs from it in its lowest set bit and the next; the second is its mirror
    image, or turned by one where the number is odd, so that inner nodes of one are leaves of the other.
    Source: Sanders, Speck and Traeff, Parallel Computing 35 (2009)
    """
    child = np.arange(1, number)
    bit = child & -child
    parent = (child ^ bit) | (bit << 1)
    parent = np.where(parent >= number, child ^ bit, parent)
    if number % 2 == 0:
        mirror = [number - 1 - child, number - 1 - parent]
    else:
        mirror = [(child + 1) % number, (parent + 1) % number]
    return np.concatenate([child, mirror[0]]), np.concatenate([parent, mirror[1]])
