"""The kernel model whose constants were fitted to published measurements, with stand-ins for chips that have none."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import msgspec

from ultratwin.catalogue import loader
from ultratwin.errors import CatalogueError
from ultratwin.hardware.chip import DTYPE_BYTES, Chip, Number
from ultratwin.timing.kernels.attention import AttentionShape, attention_seconds, backward_of, decode_seconds
from ultratwin.timing.kernels.constants import FOLDER, AttentionConstants, Fit, Fraction, KernelFile, kernel_file
from ultratwin.timing.kernels.gemm import Rates, gemm_seconds
from ultratwin.timing.kernels.grouped import MoeShape, moe_seconds
from ultratwin.timing.kernels.libraries import resemblance
from ultratwin.timing.kernels.memory_bound import pass_seconds
from ultratwin.timing.kernels.model import AttentionPhase, KernelModel, PassKind

_PRODUCTS: Final = ("gemm", "grouped_gemm", "moe")
_SAME_FORMAT: Final = {"fp16": "bf16", "mxfp4": "nvfp4", "mxfp8": "fp8", "tf32": "bf16", "fp32": "bf16", "int8": "fp8"}


class Likeness(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which chip's constants stand in for a chip's, and for a family's where the chip is not listed.

    `backward_share`: efficiency of a backward attention kernel relative to its forward one, where nobody timed it.
    `stand_in_error`: added to both ends of the error range (in log) where constants stand in.
    """

    backward_share: Fraction
    stand_in_error: float
    chips: dict[str, str]
    families: dict[str, str]


@cache
def likeness() -> Likeness:
    """The table of stand-ins, catalogue/data/kernels/likeness.toml."""
    found: Likeness = loader.read_toml(FOLDER / "likeness.toml", Likeness)
    return found


