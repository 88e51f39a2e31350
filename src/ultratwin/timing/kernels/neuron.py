"""The kernel model of Trainium and Inferentia, built from the documented engines (design D4); nothing is fitted.

docs/explanation/trainium-kernels.md tells the mechanisms and compares them with measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np

from ultratwin.hardware.chip import Number
from ultratwin.timing.kernels.model import AttentionPhase, KernelModel, PassKind
from ultratwin.timing.kernels.neuron_attention import backward_cycles, decode_cycles, forward_cycles, num_tiles
from ultratwin.timing.kernels.neuron_core import NeuronCore, engine_scale, neuron_core, storage_bytes
from ultratwin.timing.kernels.neuron_gemm import (
    Product,
    ProductTime,
    looped_product_time,
    loops_of,
    padded_sizes,
    product_time,
    shard,
)

BLOCKED_LIBRARY: Final = "nkilib"
"""The library whose matrix product pads every size to whole blocks."""
# instructions over each element that the vector engine runs, by kind of pass: the algebra of the pass
_VECTOR_PASSES: Final[dict[str, float]] = {
    "elementwise": 1.0, "norm": 3.0, "softmax": 4.0, "rope": 3.0, "embedding": 0.0, "quantize": 2.0, "copy": 0.0,
}  # fmt: skip
_BACKWARD_TRAFFIC: Final = 2.5
"""Bytes of attention's backward over its forward: q, k, v, o, do, dq, dk, dv and D against q, k, v and o."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronKernels(KernelModel):
    """Kernel times on the cores of one Trainium chip, which share each kernel as tensor-parallel ranks would.

    A program is compiled as one graph, so a kernel pays the start of its DMA transfers, not a launch by the host.
    """

    def core(self) -> NeuronCore:
        """The documented figures of one core."""
        return neuron_core(self.chip.id)

    def dma_bytes_per_s_per_core(self) -> Number:
        """Rate of one core's DMA engines: what they achieve, or the core's share of HBM if that is less [byte/s]."""
        achieved = self.core().dma_bytes_per_s * engine_scale(self.chip, self.core())
        return np.minimum(achieved, self.chip.memory_bytes_per_s / self.chip.num_cores)

    def tensor_scale(self, dtype: str) -> Number:
        """Rate of the chip's tensor engine in a format, over what the documented core's cycles give [1]."""
        core = self.core()
        columns_hz = core.array_edge * core.tensor_clock_hz * self.chip.num_cores / core.passes(dtype)
        return self.chip.matmul_flop_per_s(dtype) / (2.0 * core.contraction_rows(dtype) * columns_hz)

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
        """Time of C[m, n] = A[m, k] B[k, n], `groups` times [s]; product_time has the equation."""
        return self.product(m, n, k, dtype=dtype, groups=groups, accumulate=accumulate, library=library).total_s

    def product(
        self,
        m: Number,
        n: Number,
        k: Number,
        *,
        dtype: str = "bf16",
        groups: Number = 1,
        accumulate: bool = False,
        weight_dtype: str = "",
        library: str = "default",
        core: NeuronCore | None = None,
    ) -> ProductTime:
        """The parts of a product's time on the busiest core, and that core's traffic.

        Args: as gemm_time_s; `core` replaces the expected figures, for ranges; `weight_dtype` is B's stored format
        """
        using, cores = core or self.core(), self.chip.num_cores
        rate = self.dma_bytes_per_s_per_core()
        if core is not None:
            rate = np.minimum(
                core.dma_bytes_per_s * engine_scale(self.chip, core), self.chip.memory_bytes_per_s / cores
            )
        padded = library == BLOCKED_LIBRARY
        if padded:
            m, n, k = padded_sizes(using, m, n, k, cores)
            m_part, n_part, groups_part = m, n / cores, groups
        else:
            m_part, n_part, groups_part = shard(using, m, n, groups, cores)
        stored = storage_bytes(dtype)
        sizes = Product(
            m=m_part, n=n_part, k=k, groups=groups_part, dtype=dtype, padded=padded,
            a_bytes=stored, b_bytes=storage_bytes(weight_dtype) if weight_dtype else stored,
            c_bytes=2.0 * storage_bytes("fp32") if accumulate else max(stored, storage_bytes("bf16")),
        )  # fmt: skip
        blocked = product_time(
            using, sizes, tensor_scale=self.tensor_scale(dtype), vector_scale=engine_scale(self.chip, using),
            dma_bytes_per_s=rate,
        )  # fmt: skip
        loops = loops_of(library)
        return blocked if loops is None else looped_product_time(using, sizes, loops, blocked, rate)

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
        """Time of flash attention, its backward, or a decode step [s].

        Equation:  t = t_start + max(tiles x slowest engine of a tile, bytes / DMA rate)
        Source: neuron_attention.forward_cycles, backward_cycles, decode_cycles
        """
        core, value_dim = self.core(), head_dim if head_dim_v is None else head_dim_v
        stored, kept = storage_bytes(dtype), storage_bytes(kv_dtype or dtype)
        seen = seq_kv if window is None else np.minimum(seq_kv, window + seq_q)
        keys_bytes = batch * heads_kv * seen * (head_dim + value_dim) * kept
        if phase == "decode":
            return self._decode_s(batch * heads_kv, heads_q / heads_kv * seq_q, seen, head_dim, value_dim, keys_bytes)
        cycles = (forward_cycles if phase == "forward" else backward_cycles)(core, head_dim, value_dim)
        tile_s = cycles.seconds(core, self.tensor_scale("bf16"), engine_scale(self.chip, core))
        tiles = num_tiles(core, seq_q, seq_kv, causal, window)
        # query tiles of 128 rows are what cores can share
        units = batch * heads_q * np.ceil(seq_q / core.array_edge)
        balance = np.ceil(units / self.chip.num_cores) / units
        busy_s = batch * heads_q * tiles * tile_s * balance
        queries_bytes = batch * heads_q * seq_q * (head_dim + value_dim) * stored
        head_keys_bytes = seen * (head_dim + value_dim) * kept
        reloads = np.where(
            2.0 * head_keys_bytes <= core.sbuf_bytes, 1.0, np.ceil(seq_q / (core.block_m_tiles * core.array_edge))
        )
        traffic_bytes = (queries_bytes + keys_bytes * reloads) * (1.0 if phase == "forward" else _BACKWARD_TRAFFIC)
        return self._start_s() + np.maximum(busy_s, self._transfer_s(traffic_bytes))

    def _decode_s(
        self, heads: Number, rows: Number, seq_kv: Number, head_dim: Number, head_dim_v: Number, keys_bytes: Number
    ) -> Number:
        core = self.core()
        cycles = decode_cycles(core, rows, seq_kv, head_dim, head_dim_v)
        head_s = cycles.seconds(core, self.tensor_scale("bf16"), engine_scale(self.chip, core))
        busy_s = heads * head_s / self.chip.num_cores
        return self._start_s() + np.maximum(busy_s, self._transfer_s(keys_bytes))

    def memory_bound_time_s(
        self,
        read_write_bytes: Number,
        *,
        kind: PassKind = "elementwise",
        num_kernels: Number = 1,
        library: str = "default",
    ) -> Number:
        """Time of `num_kernels` passes that together move `read_write_bytes` [s].

        Equation:  t = n t_start + max(bytes / DMA rate, passes x elements / (128 lanes x e x clock)),
                   elements = bytes / 4: one 16-bit value in, one out
        Source: nki_dmabw, nki_isa, nki_v3 (performance modes)
        """
        core = self.core()
        element_bytes = 2.0 * storage_bytes("bf16")
        lanes_hz = core.vector_lanes * core.vector_clock_hz * core.bf16_elements_per_cycle * self.chip.num_cores
        vector_s = _VECTOR_PASSES.get(kind, 1.0) * read_write_bytes / element_bytes / lanes_hz
        vector_s = vector_s / engine_scale(self.chip, core)
        return num_kernels * self._start_s() + np.maximum(vector_s, self._transfer_s(read_write_bytes))

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
        """Time of multi-head latent attention [s]: absorbed in decode (one shared key and value), else expanded."""
        if phase != "decode":
            return self.attention_time_s(
                batch, seq_q, seq_kv, heads, heads, head_dim, head_dim_v=head_dim_v, phase=phase, dtype=dtype
            )
        latent_bytes = batch * seq_kv * (latent_dim + rope_dim) * storage_bytes(kv_dtype or dtype)
        return self._decode_s(batch, heads * seq_q, seq_kv, latent_dim + rope_dim, latent_dim, latent_bytes)

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
        """Time of one expert layer: two grouped products and the activation between them [s].

        Equation:  active = local (1 - (1 - 1/E)^(tokens top_k)); rows of each = tokens top_k local / (E active)
        Valid: balanced routing; `routing_skew` changes neither the sum of rows nor, here, the number of active experts
        """
        choices = tokens * top_k
        active = np.ceil(local_experts * -np.expm1(choices * np.log1p(-np.minimum(1.0 / experts, 1.0 - 1e-9))))
        rows = choices * local_experts / experts / active
        widths = 2.0 if gated else 1.0
        up = self.product(rows, widths * intermediate, hidden, dtype=dtype, groups=active, weight_dtype=weight_dtype)
        down = self.product(rows, hidden, intermediate, dtype=dtype, groups=active, weight_dtype=weight_dtype)
        between_bytes = active * rows * intermediate * (widths + 1.0) * storage_bytes("bf16")
        return up.total_s + self.memory_bound_time_s(between_bytes) + down.total_s

    def _start_s(self) -> float:
        """Start of the first load and of the last store."""
        core = self.core()
        return 2.0 * (core.dma_start_s + core.dma_issue_s)

    def _transfer_s(self, num_bytes: Number) -> Number:
        return num_bytes / (self.dma_bytes_per_s_per_core() * self.chip.num_cores)
