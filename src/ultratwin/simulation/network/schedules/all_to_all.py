"""All-to-all: every chip sends a different part to every other one, all at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.chip import Array
from ultratwin.simulation.network.flows import Crossings, Flows, Integers, Phase, Step, joined, make_flows
from ultratwin.simulation.network.machine import Machine
from ultratwin.simulation.network.schedules.mesh import pairs, too_many_pairs
from ultratwin.simulation.network.schedules.schedule import Schedule


class AllToAll(Schedule):
    """Pairwise, all flows at once; parts for other domains leave by the sender's own adapter.

    N - 1 steps of the library follow one another between domains, as in timing/collectives; the inner ones come on top.
    """

    name: ClassVar[str] = "all_to_all"
    operations: ClassVar[frozenset[str]] = frozenset({"all_to_all"})

    def why_not(self, machine: Machine) -> str:
        if machine.routing == "ecmp":
            return "hashed routes of all pairs are too many; routing spray has it"
        return "lost rails have no all-to-all" if machine.faults.lost_rails else too_many_pairs(machine)

    def phases(self, operation: str, machine: Machine) -> tuple[Phase, ...]:
        size, number = machine.domain.size, machine.topology.num_domains
        part = 1.0 / (size * number)
        source, target = pairs(size)
        shares = np.full(len(source), part)
        if number == 1:
            flows = machine.inside(source, target, shares, steps=size - 1.0)
            return (
                Phase(name="all-to-all", steps=(Step(flows=flows),), num_groups=1, up_pipe="all_to_all",
                      chunk_share=part, own_repeats=size - 1.0),
            )  # fmt: skip
        outside = pair_flows(machine, part, steps=number - 1.0) if machine.folded else _all_pairs(machine, part)
        inside = [machine.inside(source, target, shares, steps=number - 1.0, one_group=True)] if size > 1 else []
        return (
            Phase(
                name="all-to-all", steps=(Step(flows=joined([outside, *inside])),), num_groups=1,
                up_pipe="all_to_all", out_pipe="all_to_all", chunk_share=part, after_steps=size - 1.0,
            ),
        )  # fmt: skip


def _all_pairs(machine: Machine, part: float) -> Flows:
    """Every flow between two domains, one by one."""
    lanes, number = len(machine.lanes.lane), machine.topology.num_domains
    at, to = pairs(number)
    kind, other = np.divmod(np.arange(lanes * lanes), lanes)
    at, to = np.repeat(at, lanes * lanes), np.repeat(to, lanes * lanes)
    kind, other = np.tile(kind, number * (number - 1)), np.tile(other, number * (number - 1))
    crossings, level = machine.spread(at, to, kind, other)
    hop_s = _hop_s(machine)[level] + machine.delay_s(at, machine.lanes.lane[kind])
    return make_flows(
        share=np.full(len(at), part), steps=number - 1.0, hop_s=hop_s, count=1.0, group=0, crossings=crossings
    )  # fmt: skip


def _hop_s(machine: Machine) -> Array:
    fabric = machine.fabric
    return np.array([(fabric.num_hops(level) + 1) * fabric.hop_s for level in range(3)]) * machine.link_latency


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kinds:
    """Domains by kind, [kind]: one of each with its row of leaves and its pod; how many of the kind are in that row, in
    that pod, in all."""

    domain: Integers
    row: Integers
    pod: Integers
    in_row: Array
    in_pod: Array
    number: Array


def pair_flows(machine: Machine, part: float, *, steps: float) -> Flows:
    """Flows between all pairs of domains, counted by kinds of domains: alike, in rows and pods that are alike.

    A kind of flow is a kind of domain and of lane at either end, and where they meet: the same row, the same pod, the
    core. What crosses a link is counted, so the number of flows does not matter.
    """
    blocks = _kinds(machine)
    kinds, lanes = len(blocks.domain), len(machine.lanes.lane)
    found = []
    for first in range(kinds):
        for second in range(kinds):
            for meet in range(3):
                for at in range(lanes):
                    for to in range(lanes):
                        found += _kind_of_flow(machine, blocks, (first, second, meet, at, to), part, steps)
    return joined(found)


def _kind_of_flow(
    machine: Machine, blocks: _Kinds, kind: tuple[int, int, int, int, int], part: float, steps: float
) -> list[Flows]:
    """Flows of one kind, those that meet on one leaf apart from those that meet on the spines."""
    first, second, meet, at, to = kind
    others = _others(blocks, first, second, meet)  # domains of the second kind that one of the first sends to
    back = _others(blocks, second, first, meet)
    if not others:
        return []
    lanes = machine.lanes
    same_leaf = lanes.per_leaf[to] if meet == 0 and lanes.slot[at] == lanes.slot[to] else 0.0
    found = []
    for lanes_to, lanes_from, level in (
        (same_leaf, lanes.per_leaf[at] if same_leaf else 0.0, 0),
        (lanes.count[to] - same_leaf, lanes.count[at] - (lanes.per_leaf[at] if same_leaf else 0.0), max(meet, 1)),
    ):
        if lanes_to <= 0:
            continue
        source, target = blocks.domain[first : first + 1], blocks.domain[second : second + 1]
        out, into = others * lanes_to, back * lanes_from  # flows of one adapter up, and down
        one, kind_at, kind_to = np.zeros(1, dtype=np.int64), np.array([at]), np.array([to])
        crossings = [
            Crossings(flow=one, link=machine.adapter(source, kind_at, 0), weight=out),
            Crossings(flow=one, link=machine.adapter(target, kind_to, 1), weight=into),
        ]
        if level > 0:
            up, down = blocks.in_row[first] * lanes.per_leaf[at], blocks.in_row[second] * lanes.per_leaf[to]
            crossings.append(Crossings(flow=one, link=machine.leaf(source, kind_at, 0), weight=out * up))
            crossings.append(Crossings(flow=one, link=machine.leaf(target, kind_to, 1), weight=into * down))
        if level > 1:
            up, down = blocks.in_pod[first] * lanes.count[at], blocks.in_pod[second] * lanes.count[to]
            crossings.append(Crossings(flow=one, link=machine.pod(source, 0), weight=out * up))
            crossings.append(Crossings(flow=one, link=machine.pod(target, 1), weight=into * down))
        number = blocks.number[first] * lanes.count[at] * out
        hop_s = _hop_s(machine)[level] + machine.delay_s(source, lanes.lane[kind_at])
        found.append(
            make_flows(
                share=np.array([part]), steps=steps, hop_s=hop_s, count=float(number), group=0, crossings=crossings
            )
        )
    return found


def _kinds(machine: Machine) -> _Kinds:
    """Domains whose row and pod have the same make-up; what has a slow link or lags is of a kind of its own."""
    fabric, number = machine.fabric, machine.topology.num_domains
    domains = np.arange(number)
    row, pod = fabric.block_of(domains), fabric.pod_of(domains)
    rates, starts, rows = machine.links.bytes_per_s, machine.starts, int(row[-1]) + 1
    odd = _odd(rates[starts[1] : starts[2]].reshape(number, -1))
    odd |= np.isin(domains, [each.chip // machine.domain.size for each in machine.faults.stragglers])
    odd_row = _odd(rates[starts[2] : starts[3]].reshape(rows, -1)) | (np.bincount(row, weights=odd) > 0)
    odd_pod = _odd(rates[starts[3] :].reshape(fabric.num_pods, -1)) | (np.bincount(pod, weights=odd_row[row]) > 0)
    marks = np.stack(
        [
            np.bincount(row)[row],
            np.bincount(pod)[pod],
            np.where(odd, domains + 1, 0),
            np.where(odd_row[row], row + 1, 0),
            np.where(odd_pod[pod], pod + 1, 0),
        ]
    )
    _, chosen, kind = np.unique(marks, axis=1, return_index=True, return_inverse=True)
    kind = kind.reshape(-1)
    return _Kinds(
        domain=domains[chosen],
        row=row[chosen],
        pod=pod[chosen],
        in_row=np.array([np.count_nonzero(kind[row == row[each]] == kind[each]) for each in chosen], dtype=float),
        in_pod=np.array([np.count_nonzero(kind[pod == pod[each]] == kind[each]) for each in chosen], dtype=float),
        number=np.bincount(kind).astype(float),
    )


def _odd(rates: Array) -> NDArray[np.bool_]:
    """Which of several alike have a link that is slower than the same one of most."""
    return np.asarray((rates != rates.max(axis=0)).any(axis=1))


def _others(kinds: _Kinds, first: int, second: int, meet: int) -> float:
    """Domains of the second kind that a domain of the first meets in its row (0), in its pod (1), over the core (2)."""
    in_row = kinds.in_row[second] if kinds.row[first] == kinds.row[second] or first == second else 0.0
    in_pod = kinds.in_pod[second] if kinds.pod[first] == kinds.pod[second] or first == second else 0.0
    found = (in_row - (first == second), in_pod - in_row, kinds.number[second] - in_pod)
    return float(found[meet])