def stand_ins(chip_id: str, family: str) -> list[str]:
    """The chip, then the chips that it is like, nearest first, the family's last.

    Raises: CatalogueError if neither the chip nor its family is listed
    """
    table = likeness()
    order: list[str] = []
    for following in (chip_id, table.families.get(family, "")):
        while following and following not in order:
            order.append(following)
            following = table.chips.get(following, "")
    if family not in table.families:
        raise CatalogueError(
            f'no kernel constants for chips of family "{family}"',
            where=str(FOLDER / "likeness.toml"),
            allowed=", ".join(sorted(table.families)),
        )
    return order


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Constants chosen for a kernel, and whether they stand in for ones that nobody measured."""

    fit: Fit
    stands_in: bool

    def error_range(self) -> tuple[float, float]:
        """5th and 95th percentile of log(predicted / measured)."""
        extra = likeness().stand_in_error if self.stands_in else 0.0
        return self.fit.low_error - extra, self.fit.high_error + extra


@cache
def picked(chip_id: str, family: str, table: str, dtype: str, library: str, only: str = "") -> tuple[Fit, bool]:
    """Constants for a number format and library, and whether they stand in for ones that nobody measured.

    For "default", and for a library that nobody resembles: the nearest chip's whose file names a default. Otherwise the
    chip's own for the format come first,
    whatever the library; then its own for a similar format; then those of the chips that it is like.
    `only`: the phase, or the kind of pass.
    Raises: CatalogueError if nobody has any
    """
    formats = [dtype, _SAME_FORMAT.get(dtype, dtype)]
    files = [(at, file) for at, name in enumerate(stand_ins(chip_id, family)) if (file := kernel_file(name))]
    if library == "default":
        for distance, file in files:
            tables = (table, "gemm") if table == "grouped_gemm" else (table,)
            named = {"default"} | {file.defaults.get(f"{name}/{each}", "") for name in tables for each in formats}
            rows = [row for row in _rows(file, table, only) if row.library in named]
            if found := _of_format(rows, formats, "default") or _best_of(_rows(file, table, only), table, formats):
                return _carried_over(found, files[0][1], file) if table in _PRODUCTS else found, distance > 0
    elif not any(
        resemblance(library, row.library)
        for _, file in files
        for row in _rows(file, table, only)
        if row.dtype in formats
    ):
        return picked(chip_id, family, table, dtype, "default", only)
    strangers: list[Fit] = []
    for distance, file in files:
        rows = _rows(file, table, only)
        if found := _of_format(rows, formats, library):
            if distance > 0 and table in _PRODUCTS:
                found = _carried_over(found, files[0][1], file)
            return found, distance > 0 or (library != "default" and resemblance(library, found.library) < 3)
        strangers += rows
    if not strangers:
        raise CatalogueError(f"no constants for {table} kernels {only}".strip(), where=str(FOLDER))
    nearest = _best_of(strangers, table, ["fp8"]) or max(strangers, key=lambda row: resemblance(library, row.library))
    return nearest, True


def _carried_over(fit: Any, own: KernelFile, other: KernelFile) -> Any:
    """Another chip's constants for products as this chip would have them.

    Equation: share of the peak x (this chip's share / the other's, in BF16 by the same library), at most the other's
    A chip that reaches less of its BF16 peak, be it power or software, reaches less of its other peaks.
    """
    shares = [{row.library: row.compute_frac for row in file.gemm if row.dtype == "bf16"} for file in (own, other)]
    both = shares[0].keys() & shares[1].keys()
    if own is other or not both:
        return fit
    ratio = min(shares[0][each] / shares[1][each] for each in both)
    return msgspec.structs.replace(fit, compute_frac=fit.compute_frac * min(ratio, 1.0))


def _of_format(rows: list[Fit], formats: list[str], library: str) -> Fit | None:
    """The row that resembles a library most, of the first format that any row has."""
    for each in formats:
        same = [row for row in rows if row.dtype == each]
        if same:
            return max(same, key=lambda row: resemblance(library, row.library))
    return None


def _best_of(rows: list[Fit], table: str, formats: list[str]) -> Fit | None:
    """The fastest of the fused expert kernels of a format, where the file names none as the chip's usual one.

    Kernels of experts without a gate are for other models; the rest compete for the same calls. A format that nobody
    timed runs as FP8 does, with its own bytes and peak.
    """
    same = [row for row in rows if row.dtype == formats[0] and "nongated" not in row.library]
    if table != "moe" or not same:
        return None
    return max(same, key=lambda row: getattr(row, "memory_frac", 0.0) * getattr(row, "compute_frac", 0.0))


def _rows(file: KernelFile, table: str, only: str) -> list[Fit]:
    """Rows of one phase or kind of pass; a backward kernel that nobody timed is guessed from its forward one."""
    rows: list[Fit] = list(getattr(file, table))
    if table == "grouped_gemm":  # a format whose grouped kernels nobody timed runs as the plain ones do
        rows += [row for row in file.gemm if row.dtype not in {grouped.dtype for grouped in file.grouped_gemm}]
    if not only:
        return rows
    found = [row for row in rows if only in (getattr(row, "phase", ""), getattr(row, "kind", ""))]
    if only == "backward":
        known = {(row.library, row.dtype) for row in found}
        forward = [row for row in rows if isinstance(row, AttentionConstants) and row.phase == "forward"]
        share = likeness().backward_share
        found += [backward_of(row, share) for row in forward if (row.library, row.dtype) not in known]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedKernels(KernelModel):
    """Kernel times from the constants of catalogue/data/kernels; with stand-ins where nobody measured."""

    def _pick(self, table: str, dtype: str, library: str, only: str = "") -> Any:
        return picked(self.chip.id, self.chip.family, table, dtype, library, only)[0]

    def choice(self, table: str, dtype: str, library: str, only: str = "") -> Choice:
        """Which constants a call would use, for its range and for `--explain`.

        Args:
            table: a field of KernelFile, such as "gemm"; only: phase or kind of pass
        """
        fit, stands_in = picked(self.chip.id, self.chip.family, table, dtype, library, only)
        return Choice(fit=fit, stands_in=stands_in)

    def gemm_time_s(
        self,
        m: Number,
        n: Number,
        k: Number,
        *,
        dtype: str = "bf16",
        groups: Number = 1,
        accumulate: bool = False,
        library: str = "default",
    ) -> Number:
        grouped = not (isinstance(groups, int) and groups == 1)
        constants = self._pick("grouped_gemm" if grouped else "gemm", dtype, library)
        return gemm_seconds(constants, Rates.of(self.chip, dtype), m, n, k, groups=groups, accumulate=accumulate)

    def attention_time_s(
        self,
        batch: Number,
        seq_q: Number,
        seq_kv: Number,
        heads_q: Number,
        heads_kv: Number,
        head_dim: Number,
        *,
        head_dim_v: Number | None = None,
        causal: bool = True,
        window: Number | None = None,
        phase: AttentionPhase = "forward",
        dtype: str = "bf16",
        kv_dtype: str = "",
        library: str = "default",
    ) -> Number:
        wide = head_dim if head_dim_v is None else head_dim_v
        shape = AttentionShape(
            batch=batch, seq_q=seq_q, seq_kv=seq_kv, heads_q=heads_q, heads_kv=heads_kv, head_dim=head_dim,
            head_dim_v=wide, kv_width=head_dim + wide, causal=causal, window=window,
        )  # fmt: skip
        if phase == "decode":
            return self._decode("decode", shape, dtype, kv_dtype or dtype, library)
        return self._attention("attention", shape, phase, dtype, kv_dtype or dtype, library)

    def _attention(
        self, table: str, shape: AttentionShape, phase: str, dtype: str, kv_dtype: str, library: str
    ) -> Number:
        constants = self._pick(table, attention_format(dtype, kv_dtype), library, phase)
        return attention_seconds(constants, Rates.of(self.chip, dtype), shape, DTYPE_BYTES[kv_dtype])

    def _decode(self, table: str, shape: AttentionShape, dtype: str, kv_dtype: str, library: str) -> Number:
        constants = self._pick(table, attention_format(dtype, kv_dtype), library)
        return decode_seconds(constants, Rates.of(self.chip, dtype), shape, DTYPE_BYTES[kv_dtype])

    def memory_bound_time_s(
        self,
        read_write_bytes: Number,
        *,
        kind: PassKind = "elementwise",
        num_kernels: Number = 1,
        library: str = "default",
    ) -> Number:
        constants = self._pick("memory_bound", "bf16", library, kind)
        return pass_seconds(constants, Rates.of(self.chip, "bf16"), read_write_bytes, num_kernels)

    def mla_time_s(
        self,
        batch: Number,
        seq_q: Number,
        seq_kv: Number,
        heads: Number,
        *,
        latent_dim: Number = 512,
        rope_dim: Number = 64,
        head_dim: Number = 192,
        head_dim_v: Number = 128,
        phase: AttentionPhase = "decode",
        dtype: str = "bf16",
        kv_dtype: str = "",
        library: str = "default",
    ) -> Number:
        stored = latent_dim + rope_dim
        decode = phase == "decode"
        shape = AttentionShape(
            batch=batch, seq_q=seq_q, seq_kv=seq_kv, heads_q=heads, heads_kv=1 if decode else heads,
            head_dim=stored if decode else head_dim, head_dim_v=latent_dim if decode else head_dim_v,
            kv_width=stored if decode else head_dim + head_dim_v, causal=not decode,
        )  # fmt: skip
        if decode:
            return self._decode("mla_decode", shape, dtype, kv_dtype or dtype, library)
        return self._attention("mla_attention", shape, phase, dtype, kv_dtype or dtype, library)

    def moe_time_s(
        self,
        tokens: Number,
        hidden: Number,
        intermediate: Number,
        *,
        top_k: Number,
        experts: Number,
        local_experts: Number,
        gated: bool = True,
        routing_skew: Number = 0.0,
        dtype: str = "bf16",
        weight_dtype: str = "",
        library: str = "default",
    ) -> Number:
        stored = weight_dtype or dtype
        constants = self._pick("moe", moe_format(dtype, stored), library)
        shape = MoeShape(
            tokens=tokens, hidden=hidden, intermediate=intermediate, top_k=top_k, experts=experts,
            local_experts=local_experts, routing_skew=routing_skew, matrices=3.0 if gated else 2.0,
        )  # fmt: skip
        return moe_seconds(constants, Rates.of(self.chip, dtype), shape, DTYPE_BYTES[stored])


def attention_format(dtype: str, kv_dtype: str) -> str:
    """How tables name the pair: "bf16", or "bf16/fp8" where keys and values are stored in another format."""
    dtype, kv_dtype = (_SAME_FORMAT.get(each, each) if each == "fp16" else each for each in (dtype, kv_dtype))
    return dtype if dtype == kv_dtype else f"{dtype}/{kv_dtype}"


moe_format = attention_format


def fitted_kernels(chip: Chip) -> FittedKernels:
    """The fitted model of a chip.

    Raises: CatalogueError if neither the chip nor its family has constants
    """
    stand_ins(chip.id, chip.family)
    return FittedKernels(chip=chip)
