"""Fits the constants of catalogue/data/kernels to published kernel measurements.

    python tools/fit_kernels.py --truth kernels.csv [--chips h100-sxm,b200-sxm] [--tables gemm,moe] [--no-tables]

Needs the extra `fit` (scipy, pandas, pyarrow, aiconfigurator-core). Half of the points, chosen by a hash of the point
itself, is fitted; the errors that are written beside the constants are those on the other half. Constants that few
points speak for stay near those of the same kernel with another library: a prior in log, worth a few points.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
from scipy.optimize import least_squares

from kernel_measurements import (
    PACKAGE_DATA,
    SYSTEMS,
    Key,
    Points,
    Rows,
    package_folder,
    package_rows,
    points_of,
    truth_rows,
)
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
    kernel_file,
)
from ultratwin.timing.kernels.fitted import likeness
from ultratwin.timing.kernels.gemm import Rates, gemm_seconds
from ultratwin.timing.kernels.grouped import MoeShape, moe_seconds
from ultratwin.timing.kernels.libraries import any_version, resemblance
from ultratwin.timing.kernels.memory_bound import pass_seconds
from ultratwin.timing.kernels.model import PassKind

SOFT_ERROR = 0.05
"""Errors below this count by their square, those above by their size, so that outliers don't lead the fit."""
PRIOR_SIGMA, LOOSE_SIGMA = 0.25, 0.8
"""How far (in log) constants that few points speak for may be from the prior's; the second from 30 points on."""
STREAM_FRAC = 0.92
"""Share of memory bandwidth that a streaming kernel reaches at most: BabelStream on H100, 0.87 (copy) to 0.95 (dot)."""
FEW_POINTS, SOME_POINTS = 16, 200
"""Below the first number all points are fitted, none left out; below the second a prior holds."""

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
    "score_bytes": (1e-4, 400, (1e-3, 10)),
    "mask_bytes": (1e-4, 400, (1e-3, 10)),
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


def stored_format(dtype: str) -> str:
    """The second half of "bf16/fp8": what weights, or keys and values, are stored in."""
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
        return moe_seconds(c, rates, moe_shape(s), stored)
    shape = attention_shape(table, s)
    if table in ("decode", "mla_decode"):
        return decode_seconds(c, rates, shape, stored)
    causal = both_phases(c, rates, shape, stored, phase)
    if "causal" not in s or s["causal"].all():
        return causal
    full = both_phases(c, rates, dataclasses.replace(shape, causal=False), stored, phase)
    return np.where(s["causal"] > 0, causal, full)


def moe_shape(s: dict[str, np.ndarray]) -> MoeShape:
    return MoeShape(
        tokens=s["tokens"], hidden=s["hidden"], intermediate=s["inter"], top_k=s["topk"], experts=s["experts"],
        local_experts=s["local"], routing_skew=s["skew"], matrices=s["matrices"],
    )  # fmt: skip


def attention_shape(table: str, s: dict[str, np.ndarray]) -> AttentionShape:
    decode = table in ("decode", "mla_decode")
    return AttentionShape(
        batch=s["batch"], seq_q=s["seq_q"], seq_kv=s["seq_kv"], heads_q=s["heads_q"],
        heads_kv=s.get("heads_kv", np.float64(1.0) if decode else s["heads_q"]),
        head_dim=s["head_dim"], head_dim_v=s["head_dim_v"],
        kv_width=s["head_dim"] if table == "mla_decode" else s["head_dim"] + s["head_dim_v"],
        causal=not decode, window=s.get("window"),
    )  # fmt: skip


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
    """Starting points: the first value of every constant, then the second, then the first with other tiles."""
    floor = float(np.quantile(seconds, 0.02)) * 0.8
    for at in (0, 1):
        yield {name: options[min(at, len(options) - 1)] for name, (_, _, options) in bounds.items()} | {
            "launch_s": floor
        }
    first = {name: options[0] for name, (_, _, options) in bounds.items()} | {"launch_s": floor}
    for tile in whole_numbers(bounds):
        for option in bounds[tile][2][1:]:
            yield first | {tile: option}


def whole_numbers(bounds: Bounds) -> list[str]:
    """Constants that are tiles of a kernel: tried one by one, since no slope leads from one to the next."""
    return [name for name in bounds if name == "query_tile" or (name == "row_tile" and "split_keys" in bounds)]


def bounds_of(table: str, dtype: str, library: str) -> Bounds:
    """What is fitted. Serving frameworks quantise inside a product's call; bare kernels get quantised inputs."""
    bounds = KINDS[table][1]
    framework = any_version(library).split("/")[0] in ("trtllm", "vllm", "sglang")
    return bounds | QUANTISING if table == "gemm" and dtype != "bf16" and framework else bounds


