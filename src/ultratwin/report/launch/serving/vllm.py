"""vLLM: `vllm serve`, flags as of vLLM 0.33.0.

Attention groups that share the experts are vLLM's data-parallel ranks; limits of a replica are per such rank there.
"""

from __future__ import annotations

from typing import ClassVar, Final

from ultratwin.report.launch.serving.job import RoleJob, ServingJob
from ultratwin.report.launch.serving.launcher import Arguments, EngineLauncher, as_json, chosen, flagged

_QUANTIZATION: Final[dict[str, str | None]] = {
    "bf16": None, "fp16": None, "fp8": "fp8", "fp8-block": None, "mxfp8": "mxfp8", "mxfp4": None, "nvfp4": None,
    "int8": None, "int8-weight-only": None, "int4-weight-only": None, "fp8-weight-only": None,
}  # fmt: skip
_KV: Final[dict[str, str | None]] = {"bf16": None, "fp16": None, "fp8": "fp8", "nvfp4": "nvfp4"}


class Vllm(EngineLauncher):
    """vLLM's OpenAI-compatible server."""

    name = "vllm"
    title = "vLLM"
    families = ("nvidia", "amd", "tpu", "gaudi")
    image: ClassVar[str] = "vllm/vllm-openai:v0.33.0"
    words: ClassVar[tuple[str, ...]] = ("vllm", "serve", '"$MODEL"')
    worker_flags = ("--headless",)
    container_words: ClassVar[tuple[str, ...]] = ("vllm", "serve")

    def arguments(self, job: ServingJob, role: RoleJob) -> Arguments:
        """The model and its flags."""
        plan = role.plan
        groups = int(plan.attention_data_parallel_size)
        ranks = int(plan.tensor_parallel_size) * groups
        expert = int(plan.expert_parallel_size)
        if expert not in (1, ranks):
            raise self.refusal(
                f"the plan spreads experts {expert} ways over {ranks} ranks", allowed=f"1 or {ranks}",
                hint="give --expert-parallel-size, or --enable-expert-parallel",
            )  # fmt: skip
        return [("", job.model.id), *flagged([
            ("--tensor-parallel-size", int(plan.tensor_parallel_size)),
            ("--pipeline-parallel-size", _several(int(plan.pipeline_parallel_size))),
            ("--data-parallel-size", _several(groups)),
            ("--enable-expert-parallel", True if expert > 1 else None),
            ("--dtype", {"bf16": "bfloat16", "fp16": "float16"}.get(job.formats.name)),
            ("--quantization", chosen(self, job, _QUANTIZATION)),
            ("--kv-cache-dtype", self._kv(job)),
            ("--max-num-seqs", max(role.max_num_seqs // groups, 1)),
            ("--max-num-batched-tokens", max(role.max_num_batched_tokens // groups, 1)),
            ("--block-size", job.block_size),
            ("--gpu-memory-utilization", f"{job.memory_utilization_frac:g}"),
            ("--max-model-len", job.max_model_len),
            ("--enable-prefix-caching" if job.prefix_caching else "--no-enable-prefix-caching", True),
            ("--speculative-config", _drafts(job)),
            ("--kv-transfer-config", _transfer(job)),
        ])]  # fmt: skip

    def node_arguments(self, job: ServingJob, role: RoleJob, rank: str, leader: str) -> Arguments:
        """Number of nodes, this one, and the first."""
        nodes = job.nodes(role)
        if nodes == 1:
            return []
        if int(role.plan.attention_data_parallel_size) > 1:
            raise self.refusal(
                "the plan spreads attention groups over several nodes", hint="see vLLM's data-parallel deployment guide"
            )
        return [("--nnodes", str(nodes)), ("--node-rank", rank), ("--master-addr", leader)]

    def _kv(self, job: ServingJob) -> str | None:
        if job.formats.kv not in _KV:
            raise self.refusal(f"keys and values are in {job.formats.kv}", allowed=", ".join(_KV))
        return _KV[job.formats.kv]


def _several(size: int) -> int | None:
    return size if size > 1 else None


def _drafts(job: ServingJob) -> str | None:
    """Drafts by the model's own prediction modules, where it has any; else EAGLE, whose head has to be named."""
    if not job.speculation.num_tokens:
        return None
    method = "mtp" if job.model.num_mtp_modules else "eagle3"
    drafts: dict[str, object] = {"method": method, "num_speculative_tokens": job.speculation.num_tokens}
    return as_json(drafts if method == "mtp" else drafts | {"model": "EAGLE3-HEAD-OF-THE-MODEL"})


def _transfer(job: ServingJob) -> str | None:
    return as_json({"kv_connector": "NixlConnector", "kv_role": "kv_both"}) if job.is_disaggregated else None
