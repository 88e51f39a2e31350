"""Launch files: a plan as the flags or config of a real framework. One framework, one file, one line in LAUNCHERS."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ultratwin.errors import ScenarioError, unknown_name
from ultratwin.planning.training import TrainingAnswer, TrainingQuestion
from ultratwin.report.launch.launcher import Job, Launcher, job_of
from ultratwin.report.launch.maxtext import MaxText
from ultratwin.report.launch.megatron import Megatron
from ultratwin.report.launch.neuronx_distributed import NeuronxDistributed
from ultratwin.report.launch.torchtitan import Torchtitan

LAUNCHERS: Final[tuple[Launcher, ...]] = (
    Megatron(),
    NeuronxDistributed(),
    MaxText(),
    Torchtitan(),
)
LAUNCHER_NAMES: Final = tuple(launcher.name for launcher in LAUNCHERS)


def launcher(name: str) -> Launcher:
    """A launcher by its framework's name.

    Raises: ScenarioError for an unknown name
    """
    for each in LAUNCHERS:
        if each.name == name.lower():
            return each
    raise unknown_name("framework", name, LAUNCHER_NAMES, error=ScenarioError, where="--launch")


def launch_files(framework: str, answer: TrainingAnswer, question: TrainingQuestion | None = None) -> dict[str, str]:
    """The plan of an answer as a framework's own files.

    Args:
        framework: a name of LAUNCHER_NAMES
        answer: whose plan is written
        question: what was asked; the answer holds all that is written, so it may be left out
    Returns: text by file name; the same answer gives the same bytes
    Raises: ScenarioError for an unknown framework, an answer without a plan that can run, and whatever of the plan or
        the model the framework has no setting for
    """
    chosen = launcher(framework)
    job = job_of(answer)
    chosen.check_chip(job)
    return chosen.files(job)


def write_launch_files(
    framework: str, answer: TrainingAnswer, question: TrainingQuestion | None, folder: Path
) -> list[Path]:
    """Writes `launch_files` into a folder, which is made if it does not exist; scripts become executable.

    Returns: the paths, in order
    Raises: ScenarioError as `launch_files`, and if the folder cannot be written
    """
    texts = launch_files(framework, answer, question)
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


__all__ = ["LAUNCHERS", "LAUNCHER_NAMES", "Job", "Launcher", "launch_files", "launcher", "write_launch_files"]
