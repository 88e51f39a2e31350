"""Fits the constants of catalogue/data/kernels to published kernel measurements.

    python tools/fit_kernels.py --truth kernels.csv [--chips h100-sxm,b200-sxm] [--tables gemm,moe] [--no-tables]

Needs the extra `fit` (scipy, pandas, pyarrow, aiconfigurator-core). Half of the points, chosen by a hash of the point
itself, is fitted; the errors that are written beside the constants are those on the other half. Constants that few
points speak for stay near those of the same kernel with another library: a prior in log, worth a few points.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import importlib.util
import json
import math
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from ultratwin.errors import UltratwinError
from ultratwin.hardware.chip import DTYPE_BYTES, Chip, load_chip
from ultratwin.timing.kernels.attention import AttentionShape, attention_seconds, backward_of, decode_seconds
from ultratwin.timing.kernels.constants import (
    FOLDER,
    AttentionConstants,
    DecodeConstants,
    Fit,
    GemmConstants,
    KernelFile,
    MoeConstants,
    PassConstants,
)
from ultratwin.timing.kernels.fitted import attention_format, likeness
from ultratwin.timing.kernels.gemm import Rates, gemm_seconds
from ultratwin.timing.kernels.grouped import MoeShape, moe_seconds
from ultratwin.timing.kernels.libraries import any_version, library_name, resemblance
from ultratwin.timing.kernels.memory_bound import pass_seconds
from ultratwin.timing.kernels.model import PassKind
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
PRIOR_SIGMA = 0.25

# name -> (lowest, highest, starts)
Bounds = dict[str, tuple[float, float, tuple[float, ...]]]
GEMM: Bounds = {
    "launch_s": (2e-7, 1e-3, (1e-6,)),
    "compute_frac": (0.1, 1.0, (0.85,)),
    "tile_edge": (0.01, 400, (10, 60)),
    "tile_floor": (1, 6e4, (1000, 6000)),
    "ramp_k": (1, 5000, (200, 60)),
    "memory_frac": (0.2, 1.0, (0.85,)),
    "l2_speedup": (1.0, 20, (2,)),
    "l2_share": (0.05, 1.0, (0.5,)),
    "wave_share": (0.02, 1.0, (0.5, 0.25)),
    "rounding": (0.01, 1.0, (0.3, 0.6)),
    "fill_frac": (0.005, 8.0, (0.2, 1.0)),
    "throttle_frac": (0.001, 0.6, (0.1,)),
    "throttle_s": (1e-5, 2e-2, (2e-4, 2e-3)),
}
QUANTISING: Bounds = {"pass_s": (1e-8, 1e-4, (1e-6,)), "pass_frac": (0.05, 20.0, (0.5,))}
ATTENTION: Bounds = {
    "launch_s": (2e-7, 1e-3, (1e-6,)),
    "compute_frac": (0.05, 1.0, (0.8,)),
    "softmax_dim": (0.5, 600, (40, 150)),
    "ramp_keys": (1, 4000, (100, 400)),
    "query_tile": (64, 256, (128, 64, 256)),
    "wave_share": (0.02, 1.0, (0.5,)),
    "memory_frac": (0.05, 1.0, (0.7,)),
    "rounding": (0.01, 1.0, (0.3, 0.6)),
    "masked_frac": (1e-3, 1.0, (1e-3,)),
    "score_bytes": (1e-4, 400, (1e-3,)),
}
DECODE: Bounds = {
    "launch_s": (2e-7, 1e-3, (1e-6,)),
    "memory_frac": (0.1, 1.0, (0.85,)),
    "l2_speedup": (1.0, 20, (2,)),
    "l2_share": (0.05, 1.0, (0.5,)),
    "compute_frac": (0.01, 1.0, (0.5,)),
    "row_tile": (1, 128, (64, 16, 128)),
    "softmax_dim": (0.5, 800, (50,)),
    "split_keys": (16, 1e5, (256, 2048)),
    "fill_frac": (0.005, 8.0, (0.5,)),
    "sequence_s": (1e-11, 1e-5, (1e-9,)),
    "rounding": (0.01, 1.0, (0.3, 0.6)),
}
PASS: Bounds = {
    "launch_s": (1e-7, 1e-3, (1e-6,)),
    "memory_frac": (0.02, 1.0, (0.7,)),
    "l2_speedup": (1.0, 20, (1.5, 4)),
    "l2_share": (0.05, 1.0, (0.5,)),
    "rounding": (0.01, 1.0, (0.3, 0.6)),
}
MOE: Bounds = {
    "launch_s": (2e-7, 2e-3, (1e-6,)),
    "compute_frac": (0.05, 1.0, (0.6,)),
    "memory_frac": (0.1, 1.0, (0.7,)),
    "imbalance": (0.005, 1.0, (0.25, 0.1)),
    "row_tile": (1, 400, (60, 10, 150)),
    "fill_frac": (0.005, 40.0, (0.5,)),
    "row_passes": (0.1, 200, (8,)),
    "rounding": (0.01, 1.0, (0.3, 0.6)),
    "active_ratio": (0.05, 1.0, (0.6,)),
    "token_s": (1e-12, 1e-6, (1e-10,)),
}


@dataclasses.dataclass
class Points:
    """Measurements of one kernel: sizes, seconds, which half is fitted, and how much each counts."""

    sizes: dict[str, np.ndarray]
    seconds: np.ndarray
    fitted: np.ndarray
    weight: np.ndarray
    is_truth: np.ndarray


Key = tuple[str, str, str, str, str]  # chip, table, dtype, library, phase


def points_of(rows: list[tuple[dict[str, float], float, bool]]) -> Points:
    """Points from (sizes, seconds, is truth). Halves are told by a hash of the sizes."""
    names = list(rows[0][0])
    sizes = {name: np.array([row[0][name] for row in rows]) for name in names}
    halves = [zlib.crc32(repr(sorted(row[0].items())).encode()) & 1 for row in rows]
    truth = np.array([row[2] for row in rows])
    return Points(
        sizes=sizes,
        seconds=np.array([row[1] for row in rows]),
        fitted=np.array(halves, dtype=bool),
        weight=np.where(truth, TRUTH_SHARE * (~truth).sum() / max(truth.sum(), 1), 1.0)
        if not truth.all()
        else np.ones(len(rows)),
        is_truth=truth,
    )


def truth_points(path: Path) -> dict[Key, list[tuple[dict[str, float], float, bool]]]:
    """Rows of kernels.csv by kernel."""
    found: dict[Key, list[tuple[dict[str, float], float, bool]]] = defaultdict(list)
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
            phase = "wgrad" if call.accumulate else call.phase
            sizes = call.sizes | ({"causal": float(call.causal)} if call.table == "attention" else {})
            found[chip.id, call.table, dtype, call.library, phase].append((sizes, call.seconds, True))
    return found


def package_folder() -> Path:
    """Where the measured tables of aiconfigurator-core lie."""
    spec = importlib.util.find_spec("aiconfigurator_core")
    if spec is None or spec.origin is None:
        raise SystemExit("aiconfigurator-core is not installed: pip install -e '.[fit]', or pass --no-tables")
    return Path(spec.origin).parent / "systems" / "data"


def frames(folder: Path, system: str, pattern: str) -> Iterator[pd.DataFrame]:
    """The tables of a system, with their framework."""
    for path in sorted((folder / system).glob(pattern)):
        frame = pd.read_parquet(path)
        frame = frame[frame.latency > 0]
        yield frame


def known_format(label: str) -> bool:
    """Whether the project has the number format (SmoothQuant, for one, it has not)."""
    try:
        formats(label)
    except Unreadable:
        return False
    return True


def sampled(frame: pd.DataFrame, near: pd.Series, limit: int = SAMPLE) -> pd.DataFrame:
    """At most `limit` rows; two thirds of them from those that `near` marks: the sizes that models really have."""
    inside, outside = frame[near], frame[~near]
    parts = [
        part.sample(min(len(part), size), random_state=0)
        for part, size in ((inside, 2 * limit // 3), (outside, limit // 3))
    ]
    return pd.concat(parts)


def table_points(folder: Path, system: str, wanted: set[str]) -> dict[Key, list[tuple[dict[str, float], float, bool]]]:
    """The package's measurements of one system, by kernel."""
    chip = SYSTEMS[system]
    found: dict[Key, list[tuple[dict[str, float], float, bool]]] = defaultdict(list)

    def add(key: Key, frame: pd.DataFrame, columns: dict[str, Any]) -> None:
        values = {
            name: (frame[c].to_numpy(float) if isinstance(c, str) else np.broadcast_to(c, len(frame)))
            for name, c in columns.items()
        }
        for i, latency in enumerate(frame.latency.to_numpy(float)):
            found[key].append(({name: float(value[i]) for name, value in values.items()}, latency * 1e-3, False))

    if "gemm" in wanted:
        for frame in frames(folder, system, "gemm/*/*/gemm_perf.parquet"):
            frame = frame[(frame.n >= 128) & (frame.k >= 128)]
            for (fw, version, kernel, dtype), part in frame.groupby(
                ["framework", "version", "kernel_source", "gemm_dtype"]
            ):
                part = sampled(part, (part.n >= 1024) & (part.k >= 1024))
                if not known_format(dtype):
                    continue
                key = (chip, "gemm", formats(dtype)[0], library_name(f"{fw} {version}", kernel, dtype), "forward")
                add(key, part, {"m": "m", "n": "n", "k": "k", "groups": 1.0})
    for table, pattern in (("attention", "context_attention"), ("decode", "generation_attention")):
        if table not in wanted:
            continue
        for frame in frames(folder, system, f"attention/*/*/{pattern}_perf.parquet"):
            window = frame.window_size.fillna(0) if "window_size" in frame else pd.Series(0.0, frame.index)
            frame = frame.assign(keys=frame.isl + frame.step, window=np.where(window > 0, window, 1e9))
            frame = frame[(frame["keys"] >= 64) | (table == "decode")]
            frame["kvh"] = frame.num_key_value_heads
            for (fw, version, kernel, dtype, kv), part in frame.groupby(
                ["framework", "version", "kernel_source", "attn_dtype", "kv_cache_dtype"]
            ):
                near = (part.head_dim == 128) & (part["keys"] >= 256) & (part.window > 1e8)
                part = sampled(part, near)
                a, b = formats(dtype)[0], formats(kv)[0]
                key = (
                    chip,
                    table,
                    attention_format(a, b),
                    library_name(f"{fw} {version}", kernel, dtype, attention=True),
                    "decode" if table == "decode" else "forward",
                )
                add(
                    key,
                    part,
                    {
                        "batch": "batch_size",
                        "seq_q": "isl",
                        "seq_kv": "keys",
                        "heads_q": "num_heads",
                        "heads_kv": "kvh",
                        "head_dim": "head_dim",
                        "head_dim_v": "head_dim",
                        "window": "window",
                        "causal": 1.0,
                    },
                )
    for table, pattern in (("mla_attention", "context_mla"), ("mla_decode", "generation_mla")):
        if table not in wanted:
            continue
        for frame in frames(folder, system, f"mla/*/*/{pattern}_perf.parquet"):
            frame = frame.assign(keys=frame.isl + frame.step)
            frame = frame[frame["keys"] >= 64]
            for (fw, version, kernel, dtype, kv), part in frame.groupby(
                ["framework", "version", "kernel_source", "mla_dtype", "kv_cache_dtype"]
            ):
                part = sampled(part, (part.num_heads == 128) & (part["keys"] >= 256))
                key = (
                    chip,
                    table,
                    attention_format(formats(dtype)[0], formats(kv)[0]),
                    library_name(f"{fw} {version}", kernel, dtype, attention=True),
                    "decode" if table == "mla_decode" else "forward",
                )
                wide = (576.0, 512.0) if table == "mla_decode" else (192.0, 128.0)
                add(
                    key,
                    part,
                    {
                        "batch": "batch_size",
                        "seq_q": "isl",
                        "seq_kv": "keys",
                        "heads_q": "num_heads",
                        "head_dim": wide[0],
                        "head_dim_v": wide[1],
                    },
                )
    if "moe" in wanted:
        for frame in frames(folder, system, "moe/*/*/moe_perf.parquet"):
            skew = frame.distribution.str.extract(r"power_law_(\d+\.?\d*)")[0].astype(float).fillna(0.0)
            frame = frame.assign(
                local=frame.num_experts / frame.moe_ep_size, wide=frame.inter_size / frame.moe_tp_size, skew=skew
            )
            for (fw, version, kernel, dtype), part in frame.groupby(
                ["framework", "version", "kernel_source", "moe_dtype"]
            ):
                if not known_format(dtype):
                    continue
                a, b = formats(dtype)
                part = sampled(part, part.moe_tp_size == 1)
                key = (chip, "moe", attention_format(a, b), library_name(f"{fw} {version}", kernel, dtype), "forward")
                add(
                    key,
                    part,
                    {
                        "tokens": "num_tokens",
                        "hidden": "hidden_size",
                        "inter": "wide",
                        "topk": "topk",
                        "experts": "num_experts",
                        "local": "local",
                        "skew": "skew",
                        "matrices": 2.0 if "nongated" in kernel else 3.0,
                    },
                )
    if "memory_bound" in wanted:
        for kind, pattern, each in (("amax", "computescale", 2.0), ("quantize", "scale_matrix", 3.0)):
            for frame in frames(folder, system, f"quantize/*/*/{pattern}_perf.parquet"):
                frame = frame[frame.latency > 2e-4].assign(bytes=frame.m * frame.k * each)
                for (fw, version, kernel), part in frame.groupby(["framework", "version", "kernel_source"]):
                    part = sampled(part, part.bytes > 0)
                    add(
                        (chip, "memory_bound", "bf16", library_name(f"{fw} {version}", kernel), kind),
                        part,
                        {"bytes": "bytes"},
                    )
    return found


