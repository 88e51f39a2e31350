"""BurstGPT: ChatGPT and GPT-4 requests of a campus; a request without answer failed."""

from __future__ import annotations

from typing import Final

from ultratwin.workload.traffic.traces.csv_format import CsvFormat

BURSTGPT: Final = CsvFormat(
    name="burstgpt",
    about="BurstGPT, seconds from the first day's midnight (github.com/HPMLL/BurstGPT)",
    time="Timestamp",
    prompt="Request tokens",
    output="Response tokens",
    failed_has_no_output=True,
)
