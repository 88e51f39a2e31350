"""`ultratwin study`: many scenarios, kept as they finish, gone on with after any end."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cyclopts import App

from ultratwin.cli.parameters import Count, Flag
from ultratwin.cli.printing import print_blocks, print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ultratwin.planning.studies.run import Progress

study = App(name="study", help="Many scenarios of one file: every finished one is kept, whatever ends the rest.")

_INTERRUPTED: Final = 130
_EVERY_S: Final = 5.0


@study.command
def run(
    file: Path,
    /,
    *,
    store: Path | None = None,
    executor: str = "local",
    workers: Count | None = None,
    address: str = "",
    retry_failed: Flag = False,
) -> int:
    """Answers the scenarios of a study that are not answered yet.

    Parameters
    ----------
    file
        The study (TOML): lists of models, systems, sizes; every combination is a scenario.
    store
        The DuckDB file that answers are kept in [default: NAME.duckdb beside the study file].
    executor
        local (this machine's cores) or ray (a cluster).
    workers
        Scenarios answered at once [default: one per core; on Ray two per CPU].
    address
        HOST:PORT of a Ray cluster's head, or auto for the one that this machine belongs to.
    retry_failed
        Answer scenarios again whose process died.
    """
    from ultratwin.planning.studies import executors
    from ultratwin.planning.studies.run import run_study
    from ultratwin.planning.studies.store import open_store
    from ultratwin.planning.studies.study import read_study
    from ultratwin.report.outcome import answered

    asked = read_study(file)
    path = store or file.with_name(f"{asked.name}.duckdb")
    chosen = executors.executor(executor, workers=workers, address=address)
    with open_store(path, write=True) as kept:
        try:
            with _watched(asked.name) as watch:
                progress = run_study(asked, kept, chosen, answered, retry_failed=retry_failed, watch=watch)
        except KeyboardInterrupt:
            _say(f"interrupted; what is finished is kept in {path}: run the same command again to go on")
            return _INTERRUPTED
        counts = kept.counts()
    shares = ", ".join(f"{number:,} {status}" for status, number in counts.by_status.items())
    _say(f"{asked.name}: {counts.finished:,} scenarios ({shares}), {progress.num_here:,} of them now; kept in {path}")
    if counts.num_former:
        _say(f"{counts.num_former:,} answers of earlier versions of this study stay in the file and are not shown")
    _say(f"`ultratwin study show {path}` shows them")
    return 0 if counts.by_status.get("done") else 1


@study.command
def show(name: str, /, *, store: Path | None = None, limit: Count = 40, json: Flag = False) -> int:
    """The best scenarios of a study, and all of them.

    Parameters
    ----------
    name
        Name of the study, its TOML file or its DuckDB file.
    store
        The DuckDB file, where it is not beside the study file.
    limit
        Rows of the table of scenarios.
    json
        Print JSON instead of tables: all scenarios.
    """
    from ultratwin.planning.studies.store import open_store
    from ultratwin.report.study import study_blocks, study_json

    with open_store(_path(name, store)) as kept:
        if json:
            print_json(study_json(kept))
            return 0
        blocks = study_blocks(kept, limit=max(limit, 0))
    print_blocks(blocks)
    return 0


@study.command
def query(name: str, sql: str, /, *, store: Path | None = None, json: Flag = False) -> int:
    """Answers an SQL query; it can read only.

    Parameters
    ----------
    name
        Name of the study, its TOML file or its DuckDB file.
    sql
        In DuckDB's dialect; the view results has a row per finished scenario, ordered by position.
    store
        The DuckDB file, where it is not beside the study file.
    json
        Print JSON instead of a table: a list of objects.
    """
    from ultratwin.planning.studies.store import open_store
    from ultratwin.report.study import answer_blocks

    with open_store(_path(name, store)) as kept:
        columns, rows = kept.asked(sql)
    if json:
        print_json([dict(zip(columns, map(_jsonable, row), strict=True)) for row in rows])
    else:
        print_blocks(answer_blocks(columns, rows))
    return 0


@study.command
def export(name: str, target: Path, /, *, store: Path | None = None) -> int:
    """Writes the finished scenarios to a file.

    Parameters
    ----------
    name
        Name of the study, its TOML file or its DuckDB file.
    target
        A .parquet or .csv file; one that stands there is replaced.
    store
        The DuckDB file, where it is not beside the study file.
    """
    from ultratwin.planning.studies.store import open_store

    with open_store(_path(name, store)) as kept:
        rows = kept.export(target)
    _say(f"{rows:,} scenarios written to {target}")
    return 0


def _path(name: str, store: Path | None) -> Path:
    """The DuckDB file that a user means."""
    if store is not None:
        return store
    if name.endswith(".toml"):
        from ultratwin.planning.studies.study import read_study

        return Path(name).with_name(f"{read_study(name).name}.duckdb")
    return Path(name if name.endswith(".duckdb") else f"{name}.duckdb")


def _jsonable(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str | list | dict) else str(value)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


@contextmanager
def _watched(name: str) -> Iterator[Callable[[Progress], None]]:
    """Progress on stderr: a bar on a terminal, a line every few seconds elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines(name)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    name_column, said_column = (
        TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[said]}")
    )
    with Bar(
        name_column, BarColumn(), said_column, console=Console(stderr=True, highlight=False), transient=True
    ) as bar:
        task = bar.add_task(name, said="")
        yield lambda progress: bar.update(
            task, total=progress.total, completed=progress.num_finished, said=_progress_said(progress)
        )


class _Lines:
    """Says how far a study is, not more often than every few seconds."""

    def __init__(self, name: str) -> None:
        self._name, self._said_s = name, time.monotonic() - _EVERY_S

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() - self._said_s >= _EVERY_S:
            self._said_s = time.monotonic()
            _say(f"{self._name}: {_progress_said(progress)}")


def _progress_said(progress: Progress) -> str:
    text = f"{progress.num_finished:,} of {progress.total:,} done, {progress.num_left:,} left"
    if progress.left_s is None:
        return text
    from ultratwin.units import format_seconds

    rate = f"{progress.per_s:.3g}/s" if progress.per_s >= 1 else f"{progress.per_s * 60:.3g}/min"
    return f"{text}, {rate}, about {format_seconds(progress.left_s) if progress.num_left else '0 s'} to go"
