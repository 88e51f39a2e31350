"""Prompts that begin alike: a few shared beginnings, as system prompts or documents are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.workload.traffic.requests import PrefixHashes

if TYPE_CHECKING:
    from numpy.random import Generator

    from ultratwin.workload.traffic.requests import Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPrefix:
    """`num_prefixes` beginnings of `tokens` each; a request takes one by chance and its own prompt follows.

    As `--random-prefix-len` (one beginning) and `--prefix-repetition-prefix-len` with
    `--prefix-repetition-num-prefixes` of `vllm bench serve`.
    """

    tokens: int
    num_prefixes: int = 1
    block_tokens: int = 16

    def __post_init__(self) -> None:
        if self.tokens < 0 or self.num_prefixes < 1 or self.block_tokens < 1:
            raise ScenarioError(
                f"{self.num_prefixes} shared prefixes of {self.tokens} tokens in blocks of {self.block_tokens}",
                allowed="1 or more prefixes of 0 or more tokens, in blocks of 1 or more",
            )


def prefix_hashes(prefix: SharedPrefix, num_requests: int, generator: Generator) -> PrefixHashes:
    """Which beginning each request has: only whole blocks can be shared, what follows is each prompt's own.

    Args: a prefix; requests n
    Returns: one row per request of floor(tokens / block) hashes
    """
    blocks = prefix.tokens // prefix.block_tokens
    chosen: Ints = generator.integers(0, prefix.num_prefixes, num_requests)
    hashes = (chosen[:, None] * blocks + np.arange(blocks)).ravel()
    offsets = np.arange(num_requests + 1) * blocks
    return PrefixHashes(offsets=offsets, hashes=hashes, block_tokens=prefix.block_tokens)
