"""Workloads of LLMServingSim and the per-request results of its vLLM runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ultratwin.workload.traffic.traces.format import ReadOptions
from ultratwin.workload.traffic.traces.json_lines import JsonLinesFormat, Lines, column


class _Workload(msgspec.Struct, gc=False):
    arrival_time_ns: float
    input_toks: float
    output_toks: float


class _Result(msgspec.Struct, gc=False):
    arrival_time: float
    input_toks: float
    output_toks: float


def _workload(rows: Sequence[_Workload], options: ReadOptions) -> Lines:
    times = column(rows, "arrival_time_ns") / 1e9
    return Lines(time_s=times, prompt=column(rows, "input_toks"), output=column(rows, "output_toks"))


def _results(rows: Sequence[_Result], options: ReadOptions) -> Lines:
    times = column(rows, "arrival_time")
    return Lines(time_s=times, prompt=column(rows, "input_toks"), output=column(rows, "output_toks"))


LLMSERVINGSIM: Final = JsonLinesFormat(
    name="llmservingsim",
    about="workloads of LLMServingSim (github.com/casys-kaist/LLMServingSim): arrival_time_ns",
    keys=("arrival_time_ns", "input_toks", "output_toks"),
    row=_Workload,
    lines=_workload,
)
LLMSERVINGSIM_RESULTS: Final = JsonLinesFormat(
    name="llmservingsim-results",
    about="per-request results of LLMServingSim's vLLM runs: arrival_time in seconds",
    keys=("arrival_time", "input_toks", "output_toks"),
    row=_Result,
    lines=_results,
)
