"""Launch files of services: flags of a real engine, or manifests of a platform. One file, one line in LAUNCHERS."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ultratwin.errors import ScenarioError, unknown_name
from ultratwin.planning.serving.answer import ServingAnswer
from ultratwin.planning.serving.plan import PlanServingAnswer
from ultratwin.planning.serving.question import ServingQuestion
from ultratwin.report.launch.serving.engines import ENGINES
from ultratwin.report.launch.serving.job import RoleJob, ServingJob, job_of_answer, job_of_plan
from ultratwin.report.launch.serving.k8s import Kubernetes
from ultratwin.report.launch.serving.launcher import EngineLauncher, ServingLauncher
from ultratwin.report.launch.serving.sagemaker import SageMaker

LAUNCHERS: Final[tuple[ServingLauncher, ...]] = (*ENGINES.values(), Kubernetes(), SageMaker())
LAUNCHER_NAMES: Final = tuple(each.name for each in LAUNCHERS)


def serving_files(tool: str, job: ServingJob) -> dict[str, str]:
    """A service as a tool's own files.

    Args:
        tool: a name of LAUNCHER_NAMES; job: what is launched
    Returns: text by file name; the same job gives the same bytes
    Raises: ScenarioError for an unknown tool, and whatever of the plan the tool has no setting for
    """
    for each in LAUNCHERS:
        if each.name == tool.lower():
            return each.files(job)
    raise unknown_name("tool", tool, LAUNCHER_NAMES, error=ScenarioError, where="--launch")


def write_serving_files(tool: str, question: ServingQuestion, answer: ServingAnswer, folder: Path) -> list[Path]:
    """Writes the files of `serve`'s answer into a folder, which is made; scripts become executable.

    Returns: the paths, in order
    Raises: ScenarioError as `serving_files`, and if the folder cannot be written
    """
    return _written(serving_files(tool, job_of_answer(question, answer)), folder)


def write_deployment_files(tool: str, answer: PlanServingAnswer, folder: Path) -> list[Path]:
    """Writes the files of `plan serve`'s best deployment; as `write_serving_files`."""
    return _written(serving_files(tool, job_of_plan(answer)), folder)


def _written(texts: dict[str, str], folder: Path) -> list[Path]:
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            path = folder / name
            path.write_text(text, "utf-8")
            if path.suffix == ".sh":
                path.chmod(path.stat().st_mode | 0o111)
            paths.append(path)
    except OSError as error:
        raise ScenarioError(
            f"can't write the launch files: {error.strerror}", where=str(folder), hint="give another --launch-dir"
        ) from None
    return paths


__all__ = [
    "LAUNCHERS", "LAUNCHER_NAMES", "EngineLauncher", "RoleJob", "ServingJob", "ServingLauncher", "job_of_answer",
    "job_of_plan", "serving_files", "write_deployment_files", "write_serving_files",
]  # fmt: skip
