"""Trainium matrix products measured by the Neuron profiler: rows of trn3_gemm.csv to predictions.

A row names its instance, the physical cores that worked as one logical core, and the library. The sizes that the
library executed, the tensor engine's active time and the bytes moved are predicted too, never read.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache

from ultratwin.errors import CatalogueError, UltratwinError
from ultratwin.hardware.chip import load_chip
from ultratwin.timing.kernels.neuron import NeuronKernels
from ultratwin.timing.kernels.neuron_core import neuron_core_bounds
from ultratwin.timing.kernels.neuron_gemm import ProductTime
from ultratwin.validation.kernel_rows import Row, Unreadable, formats, number, optional
from ultratwin.validation.result import RowResult


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfiledProduct:
    """What a row asks: the product, the cores and the library; and the time that was measured [s]."""

    instance: str
    num_cores: float
    m: float
    n: float
    k: float
    dtype: str
    library: str
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Predicted time of a product with its range [s], and what the profiler counts beside it, over all its cores."""

    time_s: float
    low_s: float
    high_s: float
    tensor_active_s: float
    hbm_read_bytes: float
    hbm_write_bytes: float


def read_row(row: Row) -> ProfiledProduct:
    """The question that a row asks.

    Raises: Unreadable with the column that is missing or wrong
    """
    instance = (row.get("instance") or "").strip()
    if not instance:
        raise Unreadable("instance is empty")
    measured = optional(row, "total_us_median")
    return ProfiledProduct(
        instance=instance,
        num_cores=number(row, "lnc"),
        m=number(row, "m"),
        n=number(row, "n"),
        k=number(row, "k"),
        dtype=formats((row.get("dtype") or "").strip())[0],
        library=(row.get("backend") or "").strip() or "default",
        seconds=None if measured is None else measured * 1e-6,
    )


def predict_profile(question: ProfiledProduct) -> Profile:
    """Time, range and counters of a profiled product.

    Returns: low is the fastest core that the facts allow; high the slowest, with no store of the last block overlapped
    Raises: UltratwinError if the chip is unknown, is no Trainium or has fewer cores
    """
    kernels = _kernels(question.instance, question.num_cores)
    fast, slow = neuron_core_bounds(kernels.chip.id)
    sizes, library = (question.m, question.n, question.k), question.library
    expected = kernels.product(*sizes, dtype=question.dtype, library=library)
    low: ProductTime = kernels.product(*sizes, dtype=question.dtype, library=library, core=fast)
    high: ProductTime = kernels.product(*sizes, dtype=question.dtype, library=library, core=slow)
    return Profile(
        time_s=float(expected.total_s),
        low_s=float(low.total_s),
        high_s=float(high.unoverlapped_s),
        tensor_active_s=float(expected.tensor_s) + kernels.core().ramp_loss_s,
        hbm_read_bytes=float(expected.read_bytes) * question.num_cores,
        hbm_write_bytes=float(expected.c_bytes) * question.num_cores,
    )


def predict_rows(rows: list[Row]) -> list[RowResult]:
    """Predicted time of every row, in order; a row that can't be predicted says why.

    Args:
        rows: as csv.DictReader gives them
    Returns: one result per row, metric "time_s"; id is the row's own, or its line number
    """
    return [_predict(row, at) for at, row in enumerate(rows)]


def _predict(row: Row, at: int) -> RowResult:
    row_id = (row.get("id") or "").strip() or str(at + 2)
    groups = {
        "source": "trn3_gemm", "chip": row.get("instance") or "", "dtype": row.get("dtype") or "", "kind": "gemm",
    }  # fmt: skip
    try:
        question = read_row(row)
        profile = predict_profile(question)
    except Unreadable as error:
        return _skipped(row_id, str(error), groups)
    except UltratwinError as error:
        return _skipped(row_id, error.what, groups)
    if not math.isfinite(profile.time_s):
        return _skipped(row_id, "sizes give no finite time", groups)
    return RowResult(
        id=row_id, metric="time_s", unit="s", status="scored", predicted=profile.time_s, measured=question.seconds,
        low=profile.low_s, high=profile.high_s, groups=groups,
    )  # fmt: skip


def _skipped(row_id: str, reason: str, groups: dict[str, str]) -> RowResult:
    return RowResult(id=row_id, metric="time_s", unit="s", status="skipped", reason=reason, groups=groups)


@cache
def _kernels(instance: str, num_cores: float) -> NeuronKernels:
    """The kernels of the chip behind an instance's name: an alias, or the family that the name starts with."""
    try:
        chip = load_chip(instance)
    except CatalogueError:
        family = re.match(r"[a-z]+\d", instance.lower())
        if family is None:
            raise
        chip = load_chip(family[0])
    if chip.family != "neuron":
        raise CatalogueError(f"{chip.id} has no NeuronCores", where=instance)
    return NeuronKernels(chip=chip).on_cores(num_cores)
