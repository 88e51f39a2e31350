"""Flows of one step of a schedule, and the links that they cross: arrays, whatever their number.

A flow may stand for several that nothing tells apart (`count`), and a link for several alike; then `weight` says how
many of the flows cross one of the links. That is how a schedule describes a million chips by few entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ultratwin.hardware.chip import Array

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flows:
    """Flows of one step, which start together; a group's step ends when its last flow has arrived.

    `share`: of the message; `steps`: how many of the library's steps its latency counts; `hop_s`: latency of its links;
    `count`, `group`: all of each flow, [flow]. `flow`, `link`, `weight`: of each crossing, [crossing], sorted by flow.
    A flow of rate r over a link adds weight x r to its load.
    """

    share: Array
    steps: Array
    hop_s: Array
    count: Array
    group: Integers
    flow: Integers
    link: Integers
    weight: Array

    @property
    def num_flows(self) -> float:
        """Flows that the entries stand for."""
        return float(self.count.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossings:
    """Links that flows cross, unsorted: a flow, a link and a weight for each."""

    flow: Integers
    link: Integers
    weight: Array | float = 1.0


def make_flows(
    *, share: Array, steps: Array | float, hop_s: Array | float, count: Array | float, group: Integers | int,
    crossings: list[Crossings],
) -> Flows:  # fmt: skip
    """Flows from their crossings, which are sorted here; numbers hold for all flows."""
    number = len(share)

    def spread(value: Array | float) -> Array:
        return np.broadcast_to(np.asarray(value, dtype=float), (number,))

    flow = np.concatenate([each.flow for each in crossings])
    weight = [np.broadcast_to(np.asarray(each.weight, dtype=float), each.flow.shape) for each in crossings]
    order = np.argsort(flow, kind="stable")
    return Flows(
        share=np.asarray(share, dtype=float),
        steps=spread(steps),
        hop_s=spread(hop_s),
        count=spread(count),
        group=np.broadcast_to(np.asarray(group, dtype=np.int64), (number,)),
        flow=flow[order],
        link=np.concatenate([each.link for each in crossings])[order],
        weight=np.concatenate(weight)[order],
    )


def joined(parts: list[Flows]) -> Flows:
    """Several sets of flows as one."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part.share) for part in parts[:-1])])
    return Flows(
        share=np.concatenate([part.share for part in parts]),
        steps=np.concatenate([part.steps for part in parts]),
        hop_s=np.concatenate([part.hop_s for part in parts]),
        count=np.concatenate([part.count for part in parts]),
        group=np.concatenate([part.group for part in parts]),
        flow=np.concatenate([part.flow + start for part, start in zip(parts, starts, strict=True)]),
        link=np.concatenate([part.link for part in parts]),
        weight=np.concatenate([part.weight for part in parts]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step that every group of a phase does `repeats` times, one after the other."""

    flows: Flows
    repeats: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Steps that each group goes through at its own pace; the next phase begins when all groups are through.

    `up_pipe`, `out_pipe`: names of the library's pipes for links inside domains and between; the outer one, where there
    is one, sets latencies. `chunk_share`: what one rank sends at once, of the message. `after_steps`: steps of the
    inner pipe that come on top. `own_repeats`: steps over which a rank's own part, which it copies, is spread; 0 where
    the library's constants do not count it.
    """

    name: str
    steps: tuple[Step, ...]
    num_groups: int
    up_pipe: str = "ring"
    out_pipe: str = ""
    chunk_share: float = 0.0
    after_steps: float = 0.0
    own_repeats: float = 0.0
