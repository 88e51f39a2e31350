"""All-to-all: every rank sends a different part to every other rank."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.timing.collectives.network import (
    Algorithm,
    Group,
    Leg,
    Network,
    choose,
    network_axes,
    scale_up_bytes_per_s,
)
from ultratwin.timing.collectives.shape import crossings, sides


class AllToAll(Algorithm):
    """Pairwise exchange; parts for other domains leave through the rank's own network adapter.

    Equation: w_up = (r-1+own)/n S, w_out = (n-r)/n S, both at once; k = n-1 peers inside, N-1 domains outside;
              on a torus a part crosses links of every axis, and the fullest link sets the pace (`crossings`)
    Source: nccl-tests doc/PERFORMANCE.md for the bytes; the torus is derived
    """

    name: ClassVar[str] = "all_to_all"
    operations: ClassVar[frozenset[str]] = frozenset({"all_to_all"})

    def time_s(self, operation: str, group: Group, network: Network) -> Number:
        profile = network.profile
        up, out = profile.scale_up.pipes["all_to_all"], profile.scale_out.pipes["all_to_all"]
        ranks, domains, n = group.ranks_per_domain, group.num_domains, group.num_ranks
        part_bytes = group.size_bytes / n
        if network.topology.startswith("torus") or network.topology == "ring":
            axes = network_axes(network)
            parts = crossings(axes, sides(ranks, axes), ranks) * (1.0 + up.own_frac / np.maximum(ranks - 1.0, 1.0))
            up_s = parts * part_bytes / network.scale_up_bytes_per_s
        else:
            up_s = (ranks - 1.0 + up.own_frac) * part_bytes / scale_up_bytes_per_s(ranks, network)

        def between() -> Number:
            out_s = (n - ranks) * part_bytes / network.scale_out_bytes_per_s
            return out.time_s(domains - 1.0, out_s, part_bytes, Leg(up_s, up.bulk_frac)) + (ranks - 1.0) * up.step_s

        return choose(group, lambda: up.time_s(ranks - 1.0, up_s, part_bytes), between)
