"""A trace as one needs it: faster or slower, a part of it, its mean rate."""

from __future__ import annotations

import dataclasses

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.workload.traffic.requests import Requests


def mean_rate(requests: Requests) -> float:
    """Mean rate of arrivals, (n - 1) / (last - first) [requests/s]; infinite if all arrive at once."""
    if len(requests) < 2:
        return 0.0
    span = float(requests.arrival_s[-1] - requests.arrival_s[0])
    return (len(requests) - 1) / span if span > 0 else float("inf")


def at_rate(requests: Requests, request_rate: float) -> Requests:
    """The same requests, their gaps all stretched or shrunk until the mean rate is another.

    Equation:  t' = t (mean rate / request rate)
    Args: requests; request_rate [requests/s]
    Raises: ScenarioError if the rate is not above 0, or the requests have no rate of their own
    """
    if not (np.isfinite(request_rate) and request_rate > 0):
        raise ScenarioError(f"request rate {request_rate:g} requests/s", allowed="a finite number above 0")
    own = mean_rate(requests)
    if not 0 < own < float("inf"):
        raise ScenarioError(
            "requests that all arrive at once can't be stretched to a rate",
            hint="give them a law of arrivals, such as --request-rate without a trace's own times",
        )
    return dataclasses.replace(requests, arrival_s=requests.arrival_s * (own / request_rate))


def first(requests: Requests, num_requests: int) -> Requests:
    """The first requests; all of them, if there are fewer."""
    if num_requests < 1:
        raise ScenarioError(f"the first {num_requests} requests", allowed="1 or more")
    return requests.take(np.arange(min(num_requests, len(requests))))


def between(requests: Requests, start_s: float, end_s: float) -> Requests:
    """The requests that arrive from start up to but not including end, their time counted from start [s].

    Raises: ScenarioError if the span is empty or none arrives in it
    """
    if not 0 <= start_s < end_s:
        raise ScenarioError(f"requests between {start_s:g} s and {end_s:g} s", allowed="0 <= start < end")
    low, high = np.searchsorted(requests.arrival_s, [start_s, end_s])
    if low == high:
        last = float(requests.arrival_s[-1]) if len(requests) else 0.0
        raise ScenarioError(
            f"no request arrives between {start_s:g} s and {end_s:g} s", allowed=f"the last arrives at {last:g} s"
        )
    part = requests.take(np.arange(low, high))
    return dataclasses.replace(part, arrival_s=part.arrival_s - start_s)
