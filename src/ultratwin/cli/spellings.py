"""Other tools' names of our options, so that a command can be carried over from them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

SPELLINGS: Final[dict[str, tuple[str, ...]]] = {
    # ours: Megatron-LM, SGLang, vLLM, NeuronX Distributed
    "--tensor-parallel-size": ("--tensor-model-parallel-size", "--tp-size", "--tp", "-tp", "--tp-degree"),
    "--pipeline-parallel-size": ("--pipeline-model-parallel-size", "--pp-size", "--pp", "-pp"),
    "--virtual-pipeline-size": ("--num-virtual-stages-per-pipeline-rank", "--vp"),
    "--context-parallel-size": ("--cp-size", "--cp", "-cp"),
    "--expert-parallel-size": (
        "--expert-model-parallel-size",
        "--ep-size",
        "--ep",
        "-ep",
        "--moe-expert-parallel-size",
        "--moe-ep-degree",
    ),
    "--expert-tensor-parallel-size": ("--etp-size", "--etp"),
    "--data-parallel-size": ("--dp-size", "--dp", "-dp", "--attn-dp-size", "--attention-data-parallel-size"),
    "--micro-batch-size": ("--mbs",),
    "--global-batch-size": ("--gbs",),
    "--seq-length": ("--seq-len", "--sequence-length"),
    "--recompute": ("--recompute-granularity",),
    # ours: vllm bench serve, trtllm-bench; vLLM, SGLang, TensorRT-LLM
    "--isl": ("--random-input-len", "--input-len"),
    "--osl": ("--random-output-len", "--output-len"),
    "--range-ratio": ("--random-range-ratio",),
    "--prefix-len": ("--random-prefix-len",),
    "--concurrency": ("--max-concurrency",),
    "--num-prompts": ("--num-requests",),
    "--max-num-seqs": ("--max-running-requests", "--max-batch-size"),
    "--max-num-batched-tokens": ("--chunked-prefill-size", "--max-num-tokens"),
    "--max-model-len": ("--context-length", "--max-seq-len"),
    "--block-size": ("--page-size", "--tokens-per-block"),
    "--memory-utilization": (
        "--gpu-memory-utilization",
        "--mem-fraction-static",
        "--kv-cache-free-gpu-memory-fraction",
    ),
    "--precision": ("--quantization",),
    "--speculative-tokens": ("--spec-tokens", "--num-speculative-tokens"),
}
OURS: Final[dict[str, str]] = {other: ours for ours, others in SPELLINGS.items() for other in others}


def in_our_words(arguments: Iterable[str]) -> list[str]:
    """The arguments with other tools' option names replaced by ours, underscores in option names by dashes.

    Example:
        >>> in_our_words(["train", "--tensor-model-parallel-size=8", "-pp", "4", "--global_batch_size", "512"])
        ['train', '--tensor-parallel-size=8', '--pipeline-parallel-size', '4', '--global-batch-size', '512']
    """
    found = []
    for each in arguments:
        option, equals, value = each.partition("=")
        if option.startswith("--"):
            option = option.replace("_", "-")
        found.append(OURS.get(option, option) + equals + value)
    return found
