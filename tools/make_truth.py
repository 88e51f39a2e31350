"""Makes the project's own truth files from a folder of published measurements.

    python tools/make_truth.py FOLDER

Keeps every row, also those that can't be scored, and of the columns what predictions, groups and sources need. The same
folder gives the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import Final

OUT: Final = Path(__file__).parents[1] / "src/ultratwin/validation/truth"
MAX_TOTAL_BYTES: Final = 4_000_000
# columns that are derived from others, or that no prediction, group or check reads
DROPPED: Final = {
    "training": (
        "active_params_b", "gpu_hours", "time_to_train_min", "mem_gb", "mem_reserved_gb", "metrics_published",
        "tokens_per_s_chip_norm", "flops_per_token_full", "flops_per_token_causal", "tflops_calc_full",
        "tflops_calc_causal", "calc_over_pub", "check", "samples_per_s", "tokens_per_s", "tokens_per_s_chip",
        "tflops_chip", "tflops_kind", "mfu", "hfu", "provenance", "notes",
    ),
    "training_memory": (),
    "kernels": ("gbps", "mfu_reported", "power_w", "power_limit_w", "license"),
    "trn3_gemm": ("file", "total_us_min", "total_us_max", "executed_tflops", "useful_tflops", "hfu", "mbu"),
    "collectives": ("license", "date"),
}  # fmt: skip
INDEXED: Final = ("training", "kernels", "collectives")
"""Files whose long `source` texts are kept once, in sources.csv, and named by number."""


def reduced(name: str, text: str, sources: dict[str, int]) -> str:
    """A truth file's text with fewer columns.

    Args: sources: numbers of source texts, to which new ones are added
    Raises: KeyError if the file lacks a column that should be dropped: then this list is stale
    """
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    columns = list(rows[0])
    for column in DROPPED[name]:
        if column not in columns:
            raise KeyError(f"{name}.csv has no column {column}")
    kept = [column for column in columns if column not in DROPPED[name]]
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, kept, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        if name in INDEXED:
            row["source"] = str(sources.setdefault(row["source"], len(sources) + 1))
        writer.writerow(row)
    return out.getvalue()


def main() -> int:
    """Writes the files; 2 if they would be larger than the repository should carry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds training.csv, training_memory.csv, ...")
    folder = parser.parse_args().folder
    sources: dict[str, int] = {}
    texts = {name: reduced(name, (folder / f"{name}.csv").read_text(encoding="utf-8-sig"), sources) for name in DROPPED}
    listed = io.StringIO(newline="")
    csv.writer(listed, lineterminator="\n").writerows(
        [("source", "text"), *((at, text) for text, at in sources.items())]
    )
    texts["sources"] = listed.getvalue()
    total = sum(len(each.encode()) for each in texts.values())
    if total > MAX_TOTAL_BYTES:
        print(f"{total:,} bytes in all, more than {MAX_TOTAL_BYTES:,}", file=sys.stderr)
        return 2
    OUT.mkdir(exist_ok=True)
    for name, text in texts.items():
        (OUT / f"{name}.csv").write_text(text, encoding="utf-8", newline="")
        print(f"{name}: {text.count(chr(10)) - 1:,} lines, {len(text.encode()):,} bytes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
