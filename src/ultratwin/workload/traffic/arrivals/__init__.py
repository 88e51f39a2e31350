"""Laws of arrivals: one file and one line in ARRIVALS each."""

from __future__ import annotations

from math import inf, isinf
from typing import Final

from ultratwin.errors import ScenarioError
from ultratwin.workload.traffic.arrivals.all_at_once import AllAtOnce
from ultratwin.workload.traffic.arrivals.arrivals import Arrivals
from ultratwin.workload.traffic.arrivals.closed_loop import ClosedLoop
from ultratwin.workload.traffic.arrivals.constant import Constant
from ultratwin.workload.traffic.arrivals.gamma import Gamma
from ultratwin.workload.traffic.arrivals.poisson import Poisson
from ultratwin.workload.traffic.arrivals.ramp import Ramp

ARRIVALS: Final[tuple[type[Arrivals], ...]] = (Poisson, Gamma, Constant, AllAtOnce, ClosedLoop, Ramp)


def arrivals_of(
    *, request_rate: float = inf, burstiness: float = 1.0, max_concurrency: int = 0, ramp_up: Ramp | None = None
) -> Arrivals:
    """The law that the flags of `vllm bench serve` ask for.

    Args:
        request_rate: mean rate [requests/s]; infinite: all at once, or a closed loop where max_concurrency is given
        burstiness: shape of the gamma distribution of gaps; 1 is Poisson, infinite is constant
        max_concurrency: requests under way at a time; 0 is no limit. Beside a finite rate it is a limit of the client,
            which simulations take by itself; only a closed loop has it as its law
        ramp_up: a ramp instead of a rate
    Raises: ScenarioError if a rate or a burstiness is not above 0, or both a rate and a ramp are given
    Example:
        >>> arrivals_of(request_rate=2.0).name, arrivals_of(max_concurrency=8).name, arrivals_of().name
        ('poisson', 'closed-loop', 'all-at-once')
    """
    if ramp_up is not None:
        if not isinf(request_rate):
            raise ScenarioError(
                f"both a ramp and a request rate of {request_rate:g} requests/s", hint="leave one of them out"
            )
        return ramp_up
    if request_rate == inf:
        return ClosedLoop(max_concurrency=max_concurrency) if max_concurrency else AllAtOnce()
    if burstiness == inf:
        return Constant(request_rate=request_rate)
    if burstiness == 1.0:
        return Poisson(request_rate=request_rate)
    return Gamma(request_rate=request_rate, burstiness=burstiness)


__all__ = [
    "ARRIVALS", "AllAtOnce", "Arrivals", "ClosedLoop", "Constant", "Gamma", "Poisson", "Ramp", "arrivals_of",
]  # fmt: skip
