"""`ultratwin compare`: scenarios side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ultratwin.cli.parameters import Flag
from ultratwin.cli.printing import print_blocks, print_json
from ultratwin.errors import ScenarioError, UltratwinError

if TYPE_CHECKING:
    from ultratwin.planning.comparison import Scenario
    from ultratwin.planning.training import TrainingAnswer, TrainingQuestion


def compare(
    *files: Path,
    objective: str | None = None,
    offer: str | None = None,
    json: Flag = False,
) -> int:
    """Scenarios side by side: where the seconds, joules and dollars differ, who wins, and what would turn it.

    Parameters
    ----------
    files
        Two or more scenario files (TOML): what `ultratwin train` is asked, written down.
    objective
        What to rank by: time, cost, energy or carbon [default: the files', where they agree, else time].
    offer
        The public price that counts: on_demand, capacity_block, reserved_1y, reserved_3y, spot [default: first known].
    json
        Print JSON instead of the tables.
    """
    from ultratwin.planning.checks import checked_objective, checked_offer
    from ultratwin.planning.comparison import compared
    from ultratwin.report import comparison as report

    if objective is not None:
        checked_objective(objective)
    checked_offer(offer or "")
    if len(files) < 2:
        raise ScenarioError(
            f"{len(files)} scenario file{'s' if len(files) != 1 else ''}", where="ultratwin compare",
            allowed="two or more", hint="examples/scenarios has some; `ultratwin train` answers a single question",
        )  # fmt: skip
    scenarios = answered(files)
    wanted = {each.question.objective for each in scenarios}
    comparison = compared(scenarios, objective or (wanted.pop() if len(wanted) == 1 else "time"), offer or "")
    if json:
        print_json(report.comparison_json(comparison))
    else:
        print_blocks(report.comparison_blocks(comparison))
    return 0 if any(each.answer.run for each in scenarios) else 1


def answered(files: Sequence[Path]) -> list[Scenario]:
    """The scenario of each file, answered.

    Raises: UltratwinError with all faults of all files
    """
    from ultratwin.planning.comparison import Scenario
    from ultratwin.planning.scenario_file import read_scenario

    scenarios: list[Scenario] = []
    faults: list[UltratwinError] = []
    for name, path in zip(_names(files), files, strict=True):
        try:
            question = read_scenario(path)
            scenarios.append(Scenario(name=name, question=question, answer=_answer(question, path)))
        except UltratwinError as error:
            faults.append(error)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        lines = [f"  {line}" for error in faults for line in str(error).splitlines()]
        raise ScenarioError(f"faults in {len(faults)} of {len(files)} scenario files\n" + "\n".join(lines))
    return scenarios


def _answer(question: TrainingQuestion, path: Path) -> TrainingAnswer:
    """The answer; what a question is refused for names the file that asked it, options being the file's keys."""
    from ultratwin.planning.training import answer_training

    try:
        return answer_training(question)
    except UltratwinError as error:
        place = error.where.removeprefix("--").replace("-", "_")
        where = f"{path}, {place}" if place else str(path)
        raise type(error)(error.what, where=where, allowed=error.allowed, hint=error.hint) from None


def _names(files: Sequence[Path]) -> list[str]:
    """A short name for each file: its own without the ending, its whole path where two are alike."""
    stems = [path.stem for path in files]
    names = [stem if stems.count(stem) == 1 else str(path) for stem, path in zip(stems, files, strict=True)]
    return [
        name if names.count(name) == 1 else f"{name} #{names[: at + 1].count(name)}" for at, name in enumerate(names)
    ]