# what a table's constants are and how they predict -----------------------------------------------------------------


def stored_format(dtype: str) -> str:
    return dtype.split("/")[-1]


def predict(table: str, c: Any, chip: Chip, dtype: str, s: dict[str, np.ndarray], phase: str) -> np.ndarray:
    """Seconds by the project's own formulas."""
    rates = Rates.of(chip, dtype.split("/")[0])
    stored = DTYPE_BYTES[stored_format(dtype)]
    if table in ("gemm", "grouped_gemm"):
        return gemm_seconds(c, rates, s["m"], s["n"], s["k"], groups=s["groups"], accumulate=phase == "wgrad")
    if table == "memory_bound":
        return pass_seconds(c, rates, s["bytes"])
    if table == "moe":
        shape = MoeShape(
            tokens=s["tokens"],
            hidden=s["hidden"],
            intermediate=s["inter"],
            top_k=s["topk"],
            experts=s["experts"],
            local_experts=s["local"],
            routing_skew=s["skew"],
            matrices=s["matrices"],
        )
        return moe_seconds(c, rates, shape, stored)
    decode = table in ("decode", "mla_decode")
    kv = s.get("heads_kv", np.float64(1.0) if decode else s["heads_q"])
    wide = s["head_dim"] if table == "mla_decode" else s["head_dim"] + s["head_dim_v"]
    window = s.get("window")
    shape = AttentionShape(
        batch=s["batch"],
        seq_q=s["seq_q"],
        seq_kv=s["seq_kv"],
        heads_q=s["heads_q"],
        heads_kv=kv,
        head_dim=s["head_dim"],
        head_dim_v=s["head_dim_v"],
        kv_width=wide,
        causal=not decode,
        window=window,
    )
    if decode:
        return decode_seconds(c, rates, shape, stored)
    if "causal" in s and not s["causal"].all():
        full = dataclasses.replace(shape, causal=False)
        return np.where(
            s["causal"] > 0, both_phases(c, rates, shape, stored, phase), both_phases(c, rates, full, stored, phase)
        )
    return both_phases(c, rates, shape, stored, phase)


