"""TensorRT-LLM: `trtllm-serve` with the PyTorch backend, as of commit 00209af149e7774406881a37283dce303571eb11.

What has no flag stands in a YAML file that `--config` names. Number formats are the checkpoint's own.
"""

from __future__ import annotations

from typing import ClassVar

from ultratwin.report.launch.serving.job import RoleJob, ServingJob
from ultratwin.report.launch.serving.launcher import CHECKPOINT, Arguments, EngineLauncher, flagged, header
from ultratwin.report.launch.yaml_text import Yaml, yaml_text


class TensorrtLlm(EngineLauncher):
    """TensorRT-LLM's server."""

    name = "trtllm"
    title = "TensorRT-LLM"
    families = ("nvidia",)
    image: ClassVar[str] = "nvcr.io/nvidia/tensorrt-llm/release"
    words: ClassVar[tuple[str, ...]] = ("trtllm-serve", '"$MODEL"')
    numbers_nodes = False
    container_words: ClassVar[tuple[str, ...]] = ("trtllm-serve",)

    def arguments(self, job: ServingJob, role: RoleJob) -> Arguments:
        """The model and its flags."""
        plan = role.plan
        groups, tensor = int(plan.attention_data_parallel_size), int(plan.tensor_parallel_size)
        stages, expert = int(plan.pipeline_parallel_size), int(plan.expert_parallel_size)
        if groups > 1 and tensor > 1:
            raise self.refusal(
                f"the plan has {groups} attention groups of {tensor} ranks", allowed="groups of one rank, or one group",
                hint="give --tensor-parallel-size 1 and the ranks as --data-parallel-size",
            )  # fmt: skip
        return [("", job.model.id), *flagged([
            ("--backend", "pytorch"),
            ("--tensor_parallel_size", tensor * groups),
            ("--pipeline_parallel_size", stages if stages > 1 else None),
            ("--moe_expert_parallel_size", expert if expert > 1 else None),
            ("--max_batch_size", max(role.max_num_seqs // groups, 1)),
            ("--max_num_tokens", max(role.max_num_batched_tokens // groups, 1)),
            ("--max_seq_len", job.max_model_len),
            ("--kv_cache_free_gpu_memory_fraction", f"{job.memory_utilization_frac:g}"),
            ("--enable_chunked_prefill", True),
            ("--gpus_per_node", job.node_chips if job.nodes(role) > 1 else None),
            ("--config", f"{role.name}.yaml"),
        ])]  # fmt: skip

    def node_arguments(self, job: ServingJob, role: RoleJob, rank: str, leader: str) -> Arguments:
        """None: several nodes are started by MPI or Slurm through trtllm-llmapi-launch, which numbers them."""
        return []

    def checkpoint(self, job: ServingJob) -> str:
        """Every format but 16 bits is the checkpoint's."""
        made = CHECKPOINT.get(job.formats.name, f"{job.formats.name}, as made by NVIDIA ModelOpt")
        return "" if job.formats.name in ("bf16", "fp16") else made

    def extra_files(self, job: ServingJob, role: RoleJob) -> dict[str, str]:
        """The YAML of what has no flag."""
        cache: Yaml = {"enable_block_reuse": job.prefix_caching, "tokens_per_block": job.block_size}
        if job.formats.kv not in ("bf16", "fp16"):
            cache["dtype"] = job.formats.kv
        config: Yaml = {"kv_cache_config": cache}
        if int(role.plan.attention_data_parallel_size) > 1:
            config["enable_attention_dp"] = True
        if job.speculation.num_tokens:
            config["speculative_config"] = {
                "decoding_type": "MTP", "num_nextn_predict_layers": job.speculation.num_tokens,
            }  # fmt: skip
        lines = header(job, role, self.title, self.checkpoint(job))
        return {f"{role.name}.yaml": "\n".join(lines) + "\n" + yaml_text(config)}
