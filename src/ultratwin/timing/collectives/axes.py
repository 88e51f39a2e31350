"""Axis by axis: along one axis of the domain after the other, every axis busy with a part of the message."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ultratwin.hardware.chip import Array, Number
from ultratwin.timing.collectives.network import NUM_PASSES, Algorithm, Group, Network, network_axes
from ultratwin.timing.collectives.shape import DomainAxis, sides


class Axes(Algorithm):
    """Reduce-scatter along each axis on what the axes before have left, exchange between domains, gather back.

    The message is cut into a part for each axis, as large as the axis's share of the rate, and part a begins with axis
    a; so all axes carry something, and the steps are those of the axes, not of a ring over all chips.

    Equation: k = p sum_i (g_i - 1),
              w/B = p sum over stages of  max over parts of (g_i - 1)/g_i S_i / B_i,  S_i what is left of a part on
              the axis i that it has come to;
              between domains as in Hierarchical
    Valid: domains whose axes are rings
    Source: Barnett et al., JPDC 24 (1995) for collectives over meshes axis by axis; Jouppi et al., ISCA 2023 for tori
    """

    name: ClassVar[str] = "axes"
    operations: ClassVar[frozenset[str]] = frozenset(NUM_PASSES)

    def time_s(self, operation: str, group: Group, network: Network) -> Number:
        axes = network_axes(network)
        if any(axis.kind != "ring" for axis in axes):
            return np.inf
        up, out = network.profile.scale_up.pipes["ring"], network.profile.scale_out.pipes["ring"]
        ranks, size, passes = group.ranks_per_domain, group.size_bytes, NUM_PASSES[operation]
        lengths = sides(ranks, axes)
        steps = sum((length - 1.0 for length in lengths), start=np.float64(0.0))
        wire_s = size * _share_s(axes, lengths) / network.scale_up_bytes_per_s
        chunk_bytes = size / group.num_ranks

        def pipe_s(times: float) -> Number:
            return np.where(ranks > 1.0, up.time_s(times * steps, times * wire_s, chunk_bytes), 0.0)

        if not group.any_across:
            return pipe_s(passes)
        domains = group.num_domains
        out_s = passes * ((domains - 1.0) / domains) * (size / ranks) / network.scale_out_bytes_per_s
        between = out.time_s(passes * group.num_levels, out_s, chunk_bytes)
        return np.where(group.across, passes * pipe_s(1.0) + between, pipe_s(passes))


def _share_s(axes: tuple[DomainAxis, ...], lengths: list[Array]) -> Number:
    """Seconds of one pass for each byte of the message, at a scale-up rate of 1.

    A group fills one axis after the other, so the axes that it does not reach along are the last ones.
    """
    used = np.sum([length > 1.0 for length in lengths], axis=0)
    found: Number = 0.0
    for number in range(1, len(axes) + 1):
        found = np.where(used == number, _stages_s(axes[:number], lengths[:number]), found)
    return found


def _stages_s(axes: tuple[DomainAxis, ...], lengths: list[Array]) -> Number:
    """The same for groups that reach along all of these axes; all parts go on to their next axis together."""
    number, whole = len(axes), sum(axis.ring_share for axis in axes)
    left: list[Number] = [axis.ring_share / whole for axis in axes]
    took: Number = 0.0
    for stage in range(number):
        slowest: Number = 0.0
        for part in range(number):
            axis, length = axes[(part + stage) % number], lengths[(part + stage) % number]
            slowest = np.maximum(slowest, left[part] * (1.0 - 1.0 / length) / axis.ring_share)
            left[part] = left[part] / length
        took = took + slowest
    return took
