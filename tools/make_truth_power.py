"""Makes truth/power.csv: measured node powers of training, and published energies of training runs.

    python tools/make_truth_power.py FOLDER

FOLDER holds power_cost.csv: powers parsed from MLPerf's logs, hours and energies of runs. What a benchmark trains, and
how a submission splits it, stands in the tables below as the submissions' configuration files and the papers have it;
a cell that nobody published is left empty or named in the row's note. The same folder gives the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
from pathlib import Path
from typing import Final

OUT: Final = Path(__file__).parents[1] / "src/ultratwin/validation/truth/power.csv"
COLUMNS: Final = (
    "id", "config_id", "source_key", "date", "model", "params_b", "layers", "hidden", "heads", "kv_heads", "ffn_hidden",
    "mlp_type", "vocab", "seq_len", "n_experts", "top_k", "expert_ffn", "shared_expert_ffn", "task", "chip", "n_chips",
    "chips_per_node", "network", "framework", "precision", "global_batch", "micro_batch", "tp", "pp", "vpp", "cp", "ep",
    "dp", "zero_stage", "shard_group", "sequence_parallel", "recompute", "cooling", "meter", "metric", "value", "unit",
    "high_value", "tokens", "note", "source",
)  # fmt: skip
_LLAMA: Final = {"mlp_type": "swiglu", "seq_len": "8192", "kv_heads": "8"}
MODELS: Final[dict[str, dict[str, str]]] = {
    "bert": {
        "model": "BERT-large", "layers": "24", "hidden": "1024", "heads": "16", "kv_heads": "16", "ffn_hidden": "4096",
        "mlp_type": "gelu", "vocab": "30522", "seq_len": "512", "task": "pretrain",
    },
    "gpt3": {
        "model": "GPT-3 175B", "layers": "96", "hidden": "12288", "heads": "96", "kv_heads": "96",
        "ffn_hidden": "49152", "mlp_type": "gelu", "vocab": "51200", "seq_len": "2048", "task": "pretrain",
    },
    "llama2_70b_lora": _LLAMA | {
        "model": "Llama 2 70B LoRA", "layers": "80", "hidden": "8192", "heads": "64", "ffn_hidden": "28672",
        "vocab": "32000", "task": "lora",
    },
    "Llama 2 7B": _LLAMA | {
        "layers": "32", "hidden": "4096", "heads": "32", "kv_heads": "32", "ffn_hidden": "11008", "vocab": "32000",
        "seq_len": "4096", "tokens": "2.0e12", "global_batch": "1024", "dp": "1024", "n_chips": "1024",
    },
    "Llama 2 13B": _LLAMA | {
        "layers": "40", "hidden": "5120", "heads": "40", "kv_heads": "40", "ffn_hidden": "13824", "vocab": "32000",
        "seq_len": "4096", "tokens": "2.0e12", "global_batch": "1024", "dp": "1024", "n_chips": "1024",
    },
    "Llama 2 70B": _LLAMA | {
        "layers": "80", "hidden": "8192", "heads": "64", "ffn_hidden": "28672", "vocab": "32000", "seq_len": "4096",
        "tokens": "2.0e12", "global_batch": "1024", "tp": "8", "pp": "2", "dp": "128", "n_chips": "2048",
    },
    "Llama 3 8B": _LLAMA | {
        "layers": "32", "hidden": "4096", "heads": "32", "ffn_hidden": "14336", "vocab": "128256", "tokens": "15e12",
        "global_batch": "1024", "dp": "1024", "n_chips": "1024",
    },
    "Llama 3 70B": _LLAMA | {
        "layers": "80", "hidden": "8192", "heads": "64", "ffn_hidden": "28672", "vocab": "128256", "tokens": "15e12",
        "global_batch": "1024", "tp": "8", "pp": "4", "dp": "128", "n_chips": "4096",
    },
    "Llama 3.1 405B": _LLAMA | {
        "layers": "126", "hidden": "16384", "heads": "128", "ffn_hidden": "53248", "vocab": "128256",
        "tokens": "15.6e12", "global_batch": "2048", "tp": "8", "pp": "16", "vpp": "8", "dp": "128", "n_chips": "16384",
    },
    "BLOOM-176B": {
        "layers": "70", "hidden": "14336", "heads": "112", "kv_heads": "112", "ffn_hidden": "57344",
        "mlp_type": "gelu", "vocab": "250880", "seq_len": "2048", "tokens": "366e9", "global_batch": "2048",
        "micro_batch": "2", "tp": "4", "pp": "12", "dp": "8", "n_chips": "384", "recompute": "full",
        "framework": "Megatron-DeepSpeed", "date": "2022-07", "network": "Jean Zay",
    },
    "OPT-175B": {
        "layers": "96", "hidden": "12288", "heads": "96", "kv_heads": "96", "ffn_hidden": "49152",
        "mlp_type": "gelu", "vocab": "50272", "seq_len": "2048", "tokens": "180e9", "global_batch": "992",
        "micro_batch": "8", "tp": "8", "dp": "124", "zero_stage": "3", "shard_group": "124", "n_chips": "992",
        "recompute": "full", "framework": "FSDP", "date": "2022-01",
    },
}  # fmt: skip
"""Sizes by benchmark or model; layouts of Llama 2 and of the smaller Llama 3 are usual ones, not published ones."""
_ALIAS: Final = {"Llama 3.1 8B": "Llama 3 8B", "Llama 3.1 70B": "Llama 3 70B"}
SPLITS: Final[dict[tuple[str, str, str], dict[str, str]]] = {
    # benchmark, chip, chips -> configuration file of the submission
    ("bert", "H100", "8"): {"dp": "8", "micro_batch": "48", "global_batch": "384"},
    ("bert", "B200", "8"): {"dp": "8", "micro_batch": "48", "global_batch": "384"},
    ("gpt3", "H100", "512"): {
        "tp": "4", "pp": "8", "vpp": "12", "dp": "16", "micro_batch": "1", "global_batch": "2048",
        "sequence_parallel": "yes", "zero_stage": "1",
    },
    ("llama2_70b_lora", "H100", "8"): {"tp": "4", "dp": "2", "global_batch": "8", "sequence_parallel": "yes"},
    ("llama2_70b_lora", "H100", "64"): {
        "tp": "4", "cp": "2", "dp": "8", "global_batch": "8", "sequence_parallel": "yes",
    },
    ("llama2_70b_lora", "H100", "512"): {
        "tp": "4", "cp": "2", "dp": "64", "global_batch": "64", "sequence_parallel": "yes",
    },
    ("llama2_70b_lora", "B200", "8"): {"dp": "8", "global_batch": "8"},
}  # fmt: skip
_COOLING: Final = (("immersion", "immersion"), ("water", "water"))
_MORE_RUNS: Final = (
    {
        "id": "own-opt", "model": "OPT-175B", "chip": "A100", "metric": "energy at TDP", "value": "324",
        "unit": "MWh", "source": "arXiv:2211.02001, as quoted by the project of the Bloom study",
    },
)  # fmt: skip


def node_rows(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Median power of a node while a benchmark trains; `high_value` is the 95th percentile over the same window."""
    high = {
        (row["system"], row["workload"], row["source"]): row["value"]
        for row in rows if row["metric"].startswith("node power, p95")
    }  # fmt: skip
    found = []
    for row in rows:
        if not row["metric"].startswith("node power, median"):
            continue
        version, benchmark = row["workload"].removeprefix("MLPerf Training ").split()
        chip = "B200" if "B200" in row["chip"] else "H100"
        made = {
            "id": row["id"], "source_key": f"mlperf-{version}", "chip": f"{chip}-SXM" if chip == "H100" else chip,
            "model": benchmark, "n_chips": row["n_accel"], "chips_per_node": "8", "network": "InfiniBand NDR 400 Gb/s",
            "framework": "NVIDIA NeMo", "precision": "fp8", "metric": "node power", "value": row["value"], "unit": "W",
            "high_value": high[row["system"], row["workload"], row["source"]], "source": row["source"],
            "meter": "DC" if row["note"].startswith("DC") else "AC",
            "cooling": next((kind for word, kind in _COOLING if word in row["note"]), "air"),
            "date": {"v4.0": "2024-06", "v4.1": "2024-11", "v5.0": "2025-06"}[version],
            "config_id": f"{benchmark}-{chip}-{row['n_accel']}",
        }  # fmt: skip
        found.append(made | MODELS.get(benchmark, {}) | SPLITS.get((benchmark, chip, row["n_accel"]), {}))
    return found


