"""A chip: what its datasheet says, as numbers that the formulas take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.catalogue import loader
from ultratwin.catalogue.facts import Fact
from ultratwin.catalogue.schema import ChipEntry
from ultratwin.errors import ScenarioError

Array = NDArray[np.float64]
Number = float | Array
"""A number, or an array along the candidate axis (always the last axis; see docs/decisions/001)."""

# where a chip has no rate of its own for a format, the next one that its engine would run it in
FALLBACK_FORMATS: Final[dict[str, tuple[str, ...]]] = {
    "fp32": ("tf32", "bf16"),
    "tf32": ("fp32", "bf16"),
    "fp16": ("bf16",),
    "fp8": ("mxfp8", "bf16"),
    "mxfp8": ("fp8", "bf16"),
    "mxfp4": ("nvfp4", "mxfp8", "fp8", "bf16"),
    "nvfp4": ("mxfp4", "fp8", "bf16"),
    "int8": ("fp8", "bf16"),
}
DTYPE_BYTES: Final[dict[str, float]] = {
    # element and its share of the block scales: MX has one byte for 32 elements, NVFP4 one for 16
    "fp32": 4.0,
    "tf32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "mxfp8": 1.0 + 1 / 32,
    "int8": 1.0,
    "mxfp4": 0.5 + 1 / 32,
    "nvfp4": 0.5 + 1 / 16,
    "int4": 0.5,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """One accelerator. Rates are dense, per chip, SI; a rate may be an array along the candidate axis.

    `facts` keeps each figure's source and range; `peak_flop_per_s` is by number format.
    """

    id: str
    name: str
    vendor: str
    family: str
    peak_flop_per_s: Mapping[str, Number]
    memory_bytes: Number
    memory_bytes_per_s: Number
    num_cores: float
    clock_hz: float
    l2_bytes: float
    tdp_w: Number
    facts: Mapping[str, Fact]

    def matmul_flop_per_s(self, dtype: str) -> Number:
        """Dense matrix peak of a format; a format that the chip lacks runs in the next one that it has.

        Raises: ScenarioError for a format that no chip has
        """
        if dtype in self.peak_flop_per_s:
            return self.peak_flop_per_s[dtype]
        if dtype not in DTYPE_BYTES:
            raise ScenarioError(f'unknown number format "{dtype}"', allowed=", ".join(DTYPE_BYTES))
        for other in FALLBACK_FORMATS.get(dtype, ()):
            if other in self.peak_flop_per_s:
                return self.peak_flop_per_s[other]
        return self.peak_flop_per_s["bf16"]


def load_chip(name: str) -> Chip:
    """A chip of the catalogue by id or alias.

    Raises: CatalogueError if nobody has that name
    """
    chip_id = loader.resolve("chips", name)
    entry = loader.entry("chips", chip_id)
    if not isinstance(entry, ChipEntry):
        raise TypeError(f"{chip_id} is not a chip entry")
    figures = entry.figures

    def si(key: str, default: float = 0.0) -> float:
        return figures[key].si if key in figures else default

    peaks: dict[str, Number] = {
        key.removesuffix("_flop_per_s"): fact.si
        for key, fact in figures.items()
        if key.endswith("_flop_per_s") and key.split("_")[0] not in ("sparse", "array", "best")
    }
    # a headline above what the matrix array can do is kept for MFU reports; matmuls run at the array's rate
    peaks |= {
        key.removeprefix("array_").removesuffix("_flop_per_s"): fact.si
        for key, fact in figures.items()
        if key.startswith("array_")
    }
    return Chip(
        id=chip_id,
        name=entry.name,
        vendor=entry.vendor,
        family=entry.family,
        peak_flop_per_s=peaks,
        memory_bytes=si("usable_memory_bytes", si("memory_bytes")),
        memory_bytes_per_s=si("memory_bytes_per_s"),
        num_cores=si("num_cores", 1.0),
        clock_hz=si("clock_hz"),
        l2_bytes=si("last_level_cache_bytes", si("l2_bytes", si("sbuf_bytes_per_core") * si("num_cores", 1.0))),
        tdp_w=si("tdp_w"),
        facts=figures,
    )