def both_phases(c: Any, rates: Rates, shape: AttentionShape, stored: float, phase: str) -> np.ndarray:
    """Forward, or forward and backward where only their sum was timed."""
    forward = attention_seconds(c, rates, shape, stored)
    if phase != "both":
        return forward
    return forward + attention_seconds(backward_of(c, likeness().backward_share), rates, shape, stored)


KINDS: dict[str, tuple[type[Fit], Bounds]] = {
    "gemm": (GemmConstants, GEMM),
    "grouped_gemm": (GemmConstants, GEMM),
    "attention": (AttentionConstants, ATTENTION),
    "decode": (DecodeConstants, DECODE),
    "mla_attention": (AttentionConstants, ATTENTION),
    "mla_decode": (DecodeConstants, DECODE),
    "moe": (MoeConstants, MOE),
    "memory_bound": (PassConstants, PASS),
}


def labels(table: str, dtype: str, library: str, phase: str) -> dict[str, Any]:
    """Fields of a set of constants that are not fitted."""
    found: dict[str, Any] = {
        "library": library,
        "dtype": dtype,
        "points": 0,
        "median_error": 0.0,
        "bias": 0.0,
        "low_error": 0.0,
        "high_error": 0.0,
    }
    if table in ("attention", "mla_attention"):
        found |= {"phase": "forward" if phase == "both" else phase, "kv_dtype": stored_format(dtype)}
        found |= {"flop_ratio": 2.5 if phase == "backward" else 1.0}
    if table in ("decode", "mla_decode"):
        found |= {"kv_dtype": stored_format(dtype)}
    if table == "memory_bound":
        found |= {"kind": phase}
    return found


