"""The engines that services are launched with: one engine, one file, one line."""

from __future__ import annotations

from typing import Final

from ultratwin.errors import ScenarioError, unknown_name
from ultratwin.report.launch.serving.launcher import EngineLauncher
from ultratwin.report.launch.serving.nxd_inference import NxdInference
from ultratwin.report.launch.serving.sglang import Sglang
from ultratwin.report.launch.serving.trtllm import TensorrtLlm
from ultratwin.report.launch.serving.vllm import Vllm

ENGINES: Final[dict[str, EngineLauncher]] = {
    # id of the engine in the catalogue
    "vllm": Vllm(),
    "sglang": Sglang(),
    "tensorrt-llm": TensorrtLlm(),
    "nxd-inference": NxdInference(),
}


def engine_launcher(engine: str) -> EngineLauncher:
    """The launcher of an engine of the catalogue.

    Raises: ScenarioError for an engine that none is known for
    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, tuple(ENGINES), error=ScenarioError, where="--launch")
    return ENGINES[engine]
