"""Traces as JSON lines: one request, one object, one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.workload.traffic.requests import PrefixHashes
from ultratwin.workload.traffic.traces.format import ReadOptions, TraceFormat
from ultratwin.workload.traffic.traces.trace import MAX_TIME_S, NUM_NAMED, Columns, Trace, finished, token_faults

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ultratwin.workload.traffic.requests import Floats
    from ultratwin.workload.traffic.traces.source import Block, Source

MAX_HASHES: Final = 2**28
"""Hashes of a trace: two GiB."""
_MASK: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Decoded lines as every format gives them, columns [line]; `hashes` None: the format has none."""

    prompt: Floats
    output: Floats
    time_s: Floats | None = None
    hashes: Sequence[list[int] | None] | None = None


def column(rows: Sequence[Any], name: str) -> Floats:
    """One attribute of decoded lines, shape [line]."""
    return np.fromiter(map(attrgetter(name), rows), np.float64, len(rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonLinesFormat(TraceFormat):
    """JSON lines whose objects have these keys.

    row: the msgspec struct of a line; `lines` makes columns of its rows
    """

    keys: tuple[str, ...]
    row: type[msgspec.Struct]
    lines: Callable[[Sequence[Any], ReadOptions], Lines]
    has_times: bool = True
    block_tokens: int = 0

    @property
    def needs(self) -> tuple[str, ...]:
        """Its keys."""
        return self.keys

    def read(self, source: Source, options: ReadOptions) -> Trace:
        """Block by block."""
        columns = Columns(path=source.path, has_times=self.has_times)
        decoder = msgspec.json.Decoder(self.row)
        for block in source.blocks():
            rows, numbers = _rows(decoder, block, columns)
            if rows:
                self._add(self.lines(rows, options), numbers, columns)
        block_tokens = options.block_tokens or self.block_tokens
        hashes = _hashes(columns, block_tokens) if any(part.size for part in columns.parts.get("hashes", [])) else None
        return finished(columns, self.name, hashes)

    def _add(self, lines: Lines, numbers: NDArray[np.int64], columns: Columns) -> None:
        parts = {"prompt_tokens": lines.prompt, "output_tokens": lines.output}
        faults = [
            (wrong, text, parts[field])
            for field, name in (("prompt_tokens", self.keys[-2]), ("output_tokens", self.keys[-1]))
            for wrong, text in token_faults(name, parts[field])
        ]
        if lines.time_s is not None:
            parts["arrival_s"] = lines.time_s
            faults.append((lines.time_s > MAX_TIME_S, "{:g} s is beyond any clock", lines.time_s))
        broken = np.logical_or.reduce([wrong for wrong, _, _ in faults])
        columns.add(numbers, parts, ~broken)
        columns.add_broken(_said(numbers, faults, broken), int(broken.sum()))
        if lines.hashes is not None:
            _add_hashes(list(compress(lines.hashes, (~broken).tolist())), columns)


def _rows(decoder: msgspec.json.Decoder[Any], block: Block, columns: Columns) -> tuple[list[Any], NDArray[np.int64]]:
    """Decoded lines and their numbers. The whole block at once; line by line only where one of them is broken."""
    given = block.data.split(b"\n")
    if all(given[:-1]) and not given[-1]:
        try:
            rows = decoder.decode_lines(block.data)
            if len(rows) == len(given) - 1:
                return rows, block.first_line + np.arange(len(rows))
        except (msgspec.DecodeError, RecursionError):
            pass
    rows, numbers = [], []
    for number, line in enumerate(given, block.first_line):
        if not line.strip():
            continue
        try:
            rows.append(decoder.decode(line))
            numbers.append(number)
        except (msgspec.DecodeError, RecursionError) as error:
            columns.add_broken([(number, str(error)[:100])], 1)
    return rows, np.array(numbers, np.int64)


def _said(lines: NDArray[np.int64], faults: list[Any], broken: NDArray[np.bool_]) -> Iterator[tuple[int, str]]:
    for place in np.flatnonzero(broken)[:NUM_NAMED]:
        _, text, values = next(fault for fault in faults if fault[0][place])
        yield int(lines[place]), text.format(values[place])


def _add_hashes(rows: list[list[int] | None], columns: Columns) -> None:
    counts = np.fromiter((len(row) if row else 0 for row in rows), np.int64, len(rows))
    total = int(counts.sum())
    try:
        flat = np.fromiter(chain.from_iterable(row for row in rows if row), np.int64, total)
    except OverflowError:  # unsigned hashes, or wider ones: their lower 63 bits tell them apart as well
        flat = np.fromiter((each & _MASK for row in rows if row for each in row), np.int64, total)
    columns.parts.setdefault("num_hashes", []).append(counts)
    columns.parts.setdefault("hashes", []).append(flat)
    total = sum(part.size for part in columns.parts["hashes"])
    if total > MAX_HASHES:
        raise ScenarioError(
            f"more than {MAX_HASHES:,} block hashes", where=columns.path, hint="replay a part of the trace"
        )


def _hashes(columns: Columns, block_tokens: int) -> PrefixHashes:
    """Rows of hashes, if they fit the prompts.

    Raises: ScenarioError if most prompts have more blocks than their tokens fill
    """
    counts = columns.joined("num_hashes", np.int64)
    prompts = np.concatenate(columns.parts["prompt_tokens"]) if counts.size else np.zeros(0)
    if (counts > np.ceil(prompts / block_tokens)).mean() > 0.5 if counts.size else False:
        sizes = [size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if size < block_tokens]
        fitting = [size for size in sizes if (counts <= np.ceil(prompts / size)).all()]
        raise ScenarioError(
            f"most prompts have more hashes than blocks of {block_tokens} tokens", where=columns.path,
            hint=f"give the tokens of a block; {fitting[-1]} would fit" if fitting else "give the tokens of a block",
        )  # fmt: skip
    offsets = np.concatenate(([0], np.cumsum(counts)))
    return PrefixHashes(offsets=offsets, hashes=columns.joined("hashes", np.int64), block_tokens=block_tokens)
