"""Names of kernel libraries, from the words that measurements label them with.

A library is `<framework>-<version>/<kernel>`; any part may be missing. The framework matters because it decides how a
kernel is launched and what it does besides (quantising inputs), its version because kernels get better.
"""

from __future__ import annotations

import re
from typing import Final

# the first word found in a label names the kernel, so the more specific ones come first
_KERNELS: Final = (
    ("hoisted loads", "nki-hoisted"),
    ("free-dim blocking", "nki-free-blocked"),
    ("nki tiled", "nki-tiled"),
    ("min_latency", "min-latency"),
    ("mxfp4", "mxfp4"),
    ("deepgemm", "deepgemm"),
    ("masked", "deepgemm-masked"),
    ("cutedsl", "cutedsl"),
    ("cutlass", "cutlass"),
    ("marlin", "marlin"),
    ("nongated", "nongated"),
    ("xformers", "xformers"),
    ("triton", "triton"),
    ("fidecode", "flashinfer"),
    ("fiprefill", "flashinfer"),
    ("trtllm", "flashinfer-trtllm"),
    ("flashinfer", "flashinfer"),
    ("flashmla", "flashmla"),
    ("flash_attn_fa2", "flash-attention-2"),
    ("flash_attn_fa3", "flash-attention-3"),
    ("flash_attn_fa4", "flash-attention-4"),
    ("fa3", "flash-attention-3"),
    ("flashattention-1", "flash-attention-1"),
    ("flashattention-2", "flash-attention-2"),
    ("flash attention 2", "flash-attention-2"),
    ("flashattention-3", "flash-attention-3"),
    ("flashattention-4", "flash-attention-4"),
    ("flash_attn", "flash-attention"),
    ("flash_attention", "flash-attention"),
    ("cudnn", "cudnn"),
    ("transformer engine", "transformer-engine"),
    ("(te)", "transformer-engine"),
    ("standard attention", "unfused"),
    ("cublas", "cublas"),
    ("torch.matmul", "torch"),
    ("torch ", "torch"),
)
_FRAMEWORKS: Final = (
    ("sarathi", "sarathi-profile"),
    ("layer profile", "layer-profile"),
    ("kernel only", "vllm-kernel"),
    ("deepgemm", "deepgemm"),
    ("trtllm", "trtllm"),
    ("sglang", "sglang"),
    ("vllm", "vllm"),
)
_FUSED_QUANTISING: Final = ("deepgemm", "deepgemm-masked", "mxfp4")


def library_name(framework: str, kernel: str, dtype: str = "", *, attention: bool = False) -> str:
    """The library that a measurement's labels stand for.

    Args:
        framework: as published, with or without version; may be empty
        kernel: as published
        dtype: as published; block-scaled FP8 has kernels of its own
        attention: a kernel called "PyTorch" is then the unfused one
    Returns: `framework-version/kernel`, or what is known of it, or "default"
    Example:
        >>> library_name("VLLM 0.24.0", "CutlassFP8ScaledMMLinearKernel", "fp8")
        'vllm-0.24.0/cutlass'
        >>> library_name("", "FlashAttention-3")
        'flash-attention-3'
        >>> library_name("TRTLLM 1.3.0rc20", "torch_flow", "fp8_block")
        'trtllm-1.3.0rc20/block'
    """
    words = kernel.lower()
    frame = next((name for word, name in _FRAMEWORKS if word in framework.lower()), "")
    if not frame:
        frame = next((name for word, name in _FRAMEWORKS if word in words and word not in ("trtllm", "deepgemm")), "")
    found = next((name for word, name in _KERNELS if word in words.replace("trtllmdecode", "trtllm")), "")
    if attention and not found and "pytorch" in words:
        found = "unfused"
    if found == "deepgemm" and "masked" in words:
        found = "deepgemm-masked"
    if "block" in dtype.lower() and found not in _FUSED_QUANTISING:
        found = f"{found}-block" if found else "block"
    version = re.search(r"\d+\.\d+[\w.]*", framework)
    if frame and version:
        frame = f"{frame}-{version[0]}"
    return "/".join(part for part in (frame, found) if part) or "default"


def any_version(library: str) -> str:
    """A library without its version.

    Example:
        >>> any_version("vllm-0.24.0/cutlass"), any_version("flash-attention-3")
        ('vllm/cutlass', 'flash-attention-3')
    """
    return re.sub(r"-\d+\.\d[^/]*", "", library)


def resemblance(wanted: str, offered: str) -> int:
    """How well one library's constants stand in for another's.

    4 the same, 3 another version, 2 the same kernel, 1 the same framework, 0 neither.
    Example:
        >>> resemblance("vllm/deepgemm", "sglang/deepgemm"), resemblance("vllm/cutlass", "trtllm/deepgemm")
        (2, 0)
    """
    if wanted == offered:
        return 4
    want, offer = any_version(wanted).split("/"), any_version(offered).split("/")
    if want == offer:
        return 3
    if want[-1] == offer[-1]:
        return 2
    return 1 if want[0] == offer[0] else 0
