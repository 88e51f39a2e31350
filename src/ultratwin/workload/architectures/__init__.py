"""The known architectures. A new one is a file in this package and a line in FAMILIES."""

from __future__ import annotations

from typing import Final

from ultratwin.workload.architectures import (
    bloom,
    deepseek,
    falcon,
    gemma,
    gpt2,
    gpt_neox,
    gpt_oss,
    llama,
    llama4,
    megatron,
    mixtral,
    mpt,
    nemotron,
    opt,
    qwen_moe,
)
from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.reader import Reader

FAMILIES: Final[tuple[Family, ...]] = (
    gpt2.FAMILY,
    gpt_neox.FAMILY,
    mpt.FAMILY,
    opt.FAMILY,
    bloom.FAMILY,
    falcon.FAMILY,
    llama.FAMILY,
    llama4.FAMILY,
    mixtral.MIXTRAL,
    mixtral.GROK1,
    qwen_moe.FAMILY,
    deepseek.FAMILY,
    gpt_oss.FAMILY,
    nemotron.FAMILY,
    gemma.GEMMA,
    gemma.GEMMA2,
    gemma.GEMMA3,
    megatron.FAMILY,
)

__all__ = ["FAMILIES", "Family", "Reader"]
