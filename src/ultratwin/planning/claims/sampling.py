"""How facts are drawn for a claim: the same fact has the same value on both sides of a ratio, in every sample.

A sampler is made for each scenario, as the twin's own error is one of a framework profile or engine on a kind of chip.
On chips of two kinds the errors are drawn apart: rows of one source, model and framework that differ in the chip have
errors that hardly go together, so a ratio of two kinds is less sure than either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from ultratwin.hardware.chip import Array
from ultratwin.planning.comparison import PairedSampler
from ultratwin.planning.sensitivity import ListingSampler, ReplacingSampler, UsedFact, own_error_name
from ultratwin.planning.uncertainty import NUM_SAMPLES, Sampler

MakeSampler = Callable[[str], Sampler]
"""The sampler of what errs alike, a framework profile or engine on a kind of chip; of catalogue figures if empty."""
OWN_ERROR: Final = "own_error"
"""The key of a fact that is the twin's own error."""


class Listing(ListingSampler):
    """As ListingSampler, for own errors of engines and profiles on a kind of chip."""

    def error_factor(self, name: str, spread_frac: float) -> Array:
        """One: no error."""
        own = own_error_name(self._profile_id)
        self.used[own] = UsedFact(
            name=own, key=OWN_ERROR, unit="x", low=1 / (1 + spread_frac), value=1.0, high=1 + spread_frac,
            status="measured", source="",
        )  # fmt: skip
        return np.ones(1)


def drawing(seed: int = 0) -> MakeSampler:
    """Samplers that draw every fact from its range."""
    return lambda owner: PairedSampler(seed, owner, NUM_SAMPLES)


def replacing(values: Mapping[str, Array]) -> MakeSampler:
    """Samplers that give some facts other values, 1 + NUM_SAMPLES of them, and leave the others."""
    return lambda owner: ReplacingSampler(values, owner)


def listing(found: dict[str, UsedFact]) -> MakeSampler:
    """Samplers that put every fact that is asked for into `found`."""

    def made(owner: str) -> Sampler:
        sampler = Listing(owner)
        sampler.used = found
        return sampler

    return made
