"""Transfers between chips of two kinds: over the fabric that joins them, and from one number format to another."""

from __future__ import annotations

import numpy as np

from ultratwin.hardware.chip import Array, Number
from ultratwin.hardware.mix import Join
from ultratwin.timing.collectives import Network, collective_profile, collective_time_s


def transfer_time_s(join: Join, size_bytes: Number, num_links: Number, *, is_read: bool = False) -> Array:
    """Time until bytes are on the other side, sent by many chips at once, each to one of its own.

    Equation: the send/receive of each side's library with S / n at the slower side's rate; the slower library counts;
        a read asks for its bytes first, one way through the fabric
    Args:
        join: what joins both sides; size_bytes: S of all links together [byte], [candidate]
        num_links: n, pairs of chips that take part [1], [candidate]
        is_read: the receiver fetches, else the sender puts
    Returns: seconds [s], [candidate]
    Valid: one transfer at a time on each link
    Source: timing/collectives/send_recv; checked against Trainium2 <-> B200 over EFA (tests/test_mixed_serving.py)
    """
    part = np.asarray(size_bytes, dtype=np.float64) / np.maximum(num_links, 1e-300)
    inside = join.kind == "scale-up"
    slowest: Array = np.zeros(())
    for domain_link, link in sorted(set(zip(join.domain_links, join.links, strict=True))):
        time = collective_time_s(
            "send_recv", part, _network(join, domain_link, "" if inside else link),
            ranks_per_domain=2.0 if inside else 1.0, num_domains=1.0 if inside else 2.0,
        )  # fmt: skip
        slowest = np.maximum(slowest, time)
    return np.asarray(slowest + (join.latency_s if is_read else 0.0))


def _network(join: Join, domain_link: str, link: str) -> Network:
    # pairs of chips use all links of a domain at once, whatever its topology: each has the whole rate
    return Network(
        scale_up_bytes_per_s=join.bytes_per_s, scale_up_latency_s=join.latency_s,
        domain_size=max(join.domain_chips, 2), topology="switch", scale_out_bytes_per_s=join.bytes_per_s,
        scale_out_latency_s=join.latency_s, profile=collective_profile(domain_link or "generic", link),
    )  # fmt: skip


def conversion_time_s(read_bytes: Number, written_bytes: Number, memory_bytes_per_s: Number) -> Array:
    """Time of one pass over memory that reads numbers in one format and writes them in another.

    Equation: t = (R + W) / B
    Args: read_bytes, written_bytes: R, W [byte]; memory_bytes_per_s: B, of the chips that convert together [byte/s]
    Returns: seconds [s]
    Source: derived; the arithmetic hides under the traffic
    Example:
        >>> float(conversion_time_s(2e9, 1e9, 3e12))
        0.001
    """
    return np.asarray((np.asarray(read_bytes) + np.asarray(written_bytes)) / memory_bytes_per_s)
