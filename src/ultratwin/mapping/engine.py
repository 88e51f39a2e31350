"""Serving engines: how they schedule by default, and what their host and kernels cost beside the best ones'.

An engine is a catalogue entry of kind "engines"; constants of status "measured" are fitted by tools/fit_engines.py on
half of the public rows.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.catalogue import loader, overrides
from ultratwin.catalogue.schema import EngineEntry
from ultratwin.errors import CatalogueError
from ultratwin.hardware.chip import Chip, Number

GENERIC: Final = "generic-engine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A serving engine.

    policy: "mixed" (decoding first, chunks of prompts fill the token budget), "prefill-first" (waiting prompts are
    computed in batches of their own), "static" (a batch runs to its end before the next)
    kernel_library, collective_library: whose kernels and collectives it calls, as the catalogue names them
    expert_libraries: that move tokens to experts on other ranks; the faster one is called
    overlaps_host: the host prepares an iteration while the device runs the one before
    max_num_seqs, max_num_batched_tokens, block_size, memory_utilization_frac: its defaults
    host_iteration_s, host_sequence_s: host time of an iteration, and for each running sequence [s]
    request_s: of a request before its first iteration: API, tokeniser, admission [s]
    entry_s: of the one process that takes requests in, for each, one after the other [s]
    eager_kernel_s: host time of a kernel that no graph holds: dispatch and launch [s]
    handover_s: of a request whose prompt other workers compute: router, handshake, polling, beside the wire [s]
    captured_tokens: largest iteration with prompts that graphs hold; of decoding iterations they hold all [1]
    small_chip_bytes, small_chips, small_chip_tokens: what counts as a small chip, and there the limits
    small_chip_seqs: of tokens and sequences (`on_chip`)
    stream_frac: share of the memory's rate that a running engine reads weights at, at most [1]
    graph_launch_s: what a small kernel takes inside a captured graph [s]
    gemm_factor, attention_factor, collective_factor: time of its kernels over the catalogue's [1]
    spread_frac: 90 % of measured rows lie within [1/(1+s), 1+s] of the prediction; ttft_spread_frac: of first tokens
    """

    id: str
    policy: str
    kernel_library: str
    collective_library: str
    expert_libraries: tuple[str, ...]
    small_chips: tuple[str, ...]
    overlaps_host: bool
    max_num_seqs: Number
    max_num_batched_tokens: Number
    block_size: Number
    memory_utilization_frac: float
    host_iteration_s: Number
    host_sequence_s: Number
    request_s: Number
    entry_s: Number
    eager_kernel_s: Number
    captured_tokens: Number
    handover_s: Number
    small_chip_bytes: Number
    small_chip_tokens: Number
    small_chip_seqs: Number
    graph_launch_s: Number
    stream_frac: Number
    gemm_factor: Number
    attention_factor: Number
    collective_factor: Number
    routing_skew: Number
    spread_frac: float
    ttft_spread_frac: float


_FIGURES: Final = (
    "max_num_seqs", "max_num_batched_tokens", "block_size", "memory_utilization_frac", "host_iteration_s",
    "host_sequence_s", "request_s", "entry_s", "eager_kernel_s", "captured_tokens", "handover_s", "small_chip_bytes",
    "small_chip_tokens", "small_chip_seqs", "graph_launch_s", "stream_frac", "gemm_factor", "attention_factor",
    "collective_factor", "routing_skew", "spread_frac", "ttft_spread_frac",
)  # fmt: skip


@overrides.cached
def load_engine(name: str) -> Engine:
    """An engine of the catalogue by id or alias, with what it inherits filled in.

    Raises: CatalogueError if nobody has that name, or a constant is missing in the whole chain
    """
    engine_id = loader.resolve("engines", name)
    chain = [_entry(engine_id)]
    while chain[-1].based_on:
        chain.append(_entry(chain[-1].based_on))
    figures = {key: fact.si for entry in reversed(chain) for key, fact in entry.figures.items()}
    missing = set(_FIGURES) - figures.keys()
    if missing:
        raise CatalogueError(f"engine {name} lacks {', '.join(sorted(missing))}", where=f"engines/{engine_id}.toml")

    def stated(key: str) -> str:
        return next((value for entry in chain if (value := getattr(entry, key))), "")

    return Engine(
        id=engine_id,
        policy=stated("policy") or "mixed",
        kernel_library=stated("kernel_library") or "default",
        collective_library=stated("collective_library"),
        expert_libraries=next(each.expert_libraries for each in chain if each.expert_libraries),
        small_chips=next((each.small_chips for each in chain if each.small_chips), ()),
        overlaps_host=stated("host") == "overlapped",
        **{key: figures[key] for key in _FIGURES},
    )


def on_chip(engine: Engine, chip: Chip) -> Engine:
    """An engine as it sets itself up on a chip: vLLM allows for fewer tokens and sequences on small ones."""
    small = chip.id in engine.small_chips or float(np.min(chip.memory_bytes)) < float(engine.small_chip_bytes)
    if not small:
        return engine
    return dataclasses.replace(
        engine, max_num_batched_tokens=engine.small_chip_tokens, max_num_seqs=engine.small_chip_seqs
    )


def find_engine(text: str, version: str = "") -> Engine:
    """The engine of a text as people write it ("vLLM 0.15.1", "TensorRT-LLM"), else the generic one.

    The longest alias that the text holds wins.
    """
    wanted = f"{text} {version}".lower()
    best, rank = GENERIC, 0
    for each in loader.ids("engines"):
        for spelling in (each, *_entry(each).aliases):
            if spelling.lower() in wanted and len(spelling) > rank:
                best, rank = each, len(spelling)
    return load_engine(best)


def _entry(name: str) -> EngineEntry:
    found = loader.entry("engines", name)
    if not isinstance(found, EngineEntry):
        raise CatalogueError(f"{name} is not an engine")
    return found
