"""Recursive halving and doubling: partners at distance 1, 2, 4, ...; few steps, all bytes of a ring."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.timing.collectives.network import NUM_PASSES, Algorithm, Group, Network, scale_up_bytes_per_s


class RecursiveHalvingDoubling(Algorithm):
    """Reduce-scatter by halving, all-gather by doubling, inside one domain.

    Equation: k = p ceil(log2 n), w = p (n-1)/n S, p = 2 for all-reduce, else 1
    Valid: one domain
    Source: Thakur, Rabenseifner and Gropp, IJHPCA 19 (2005); Neuron uses it from 1 to 56 MB
    """

    name: ClassVar[str] = "recursive_halving_doubling"
    operations: ClassVar[frozenset[str]] = frozenset(NUM_PASSES)

    def time_s(self, operation: str, group: Group, network: Network) -> Number:
        pipes = network.profile.scale_up.pipes
        pipe = pipes.get("recursive_halving_doubling", pipes["ring"])
        n, passes = group.num_ranks, NUM_PASSES[operation]
        wire_s = passes * ((n - 1.0) / n) * group.size_bytes / scale_up_bytes_per_s(group.ranks_per_domain, network)
        time = pipe.time_s(passes * np.ceil(np.log2(n)), wire_s, group.size_bytes / n)
        return np.where(group.across, np.inf, time) if group.any_across else time
