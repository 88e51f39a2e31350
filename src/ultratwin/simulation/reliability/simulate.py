"""Monte Carlo over whole training runs with failures."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import Array
from ultratwin.simulation.reliability.records import (
    CAUSES,
    RunModel,
    part_rows,
    rate_table,
    run_scalars,
    tier_rows,
)

MOST_RUNS: Final = 1_000_000
_ALONE_FAILURES: Final = 1_000_000
"""Fewer failures than this are not worth a second thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSamples:
    """Runs of one model, each [run]. `end_s` is infinite where a run was given up.

    `seconds` is [run, cause] in the order of CAUSES; `failures` [run, part] in the order of the model's parts by name.
    """

    end_s: Array
    seconds: Array
    failures: NDArray[np.int64]
    part_names: tuple[str, ...]

    @property
    def finished_frac(self) -> float:
        """The share of runs that ended."""
        return float(np.isfinite(self.end_s).mean())

    @property
    def wall_s(self) -> Array:
        """What each run took, those that were given up included [run]."""
        found: Array = self.seconds.sum(axis=1)
        return found

    def shares(self) -> dict[str, float]:
        """What the wall time of all runs goes to, as shares that sum to 1."""
        total = self.seconds.sum(axis=0)
        whole = float(total.sum())
        return {name: float(seconds) / whole for name, seconds in zip(CAUSES, total, strict=True)}


def simulate_runs(model: RunModel, *, num_runs: int = 1000, seed: int = 0, sampled_rates: bool = False) -> RunSamples:
    """Runs with failures, each drawn on its own.

    Args:
        model: the run
        num_runs: how many
        seed: of all of them; run i of a seed is the same whatever `num_runs` is
        sampled_rates: draw each class's rate from its range, once a run; else all runs have the expected rates
    Returns: the samples; the same arguments give the same bytes
    Raises: ScenarioError for values that no run has, or if Numba is missing
    """
    model.checked()
    if not 1 <= num_runs <= MOST_RUNS:
        raise ScenarioError(f"{num_runs:,} runs", allowed=f"1 to {MOST_RUNS:,}")
    parts = tuple(sorted(model.parts, key=lambda each: each.name))
    edges, rates = rate_table(parts, model.horizon_s) if parts else (np.zeros(1), np.zeros((1, 1)))
    factors = _factors(model, num_runs, seed) if sampled_rates and parts else np.ones((num_runs, rates.shape[1]))
    causes = np.zeros((num_runs, len(CAUSES)))
    counts = np.zeros((num_runs, rates.shape[1]), dtype=np.int64)
    ends = np.zeros(num_runs)
    loop, scalars, tiers, rows = _event_loop(), run_scalars(model), tier_rows(model.tiers), part_rows(parts)
    streams = _streams(num_runs, seed)

    def run(chunk: slice) -> None:
        loop(
            scalars, streams[chunk], tiers, rows, edges, rates, factors[chunk], causes[chunk], counts[chunk],
            ends[chunk],
        )  # fmt: skip

    # runs share nothing, so threads change no byte; the loop runs without Python's lock
    threads = min(os.cpu_count() or 1, num_runs) if rates.max() * model.work_s * num_runs > _ALONE_FAILURES else 1
    bounds = [num_runs * at // threads for at in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, (slice(first, last) for first, last in pairwise(bounds))))
    return RunSamples(
        end_s=ends, seconds=causes, failures=counts[:, : len(parts)], part_names=tuple(each.name for each in parts)
    )


def _streams(num_runs: int, seed: int) -> NDArray[np.uint64]:
    """Where the stream of each run begins, [run, 1]: far apart, as seed and number are mixed before the first draw."""
    words = np.random.SeedSequence(seed).generate_state(2, np.uint64)
    numbers = np.arange(num_runs, dtype=np.uint64)
    mixed = (numbers + words[0]) * np.uint64(0xD1342543DE82EF95)
    found: NDArray[np.uint64] = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xDABA0B6EB09322E3) ^ words[1]
    return found.reshape(-1, 1)


def _factors(model: RunModel, num_runs: int, seed: int) -> Array:
    """A factor on the rate of each class, [run, part]: half below 1, half above, evenly to the ends of its range.

    What a node consists of is drawn together: a fleet that is bad in one part is bad in the others too.
    """
    random, strata = np.random.default_rng([seed, 1]), (np.arange(num_runs) + 0.5) / num_runs
    fleet = random.permutation(strata)
    columns = []
    for part in sorted(model.parts, key=lambda each: each.name):
        apart = part.rack_wide or part.silent or part.nodes_lost == 0
        u = random.permutation(strata) if apart else fleet
        above = 1.0 + (2 * u - 1) * (part.high - 1.0)
        columns.append(np.where(u < 0.5, part.low + 2 * u * (1.0 - part.low), above))
    return np.ascontiguousarray(np.stack(columns, axis=1))


@lru_cache(maxsize=1)
def _event_loop() -> Callable[..., Any]:
    try:
        from ultratwin.simulation.reliability.loop import run_all
    except ImportError:
        raise ScenarioError(
            "runs with failures need Numba, which is not installed", hint="pip install 'ultratwin[serve]'"
        ) from None
    found: Callable[..., Any] = run_all
    return found
