"""Flows that behave alike are simulated once: the coarsest equitable partition of flows, links and groups.

Two flows are alike if they have the same size, latency and step, and cross links that are alike; two links if they have
the same rate and are crossed by alike flows in the same number; two groups if they consist of alike flows. In such a
partition max-min fair rates are equal within each class, so one flow of a class tells the time of all of them. It is
found by refining colours until no class splits any more; colours are 64-bit hashes, so that two different ones are
equal with a chance of about n^2 / 2^64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.chip import Array
from ultratwin.simulation.network.flows import Flows, Integers, joined

_Hashes = NDArray[np.uint64]
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
_OTHER: Final = np.uint64(0xBF58476D1CE4E5B9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Every link: rate of one direction and its level, 0 inside a domain, 1 adapter, 2 leaf, 3 pod, [link]."""

    bytes_per_s: Array
    level: Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """What has to be simulated: flows by class, rates by link class, crossings between classes.

    `step`: of which step each flow class is; `group`: of which group class. `flows_per_class`: how many flows it stands
    for. `group_of`: class of each original group. `link_of`: an original link of each link class; `level`: where it is.
    """

    share: Array
    steps: Array
    hop_s: Array
    step: Integers
    group: Integers
    flows_per_class: Array
    group_of: Integers
    capacity: Array
    level: Integers
    link_of: Integers
    flow: Integers
    link: Integers
    weight: Array

    @property
    def num_groups(self) -> int:
        """Classes of groups."""
        return int(self.group_of.max(initial=-1)) + 1


def merged(steps: list[Flows], links: Links, num_groups: int, *, merge: bool = True) -> Classes:
    """The classes of the flows of several steps that may be under way at the same time.

    Args:
        steps: flows of each step; groups are numbered alike in all of them
        links: every link of the machine
        num_groups: groups
        merge: False keeps each flow, link and group a class of its own, for checking
    Returns: the classes
    """
    flows = joined(steps)
    step = np.repeat(np.arange(len(steps)), [len(each.share) for each in steps])
    used, link = np.unique(flows.link, return_inverse=True)
    flows = replace(flows, link=link)
    rate, level = links.bytes_per_s[used], links.level[used]
    if merge:
        begin = _mix(_bits(flows.share) ^ _mix(_bits(flows.steps) ^ _mix(_bits(flows.hop_s))))
        begin = _mix(begin ^ _mix(_bits(flows.count) ^ step.astype(np.uint64)))
        kinds = _refined(flows, begin, _mix(_bits(rate) ^ level.astype(np.uint64)), num_groups)
    else:
        kinds = _Kinds(np.arange(len(flows.share)), np.arange(len(used)), np.arange(num_groups))
    return _quotient(kinds, flows, step, Links(bytes_per_s=rate, level=level), used)


class _Kinds(NamedTuple):
    """Class of each flow, link and group."""

    flow: Integers
    link: Integers
    group: Integers


def _quotient(kinds: _Kinds, flows: Flows, step: Integers, links: Links, names: Integers) -> Classes:
    _, first_flow = np.unique(kinds.flow, return_index=True)
    _, first_link = np.unique(kinds.link, return_index=True)
    number = len(first_flow)
    # crossings of one link of each class stand for those of all its links
    chosen = np.zeros(len(names), dtype=bool)
    chosen[first_link] = True
    on = np.flatnonzero(chosen[flows.link])
    pairs, inverse = np.unique(kinds.link[flows.link[on]] * number + kinds.flow[flows.flow[on]], return_inverse=True)
    return Classes(
        share=flows.share[first_flow],
        steps=flows.steps[first_flow],
        hop_s=flows.hop_s[first_flow],
        step=step[first_flow],
        group=kinds.group[flows.group[first_flow]],
        flows_per_class=np.bincount(kinds.flow, weights=flows.count).astype(float),
        group_of=kinds.group,
        capacity=links.bytes_per_s[first_link],
        level=links.level[first_link],
        link_of=names[first_link],
        flow=pairs % number,
        link=pairs // number,
        weight=np.bincount(inverse, weights=flows.weight[on]).astype(float),
    )


def _refined(flows: Flows, flow_colour: _Hashes, link_colour: _Hashes, num_groups: int) -> _Kinds:
    """Colours are refined until their number stays."""
    flow, link, group = flows.flow, flows.link, flows.group
    by_link = np.argsort(link, kind="stable")
    link_order, link_starts = _runs(link[by_link], len(link_colour))
    flow_order, flow_starts = _runs(flow, len(flow_colour))
    by_group = np.argsort(group, kind="stable")
    group_order, group_starts = _runs(group[by_group], num_groups)
    weights = _bits(flows.weight)
    number = 0
    while True:
        over = _mix(flow_colour[flow[by_link]] ^ weights[by_link])
        link_colour = _mix(link_colour ^ _sums(over, link_order, link_starts, len(link_colour)))
        under = _mix(link_colour[link] ^ weights)
        flow_colour = _mix(flow_colour ^ _sums(under, flow_order, flow_starts, len(flow_colour)))
        group_colour = _mix(_sums(_mix(flow_colour[by_group]), group_order, group_starts, num_groups))
        flow_colour = _mix(flow_colour ^ group_colour[group])
        classes, flow_class = np.unique(flow_colour, return_inverse=True)
        kinds, link_class = np.unique(link_colour, return_inverse=True)
        if len(classes) + len(kinds) == number:
            return _Kinds(flow_class, link_class, np.unique(group_colour, return_inverse=True)[1])
        number = len(classes) + len(kinds)


def _runs(keys: Integers, number: int) -> tuple[Integers, Integers]:
    """Which keys occur in sorted ones, and where each begins."""
    counts = np.bincount(keys, minlength=number)
    present = np.flatnonzero(counts)
    return present, np.cumsum(counts[present]) - counts[present]


def _sums(values: _Hashes, present: Integers, starts: Integers, number: int) -> _Hashes:
    """Sums of runs of values, which do not depend on their order."""
    found = np.zeros(number, dtype=np.uint64)
    if len(values):
        found[present] = np.add.reduceat(values, starts)
    return found


def _bits(values: Array) -> _Hashes:
    return np.ascontiguousarray(values, dtype=np.float64).view(np.uint64)


def _mix(values: _Hashes) -> _Hashes:
    """A hash of 64 bits (the finaliser of splitmix64)."""
    values = (values + _ODD) * _OTHER
    values ^= values >> np.uint64(31)
    values *= np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(29)))
