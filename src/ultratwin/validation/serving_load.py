"""The requests of a load: arrivals, lengths and shared prompts, drawn anew for every row from the same seed."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.validation.serving_rows import Load
from ultratwin.validation.serving_texts import SharedPrefix
from ultratwin.workload.traffic.requests import PrefixHashes, Requests

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SEED: Final = 20260701


def requests_of(load: Load, share: int = 1, rate: float = 0.0, count: int = 0) -> Requests:
    """The requests that one of `share` equal workers sees.

    Args: rate, count: of one stage of an open load [request/s], [request]
    """
    draw = np.random.default_rng(SEED)
    number = max(round((count or load.num_requests) / share), 1)
    open_loop = load.kind == "open"
    arrival = _arrivals(draw, rate / share, number, load.burstiness) if open_loop else np.zeros(number)
    prompts, outputs = (
        _lengths(draw, mean, number, load.shortest_frac) for mean in (load.prompt_tokens, load.output_tokens)
    )
    hashes = None if load.shared is None else _shared_hashes(load.shared, number)
    return Requests(arrival_s=arrival, prompt_tokens=prompts, output_tokens=outputs, prefix_hashes=hashes)


def _arrivals(draw: np.random.Generator, rate: float, count: int, burstiness: float) -> Floats:
    """Arrivals of a fixed number over a fixed time: gaps are drawn, then stretched to fill it.

    Source: kubernetes-sigs/inference-perf, load_timer.py: its "constant" load is exponential gaps, normalised
    """
    gaps = draw.gamma(burstiness, 1.0, count)
    times: Floats = np.cumsum(gaps) * (count / rate / max(float(gaps.sum()), 1e-12))
    return times


def _lengths(draw: np.random.Generator, longest: float, count: int, shortest_frac: float) -> Ints:
    """Lengths between a share of the longest and the longest; all the mean, rounded, where they don't vary."""
    if shortest_frac >= 1.0:
        return np.full(count, max(round(longest), 1), dtype=np.int64)
    low = max(int(longest * shortest_frac), 1)
    return draw.integers(low, max(round(longest), low) + 1, count, dtype=np.int64)


_BLOCK: Final = 16


def _shared_hashes(shared: SharedPrefix, count: int) -> PrefixHashes:
    """Request i repeats the prompt of user i modulo all users; users of a group share its first blocks."""
    common = shared.system_tokens // _BLOCK
    own = (shared.system_tokens + shared.question_tokens) // _BLOCK - common
    users = shared.groups * shared.users
    order = np.random.default_rng(SEED).permutation(users)
    who = order[np.arange(count) % users]
    first = (who // shared.users)[:, None] * common + np.arange(common)
    rest = shared.groups * common + who[:, None] * own + np.arange(own)
    hashes = np.concatenate([first, rest], axis=1)
    offsets = np.arange(count + 1, dtype=np.int64) * (common + own)
    return PrefixHashes(offsets=offsets, hashes=hashes.ravel().astype(np.int64), block_tokens=_BLOCK)
