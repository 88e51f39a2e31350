"""Trace formats: one file and one line in TRACE_FORMATS each; a file's content tells which it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from ultratwin.errors import ScenarioError, unknown_name
from ultratwin.workload.traffic.traces.azure_2023 import AZURE_2023
from ultratwin.workload.traffic.traces.burstgpt import BURSTGPT
from ultratwin.workload.traffic.traces.csv_format import CsvFormat, header_of
from ultratwin.workload.traffic.traces.format import ReadOptions, TraceFormat
from ultratwin.workload.traffic.traces.llmservingsim import LLMSERVINGSIM, LLMSERVINGSIM_RESULTS
from ultratwin.workload.traffic.traces.lmbench import LMBENCH
from ultratwin.workload.traffic.traces.mooncake import MOONCAKE
from ultratwin.workload.traffic.traces.own import OWN, OWN_LENGTHS, write_requests
from ultratwin.workload.traffic.traces.sharegpt import SHAREGPT_JSON, SHAREGPT_LENGTHS
from ultratwin.workload.traffic.traces.source import Source
from ultratwin.workload.traffic.traces.trace import BrokenLine, Trace
from ultratwin.workload.traffic.traces.vllm_jsonl import VLLM_DATASET, VLLM_RESULT

TRACE_FORMATS: Final[tuple[TraceFormat, ...]] = (
    AZURE_2023,
    MOONCAKE,
    BURSTGPT,
    SHAREGPT_LENGTHS,
    SHAREGPT_JSON,
    VLLM_DATASET,
    VLLM_RESULT,
    LMBENCH,
    LLMSERVINGSIM,
    LLMSERVINGSIM_RESULTS,
    OWN,
    OWN_LENGTHS,
)
_KEY: Final = re.compile(r'"([^"\\]{1,60})"\s*:')


def read_trace(path: str | Path, *, format: str = "", chars_per_token: float = 0.0, block_tokens: int = 0) -> Trace:
    """The requests of a trace file. Its content tells the format.

    Lines that hold no request are counted and named, failed requests and a wrong order are noted; all in the result.
    Args:
        path: a file, or a pipe
        format: a name in TRACE_FORMATS; "": as the content says
        chars_per_token: characters of a token, for files that hold text without token counts; 0: such files are refused
        block_tokens: tokens of a block that a hash stands for; 0: 512 in Mooncake's format
    Raises: ScenarioError if the file can't be read, is of no known format, has a negative time (with its line), more
        broken lines than requests, or no requests
    Example: see docs/how-to/use-a-trace.md
    """
    options = ReadOptions(chars_per_token=chars_per_token, block_tokens=block_tokens)
    if block_tokens < 0:
        raise ScenarioError(f"{block_tokens} tokens in a block", allowed="1 or more; 0 is the format's own")
    with Source(str(path)) as source:
        return (_named(format, source) if format else _detected(source)).read(source, options)


def _named(name: str, source: Source) -> TraceFormat:
    names = [each.name for each in TRACE_FORMATS]
    if name not in names:
        raise unknown_name("trace format", name, names, error=ScenarioError)
    found = TRACE_FORMATS[names.index(name)]
    if isinstance(found, CsvFormat):
        lacking = [column for column in found.needs if column not in _columns(source)]
        if lacking:
            raise _lacks(found, lacking, _columns(source), source.path)
    return found


def _detected(source: Source) -> TraceFormat:
    """The format whose columns or keys the content has: of several, the one that asks for most.

    Raises: ScenarioError with what was found and what the formats need
    """
    names, is_json = _names(source)
    known = [each for each in TRACE_FORMATS if isinstance(each, CsvFormat) != is_json]
    fitting = [each for each in known if set(names).issuperset(each.needs)]
    if fitting:
        return max(fitting, key=lambda each: len(each.needs))
    if {"total_input_tokens", "total_output_tokens"}.issubset(names):
        raise _lacks(VLLM_RESULT, list(VLLM_RESULT.needs), names, source.path)
    nearest = max(known, key=lambda each: len(set(names).intersection(each.needs)) / len(each.needs))
    lacking = [name for name in nearest.needs if name not in names]
    if len(lacking) < len(nearest.needs):
        raise _lacks(nearest, lacking, names, source.path)
    found = ", ".join(names)[:100] or source.first_line()[:60]
    raise ScenarioError(
        f"no known trace: its {'keys' if is_json else 'columns'} are {found!r}", where=source.path,
        allowed="; ".join(f"{each.name}: {', '.join(each.needs)}" for each in known),
        hint=_separator_hint(source.first_line()) or "name the columns in the first line as one of these formats does",
    )  # fmt: skip


def _lacks(nearest: TraceFormat, lacking: list[str], names: list[str], path: str) -> ScenarioError:
    hint = "a CSV with the columns arrival_s,prompt_tokens,output_tokens is always read"
    if nearest is VLLM_RESULT:
        hint = "vllm bench serve writes the requests only with --save-detailed"
    elif nearest is VLLM_DATASET:
        hint = "give every line the tokens to generate, as output_tokens"
    return ScenarioError(
        f"the nearest format, {nearest.name}, needs {', '.join(lacking)}; found: {', '.join(names)[:200]}", where=path,
        allowed=f"{nearest.name}: {', '.join(nearest.needs)}; others are optional", hint=hint,
    )  # fmt: skip


def _names(source: Source) -> tuple[list[str], bool]:
    """Columns of the header, or keys of the first object; whether it is JSON."""
    line = source.first_line()
    if line[:1] not in ("{", "["):
        return _columns(source), False
    try:
        first = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):  # one object over many lines, or cut off by the size of the head
        return _KEY.findall(source.head[: 2**20].decode("utf-8", "replace")), True
    while isinstance(first, list) and first:
        first = first[0]
    return list(first) if isinstance(first, dict) else [], True


def _columns(source: Source) -> list[str]:
    return header_of(source.first_line(), source.path)


def _separator_hint(line: str) -> str:
    name = next((name for sign, name in ((";", "semicolons"), ("\t", "tabs")) if sign in line), "")
    return f"cells must be separated by commas, not {name}" if name else ""


__all__ = ["TRACE_FORMATS", "BrokenLine", "Trace", "TraceFormat", "read_trace", "write_requests"]