def starts(bounds: Bounds, seconds: np.ndarray) -> Iterator[dict[str, float]]:
    """Starting points: the first value of every constant, then one constant at a time by its other values."""
    floor = float(np.quantile(seconds, 0.02)) * 0.8
    first = {name: (floor if name == "launch_s" else options[0]) for name, (_, _, options) in bounds.items()}
    yield first
    second = {
        name: (floor if name == "launch_s" else options[min(1, len(options) - 1)])
        for name, (_, _, options) in bounds.items()
    }
    yield second
    for tile in ("query_tile", "row_tile"):
        for option in bounds.get(tile, (0, 0, ()))[2][1:]:
            if tile == "query_tile" or "split_keys" in bounds:
                yield first | {tile: option}


def fit_one(table: str, chip: Chip, dtype: str, library: str, phase: str, points: Points, prior: Fit | None) -> Fit:
    """Constants that minimise the mean |log(predicted / measured)| (softened below 5 %) on the fitted half."""
    kind, bounds = KINDS[table]
    quantising = table == "gemm" and dtype != "bf16"
    bounds = bounds | QUANTISING if quantising else bounds
    few = len(points.seconds) < 12
    use = np.ones_like(points.fitted) if few else points.fitted
    sizes = {name: value[use] for name, value in points.sizes.items()}
    log_measured, weight = np.log(points.seconds[use]), np.sqrt(points.weight[use])
    fixed = labels(table, dtype, library, phase)
    # variables are 1 + log(value / lowest): never near zero, where the optimiser's relative steps would vanish
    lowest = np.array([b[0] for b in bounds.values()])
    low, high = np.ones(len(bounds)), 1 + np.log([b[1] / b[0] for b in bounds.values()])
    anchor = None if prior is None else 1 + np.log([max(getattr(prior, n) / b[0], 1.0) for n, b in bounds.items()])
    best: Any = None
    frozen = {"query_tile"} & set(bounds) | ({"row_tile"} if "split_keys" in bounds else set())

    def constants(values: np.ndarray) -> Fit:
        named = {n: float(v) for n, v in zip(bounds, lowest * np.exp(values - 1), strict=True)}
        named = {n: min(max(v, bounds[n][0]), bounds[n][1]) for n, v in named.items()}
        named |= {n: float(round(named[n])) for n in frozen}  # 63.999 would be one tile more
        return kind(**fixed, **named)

    candidates = list(starts(bounds, points.seconds[use]))
    if anchor is not None:
        near = dict(zip(bounds, lowest * np.exp(anchor - 1), strict=True))
        candidates = [near] if few else [*candidates, near]
    for start in candidates:
        begin = np.clip(1 + np.log([start[n] / b[0] for n, b in bounds.items()]), low + 1e-6, high - 1e-6)
        free = np.array([n not in frozen for n in bounds])

        def residual(part: np.ndarray, begin: np.ndarray = begin, free: np.ndarray = free) -> np.ndarray:
            values = begin.copy()
            values[free] = part
            error = weight * (np.log(predict(table, constants(values), chip, dtype, sizes, phase)) - log_measured)
            if anchor is None:
                return error
            return np.concatenate([error, 0.05 * (values - anchor) / PRIOR_SIGMA])

        result = least_squares(
            residual,
            begin[free],
            bounds=(low[free], high[free]),
            loss="soft_l1",
            f_scale=0.05,
            max_nfev=60,
            diff_step=3e-3,
            x_scale=0.3,
        )
        if best is None or result.cost < best[0]:
            values = begin.copy()
            values[free] = result.x
            best = (result.cost, values)
    found = constants(best[1])
    return with_errors(table, found, chip, dtype, phase, points, few)


