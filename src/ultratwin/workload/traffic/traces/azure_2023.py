"""Azure's traces of LLM inference, 2023 and 2024: date, tokens of the context, tokens generated."""

from __future__ import annotations

from typing import Final

from ultratwin.workload.traffic.traces.csv_format import CsvFormat

AZURE_2023: Final = CsvFormat(
    name="azure-2023",
    about="Azure LLM inference traces of 2023 and 2024 (github.com/Azure/AzurePublicDataset)",
    time="TIMESTAMP",
    prompt="ContextTokens",
    output="GeneratedTokens",
    is_date=True,
)
