"""What every kernel model answers: seconds of a matrix product, of attention, of a pass over memory (design D4).

Sizes are numbers or arrays that broadcast; the candidate axis is the last one. Every time includes the launch.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, Self

from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import Chip, Number

AttentionPhase = Literal["forward", "backward", "decode"]
PassKind = Literal["elementwise", "norm", "softmax", "rope", "embedding", "activation", "quantize", "amax", "copy"]
"""activation: of a gated MLP. amax: finding the scale that quantising needs. copy: memory to memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelModel(ABC):
    """Times of the kernels of one chip. The chip's rates may be arrays along the candidate axis.

    `library` names the implementation ("default" is the best one that the chip's usual training stack has);
    an unknown library is timed as "default".
    """

    chip: Chip

    @abstractmethod
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
        """Time of C[m, n] = A[m, k] B[k, n], `groups` times in one launch (m is rows per group) [s].

        `accumulate`: C is fp32 and added to, as in a weight gradient.
        """

    @abstractmethod
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
        """Time of softmax(Q K^T) V over `batch` sequences, or of its backward pass [s].

        `window`: keys that a query sees at most. `kv_dtype`: format of stored keys and values (default: `dtype`).
        `causal` with seq_q < seq_kv: the queries are the last ones. In phase "decode" every key is seen.
        """

    @abstractmethod
    def memory_bound_time_s(
        self,
        read_write_bytes: Number,
        *,
        kind: PassKind = "elementwise",
        num_kernels: Number = 1,
        library: str = "default",
    ) -> Number:
        """Time of `num_kernels` launches that together move `read_write_bytes` through memory [s]."""

    @abstractmethod
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
        """Time of multi-head latent attention [s].

        In phase "decode" it is absorbed: all heads share one latent key and value of `latent_dim` (+ `rope_dim`) per
        token. In the others keys and values are expanded to `head_dim` and `head_dim_v` per head, and causal.
        """

    @abstractmethod
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
        """Time of one fused expert layer on one chip: both grouped products and the activation between them [s].

        `tokens` are those whose choices are spread over all `experts`; `local_experts` of them live here.
        `intermediate` is the width on this chip. `weight_dtype`: format of the stored weights (default: `dtype`).
        `routing_skew`: exponent of the power law that choices follow; 0 is balanced.
        """

    def on_cores(self, num_cores: float) -> Self:
        """The same kernels on `num_cores` of the chip's cores, with their share of its rates and memory.

        Raises: ScenarioError if the chip has fewer cores
        """
        chip = self.chip
        if not 0 < num_cores <= chip.num_cores:
            raise ScenarioError(f"{num_cores:g} cores of {chip.id}", allowed=f"above 0, at most {chip.num_cores:g}")
        share = num_cores / chip.num_cores
        part = dataclasses.replace(
            chip,
            peak_flop_per_s={dtype: peak * share for dtype, peak in chip.peak_flop_per_s.items()},
            memory_bytes=chip.memory_bytes * share,
            memory_bytes_per_s=chip.memory_bytes_per_s * share,
            num_cores=num_cores,
            l2_bytes=chip.l2_bytes * share,
            tdp_w=chip.tdp_w * share,
        )
        return dataclasses.replace(self, chip=part)