def with_errors(table: str, c: Fit, chip: Chip, dtype: str, phase: str, points: Points, few: bool) -> Fit:
    """The constants with their residuals on the half that was left out; truth rows alone, where there are enough."""
    left = np.ones_like(points.fitted) if few else ~points.fitted
    error = np.log(predict(table, c, chip, dtype, points.sizes, phase)[left] / points.seconds[left])
    weight = points.weight[left]
    order = np.argsort(error)
    cumulative = np.cumsum(weight[order]) / weight.sum()
    low, high = (float(error[order][np.searchsorted(cumulative, q)]) for q in (0.05, 0.95))
    widen = 1.0 + 4.0 / math.sqrt(len(points.seconds)) if few else 1.0
    return msgspec.structs.replace(
        c,
        points=int(points.fitted.sum()) if not few else len(points.seconds),
        median_error=float(np.median(np.abs(error))),
        bias=float(np.median(error)),
        low_error=min(low, -0.02) * widen,
        high_error=max(high, 0.02) * widen,
    )


def prior_for(done: dict[Key, Fit], key: Key) -> Fit | None:
    """Constants to stay near: the same chip and format first, then the most similar library."""
    chip, table, dtype, library, phase = key
    others = [
        (2 * (k[0] == chip) + (k[2] == dtype) + resemblance(library, k[3]) / 2 + (k[4] == phase), -i, c)
        for i, (k, c) in enumerate(done.items())
        if k[1] == table or (table == "grouped_gemm" and k[1] == "gemm")
    ]
    return max(others, key=lambda o: o[:2])[2] if others else None


