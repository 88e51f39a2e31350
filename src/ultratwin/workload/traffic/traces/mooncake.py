"""Mooncake's traces: milliseconds, lengths, and hashes of the prompt's blocks of 512 tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ultratwin.workload.traffic.traces.format import ReadOptions
from ultratwin.workload.traffic.traces.json_lines import JsonLinesFormat, Lines, column


class _Row(msgspec.Struct, gc=False):
    timestamp: float
    input_length: float
    output_length: float
    hash_ids: list[int] | None = None


def _lines(rows: Sequence[_Row], options: ReadOptions) -> Lines:
    return Lines(
        time_s=column(rows, "timestamp") / 1e3,
        prompt=column(rows, "input_length"),
        output=column(rows, "output_length"),
        hashes=[row.hash_ids for row in rows],
    )


MOONCAKE: Final = JsonLinesFormat(
    name="mooncake",
    about="Mooncake's traces (github.com/kvcache-ai/Mooncake, FAST25-release): timestamp in ms, hash_ids of 512 tokens",
    keys=("timestamp", "input_length", "output_length"),
    row=_Row,
    lines=_lines,
    block_tokens=512,
)
