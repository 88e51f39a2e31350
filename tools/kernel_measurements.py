"""Reads kernel measurements for fit_kernels.py: rows of kernels.csv, and the tables of aiconfigurator-core."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import importlib.util
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ultratwin.errors import UltratwinError
from ultratwin.hardware.chip import load_chip
from ultratwin.timing.kernels.fitted import attention_format
from ultratwin.timing.kernels.libraries import library_name
from ultratwin.validation.kernel_rows import Unreadable, formats, read_row

PACKAGE_DATA = "aiconfigurator-core 0.12.0 (Apache-2.0), systems/data"
SYSTEMS = {
    "a100_sxm": "a100-80-sxm",
    "b200_sxm": "b200-sxm",
    "b300_sxm": "b300-sxm",
    "b60": "arc-pro-b60",
    "gb200": "gb200",
    "gb300": "gb300",
    "h100_sxm": "h100-sxm",
    "h200_sxm": "h200-sxm",
    "l40s": "l40s",
    "rtx_pro_6000_server": "rtx-pro-6000",
}
SAMPLE = 3000
TRUTH_SHARE = 0.4
"""All rows of the truth file together count as this share of a table: they are the sizes that models have."""
NO_WINDOW = 1e9

Key = tuple[str, str, str, str, str]
"""Chip, table, number format, library, phase or kind of pass."""
Measured = tuple[dict[str, float], float, bool]
"""Sizes, seconds, whether from the truth file."""
Rows = dict[Key, list[Measured]]


@dataclasses.dataclass
class Points:
    """Measurements of one kernel: sizes, seconds, which half is fitted, and how much each counts."""

    sizes: dict[str, np.ndarray]
    seconds: np.ndarray
    fitted: np.ndarray
    weight: np.ndarray


def points_of(rows: list[Measured]) -> Points:
    """Points as arrays. The halves are told by a hash of the sizes."""
    halves = [hashlib.blake2b(repr(sorted(row[0].items())).encode()).digest()[0] & 1 for row in rows]
    truth = np.array([row[2] for row in rows])
    each = TRUTH_SHARE * (~truth).sum() / max(truth.sum(), 1)
    return Points(
        sizes={name: np.array([row[0][name] for row in rows]) for name in rows[0][0]},
        seconds=np.array([row[1] for row in rows]),
        fitted=np.array(halves, dtype=bool),
        weight=np.where(truth & ~truth.all(), each, 1.0),
    )


def truth_rows(path: Path) -> Rows:
    """Rows of kernels.csv by kernel; rows that the scoreboard would skip are skipped here."""
    found: Rows = defaultdict(list)
    with path.open() as file:
        for row in csv.DictReader(file):
            try:
                call = read_row(row)
                chip = load_chip(call.chip)
            except (Unreadable, UltratwinError):
                continue
            if call.seconds is None or chip.family == "neuron":
                continue
            dtype = call.dtype if "gemm" in call.table else attention_format(call.dtype, call.stored_dtype)
            dtype = "bf16" if call.table == "memory_bound" else dtype
            sizes = call.sizes
            if call.table in ("attention", "decode"):
                sizes = sizes | {"causal": float(call.causal), "window": NO_WINDOW}
            phase = "wgrad" if call.accumulate else call.phase
            found[chip.id, call.table, dtype, call.library, phase].append((sizes, call.seconds, True))
    return found


def package_folder() -> Path:
    """Where the measured tables of aiconfigurator-core lie."""
    spec = importlib.util.find_spec("aiconfigurator_core")
    if spec is None or spec.origin is None:
        raise SystemExit("aiconfigurator-core is not installed: pip install -e '.[fit]', or pass --no-tables")
    return Path(spec.origin).parent / "systems" / "data"


def package_rows(folder: Path, system: str, wanted: set[str]) -> Rows:
    """The package's measurements of one system, by kernel."""
    found: Rows = defaultdict(list)
    for name, reader in READERS.items():
        table = name.split(":")[0]
        for path in sorted((folder / system).glob(PATTERNS[name])) if table in wanted else ():
            frame = pd.read_parquet(path)
            reader(found, SYSTEMS[system], frame[frame.latency > 0].reset_index(drop=True))
    return found


