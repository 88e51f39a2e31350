"""Tree: reduce to a root and broadcast back; latency grows with the logarithm of the domains."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.timing.collectives.network import Algorithm, Group, Leg, Network, choose, scale_up_bytes_per_s


def tree_volume(operation: str, num_domains: Number, fabric_reduces: bool) -> Number:
    """Multiples of S that one domain sends up and down a double binary tree.

    Each domain is an inner node of one tree and a leaf of the other, with S/2 on each: S for the way up and S for
    the way down. Two domains only exchange halves: S in all. A broadcast goes down only, and a fabric whose
    switches add (SHARP) takes S and gives S.
    """
    if fabric_reduces or operation != "all_reduce":
        return 1.0
    return np.where(np.asarray(num_domains) > 2, 2.0, 1.0)


class Tree(Algorithm):
    """Double binary tree over domains, a chain inside each.

    Equation: k = log2 N, w_out = v S / min(r, NICs) with v of tree_volume, w_up = 2 (r-1)/r S (a broadcast: S);
              inside one domain of more than one node: k = 2 (log2(n/c) + c - 1), w = 2 S, c ranks of a node's chain
    Source: Sanders, Speck and Traeff, Parallel Computing 35 (2009); nccl: src/graph/tuning.cc for the chain
    """

    name: ClassVar[str] = "tree"
    operations: ClassVar[frozenset[str]] = frozenset({"all_reduce", "broadcast"})

    def time_s(self, operation: str, group: Group, network: Network) -> Number:
        profile = network.profile
        up, out = profile.scale_up.pipes["ring"], profile.scale_out.pipes["tree"]
        ranks, size = group.ranks_per_domain, group.size_bytes
        passes = 2.0 if operation == "all_reduce" else 1.0
        rate = scale_up_bytes_per_s(ranks, network)

        def inside() -> Number:
            if network.domain_size <= profile.scale_up.chain_ranks:
                return np.inf  # one node: the chain is a ring with more to carry
            chain = np.minimum(ranks, profile.scale_up.chain_ranks)
            depth = passes * (np.log2(ranks / chain) + (chain - 1.0))
            return up.time_s(depth, (passes * size) / rate, size / chain)

        def between() -> Number:
            nics = np.minimum(ranks, profile.scale_up.max_nics_per_domain)
            volume = tree_volume(operation, group.num_domains, network.scale_out_reduction)
            leg = Leg((passes * size) * ((ranks - 1.0) / ranks) / rate, up.bulk_frac)
            out_s = volume * size / (nics * network.scale_out_bytes_per_s)
            time = out.time_s(group.num_levels, out_s, size / group.num_ranks, leg)
            return time + (ranks - 1.0) * up.step_s

        return choose(group, inside, between)
