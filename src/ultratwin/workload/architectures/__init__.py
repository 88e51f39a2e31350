"""The known architectures. A new one is a file in this package and a line in FAMILIES."""

from __future__ import annotations

from typing import Final

from ultratwin.workload.architectures import (
    bloom,
    cohere,
    deci,
    deepseek,
    falcon,
    gemma,
    glm,
    gpt2,
    gpt_neox,
    gpt_oss,
    gptj,
    hybrid,
    llama,
    llama4,
    megatron,
    minimax,
    mixtral,
    mpt,
    musicgen,
    nemotron,
    nemotron_h,
    opt,
    qwen_moe,
    qwen_next,
    starcoder2,
    windowed_moe,
)
from ultratwin.workload.architectures.family import Family
from ultratwin.workload.architectures.reader import Reader

FAMILIES: Final[tuple[Family, ...]] = (
    gpt2.FAMILY,
    gpt_neox.FAMILY,
    gptj.FAMILY,
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
    gemma.GEMMA4,
    cohere.FAMILY,
    starcoder2.FAMILY,
    glm.GLM,
    glm.GLM_MOE,
    minimax.MINIMAX,
    minimax.MINIMAX_M2,
    deci.FAMILY,
    qwen_next.FAMILY,
    windowed_moe.MIMO_V2,
    windowed_moe.STEP,
    nemotron_h.FAMILY,
    hybrid.JAMBA,
    hybrid.BAMBA,
    hybrid.GRANITE_HYBRID,
    musicgen.FAMILY,
    megatron.FAMILY,
)

__all__ = ["FAMILIES", "Family", "Reader"]
