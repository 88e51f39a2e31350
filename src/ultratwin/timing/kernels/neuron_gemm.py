"""A matrix product on NeuronCores: cycles of the tensor engine, bytes of the DMA engines, what doesn't overlap.

C[m, n] = A[m, k] B[k, n]; sizes here are of one core. The blocks are those of the library's documented kernel:
2,048 x 1,024 x 1,024 (m, n, k), B loaded once per block of n, A once per block of n and k, C kept on the chip.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.timing.kernels.neuron_core import NeuronCore


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """Sizes of one core's product and bytes per element of A, B and C (an accumulated C is read and written).

    `padded`: the library computes whole blocks.
    """

    m: Number
    n: Number
    k: Number
    groups: Number
    dtype: str
    a_bytes: float
    b_bytes: float
    c_bytes: float
    padded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Loops:
    """A simpler kernel that moves single tiles: how many tiles of m and n share their loads, and whether A is kept.

    Each tile is a transfer of its own, with a descriptor per partition: 128 columns of A or 512 of B.
    Source: nki_mm, the steps of the matrix multiplication tutorial before both loops over K are blocked
    """

    library: str
    block_m: int
    block_n: int
    keeps_a: bool


LOOPS: Final[tuple[Loops, ...]] = (
    Loops(library="nki-tiled", block_m=1, block_n=1, keeps_a=False),
    Loops(library="nki-hoisted", block_m=1, block_n=1, keeps_a=True),
    Loops(library="nki-free-blocked", block_m=2, block_n=2, keeps_a=True),
)


def loops_of(library: str) -> Loops | None:
    """The loops of a library's kernel, None for one that blocks all of them."""
    return next((each for each in LOOPS if each.library == library), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductTime:
    """Parts of a product's time on one core [s], and its traffic [byte].

    `row_store_s`: storing one row of the last block of n, of `num_rows`.
    """

    tensor_s: Number
    vector_s: Number
    dma_s: Number
    fill_s: Number
    drain_s: Number
    row_store_s: Number
    num_rows: Number
    fixed_s: float
    a_bytes: Number
    b_bytes: Number
    c_bytes: Number

    @property
    def total_s(self) -> Number:
        """Start + the slowest engine; products wait for the first blocks, and the end waits for the last store."""
        busy = np.maximum(self.tensor_s, self.vector_s) + self.fill_s + self.drain_s
        return self.fixed_s + np.maximum(busy, self.dma_s)

    @property
    def unoverlapped_s(self) -> Number:
        """The same if no store of the last block of n overlaps with products: the slow end of the range."""
        return self.total_s + self.num_rows * self.row_store_s

    @property
    def read_bytes(self) -> Number:
        """Bytes that the core reads from HBM."""
        return self.a_bytes + self.b_bytes


def padded_sizes(core: NeuronCore, m: Number, n: Number, k: Number, num_cores: float) -> tuple[Number, Number, Number]:
    """Sizes that the library's kernel executes: whole blocks, n in whole blocks on each core.

    Example:
        >>> from ultratwin.timing.kernels.neuron_core import neuron_core
        >>> [float(size) for size in padded_sizes(neuron_core("trainium3"), 4.0, 4097.0, 1025.0, 2)]
        [2048.0, 6144.0, 2048.0]
    """
    block_m = core.block_m_tiles * core.array_edge
    block_n = core.block_n_tiles * core.moving_columns * num_cores
    block_k = core.block_k_tiles * core.array_edge
    return np.ceil(m / block_m) * block_m, np.ceil(n / block_n) * block_n, np.ceil(k / block_k) * block_k


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What passes through the array: `columns` of moving tiles for each of `deep` tiles of K, in accumulation groups.

    `groups_deep`: groups that one column passes through; `num_groups`: all of them.
    """

    columns: Number
    deep: Number
    groups_deep: Number
    num_groups: Number


def stream(core: NeuronCore, p: Product) -> Stream:
    """How a core's product passes through its 128 x 128 array.

    Equation:  columns = G min(ceil(m/128) max(n, 64), ceil(n/128) max(m, 64)),  deep = ceil(k/K)
    Either operand may be the one that stays in the array: a product with few rows streams the rows past the weights.
    Args:
        core: K = rows that one instruction contracts (128; FP8 256; MX 512); an instruction costs 64 cycles at least
    Source: nki_v2 (max(N, 64) per instruction; weight loads overlap), nki_v3, nki_v4
    """
    edge, floor = core.array_edge, core.issue_floor_cycles
    deep = np.ceil(p.k / core.contraction_rows(p.dtype))
    groups_deep = np.ceil(deep / core.block_k_tiles)
    m_tiles, n_tiles = np.ceil(p.m / edge), np.ceil(p.n / edge)
    columns = np.minimum(m_tiles * np.maximum(p.n, floor), n_tiles * np.maximum(p.m, floor))
    num_groups = np.maximum(m_tiles * n_tiles * (edge / core.moving_columns), 1.0) * groups_deep
    return Stream(columns=p.groups * columns, deep=deep, groups_deep=groups_deep, num_groups=p.groups * num_groups)


def tensor_cycles(core: NeuronCore, dtype: str, s: Stream) -> Number:
    """Cycles of the tensor engine.

    Equation:  c = p columns deep + start x accumulation groups   (p = passes: FP32 takes 4)
    Source: nki_isa (cycles per instruction), nd_schema (passes); the start of a group is an estimated fact
    """
    return core.passes(dtype) * s.columns * s.deep + core.accumulation_start_cycles * s.num_groups


def traffic_bytes(core: NeuronCore, p: Product) -> tuple[Number, Number, Number]:
    """Bytes of A, B and C that one core moves to or from HBM, for all groups.

    A is read once per block of n; only a single block of m whose A fits beside double-buffered blocks is kept. B is
    read once for every `wide` rows: as many rows of C as the on-chip memory holds beside one block of A and of B.
    """
    block_m, block_n = core.block_m_tiles * core.array_edge, core.block_n_tiles * core.moving_columns
    block_k = core.block_k_tiles * core.array_edge
    free_bytes = core.sbuf_bytes - block_k * (block_m * p.a_bytes + block_n * p.b_bytes)
    wide = max(free_bytes // (block_m * block_n * p.a_bytes), 1.0) * block_m
    room = (core.sbuf_bytes / 2.0 - block_n * block_k * p.b_bytes) / p.a_bytes
    reloaded = (p.m > block_m) | (p.m * (p.k + block_n) > room)
    a_reads = p.a_bytes * np.maximum(reloaded * np.ceil(p.n / block_n), 1.0)
    b_reads = p.b_bytes * np.ceil(p.m / wide)
    of_groups = p.groups * p.k
    return of_groups * p.m * a_reads, of_groups * p.n * b_reads, p.groups * p.m * p.n * p.c_bytes


def looped_product_time(
    core: NeuronCore, p: Product, loops: Loops, blocked: ProductTime, dma_bytes_per_s: Number
) -> ProductTime:
    """Time of a kernel with simpler loops: the same products, but every tile is loaded again for each block.

    Equation:  A is read ceil(n tiles / block n) times (once if kept), B ceil(m tiles / block m) times, each at the rate
               that descriptors of one tile's row reach
    Args: blocked: the same product by the blocked kernel; dma_bytes_per_s: of the core
    Source: nki_mm (loops), nki_dma (descriptors)
    """
    m_tiles, n_tiles = np.ceil(p.m / core.array_edge), np.ceil(p.n / core.moving_columns)
    a_bytes = p.groups * p.m * p.k * p.a_bytes * (1.0 if loops.keeps_a else np.ceil(n_tiles / loops.block_n))
    b_bytes = p.groups * p.n * p.k * p.b_bytes * np.ceil(m_tiles / loops.block_m)
    a_s = a_bytes / (dma_bytes_per_s * core.descriptor_frac(core.array_edge * p.a_bytes))
    b_s = b_bytes / (dma_bytes_per_s * core.descriptor_frac(core.moving_columns * p.b_bytes))
    c_s = blocked.c_bytes / (dma_bytes_per_s * core.descriptor_frac(core.moving_columns * p.c_bytes))
    return dataclasses.replace(blocked, dma_s=a_s + b_s + c_s, a_bytes=a_bytes, b_bytes=b_bytes)


def product_time(
    core: NeuronCore,
    p: Product,
    *,
    tensor_scale: Number = 1.0,
    vector_scale: Number = 1.0,
    dma_bytes_per_s: Number | None = None,
) -> ProductTime:
    """Time of one core's product and the parts that it is made of.

    Equation:  t = t_start + max(max(PE, DVE) + fill + drain, DMA)
               DVE   = columns x accumulation groups deep: each group is copied out of PSUM
               fill  = first blocks of A and B at the DMA rate + ramp of the clock
               drain = copy of the last tile out of PSUM and its store
    Args:
        core: the documented core
        p: sizes and formats on this core
        tensor_scale, vector_scale: clocks as a multiple of the documented ones [1]
        dma_bytes_per_s: rate of the core's DMA engines with large descriptors (default: the documented one)
    Returns: the parts [s] and bytes, shape of the sizes
    Source: nki_v2, nki_mm (blocks), nki_dmabw (rates, start), nd_explorer (ramp)
    """
    rate = core.dma_bytes_per_s if dma_bytes_per_s is None else dma_bytes_per_s
    passing = stream(core, p)
    a_bytes, b_bytes, c_bytes = traffic_bytes(core, p)
    rows = np.minimum(p.m, core.block_m_tiles * core.array_edge)
    columns = np.minimum(p.n, core.block_n_tiles * core.moving_columns)
    depth = np.minimum(p.k, core.block_k_tiles * core.array_edge)
    # the library loads a block's rows; other kernels lay A out along its longer side and load whole rows of B and C
    a_bytes_per_s = core.descriptor_frac((rows if p.padded else np.maximum(rows, depth)) * p.a_bytes) * rate
    b_bytes_per_s = core.descriptor_frac((columns if p.padded else np.maximum(p.n, depth)) * p.b_bytes) * rate
    c_bytes_per_s = core.descriptor_frac((columns if p.padded else p.n) * p.c_bytes) * rate
    lanes_hz = core.vector_clock_hz * vector_scale
    copy_cycles = 1.0 + core.instruction_cycles / core.moving_columns
    row_store_s = columns * p.c_bytes / c_bytes_per_s
    copy_s = (core.moving_columns + core.instruction_cycles) / lanes_hz
    return ProductTime(
        tensor_s=tensor_cycles(core, p.dtype, passing) / (core.tensor_clock_hz * tensor_scale),
        vector_s=passing.columns * passing.groups_deep * (copy_cycles / lanes_hz),
        dma_s=a_bytes / a_bytes_per_s + b_bytes / b_bytes_per_s + c_bytes / c_bytes_per_s,
        fill_s=depth * (rows * p.a_bytes / a_bytes_per_s + columns * p.b_bytes / b_bytes_per_s) + core.ramp_loss_s,
        drain_s=np.minimum(p.m, core.array_edge) * row_store_s + copy_s,
        row_store_s=row_store_s,
        num_rows=p.m,
        fixed_s=2.0 * (core.dma_start_s + core.dma_issue_s),
        a_bytes=a_bytes,
        b_bytes=b_bytes,
        c_bytes=c_bytes,
    )


def shard(core: NeuronCore, m: Number, n: Number, groups: Number, num_cores: float) -> tuple[Number, Number, Number]:
    """Sizes of one core's share: whole groups, rows or columns, whichever leaves the least tensor work and reloading.

    Equation:  cost = groups x (tiles x columns streamed), plus what every core reads again, at one element per cycle
    Returns: m, n, groups of the busiest core
    """
    edge = core.array_edge
    m_part, n_part = np.ceil(m / num_cores), np.ceil(n / num_cores)
    m_tiles, n_tiles = np.ceil(m / edge), np.ceil(n / edge)
    by_n, by_m = m_tiles * n_part + m, n_tiles * m_part + n
    column_wise = by_n <= by_m
    part_m, part_n = np.where(column_wise, m, m_part), np.where(column_wise, n_part, n)
    if np.ndim(groups) == 0 and groups == 1:
        return part_m, part_n, groups
    groups_part = np.ceil(groups / num_cores)
    group_wise = groups_part * (m_tiles * n + m) <= groups * np.minimum(by_n, by_m)
    return np.where(group_wise, m, part_m), np.where(group_wise, n, part_n), np.where(group_wise, groups_part, groups)
