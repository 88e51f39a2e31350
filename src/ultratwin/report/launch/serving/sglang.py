"""SGLang: `python -m sglang.launch_server`, flags as of SGLang 0.5.23.

Its tensor-parallel size counts the ranks of all attention groups; limits are of the whole replica.
"""

from __future__ import annotations

from typing import ClassVar, Final

from ultratwin.report.launch.serving.job import RoleJob, ServingJob
from ultratwin.report.launch.serving.launcher import Arguments, EngineLauncher, chosen, flagged

_QUANTIZATION: Final[dict[str, str | None]] = {
    "bf16": None, "fp16": None, "fp8": "fp8", "fp8-block": None, "mxfp8": "mxfp8", "mxfp4": None,
    "nvfp4": "modelopt_fp4", "int8": "w8a8_int8", "int4-weight-only": None,
}  # fmt: skip
_KV: Final[dict[str, str | None]] = {"bf16": None, "fp16": None, "fp8": "fp8_e4m3", "nvfp4": "nvfp4"}
_PORT: Final = 20000


class Sglang(EngineLauncher):
    """SGLang's server."""

    name = "sglang"
    title = "SGLang"
    families = ("nvidia", "amd")
    image: ClassVar[str] = "lmsysorg/sglang:v0.5.23"
    words: ClassVar[tuple[str, ...]] = ("python", "-m sglang.launch_server", '--model-path "$MODEL"')
    container_words: ClassVar[tuple[str, ...]] = ("python", "-m", "sglang.launch_server", "--model-path")

    def arguments(self, job: ServingJob, role: RoleJob) -> Arguments:
        """The model and its flags."""
        plan, drafts = role.plan, job.speculation.num_tokens
        groups = int(plan.attention_data_parallel_size)
        if job.formats.kv not in _KV:
            raise self.refusal(f"keys and values are in {job.formats.kv}", allowed=", ".join(_KV))
        return [("", job.model.id), *flagged([
            ("--tp-size", int(plan.tensor_parallel_size) * groups),
            ("--pp-size", int(plan.pipeline_parallel_size) if int(plan.pipeline_parallel_size) > 1 else None),
            ("--attn-dp-size", groups if groups > 1 else None),
            ("--ep-size", int(plan.expert_parallel_size) if int(plan.expert_parallel_size) > 1 else None),
            ("--dtype", {"bf16": "bfloat16", "fp16": "float16"}.get(job.formats.name)),
            ("--quantization", chosen(self, job, _QUANTIZATION)),
            ("--kv-cache-dtype", _KV[job.formats.kv]),
            ("--max-running-requests", role.max_num_seqs),
            ("--chunked-prefill-size", role.max_num_batched_tokens),
            ("--page-size", job.block_size),
            ("--mem-fraction-static", f"{job.memory_utilization_frac:g}"),
            ("--context-length", job.max_model_len),
            ("--disable-radix-cache", None if job.prefix_caching else True),
            ("--speculative-algorithm", "EAGLE" if drafts else None),
            ("--speculative-num-steps", drafts or None),
            ("--speculative-eagle-topk", 1 if drafts else None),
            ("--speculative-num-draft-tokens", drafts + 1 if drafts else None),
            ("--disaggregation-mode", role.name if job.is_disaggregated else None),
        ])]  # fmt: skip

    def node_arguments(self, job: ServingJob, role: RoleJob, rank: str, leader: str) -> Arguments:
        """Number of nodes, this one, and the first."""
        nodes = job.nodes(role)
        if nodes == 1:
            return []
        return [("--nnodes", str(nodes)), ("--node-rank", rank), ("--dist-init-addr", f"{leader}:{_PORT}")]