PREFERRED = {
    # which library "default" stands for: what the usual training stack calls, else a CUDA-graph timing without host time
    "gemm/bf16": ("transformer-engine", "trtllm", "vllm", "torch"),
    "gemm/fp8": ("transformer-engine", "cublas", "trtllm", "vllm/cutlass", "deepgemm"),
    "gemm/nvfp4": ("cublas", "trtllm"),
    "grouped_gemm/bf16": ("transformer-engine",),
    "grouped_gemm/fp8": ("deepgemm",),
    "attention/bf16": ("transformer-engine", "flash-attention-3", "flash-attention-2", "trtllm", "vllm"),
    "decode/bf16": ("trtllm", "vllm/flash-attention-3", "vllm/flash-attention"),
    "mla_attention/bf16": ("trtllm",),
    "mla_decode/bf16": ("trtllm",),
    "moe/bf16": ("trtllm/cutlass", "vllm"),
}


def rounded(c: Fit) -> dict[str, Any]:
    return {k: (float(f"{v:.4g}") if isinstance(v, float) else v) for k, v in msgspec.structs.asdict(c).items()}


def write(chip: str, done: dict[Key, Fit], truth: Path) -> None:
    """One chip's file; tables that were not fitted this time are kept."""
    path = FOLDER / f"{chip}.toml"
    old = msgspec.to_builtins(msgspec.toml.decode(path.read_bytes(), type=KernelFile)) if path.is_file() else {}
    tables: dict[str, list[dict[str, Any]]] = {name: list(old.get(name, ())) for name in KINDS}
    fresh = {key[1] for key in done if key[0] == chip}
    for table in fresh:
        tables[table] = [rounded(c) for key, c in done.items() if key[:2] == (chip, table)]
    defaults = {}
    for name, order in PREFERRED.items():
        table, dtype = name.split("/", 1)
        here = sorted((row for row in tables[table] if row["dtype"] == dtype), key=lambda row: -row["points"])
        by_name = {library: [r["library"] for r in here if any_version(r["library"]) == library] for library in order}
        choice = next((found[0] for found in by_name.values() if found), None)
        if choice:
            defaults[name] = choice
    tables["memory_bound"] = default_passes(tables["memory_bound"])
    document = {"script": "tools/fit_kernels.py", "data": f"{PACKAGE_DATA}; {truth.name}", "defaults": defaults}
    document |= {name: rows for name, rows in tables.items() if rows}
    path.write_text("# Written by tools/fit_kernels.py: run it again instead of editing.\n" + toml(document))