def add(found: Rows, key: Key, frame: pd.DataFrame, near: pd.Series, columns: dict[str, str | float]) -> None:
    """At most SAMPLE rows, two thirds of them from those that `near` marks: the sizes that models really have."""
    inside, outside = frame[near], frame[~near]
    limits = (2 * SAMPLE // 3, SAMPLE // 3)
    parts = [p.sample(min(len(p), n), random_state=0) for p, n in zip((inside, outside), limits, strict=True)]
    chosen = pd.concat(parts)
    values = {
        name: chosen[column].to_numpy(float) if isinstance(column, str) else np.full(len(chosen), column)
        for name, column in columns.items()
    }
    for i, latency_ms in enumerate(chosen.latency.to_numpy(float)):
        found[key].append(({name: float(value[i]) for name, value in values.items()}, latency_ms * 1e-3, False))


def library(frame: pd.DataFrame, dtype: str, *, attention: bool = False) -> str:
    """The library of rows that have one framework, version and kernel."""
    first = frame.iloc[0]
    return library_name(f"{first.framework} {first.version}", first.kernel_source, dtype, attention=attention)


def known_format(label: str) -> bool:
    """Whether the project has the number format (SmoothQuant, for one, it has not)."""
    try:
        formats(label)
    except Unreadable:
        return False
    return True


def read_gemm(found: Rows, chip: str, frame: pd.DataFrame) -> None:
    frame = frame[(frame.n >= 128) & (frame.k >= 128)]
    for (_, dtype), part in frame.groupby(["kernel_source", "gemm_dtype"]):
        if known_format(dtype):
            key = (chip, "gemm", formats(dtype)[0], library(part, dtype), "forward")
            near = (part.n >= 1024) & (part.k >= 1024)
            add(found, key, part, near, {"m": "m", "n": "n", "k": "k", "groups": 1.0})


def read_attention(found: Rows, chip: str, frame: pd.DataFrame) -> None:
    decode = "generation" in frame.op_name.iloc[0]
    window = frame.window_size.fillna(0) if "window_size" in frame else pd.Series(0.0, frame.index)
    frame = frame.assign(keys_seen=frame.isl + frame.step, window=np.where(window > 0, window, NO_WINDOW))
    frame = frame[(frame.keys_seen >= 64) | decode]
    for (_, dtype, kv), part in frame.groupby(["kernel_source", "attn_dtype", "kv_cache_dtype"]):
        table, phase = ("decode", "decode") if decode else ("attention", "forward")
        key = (chip, table, attention_format(formats(dtype)[0], formats(kv)[0]),
               library(part, dtype, attention=True), phase)  # fmt: skip
        near = (part.head_dim == 128) & (part.keys_seen >= 256) & (part.window == NO_WINDOW)
        columns: dict[str, str | float] = {
            "batch": "batch_size", "seq_q": "isl", "seq_kv": "keys_seen", "heads_q": "num_heads",
            "heads_kv": "num_key_value_heads", "head_dim": "head_dim", "head_dim_v": "head_dim", "causal": 1.0,
            "window": "window",
        }  # fmt: skip
        add(found, key, part, near, columns)


def read_mla(found: Rows, chip: str, frame: pd.DataFrame) -> None:
    decode = "generation" in frame.op_name.iloc[0]
    frame = frame.assign(keys_seen=frame.isl + frame.step)
    frame = frame[frame.keys_seen >= 64]
    for (_, dtype, kv), part in frame.groupby(["kernel_source", "mla_dtype", "kv_cache_dtype"]):
        table, phase = ("mla_decode", "decode") if decode else ("mla_attention", "forward")
        key = (chip, table, attention_format(formats(dtype)[0], formats(kv)[0]),
               library(part, dtype, attention=True), phase)  # fmt: skip
        wide = (576.0, 512.0) if decode else (192.0, 128.0)  # DeepSeek's, the only ones that were measured
        columns: dict[str, str | float] = {
            "batch": "batch_size", "seq_q": "isl", "seq_kv": "keys_seen", "heads_q": "num_heads", "head_dim": wide[0],
            "head_dim_v": wide[1],
        }  # fmt: skip
        add(found, key, part, (part.num_heads == 128) & (part.keys_seen >= 256), columns)


def read_moe(found: Rows, chip: str, frame: pd.DataFrame) -> None:
    skew = frame.distribution.str.extract(r"power_law_(\d+\.?\d*)")[0].astype(float).fillna(0.0)
    local, wide = frame.num_experts / frame.moe_ep_size, frame.inter_size / frame.moe_tp_size
    frame = frame.assign(local=local, wide=wide, skew=skew)
    for (kernel, dtype), part in frame.groupby(["kernel_source", "moe_dtype"]):
        if known_format(dtype):
            key = (chip, "moe", attention_format(*formats(dtype)), library(part, dtype), "forward")
            columns: dict[str, str | float] = {
                "tokens": "num_tokens", "hidden": "hidden_size", "inter": "wide", "topk": "topk",
                "experts": "num_experts", "local": "local", "skew": "skew",
                "matrices": 2.0 if "nongated" in kernel else 3.0,
            }  # fmt: skip
            add(found, key, part, part.moe_tp_size == 1, columns)


def read_quantize(found: Rows, chip: str, frame: pd.DataFrame) -> None:
    kind, bytes_each = ("amax", 2.0) if "compute_scale" in frame.op_name.iloc[0] else ("quantize", 3.0)
    frame = frame[frame.latency > 2e-4]  # shorter ones are differences of two timings, and mostly noise
    frame = frame.assign(bytes=frame.m * frame.k * bytes_each)
    for _, part in frame.groupby("kernel_source"):
        key = (chip, "memory_bound", "bf16", library(part, ""), kind)
        add(found, key, part, part.bytes > 0, {"bytes": "bytes"})


PATTERNS = {
    "gemm": "gemm/*/*/gemm_perf.parquet",
    "attention": "attention/*/*/context_attention_perf.parquet",
    "decode": "attention/*/*/generation_attention_perf.parquet",
    "mla_attention": "mla/*/*/context_mla_perf.parquet",
    "mla_decode": "mla/*/*/generation_mla_perf.parquet",
    "moe": "moe/*/*/moe_perf.parquet",
    "memory_bound:amax": "quantize/*/*/computescale_perf.parquet",
    "memory_bound:quantize": "quantize/*/*/scale_matrix_perf.parquet",
}
READERS: dict[str, Callable[[Rows, str, pd.DataFrame], None]] = {
    "gemm": read_gemm,
    "attention": read_attention,
    "decode": read_attention,
    "mla_attention": read_mla,
    "mla_decode": read_mla,
    "moe": read_moe,
    "memory_bound:amax": read_quantize,
    "memory_bound:quantize": read_quantize,
}
