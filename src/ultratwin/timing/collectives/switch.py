"""Switch: the scale-up switch adds and multicasts (NVLink SHARP), so each chip sends its buffer once."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.timing.collectives.network import Algorithm, Group, Leg, Network, choose
from ultratwin.timing.collectives.tree import tree_volume


class Switch(Algorithm):
    """In-network reduction inside a domain; between domains a tree over what each chip holds of the sum.

    Equation: inside a domain w = (1 + 1/r) S: the switch reads S from every chip and multicasts r parts of S/r;
              across domains k = log2 N, w_out as in a tree
    Valid: where the scale-up switch reduces (Network.in_network_reduction)
    Source: derived from the multimem loads and stores of nccl: src/device/all_reduce.h; the measured rate of
            5 to 8 chips confirms 1 + 1/r within 1 % (collectives.csv, stas00: 414 to 473 GB/s bus bandwidth)
    """

    name: ClassVar[str] = "switch"
    operations: ClassVar[frozenset[str]] = frozenset({"all_reduce"})

    def time_s(self, operation: str, group: Group, network: Network) -> Number:
        profile = network.profile
        if not network.in_network_reduction or "switch" not in profile.scale_up.pipes:
            return np.inf
        up, out = profile.scale_up.pipes["switch"], profile.scale_out.pipes["tree"]
        ranks, size = group.ranks_per_domain, group.size_bytes
        up_s = (1.0 + 1.0 / ranks) * size / network.scale_up_bytes_per_s

        def between() -> Number:
            nics = np.minimum(ranks, profile.scale_up.max_nics_per_domain)
            volume = tree_volume(operation, group.num_domains, network.scale_out_reduction)
            out_s = volume * size / (nics * network.scale_out_bytes_per_s)
            return out.time_s(group.num_levels, out_s, size / group.num_ranks, Leg(up_s, up.bulk_frac))

        return choose(group, lambda: up.time_s(ranks - 1.0, up_s, size / ranks), between)
