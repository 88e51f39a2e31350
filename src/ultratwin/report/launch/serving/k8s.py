"""Kubernetes: a Deployment where a replica fits into a node, else a LeaderWorkerSet (leaderworkerset.x-k8s.io/v1, LWS
at commit 060ab4da17eea1f0865fcbd3236bb1075e2cea32); and a Service before it.
"""

from __future__ import annotations

import re
from typing import Any, Final

from ultratwin.report.launch.serving.engines import engine_launcher
from ultratwin.report.launch.serving.job import RoleJob, ServingJob
from ultratwin.report.launch.serving.launcher import ENDPOINT, PORT, EngineLauncher, ServingLauncher, header

_RESOURCES: Final = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu", "neuron": "aws.amazon.com/neuron",
                     "tpu": "google.com/tpu", "gaudi": "habana.ai/gaudi"}  # fmt: skip
_EC2: Final = re.compile(r"[a-z0-9-]+\.(\d+)?x?large|[a-z0-9-]+\.metal.*")


class Kubernetes(ServingLauncher):
    """Manifests for `kubectl apply -f`."""

    name = "k8s"
    title = "Kubernetes"
    families = tuple(_RESOURCES)

    def files(self, job: ServingJob) -> dict[str, str]:
        """One manifest for each role."""
        self.check_chip(job)
        engine = engine_launcher(job.engine)
        engine.check_chip(job)
        found = {}
        for role in job.roles:
            parts = [self._workload(job, role, engine), self._service(job, role)]
            extra = engine.extra_files(job, role)
            if extra:
                parts.append(_config_map(job, role, extra))
            head = "\n".join(header(job, role, engine.title, engine.checkpoint(job))) + "\n"
            found[f"{role.name}.yaml"] = head + "---\n".join(_yaml(each) for each in parts)
        return found

    def _workload(self, job: ServingJob, role: RoleJob, engine: EngineLauncher) -> dict[str, Any]:
        name, nodes = _name(job, role), job.nodes(role)
        if nodes == 1:
            return {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name},
                "spec": {
                    "replicas": role.replicas,
                    "selector": {"matchLabels": {"app": name}},
                    "template": self._pod(job, role, engine, job.chips(role), leads=True),
                },
            }
        if not engine.numbers_nodes:
            raise self.refusal(
                f"a replica lies on {nodes} nodes, which {engine.title} starts by MPI", allowed="one node"
            )
        chips = -(-job.chips(role) // nodes)
        return {
            "apiVersion": "leaderworkerset.x-k8s.io/v1",
            "kind": "LeaderWorkerSet",
            "metadata": {"name": name},
            "spec": {
                "replicas": role.replicas,
                "leaderWorkerTemplate": {
                    "size": nodes,
                    "restartPolicy": "RecreateGroupOnPodRestart",
                    "leaderTemplate": self._pod(job, role, engine, chips, leads=True),
                    "workerTemplate": self._pod(job, role, engine, chips, leads=False),
                },
            },
        }

    def _pod(
        self, job: ServingJob, role: RoleJob, engine: EngineLauncher, chips: int, *, leads: bool
    ) -> dict[str, Any]:
        resource = {_RESOURCES[job.chip.family]: str(chips)}
        # Kubernetes fills in variables of the container that stand in $( )
        nodes = engine.node_arguments(job, role, "$(LWS_WORKER_INDEX)", "$(LWS_LEADER_ADDRESS)")
        words = [*engine.container_words]
        for flag, value in [*engine.arguments(job, role), *ENDPOINT, *nodes]:
            words += ([flag] if flag else []) + ([] if value is None else [_mounted(value, engine, job, role)])
        words += [] if leads else engine.worker_flags
        probe = {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": 10, "failureThreshold": 360}
        container: dict[str, Any] = {
            "name": "engine",
            "image": engine.image,
            "command": words,
            "ports": [{"containerPort": PORT}],
            "resources": {"limits": resource, "requests": resource},
            **({"readinessProbe": probe} if leads else {}),
            "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
        }
        volumes: list[dict[str, Any]] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
        if engine.extra_files(job, role):
            container["volumeMounts"].append({"name": "config", "mountPath": "/config"})
            volumes.append({"name": "config", "configMap": {"name": f"{_name(job, role)}-config"}})
        spec: dict[str, Any] = {"containers": [container], "volumes": volumes}
        if _EC2.fullmatch(job.system):
            spec["nodeSelector"] = {"node.kubernetes.io/instance-type": job.system}
        return {"metadata": {"labels": {"app": _name(job, role)}}, "spec": spec}

    def _service(self, job: ServingJob, role: RoleJob) -> dict[str, Any]:
        name = _name(job, role)
        selector = (
            {"app": name} if job.nodes(role) == 1 else {"app": name, "leaderworkerset.sigs.k8s.io/worker-index": "0"}
        )
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": selector, "ports": [{"port": PORT, "targetPort": PORT}]},
        }


def _name(job: ServingJob, role: RoleJob) -> str:
    return job.name if role.name == "serve" else f"{job.name}-{role.name}"


def _mounted(value: str, engine: EngineLauncher, job: ServingJob, role: RoleJob) -> str:
    """A file that a flag names lies where the config map is mounted."""
    return f"/config/{value}" if value in engine.extra_files(job, role) else value


def _config_map(job: ServingJob, role: RoleJob, extra: dict[str, str]) -> dict[str, Any]:
    name = f"{_name(job, role)}-config"
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": dict(extra)}


def _yaml(value: Any, indent: int = 0) -> str:
    """Block YAML of maps, lists and scalars; text is quoted as JSON, which is YAML too."""
    pad, lines = " " * indent, []
    if isinstance(value, dict):
        for key, each in value.items():
            if isinstance(each, dict | list) and each:
                lines.append(f"{pad}{_scalar(key)}:\n{_yaml(each, indent + 2)}")
            else:
                lines.append(f"{pad}{_scalar(key)}: {_scalar(each)}\n")
    else:
        for each in value:
            if isinstance(each, dict):
                lines.append(f"{pad}- {_yaml(each, indent + 2).lstrip()}")
            else:
                lines.append(f"{pad}- {_scalar(each)}\n")
    return "".join(lines)


def _scalar(value: Any) -> str:
    import json

    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", value):
        reserved = value.lower() in ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
        return json.dumps(value) if reserved else value
    return json.dumps(value)