def energy_rows(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Energies of whole runs: chip-hours at the chip's power limit, as model cards and papers count them."""
    taken = [row for row in rows if row["metric"] in ("energy at TDP", "energy") and row["unit"] == "MWh"]
    found = []
    for row in [*taken, *_MORE_RUNS]:
        sizes = MODELS.get(_ALIAS.get(row["model"], row["model"]), {})
        chip = re.search(r"A100|H100|H800", row["chip"])
        made = {
            "id": row["id"], "source_key": "runs", "model": row["model"], "task": "pretrain", "precision": "bf16",
            "chip": {"A100": "A100-80GB-SXM", "H100": "H100-SXM"}[chip[0]] if chip else row["chip"],
            "chips_per_node": "8", "zero_stage": "1", "micro_batch": "1", "network": "InfiniBand",
            "framework": "Megatron-LM", "metric": "energy of a run", "value": row["value"], "unit": "MWh",
            "note": "chip-hours x power limit", "source": row["source"],
        }  # fmt: skip
        found.append({"config_id": f"{row['model']}-run"} | made | sizes | {"model": row["model"]})
    return found


def main() -> int:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds power_cost.csv")
    text = (parser.parse_args().folder / "power_cost.csv").read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    found = node_rows(rows) + energy_rows(rows)
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    OUT.write_text(out.getvalue(), encoding="utf-8", newline="")
    print(f"{len(found)} rows", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
