"""What an engine may do at once: limits of its scheduler and of its KV cache, in the words of `vllm serve`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ultratwin.errors import ScenarioError, unknown_name

POLICIES: Final = ("mixed", "prefill-first", "static")
PREEMPTIONS: Final = ("recompute", "swap")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """Limits of one replica.

    max_num_seqs: sequences that run at once
    max_num_batched_tokens: tokens of one iteration
    num_kv_blocks, block_size: the KV cache, in blocks of tokens
    max_model_len: longest prompt and answer together [tokens]
    policy: "mixed" (decodes first, prompts fill the budget: vLLM V1, TensorRT-LLM), "prefill-first" (waiting prompts
        have iterations of their own before decoding goes on: SGLang, vLLM V0), "static" (a batch runs to its end)
    chunked_prefill: a prompt may be cut to fit the budget; otherwise it must fit as a whole
    prefix_caching: full blocks are found again by their hashes, the least recently freed is evicted first
    preemption: what happens to the sequence that gives its blocks up: "recompute" or "swap" (to host memory)
    swap_token_s: seconds that one token's KV takes to host memory or back
    reserve_frac: share of the answers still to come that admission keeps room for: 0 vLLM, 1 TensorRT-LLM's
        guaranteed-no-evict, between them SGLang's new-token ratio
    reserve_prompt: a prompt is admitted only when all of it fits, not just its first chunk
    max_prefill_seqs: prompts that one iteration may hold, 0 is any number; Neuron's context encoding takes 1
    pipeline_parallel_size: p engines that take turns on the stages; each holds 1/p of sequences and blocks
    concurrency: closed loop: requests in flight at most, the next starts when one has ended; 0 is an open loop
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    num_kv_blocks: int
    block_size: int = 16
    max_model_len: int = 2**40
    policy: str = "mixed"
    chunked_prefill: bool = True
    prefix_caching: bool = False
    preemption: str = "recompute"
    swap_token_s: float = 0.0
    reserve_frac: float = 0.0
    reserve_prompt: bool = False
    max_prefill_seqs: int = 0
    pipeline_parallel_size: int = 1
    concurrency: int = 0

    def __post_init__(self) -> None:
        for name in (
            "max_num_seqs",
            "max_num_batched_tokens",
            "num_kv_blocks",
            "block_size",
            "max_model_len",
            "pipeline_parallel_size",
        ):
            if getattr(self, name) < 1:
                raise ScenarioError(f"{name} is {getattr(self, name)}", allowed="1 or more")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ScenarioError(
                f"max_num_batched_tokens {self.max_num_batched_tokens} is below max_num_seqs {self.max_num_seqs}",
                hint="every running sequence computes at least one token in an iteration",
            )
        if not 0.0 <= self.reserve_frac <= 1.0:
            raise ScenarioError(f"reserve_frac is {self.reserve_frac}", allowed="0 to 1")
        if self.concurrency < 0 or self.max_prefill_seqs < 0 or self.swap_token_s < 0.0:
            raise ScenarioError("concurrency, max_prefill_seqs or swap_token_s is negative", allowed="0 or more")
        if self.policy not in POLICIES:
            raise unknown_name("policy", self.policy, POLICIES, error=ScenarioError)
        if self.preemption not in PREEMPTIONS:
            raise unknown_name("preemption", self.preemption, PREEMPTIONS, error=ScenarioError)
