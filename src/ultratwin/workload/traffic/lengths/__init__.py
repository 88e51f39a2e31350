"""Laws of lengths: one file and one line in LENGTHS each."""

from __future__ import annotations

from typing import Final

from ultratwin.workload.traffic.lengths.empirical import Empirical
from ultratwin.workload.traffic.lengths.fixed import Fixed
from ultratwin.workload.traffic.lengths.lengths import Lengths
from ultratwin.workload.traffic.lengths.lognormal import LogNormal
from ultratwin.workload.traffic.lengths.uniform import Uniform, around, up_to

LENGTHS: Final[tuple[type[Lengths], ...]] = (Fixed, Uniform, LogNormal, Empirical)

__all__ = ["LENGTHS", "Empirical", "Fixed", "Lengths", "LogNormal", "Uniform", "around", "up_to"]
