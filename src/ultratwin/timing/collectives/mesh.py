"""Mesh: every rank exchanges its part with every other rank at once; two steps at most, whatever the ranks."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.timing.collectives.network import NUM_PASSES, Algorithm, Group, Network, scale_up_bytes_per_s


class Mesh(Algorithm):
    """Direct exchange inside a domain (a two-shot all-reduce: reduce-scatter, then all-gather).

    Equation: k = p, w = p (n-1)/n S, p = 2 for all-reduce, else 1
    Valid: one domain
    Source: Neuron runtime documents (mesh below 1 MB); vLLM and TensorRT-LLM call it two-shot
    """

    name: ClassVar[str] = "mesh"
    operations: ClassVar[frozenset[str]] = frozenset(NUM_PASSES)

    def time_s(self, operation: str, group: Group, network: Network) -> Number:
        pipes = network.profile.scale_up.pipes
        pipe = pipes.get("mesh", pipes["ring"])
        n, passes = group.num_ranks, NUM_PASSES[operation]
        wire_s = passes * ((n - 1.0) / n) * group.size_bytes / scale_up_bytes_per_s(group.ranks_per_domain, network)
        # every further peer costs a flag to write and to poll
        time = pipe.time_s(passes + 0.5 * (n - 2.0), wire_s, group.size_bytes / n)
        return np.where(group.across, np.inf, time) if group.any_across else time