def default_passes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds library "default" to every kind of pass: the fused kernels that training uses stream about as well as the
    best quantising kernel does, which is timed on many sizes in CUDA graphs; slower host-timed ones keep their names."""
    rows = [row for row in rows if row["library"] != "default" or row["points"] > 0]
    streams = [row for row in rows if row["kind"] == "quantize" and any_version(row["library"]) in ("trtllm", "vllm")]
    if not streams:
        return rows
    best = max(streams, key=lambda row: row["memory_frac"])
    missing = [
        kind for kind in get_args(PassKind) if not any(r["library"] == "default" and r["kind"] == kind for r in rows)
    ]
    return rows + [best | {"library": "default", "kind": kind, "points": 0} for kind in missing]


def toml(document: dict[str, Any]) -> str:
    """A document as TOML, one line per set of constants."""
    lines = []
    for name, value in document.items():
        if isinstance(value, dict):
            value = "{ " + ", ".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in value.items()) + " }"
        elif isinstance(value, list):
            rows = ["    { " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in row.items()) + " },\n" for row in value]
            value = "[\n" + "".join(rows) + "]"
        else:
            value = json.dumps(value)
        lines.append(f"{name} = {value}\n")
    return "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, required=True, help="kernels.csv")
    parser.add_argument("--chips", default="", help="chip ids, comma-separated; default all")
    parser.add_argument("--tables", default=",".join(KINDS), help="tables of constants to fit")
    parser.add_argument("--no-tables", action="store_true", help="fit to the truth file alone")
    options = parser.parse_args()
    wanted, only = set(options.tables.split(",")), set(filter(None, options.chips.split(",")))
    merged = truth_points(options.truth)
    systems = {chip: system for system, chip in SYSTEMS.items()} if not options.no_tables else {}
    # chips with tables of their own come first, so that the others can stay near them
    chips = [c for c in systems if not only or c in only]
    chips += sorted({key[0] for key in merged} - set(chips) if not only else only - set(chips))
    done: dict[Key, Fit] = {}
    for chip in chips:
        found = {key: list(members) for key, members in merged.items() if key[0] == chip}
        if chip in systems:
            for key, members in table_points(package_folder(), systems[chip], wanted).items():
                found.setdefault(key, []).extend(members)
        fit_chip(done, {key: members for key, members in found.items() if key[1] in wanted})
        write(chip, done, options.truth)


def fit_chip(done: dict[Key, Fit], rows: dict[Key, list[tuple[dict[str, float], float, bool]]]) -> None:
    """All constants of one chip, those with most points first."""
    for (_, table, _, _, _), members in rows.items():  # the truth file has no windows, the package only causal masks
        for sizes, _, _ in members:
            if table in ("attention", "decode"):
                sizes.setdefault("window", 1e9)
                sizes.setdefault("causal", 1.0)
    for key in sorted(rows, key=lambda k: (k[4] == "wgrad", -len(rows[k]))):
        chip, table, dtype, library, phase = key
        points = points_of(rows[key])
        if phase == "wgrad":
            weight_gradient(done, key, points)
            continue
        prior = prior_for(done, key) if len(points.seconds) < 200 else None
        found = fit_one(table, load_chip(chip), dtype, library, phase, points, prior)
        if phase == "both":
            done[chip, table, dtype, library, "forward"] = found
            done[chip, table, dtype, library, "backward"] = backward_of(found, likeness().backward_share)
        else:
            done[key] = found
        size, error = len(points.seconds), found
        print(
            f"{'/'.join(key):70s} {size:6d} points  error {error.median_error:6.3f}  bias {error.bias:+.3f}", flush=True
        )


def weight_gradient(done: dict[Key, Fit], key: Key, points: Points) -> None:
    """How much longer a product with an accumulating fp32 output takes, beyond the bytes that it moves."""
    chip, table, dtype, library, _ = key
    forward = (chip, table, dtype, library, "forward")
    if forward not in done:
        return
    base = msgspec.structs.replace(done[forward], accumulate_ratio=1.0)
    ratio = float(np.median(points.seconds / predict(table, base, load_chip(chip), dtype, points.sizes, "wgrad")))
    done[forward] = msgspec.structs.replace(base, accumulate_ratio=max(1.0, ratio))
    print(f"{'/'.join(key):70s} {len(points.seconds):6d} points  accumulate ratio {ratio:.3f}", flush=True)


if __name__ == "__main__":
    main()
