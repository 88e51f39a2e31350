"""Hierarchical: inside each domain, then between domains on what each rank holds, then inside again."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.timing.collectives.network import NUM_PASSES, Algorithm, Group, Network, scale_up_bytes_per_s


class Hierarchical(Algorithm):
    """All-reduce = reduce-scatter inside, all-reduce between, all-gather inside; the phases follow one another.

    Equation: t = p t_up(k = r-1, w = (r-1)/r S) + t_out(k = p log2 N, w = p (N-1)/N S/r),
              p = 2 for all-reduce, else 1
    Valid: more than one domain
    Source: Neuron runtime documents (order of the phases, log2 steps between servers)
    """

    name: ClassVar[str] = "hierarchical"
    operations: ClassVar[frozenset[str]] = frozenset(NUM_PASSES)

    def time_s(self, operation: str, group: Group, network: Network) -> Number:
        up, out = network.profile.scale_up.pipes["ring"], network.profile.scale_out.pipes["ring"]
        if not group.any_across:
            return np.inf
        ranks, domains, passes = group.ranks_per_domain, group.num_domains, NUM_PASSES[operation]
        part_bytes = group.size_bytes / ranks
        up_s = (ranks - 1.0) * part_bytes / scale_up_bytes_per_s(ranks, network)
        inside = np.where(ranks > 1.0, up.time_s(ranks - 1.0, up_s, part_bytes), 0.0)
        out_s = passes * ((domains - 1.0) / domains) * part_bytes / network.scale_out_bytes_per_s
        between = out.time_s(passes * group.num_levels, out_s, part_bytes / domains)
        return np.where(group.across, passes * inside + between, np.inf)
