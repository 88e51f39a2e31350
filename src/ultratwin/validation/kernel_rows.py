"""Kernel measurements: one row of kernels.csv to a call of the kernel model, or the reason why there is none.

Everything is read from the row's own columns by general rules; nothing here knows a row or a source.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from ultratwin.timing.kernels.libraries import library_name

Row = dict[str, str]

PASSES: Final = {
    # op class -> (kind of pass, bytes moved per element, as numbers of 2 bytes)
    "norm": ("norm", 2.0),
    "softmax": ("softmax", 2.0),
    "rope": ("rope", 2.0),
    "embedding": ("embedding", 2.0),
    "elementwise": ("elementwise", 2.0),
}
_PHASES: Final = {
    "fwd": "forward", "prefill": "forward", "bwd": "backward", "fwd+bwd": "both", "decode": "decode",
    "dgrad": "forward", "wgrad": "forward", "": "forward",
}  # fmt: skip
_QUERY_SIZES: Final = ("batch", "seq_q", "seq_kv", "heads_q", "heads_kv", "head_dim")
_BACKWARD_FLOP: Final = 2.5
_ROPE_DIM: Final = 64.0
"""Numbers of a latent key that are not part of the value, where a row gives the key's width alone (DeepSeek)."""


class Unreadable(Exception):
    """A row that can't be turned into a question; the text says which column and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCall:
    """What a row asks: which table of constants, on what, with which sizes; and the time that was measured [s]."""

    table: str
    chip: str
    cores: float
    dtype: str
    stored_dtype: str
    library: str
    phase: str
    causal: bool
    accumulate: bool
    sizes: dict[str, float]
    seconds: float | None


def number(row: Row, column: str) -> float:
    """A positive number of a row. Raises Unreadable, naming the column."""
    text = (row.get(column) or "").strip()
    if not text:
        raise Unreadable(f"{column} is empty")
    try:
        value = float(text)
    except ValueError:
        raise Unreadable(f'{column} is not a number: "{text[:40]}"') from None
    if not math.isfinite(value) or value <= 0:
        raise Unreadable(f"{column} is {text[:40]}, not a positive number")
    return value


def optional(row: Row, column: str) -> float | None:
    """The same, or None where the cell is empty."""
    return number(row, column) if (row.get(column) or "").strip() else None


def formats(label: str) -> tuple[str, str]:
    """Number format of the arithmetic and of stored weights, or keys and values.

    Raises: Unreadable if the label names none
    Example:
        >>> formats("bfloat16/kv fp8"), formats("w4a16_mxfp4"), formats("fp8_e4m3 block")
        (('bf16', 'fp8'), ('bf16', 'mxfp4'), ('fp8', 'fp8'))
    """
    text = label.lower().replace("bfloat16", "bf16").replace("float16", "fp16").replace("float32", "fp32")
    weights = re.match(r"w4a(16|8)", text)
    if weights:
        stored = "mxfp4" if "mxfp4" in text else "nvfp4" if "nvfp4" in text else "int4"
        return ("bf16" if weights[1] == "16" else "mxfp8" if "mxfp8" in text else "fp8"), stored
    if text in ("int4_wo", "int8_wo"):
        return "bf16", text[:4]
    found = [
        "nvfp4" if name == "fp4" else name
        for name in re.findall(r"nvfp4|mxfp4|mxfp8|bf16|fp16|fp32|tf32|fp8|fp4|int8", text)
    ]
    if not found:
        raise Unreadable(f'dtype "{label}" is not a number format' if label else "dtype is empty")
    first = "bf16" if found[0] == "fp16" else found[0]
    stored = found[-1] if "kv" in text else first
    return first, "bf16" if stored == "fp16" else stored


def cores_measured(chip: str) -> float:
    """Cores of the chip that the row measured: 0 means all. "(1 NeuronCore of 2)" and "(NeuronCore-v2)" are one."""
    found = re.search(r"\((?:(\d+) )?\w*core", chip, re.IGNORECASE)
    return float(found[1] or 1) if found else 0.0


def read_row(row: Row) -> KernelCall:
    """The question that a row asks.

    Raises: Unreadable with the column that is missing or wrong
    """
    kind, phase = (row.get("op_class") or "").strip(), (row.get("phase") or "").strip()
    readers = {
        "gemm": _gemm, "grouped_gemm": _gemm, "attention": _attention, "mla": _mla, "moe_fused": _moe,
        "sparse_attention": _sparse, "quantize": _pass, **dict.fromkeys(PASSES, _pass),
    }  # fmt: skip
    if kind not in readers:
        raise Unreadable(f'op_class "{kind}" has no kernel model' if kind else "op_class is empty")
    if phase not in _PHASES:
        raise Unreadable(f'phase "{phase}" does not say what was timed')
    chip = (row.get("chip") or "").strip()
    if not chip:
        raise Unreadable("chip is empty")
    dtype, stored = formats((row.get("dtype") or "").strip())
    table, sizes = readers[kind](row, _PHASES[phase])
    seconds = optional(row, "time_us")
    return KernelCall(
        table=table, chip=chip, cores=cores_measured(chip), dtype=dtype, stored_dtype=stored,
        library=library_name(row.get("framework") or "", row.get("kernel") or "", row.get("dtype") or "",
                             attention=kind in ("attention", "mla")),
        phase=_phase(row, table, sizes),
        causal=_is_causal(row, _PHASES[phase]), accumulate=phase == "wgrad",
        sizes=sizes, seconds=seconds * 1e-6 if seconds is not None else _from_rate(row, sizes, table, _PHASES[phase]),
    )  # fmt: skip


def _phase(row: Row, table: str, sizes: dict[str, float]) -> str:
    """Which constants of a table: kind of pass, or phase; "scores" is attention without values."""
    if table == "memory_bound":
        return _pass_kind(row)
    if table in ("decode", "mla_decode"):
        return "decode"
    if table == "attention" and sizes["head_dim_v"] == 0:
        return "scores"
    return _PHASES[(row.get("phase") or "").strip()]


def _gemm(row: Row, phase: str) -> tuple[str, dict[str, float]]:
    sizes = {name.lower(): number(row, name) for name in ("M", "N", "K")}
    if row.get("op_class") == "grouped_gemm":
        return "grouped_gemm", sizes | {"groups": number(row, "groups")}
    return "gemm", sizes | {"groups": optional(row, "groups") or 1.0}


def _attention(row: Row, phase: str) -> tuple[str, dict[str, float]]:
    sizes = {name: number(row, name) for name in _QUERY_SIZES}
    sizes["head_dim_v"] = optional(row, "head_dim_v") or sizes["head_dim"]
    return ("decode" if phase == "decode" else "attention"), sizes


def _mla(row: Row, phase: str) -> tuple[str, dict[str, float]]:
    sizes = {name: number(row, name) for name in ("batch", "seq_q", "seq_kv", "heads_q", "head_dim", "head_dim_v")}
    return ("mla_decode" if phase == "decode" else "mla_attention"), sizes


def _sparse(row: Row, phase: str) -> tuple[str, dict[str, float]]:
    """Attention over the chosen keys, or the scores (no values) that choose them."""
    sizes = {name: number(row, name) for name in ("batch", "seq_q", "seq_kv", "heads_q", "head_dim")}
    chosen = optional(row, "topk")
    if chosen is None:
        if phase == "decode":
            raise Unreadable("topk is empty, and scores of one query have no kernel model")
        return "attention", sizes | {"heads_kv": optional(row, "heads_kv") or 1.0, "head_dim_v": 0.0}
    # every query reads keys of its own, so that each is a sequence
    queries = {"batch": sizes["batch"] * sizes["seq_q"], "seq_q": 1.0, "seq_kv": min(sizes["seq_kv"], chosen)}
    latent = optional(row, "head_dim_v") or sizes["head_dim"] - _ROPE_DIM
    return "mla_decode", sizes | queries | {"head_dim_v": latent}


def _moe(row: Row, phase: str) -> tuple[str, dict[str, float]]:
    sizes = {name: number(row, name) for name in ("tokens", "hidden", "inter", "topk", "experts")}
    sizes["inter"] /= optional(row, "tp") or 1.0
    sizes["local"] = sizes["experts"] / (optional(row, "ep") or 1.0)
    skew = re.search(r"power_law_(\d+(?:\.\d+)?)", row.get("note") or "")
    matrices = 2.0 if "nongated" in (row.get("kernel") or "").lower() else 3.0
    return "moe", sizes | {"skew": float(skew[1]) if skew else 0.0, "matrices": matrices}


def _pass_kind(row: Row) -> str:
    kernel = (row.get("kernel") or "").lower()
    if row.get("op_class") == "quantize":
        return "amax" if "dynamic scale" in kernel else "quantize"
    if row.get("op_class") == "elementwise" and re.search(r"_act\b", kernel):
        return "activation"
    return PASSES[row.get("op_class") or ""][0]


def _pass(row: Row, phase: str) -> tuple[str, dict[str, float]]:
    """Bytes that a pass moves: elements from `elements`, M x K or M x N, or tokens x width."""
    kernel = (row.get("kernel") or "").lower()
    if re.search(r"proj|attn\b", kernel) and "rope" not in kernel:
        raise Unreadable("kernel is a projection or attention, whose sizes are empty")
    elements = optional(row, "elements")
    if elements is None and (row.get("M") or "").strip():
        elements = number(row, "M") * number(row, "K" if (row.get("K") or "").strip() else "N")
    if elements is None:
        elements = number(row, "tokens") * number(row, "hidden") / (optional(row, "tp") or 1.0)
    if row.get("op_class") == "quantize":
        bytes_each = 2.0 if _pass_kind(row) == "amax" else 3.0
    else:
        operands = 1.5 if re.search(r"\badd\b|_act\b", kernel) else 1.0  # two inputs for one output
        bytes_each = (
            2.0 * PASSES[row.get("op_class") or ""][1] * operands * (2.0 if "fp32" in (row.get("dtype") or "") else 1.0)
        )
    return "memory_bound", {"bytes": elements * bytes_each}


def _is_causal(row: Row, phase: str) -> bool:
    text = (row.get("causal") or "").strip().lower()
    if text in ("true", "1", "yes"):
        return True
    if text in ("false", "0", "no"):
        return False
    return phase != "decode"


def _from_rate(row: Row, sizes: dict[str, float], table: str, phase: str) -> float | None:
    """Time from a published rate. An attention rate counts all pairs, unless the row says that it is causal."""
    if not (row.get("tflops") or "").strip():
        return None
    rate = number(row, "tflops") * 1e12
    if table in ("gemm", "grouped_gemm"):
        return 2.0 * sizes["m"] * sizes["n"] * sizes["k"] * sizes["groups"] / rate
    if table != "attention":
        return None
    pairs = sizes["batch"] * sizes["heads_q"] * sizes["seq_q"] * sizes["seq_kv"]
    if (row.get("causal") or "").strip().lower() == "true":
        pairs /= 2.0
    passes = {"forward": 1.0, "backward": _BACKWARD_FLOP, "both": 1.0 + _BACKWARD_FLOP}[phase]
    return 2.0 * pairs * (sizes["head_dim"] + sizes["head_dim_v"]) * passes / rate
