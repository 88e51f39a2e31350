"""Makes the project's own copy of published serving measurements: figures carry over, sentences don't.

    python tools/make_truth_serving.py serving.csv

Keeps the rows that a prediction could be compared with, of their columns what is read, and of free texts only the
phrases that validation/serving_texts.py reads. The same file gives the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
from pathlib import Path
from typing import Final

from ultratwin.validation.serving_rows import METRICS
from ultratwin.validation.serving_texts import READ

OUT: Final = Path(__file__).parents[1] / "src/ultratwin/validation/truth/serving.csv"
MAX_BYTES: Final = 2_000_000
KEPT: Final = (
    "id", "group", "model", "chip", "n_chips", "tp", "pp", "ep", "dp", "attn_dp", "serving", "prefill_cfg",
    "decode_cfg", "weights_prec", "kv_prec", "engine", "engine_version", "spec_decode", "workload",
    "request_file", "input_len",
    "output_len", "len_note", "concurrency", "request_rate", "max_batch", "num_requests", *METRICS, "extra",
    "complete", "tier", "notes",
)  # fmt: skip


def phrases(text: str, patterns: tuple[str, ...]) -> str:
    """What of a text is read, joined by semicolons."""
    found = []
    for pattern in patterns:
        found += [match[0] for match in re.finditer(pattern, text)]
    return ";".join(dict.fromkeys(found))


def reduced(text: str) -> str:
    """The file with fewer rows, columns and words.

    Raises: KeyError if it lacks a column: then this list is stale
    """
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, KEPT, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in csv.DictReader(io.StringIO(text, newline="")):
        speculative = row["spec_decode"].lower()
        if (
            row["complete"] == "no"
            or row["tier"] not in ("A", "B")
            or not f"{speculative or 'none'}".startswith("none")
        ):
            continue
        missing = [name for name in KEPT if name not in row]
        if missing:
            raise KeyError(f"serving.csv has no column {', '.join(missing)}")
        for name, patterns in READ.items():
            row[name] = phrases(row[name], patterns)
        for name in METRICS:
            row[name] = f"{float(row[name]):.6g}" if row[name] else ""
        row["spec_decode"] = "none" if speculative else ""
        for name in ("n_chips", "tp", "pp", "dp", "max_batch", "num_requests", "input_len", "output_len"):
            row[name] = row[name].removesuffix(".0")
        writer.writerow(row)
    return out.getvalue()


def main() -> int:
    """Writes the file; 2 if it would be larger than the repository should carry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    text = reduced(parser.parse_args().file.read_text(encoding="utf-8-sig"))
    size = len(text.encode())
    if size > MAX_BYTES:
        print(f"{size:,} bytes, more than {MAX_BYTES:,}", file=sys.stderr)
        return 2
    OUT.write_text(text, encoding="utf-8", newline="")
    print(f"serving: {text.count(chr(10)) - 1:,} rows, {size:,} bytes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
