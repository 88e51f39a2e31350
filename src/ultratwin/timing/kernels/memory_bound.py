"""Time of kernels that only pass over memory: norms, activations, rotary embedding, lookup, quantising."""

from __future__ import annotations

from ultratwin.hardware.chip import Number
from ultratwin.timing.kernels.constants import PassConstants
from ultratwin.timing.kernels.gemm import Rates, both, l2_factor


def pass_seconds(c: PassConstants, rates: Rates, read_write_bytes: Number, num_kernels: Number = 1) -> Number:
    """Time of `num_kernels` launches that together move `read_write_bytes`.

    Equation:  t = n (launch_s or tm, whichever is longer, rounded),  tm = bytes / n / (B memory_frac) r
        r: from 1/l2_speedup to 1 as the bytes of one launch go from none to l2_share of the second-level cache
    Args:
        c: constants, rates: of the chip, read_write_bytes: in all [byte], num_kernels: n [1]
    Returns: seconds [s]
    """
    each = read_write_bytes / num_kernels
    memory = (
        each / (rates.memory_bytes_per_s * c.memory_frac) * l2_factor(each, rates.l2_bytes, c.l2_speedup, c.l2_share)
    )
    seconds: Number = num_kernels * both(c.launch_s, memory, c.rounding)
    return seconds