@dataclasses.dataclass
class Variables:
    """Constants as the optimiser sees them: 1 + log(value / lowest), never near zero, where relative steps vanish."""

    bounds: Bounds

    def __post_init__(self) -> None:
        self.lowest = np.array([b[0] for b in self.bounds.values()])
        self.low, self.high = np.ones(len(self.bounds)), 1 + np.log([b[1] / b[0] for b in self.bounds.values()])
        self.whole = whole_numbers(self.bounds)
        self.free = np.array([name not in self.whole for name in self.bounds])

    def of(self, constants: dict[str, float]) -> np.ndarray:
        ratios = [max(constants[name] / b[0], 1.0) for name, b in self.bounds.items()]
        return np.clip(1 + np.log(ratios), self.low + 1e-6, self.high - 1e-6)

    def constants(self, values: np.ndarray) -> dict[str, float]:
        named = dict(zip(self.bounds, (self.lowest * np.exp(values - 1)).tolist(), strict=True))
        named = {name: min(max(v, self.bounds[name][0]), self.bounds[name][1]) for name, v in named.items()}
        return named | {name: float(round(named[name])) for name in self.whole}  # 63.999 would be one tile more


def fit_one(key: Key, points: Points, prior: Fit | None) -> Fit:
    """Constants that minimise the mean |log(predicted / measured)|, softened near zero, on the fitted half."""
    chip_id, table, dtype, library, phase = key
    chip, kind, fixed = load_chip(chip_id), KINDS[table][0], labels(table, dtype, library, phase)
    variables = Variables(bounds_of(table, dtype, library))
    few = len(points.seconds) < FEW_POINTS
    use = np.ones_like(points.fitted) if few else points.fitted
    sizes = {name: value[use] for name, value in points.sizes.items()}
    log_measured, weight = np.log(points.seconds[use]), np.sqrt(points.weight[use])
    near = None if prior is None else {name: getattr(prior, name) for name in variables.bounds}
    anchor = None if near is None else variables.of(near)
    sigma = PRIOR_SIGMA if len(points.seconds) < 30 else LOOSE_SIGMA

    def residual(part: np.ndarray, begin: np.ndarray) -> np.ndarray:
        values = begin.copy()
        values[variables.free] = part
        constants = kind(**fixed, **variables.constants(values))
        error = weight * (np.log(predict(table, constants, chip, dtype, sizes, phase)) - log_measured)
        return error if anchor is None else np.append(error, SOFT_ERROR * (values - anchor) / sigma)

    candidates = [] if few and near else list(starts(variables.bounds, points.seconds[use]))
    best: tuple[float, np.ndarray] | None = None
    for start in [*candidates, near] if near else candidates:
        begin = variables.of(start)
        limits = (variables.low[variables.free], variables.high[variables.free])
        result = least_squares(
            residual, begin[variables.free], bounds=limits, args=(begin,), loss="soft_l1", f_scale=SOFT_ERROR,
            max_nfev=60, diff_step=3e-3, x_scale=0.3,
        )  # fmt: skip
        if best is None or result.cost < best[0]:
            begin[variables.free] = result.x
            best = (result.cost, begin)
    assert best is not None
    return with_errors(key, kind(**fixed, **variables.constants(best[1])), points, few)


def with_errors(key: Key, c: Fit, points: Points, few: bool) -> Fit:
    """The constants with their residuals on the half that was left out; with few points, widened ones on all."""
    chip, table, dtype, _, phase = key
    left = np.ones_like(points.fitted) if few else ~points.fitted
    error = np.log(predict(table, c, load_chip(chip), dtype, points.sizes, phase)[left] / points.seconds[left])
    order = np.argsort(error)
    share = np.cumsum(points.weight[left][order]) / points.weight[left].sum()
    low, high = (float(error[order][np.searchsorted(share, q)]) for q in (0.05, 0.95))
    widen = 1.0 + 4.0 / math.sqrt(len(points.seconds)) if few else 1.0
    return msgspec.structs.replace(
        c, points=int((left if few else points.fitted).sum()), median_error=float(np.median(np.abs(error))),
        bias=float(np.median(error)), low_error=min(low, -0.02) * widen, high_error=max(high, 0.02) * widen,
    )  # fmt: skip


def prior_for(done: dict[Key, Fit], key: Key) -> Fit | None:
    """Constants to stay near: the same chip and format first, then the most similar library."""
    chip, table, dtype, library, phase = key
    others = [
        (2 * (k[0] == chip) + (k[2] == dtype) + resemblance(library, k[3]) / 2 + (k[4] == phase), -i, c)
        for i, (k, c) in enumerate(done.items())
        if k[1] == table or (table == "grouped_gemm" and k[1] == "gemm")
    ]
    return max(others, key=lambda o: o[:2])[2] if others else None


