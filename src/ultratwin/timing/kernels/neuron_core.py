"""One NeuronCore as numbers: engine rates and per-instruction costs of its documents (catalogue/data/kernels)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from ultratwin.catalogue import loader
from ultratwin.catalogue.facts import RANGED, Fact
from ultratwin.errors import CatalogueError, unknown_name
from ultratwin.hardware.chip import DTYPE_BYTES, Chip, Number

FOLDER: Final = loader.DATA / "kernels"
GENERATIONS: Final = ("neuroncore-v2", "neuroncore-v3", "neuroncore-v4")
"""Oldest first; a chip that no file names (one that is announced) takes the last."""
Facts = dict[str, Fact]


class CoreFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file of engine facts: the chips that have this core, and the figures of NeuronCore."""

    name: str
    chips: tuple[str, ...]
    figures: Facts
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronCore:
    """Documented figures of one physical NeuronCore, SI. Each field is a fact of neuroncore-v*.toml under its name.

    `block_*_tiles`: blocks of the library's matrix product. `bf16_elements_per_cycle`: of a vector lane.
    """

    tensor_clock_hz: float
    array_edge: float
    moving_columns: float
    issue_floor_cycles: float
    fp8_contraction_rows: float
    mx_contraction_rows: float
    fp32_passes: float
    accumulation_start_cycles: float
    ramp_s: float
    ramp_utilisation: float
    vector_clock_hz: float
    scalar_clock_hz: float
    vector_lanes: float
    instruction_cycles: float
    bf16_elements_per_cycle: float
    dma_engines: float
    dma_engine_bytes_per_s: float
    dma_start_s: float
    dma_issue_s: float
    dma_descriptor_bytes: float
    sbuf_bytes: float
    block_m_tiles: float
    block_n_tiles: float
    block_k_tiles: float

    @property
    def dma_bytes_per_s(self) -> float:
        """What the DMA engines of the core move together with large descriptors [byte/s]."""
        return self.dma_engines * self.dma_engine_bytes_per_s

    @property
    def ramp_loss_s(self) -> float:
        """Time lost while the tensor engine ramps up after an idle gap [s]."""
        return self.ramp_s * (1.0 - self.ramp_utilisation)

    def contraction_rows(self, dtype: str) -> float:
        """Rows of K that one matmul instruction contracts."""
        if dtype in ("mxfp8", "mxfp4", "nvfp4"):
            return max(self.mx_contraction_rows, self.fp8_contraction_rows)
        return self.fp8_contraction_rows if dtype == "fp8" else self.array_edge

    def passes(self, dtype: str) -> float:
        """How often a product's instructions run: FP32 takes several passes through a 16-bit array."""
        return self.fp32_passes if dtype == "fp32" else 1.0

    def descriptor_frac(self, row_bytes: Number) -> Number:
        """Share of the DMA rate that transfers with `row_bytes` contiguous bytes per partition reach."""
        return np.minimum(1.0, row_bytes / self.dma_descriptor_bytes)


@cache
def core_file(generation: str) -> CoreFile:
    """The facts of one generation, checked: every figure there, with a known source and a range where one is due.

    Raises: CatalogueError for an unknown generation, or with all faults of the file
    """
    if generation not in GENERATIONS:
        raise unknown_name("NeuronCore", generation, GENERATIONS)
    path: Path = FOLDER / f"{generation}.toml"
    found: CoreFile = loader.read_toml(path, CoreFile)
    wanted = {field.name for field in fields(NeuronCore)}
    faults = [f"figures.{name} is missing" for name in sorted(wanted - found.figures.keys())]
    faults += [f"figures.{name} is not a known figure of a core" for name in sorted(found.figures.keys() - wanted)]
    for name, fact in found.figures.items():
        faults += [f"figures.{name}: unknown source {s}" for s in fact.source.split() if s not in loader.sources()]
        if fact.status in RANGED and (fact.low is None or fact.high is None):
            faults.append(f"figures.{name} is {fact.status} and needs low and high")
    if faults:
        raise CatalogueError("; ".join(faults), where=str(path), hint="timing/kernels/neuron_core.py lists the figures")
    return found


def _of_figures(figures: Facts) -> NeuronCore:
    return NeuronCore(**{name: fact.si for name, fact in figures.items()})


@cache
def neuron_core(chip_id: str) -> NeuronCore:
    """The core of a chip, at the expected values of its facts."""
    return _of_figures(_file_of(chip_id).figures)


@cache
def neuron_core_bounds(chip_id: str) -> tuple[NeuronCore, NeuronCore]:
    """The fastest and the slowest core that the ranges of its facts allow."""
    fast, slow = dict(_file_of(chip_id).figures), dict(_file_of(chip_id).figures)
    for name, fact in _file_of(chip_id).figures.items():
        ends = (fact.value if fact.low is None else fact.low, fact.value if fact.high is None else fact.high)
        rising = name in ("dma_engine_bytes_per_s", "ramp_utilisation", "bf16_elements_per_cycle")
        low, high = (msgspec.structs.replace(fact, value=end) for end in ends)
        fast[name], slow[name] = (high, low) if rising else (low, high)
    return _of_figures(fast), _of_figures(slow)


def _file_of(chip_id: str) -> CoreFile:
    for generation in GENERATIONS:
        if chip_id in core_file(generation).chips:
            return core_file(generation)
    return core_file(GENERATIONS[-1])


def engine_scale(chip: Chip, core: NeuronCore) -> Number:
    """How much faster the chip's cores are than the documented core, by the 16-bit rate of the array [1].

    1 for the chips that the documents describe; an announced chip's engines are taken to keep their balance.
    """
    peak = 2.0 * core.array_edge**2 * core.tensor_clock_hz * chip.num_cores
    return chip.matmul_flop_per_s("bf16") / peak


def storage_bytes(dtype: str) -> float:
    """Bytes of an element, with its share of block scales."""
    return DTYPE_BYTES.get(dtype, DTYPE_BYTES["bf16"])
