"""NxD Inference on Trainium and Inferentia: vLLM with the vllm-neuron plugin, keys of NeuronConfig as of commit
4bcdc54bf3b6ccdad490e5cd0680a3dc95270b8e (July 2026) of aws-neuron/neuronx-distributed-inference.

Its tensor-parallel size counts logical NeuronCores: the plan's ranks times the logical cores of one.
"""

from __future__ import annotations

from typing import ClassVar, Final

from ultratwin.report.launch.serving.job import RoleJob, ServingJob
from ultratwin.report.launch.serving.launcher import Arguments, EngineLauncher, as_json, chosen, flagged
from ultratwin.workload.model import LatentAttention

_FORMATS: Final[dict[str, str | None]] = {
    "bf16": None, "fp16": None, "fp8": "f8e4m3", "int8": "int8", "int8-weight-only": "int8",
    "fp8-weight-only": "f8e4m3",
}  # fmt: skip


class NxdInference(EngineLauncher):
    """vLLM on NxD Inference."""

    name = "nxd-inference"
    title = "NxD Inference"
    families = ("neuron",)
    image: ClassVar[str] = "public.ecr.aws/neuron/pytorch-inference-vllm-neuronx"
    words: ClassVar[tuple[str, ...]] = ("vllm", "serve", '"$MODEL"')
    container_words: ClassVar[tuple[str, ...]] = ("vllm", "serve")

    def arguments(self, job: ServingJob, role: RoleJob) -> Arguments:
        """The model and its flags."""
        plan = role.plan
        if int(plan.pipeline_parallel_size) > 1:
            raise self.refusal("the plan has pipeline stages", hint="give --pipeline-parallel-size 1")
        if job.is_disaggregated:
            raise self.refusal("the plan keeps prefill and decode apart", hint="plan with --modes aggregated")
        for layer in job.model.layer_kinds():
            heads = int(getattr(layer.attention, "num_heads", 0))
            cores = self.cores(job, role)
            if heads and heads % cores and not isinstance(layer.attention, LatentAttention):
                raise self.refusal(
                    f"the plan splits {heads} heads over {cores} logical NeuronCores", hint="fewer ranks per replica"
                )
        return [("", job.model.id), *flagged([
            ("--tensor-parallel-size", self.cores(job, role)),
            ("--max-num-seqs", role.max_num_seqs),
            ("--max-num-batched-tokens", role.max_num_batched_tokens),
            ("--max-model-len", job.max_model_len or job.model.max_seq_length),
            ("--block-size", job.block_size if job.prefix_caching else None),
            ("--enable-prefix-caching" if job.prefix_caching else "--no-enable-prefix-caching", True),
            ("--additional-config", as_json({"override_neuron_config": self.neuron_config(job, role)})),
        ])]  # fmt: skip

    def cores(self, job: ServingJob, role: RoleJob) -> int:
        """Logical NeuronCores of a replica; from NeuronCore-v3 on two cores are one by default."""
        lnc = 2 if job.chip.num_cores > 2 else 1
        return int(role.plan.num_ranks) * max(int(job.chip.num_cores) // lnc // job.ranks_per_chip, 1)

    def neuron_config(self, job: ServingJob, role: RoleJob) -> dict[str, object]:
        """What differs from the plugin's own settings."""
        plan = role.plan
        config: dict[str, object] = {"async_mode": True, "sequence_parallel_enabled": True}
        if int(plan.attention_data_parallel_size) > 1:
            config["attention_dp_degree"] = int(plan.attention_data_parallel_size)
        if int(plan.expert_parallel_size) > 1:
            config["moe_ep_degree"] = int(plan.expert_parallel_size)
            config["moe_tp_degree"] = max(self.cores(job, role) // int(plan.expert_parallel_size), 1)
        quantized = chosen(self, job, _FORMATS)
        if quantized is not None:
            config |= {"quantized": True, "quantization_dtype": quantized}
        if job.formats.kv == "fp8":
            config["kv_cache_quant"] = True
        if job.prefix_caching:
            config |= {"is_prefix_caching": True, "is_block_kv_layout": True, "pa_block_size": job.block_size}
        if job.speculation.num_tokens:
            config |= {
                "speculation_length": job.speculation.num_tokens, "enable_fused_speculation": True,
                "enable_eagle_speculation": True,
            }  # fmt: skip
        return config

    def node_arguments(self, job: ServingJob, role: RoleJob, rank: str, leader: str) -> Arguments:
        """None: a replica lies on one instance."""
        if job.nodes(role) > 1:
            raise self.refusal(f"a replica lies on {job.nodes(role)} nodes", allowed="one node")
        return []