ATTENTION_DEFAULTS = (
    "transformer-engine",
    "flash-attention-3",
    "flash-attention-2",
    "vllm/flash-attention-3",
    "trtllm",
    "vllm/flash-attention",
)
PREFERRED = {
    # what "default" stands for: the library of the usual training stack, else a CUDA-graph timing without host time
    "gemm/bf16": ("trtllm", "vllm", "transformer-engine", "torch"),
    "gemm/fp8": ("transformer-engine", "cublas", "trtllm", "vllm/cutlass", "deepgemm", "vllm"),
    "gemm/nvfp4": ("cublas", "trtllm"),
    "grouped_gemm/bf16": ("transformer-engine",),
    "grouped_gemm/fp8": ("deepgemm",),
    "attention/bf16": ATTENTION_DEFAULTS,
    "decode/bf16": ("trtllm", "vllm/flash-attention-3", "vllm/flash-attention", "flashinfer"),
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
    """Adds library "default" to every kind of pass.

    The fused kernels that training uses stream about as well as the best quantising kernel, which was timed on many
    sizes in CUDA graphs; slower, host-timed ones keep their names.
    """
    rows = [row for row in rows if row["library"] != "default" or row["points"] > 0]
    streams = [row for row in rows if row["kind"] == "quantize" and any_version(row["library"]) in ("trtllm", "vllm")]
    if not streams:
        return rows
    best = max(streams, key=lambda row: row["memory_frac"])
    missing = [
        kind for kind in get_args(PassKind) if not any(r["library"] == "default" and r["kind"] == kind for r in rows)
    ]
    default = best | {"library": "default", "points": 0, "memory_frac": min(best["memory_frac"], STREAM_FRAC)}
    return rows + [default | {"kind": kind} for kind in missing]


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


def known(chip: str) -> dict[Key, Fit]:
    """The constants that a chip's file already has, as priors for the chips that are fitted now."""
    file = kernel_file(chip)
    rows = [(table, row) for table in KINDS for row in (getattr(file, table) if file else ())]
    return {
        (chip, table, row.dtype, row.library, getattr(row, "phase", "") or getattr(row, "kind", "")): row
        for table, row in rows
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, required=True, help="kernels.csv")
    parser.add_argument("--chips", default="", help="chip ids, comma-separated; default all")
    parser.add_argument("--tables", default=",".join(KINDS), help="tables of constants to fit")
    parser.add_argument("--no-tables", action="store_true", help="fit to the truth file alone")
    options = parser.parse_args()
    wanted, only = set(options.tables.split(",")), set(filter(None, options.chips.split(",")))
    truth = truth_rows(options.truth)
    systems = {} if options.no_tables else {chip: system for system, chip in SYSTEMS.items()}
    # chips with tables of their own come first, so that the others can stay near them
    chips = [*systems, *sorted({key[0] for key in truth} - set(systems))]
    done: dict[Key, Fit] = {}
    for chip in chips:
        if only and chip not in only:
            done |= known(chip)
            continue
        rows = {key: list(members) for key, members in truth.items() if key[0] == chip and key[1] in wanted}
        if chip in systems:
            for key, members in package_rows(package_folder(), systems[chip], wanted).items():
                rows.setdefault(key, []).extend(members)
        fit_chip(done, rows)
        write(chip, done, options.truth)


def fit_chip(done: dict[Key, Fit], rows: Rows) -> None:
    """All constants of one chip, those with most points first."""
    for key in sorted(rows, key=lambda k: (k[4] == "wgrad", -len(rows[k]))):
        points = points_of(rows[key])
        if key[4] == "wgrad":
            weight_gradient(done, key, points)
            continue
        found = fit_one(key, points, prior_for(done, key) if len(points.seconds) < SOME_POINTS else None)
        if key[4] == "both":
            done[*key[:4], "forward"] = found
            done[*key[:4], "backward"] = backward_of(found, likeness().backward_share)
        else:
            done[key] = found
        errors = f"error {found.median_error:6.3f}  bias {found.bias:+.3f}"
        print(f"{'/'.join(key):70s} {len(points.seconds):6d} points  {errors}", flush=True)


def weight_gradient(done: dict[Key, Fit], key: Key, points: Points) -> None:
    """How much longer a product with an accumulating fp32 output takes, beyond the bytes that it moves."""
    chip, table, dtype, library, _ = key
    forward: Key = (chip, table, dtype, library, "forward")
    if forward not in done:
        return
    base = msgspec.structs.replace(done[forward], accumulate_ratio=1.0)
    ratio = float(np.median(points.seconds / predict(table, base, load_chip(chip), dtype, points.sizes, "wgrad")))
    done[forward] = msgspec.structs.replace(base, accumulate_ratio=max(1.0, ratio))
    print(f"{'/'.join(key):70s} {len(points.seconds):6d} points  accumulate ratio {ratio:.3f}", flush=True)


if __name__ == "__main__":
    main()
