"""Fitted constants of the kernels of one chip, read from catalogue/data/kernels/<chip>.toml.

Each set of constants carries what it was fitted to: number of points and the residuals on points that were left out.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Final

import msgspec

from ultratwin.catalogue import loader

Positive = Annotated[float, msgspec.Meta(gt=0)]
Fraction = Annotated[float, msgspec.Meta(gt=0, le=1)]
"""Shares of a datasheet rate: never above one, so that no kernel beats its bound."""
AtLeastZero = Annotated[float, msgspec.Meta(ge=0)]
Rounding = Annotated[float, msgspec.Meta(ge=0, le=1)]
"""0: the longer of two limits alone; 1: their sum."""
AtLeastOne = Annotated[float, msgspec.Meta(ge=1)]
FOLDER: Final = loader.DATA / "kernels"


class Fit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a set of constants was fitted to. Errors are log(predicted / measured) on the points left out.

    `library` and `dtype` say which kernels it describes. `low_error`, `high_error`: 5th and 95th percentile.
    """

    library: str
    dtype: str
    points: int
    median_error: float
    bias: float
    low_error: float
    high_error: float


class GemmConstants(Fit, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Constants of gemm.gemm_seconds, which says what each of them does."""

    launch_s: Positive
    compute_frac: Fraction
    tile_edge: AtLeastZero
    tile_floor: AtLeastZero
    ramp_k: AtLeastZero
    memory_frac: Fraction
    l2_speedup: AtLeastOne
    l2_share: Fraction
    wave_share: Fraction
    rounding: Rounding
    fill_frac: AtLeastZero
    throttle_frac: AtLeastZero
    throttle_s: Positive
    pass_s: AtLeastZero = 0.0
    pass_frac: AtLeastZero = 0.0
    accumulate_ratio: AtLeastOne = 1.0


class AttentionConstants(Fit, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Constants of attention.attention_seconds (prefill, forward, backward)."""

    phase: str
    kv_dtype: str
    launch_s: Positive
    compute_frac: Fraction
    softmax_dim: AtLeastZero
    ramp_keys: AtLeastZero
    query_tile: AtLeastOne
    wave_share: Fraction
    memory_frac: Fraction
    rounding: Rounding
    masked_frac: Fraction
    score_bytes: AtLeastZero
    mask_bytes: AtLeastZero = 0.0
    flop_ratio: AtLeastOne = 1.0


class DecodeConstants(Fit, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Constants of attention.decode_seconds (one query token per sequence)."""

    kv_dtype: str
    launch_s: Positive
    memory_frac: Fraction
    l2_speedup: AtLeastOne
    l2_share: Fraction
    compute_frac: Fraction
    row_tile: AtLeastOne
    softmax_dim: AtLeastZero
    split_keys: AtLeastOne
    fill_frac: AtLeastZero
    sequence_s: AtLeastZero
    rounding: Rounding


class PassConstants(Fit, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Constants of memory_bound.pass_seconds for one kind of kernel."""

    kind: str
    launch_s: Positive
    memory_frac: Fraction
    l2_speedup: AtLeastOne
    l2_share: Fraction
    rounding: Rounding


class MoeConstants(Fit, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Constants of grouped.moe_seconds."""

    launch_s: Positive
    compute_frac: Fraction
    memory_frac: Fraction
    imbalance: AtLeastZero
    row_tile: AtLeastZero
    fill_frac: AtLeastZero
    row_passes: AtLeastZero
    rounding: Rounding
    active_ratio: Positive
    token_s: AtLeastZero


class KernelFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One chip's constants. `defaults`: which library "default" means, by table and format, such as "gemm/bf16"."""

    script: str = ""
    data: str = ""
    defaults: dict[str, str] = {}
    gemm: tuple[GemmConstants, ...] = ()
    grouped_gemm: tuple[GemmConstants, ...] = ()
    attention: tuple[AttentionConstants, ...] = ()
    decode: tuple[DecodeConstants, ...] = ()
    mla_attention: tuple[AttentionConstants, ...] = ()
    mla_decode: tuple[DecodeConstants, ...] = ()
    moe: tuple[MoeConstants, ...] = ()
    memory_bound: tuple[PassConstants, ...] = ()


@cache
def kernel_file(name: str) -> KernelFile | None:
    """The constants of a chip, or None if it has no file."""
    path = FOLDER / f"{name}.toml"
    if not path.is_file():
        return None
    found: KernelFile = loader.read_toml(path, KernelFile)
    return found
