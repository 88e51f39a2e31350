"""Amazon SageMaker: the requests that make a model, an endpoint configuration, an endpoint and an inference component,
as botocore 1.44.8 takes them (`aws sagemaker create-model --cli-input-json file://model.json`).

Containers of vLLM and SGLang turn variables such as SM_VLLM_MAX_NUM_SEQS into flags. Several replicas on an instance
are copies of an inference component.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from ultratwin.report.launch.serving.engines import engine_launcher
from ultratwin.report.launch.serving.job import RoleJob, ServingJob
from ultratwin.report.launch.serving.launcher import ServingLauncher

_PREFIXES: Final = {"vllm": "SM_VLLM_", "nxd-inference": "SM_VLLM_", "sglang": "SM_SGLANG_"}
_INSTANCE: Final = re.compile(r"(p\d\w*|p6[\w-]*|g\d\w*|trn\d\w*|inf\d\w*)[\w-]*\.\d*xlarge")
_MEMORY_MB: Final = 65536
"""Host memory that a copy is promised at the least, MB."""
_STARTUP_S: Final = 3600


class SageMaker(ServingLauncher):
    """SageMaker endpoints."""

    name = "sagemaker"
    title = "SageMaker"
    families = ("nvidia", "neuron")

    def files(self, job: ServingJob) -> dict[str, str]:
        """One request to a file."""
        self.check_chip(job)
        if not _INSTANCE.fullmatch(job.system):
            raise self.refusal(f"{job.system} is no EC2 instance", hint="choose a --system such as p5en.48xlarge")
        if job.is_disaggregated:
            raise self.refusal("the plan keeps prefill and decode apart", hint="plan with --modes aggregated")
        (role,) = job.roles
        if job.nodes(role) > 1:
            raise self.refusal(f"a replica lies on {job.nodes(role)} instances", allowed="one instance")
        requests = {
            "model.json": self._model(job, role),
            "endpoint-config.json": self._endpoint_config(job, role),
            "endpoint.json": {"EndpointName": job.name, "EndpointConfigName": job.name},
            "inference-component.json": self._component(job, role),
        }
        return {name: json.dumps(value, indent=2) + "\n" for name, value in requests.items()}

    def _model(self, job: ServingJob, role: RoleJob) -> dict[str, Any]:
        if job.engine not in _PREFIXES:
            raise self.refusal(f"the plan serves with {job.engine}", allowed=", ".join(_PREFIXES))
        engine, prefix = engine_launcher(job.engine), _PREFIXES[job.engine]
        engine.check_chip(job)
        # the containers make "--flag value" of each variable, and "--flag" of an empty one
        environment = {f"{prefix}MODEL" if prefix == "SM_VLLM_" else f"{prefix}MODEL_PATH": job.model.id}
        for flag, value in engine.arguments(job, role)[1:]:
            environment[prefix + flag.removeprefix("--").replace("-", "_").upper()] = value or ""
        return {
            "ModelName": job.name,
            "ExecutionRoleArn": "arn:aws:iam::ACCOUNT:role/ROLE",
            "PrimaryContainer": {"Image": "ACCOUNT.dkr.ecr.REGION.amazonaws.com/IMAGE", "Environment": environment},
        }

    def _endpoint_config(self, job: ServingJob, role: RoleJob) -> dict[str, Any]:
        per_instance = max(job.node_chips // job.chips(role), 1)
        instances = -(-role.replicas // per_instance)
        variant = {
            "VariantName": "all",
            "InstanceType": f"ml.{job.system}",
            "InitialInstanceCount": instances,
            "ModelDataDownloadTimeoutInSeconds": _STARTUP_S,
            "ContainerStartupHealthCheckTimeoutInSeconds": _STARTUP_S,
            "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
        }
        return {
            "EndpointConfigName": job.name,
            "ExecutionRoleArn": "arn:aws:iam::ACCOUNT:role/ROLE",
            "ProductionVariants": [variant],
        }

    def _component(self, job: ServingJob, role: RoleJob) -> dict[str, Any]:
        return {
            "InferenceComponentName": job.name,
            "EndpointName": job.name,
            "VariantName": "all",
            "Specification": {
                "ModelName": job.name,
                "StartupParameters": {
                    "ModelDataDownloadTimeoutInSeconds": _STARTUP_S,
                    "ContainerStartupHealthCheckTimeoutInSeconds": _STARTUP_S,
                },
                "ComputeResourceRequirements": {
                    "NumberOfAcceleratorDevicesRequired": job.chips(role),
                    "MinMemoryRequiredInMb": _MEMORY_MB,
                },
            },
            "RuntimeConfig": {"CopyCount": role.replicas},
        }
