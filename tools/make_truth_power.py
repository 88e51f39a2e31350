"""Makes truth/power.csv: measured node powers of training, and published energies of training runs.

    python tools/make_truth_power.py FOLDER

FOLDER holds power_cost.csv: powers parsed from MLPerf's logs, hours and energies of runs. What a benchmark trains, and
how a submission splits it, stands in validation/benchmarks.toml as the submissions' configuration files and the papers
have it; a cell that nobody published is left empty or named in the row's note. The same folder gives the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import Final

from ultratwin.validation.power_cost import high_values, is_node_power, node_cells, run_cells

OUT: Final = Path(__file__).parents[1] / "src/ultratwin/validation/truth/power.csv"
COLUMNS: Final = (
    "id", "config_id", "source_key", "date", "model", "params_b", "layers", "hidden", "heads", "kv_heads", "ffn_hidden",
    "mlp_type", "vocab", "seq_len", "n_experts", "top_k", "expert_ffn", "shared_expert_ffn", "task", "chip", "n_chips",
    "chips_per_node", "network", "framework", "precision", "global_batch", "micro_batch", "tp", "pp", "vpp", "cp", "ep",
    "dp", "zero_stage", "shard_group", "sequence_parallel", "recompute", "cooling", "meter", "metric", "value", "unit",
    "high_value", "tokens", "note", "source",
)  # fmt: skip
_LABELS: Final = {"h100-sxm": "H100-SXM", "b200-sxm": "B200", "a100-80-sxm": "A100-80GB-SXM"}
"""What the file calls a chip; any other by its id."""
_MORE_RUNS: Final = (
    {
        "id": "own-opt", "model": "OPT-175B", "chip": "A100", "metric": "energy at TDP", "value": "324",
        "unit": "MWh", "source": "arXiv:2211.02001, as quoted by the project of the Bloom study",
    },
)  # fmt: skip


def made_rows(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Median powers of nodes, then energies of whole runs: chip-hours at the chip's power limit, as papers count."""
    highs = high_values(rows)
    nodes = [node_cells(row, highs) for row in rows if is_node_power(row)]
    runs = [row for row in rows if row["metric"] in ("energy at TDP", "energy") and row["unit"] == "MWh"]
    return [_labelled(cells) for cells in (*nodes, *(run_cells(row) for row in (*runs, *_MORE_RUNS)))]


def _labelled(cells: dict[str, str]) -> dict[str, str]:
    """Chips as the file spells them."""
    chip = cells["chip"]
    label = _LABELS.get(chip, chip)
    return cells | {"chip": label, "config_id": cells["config_id"].replace(chip, label.removesuffix("-SXM"))}


def main() -> int:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds power_cost.csv")
    text = (parser.parse_args().folder / "power_cost.csv").read_text(encoding="utf-8-sig")
    found = made_rows(list(csv.DictReader(io.StringIO(text, newline=""))))
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    OUT.write_text(out.getvalue(), encoding="utf-8", newline="")
    print(f"{len(found)} rows", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
