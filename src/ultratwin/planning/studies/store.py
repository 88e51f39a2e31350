"""Where a study keeps what is finished: one DuckDB file, each scenario committed by itself.

Tables: `study` (one row: what the file belongs to), `scenarios` (position and key of the study as it is now),
`finished` (answers by key, also those of scenarios that the study no longer has). The view `results` joins them: that
is what queries and exports read. Nothing in it differs from run to run: no times, no names of machines.
"""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ultratwin.errors import ScenarioError
from ultratwin.mapping.plan import RECOMPUTE
from ultratwin.mapping.schedules import SCHEDULE_NAMES
from ultratwin.planning.studies.study import Outcome, Scenario, Study

FORMAT: Final = 1
"""Of the tables; a file with another one is refused."""
COLUMNS: Final = {
    "key": "VARCHAR PRIMARY KEY", "model": "VARCHAR", "system": "VARCHAR", "chips": "BIGINT", "tokens": "DOUBLE",
    "precision": "VARCHAR", "framework": "VARCHAR", "seq_length": "BIGINT", "global_batch_size": "BIGINT",
    "objective": "VARCHAR", "seed": "BIGINT", "region": "VARCHAR", "layout": "VARCHAR",
    "status": "VARCHAR NOT NULL", "reason": "VARCHAR",
    "step_s": "DOUBLE", "days": "DOUBLE", "mfu": "DOUBLE", "offer": "VARCHAR", "cost_usd": "DOUBLE",
    "energy_j": "DOUBLE", "carbon_kg": "DOUBLE", "memory_bytes": "DOUBLE", "plan": "VARCHAR", "result": "VARCHAR",
}  # fmt: skip
"""Of `finished`: the question, then what came out (expected values), then the plan in a line and the whole answer."""
EXPORTS: Final = {".parquet": "FORMAT parquet", ".csv": "FORMAT csv, HEADER"}
_CREATE: Final = f"""
CREATE TABLE study (format BIGINT, name VARCHAR, version VARCHAR, catalogue_hash VARCHAR, num_scenarios BIGINT);
CREATE TABLE scenarios (position BIGINT PRIMARY KEY, key VARCHAR NOT NULL);
CREATE TABLE finished ({", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())});
CREATE VIEW results AS
    SELECT position, finished.* FROM scenarios JOIN finished ON scenarios.key = finished.key ORDER BY position;
"""
_SETTINGS: Final = {
    # no network, nothing of the program's own variables, and one thread: rows leave in the same order every time
    "autoinstall_known_extensions": False, "autoload_known_extensions": False, "python_enable_replacements": False,
    "threads": 1,
}  # fmt: skip
_LOCKED: Final = re.compile(r"Could not set lock on file.*?(?:\(PID (\d+)\))", re.DOTALL)
_CORRUPT: Final = re.compile(r"Corrupt database file|checksum")
_FULL: Final = re.compile(r"No space left|File too large|not enough space|Disk quota|Out of disk", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How far a study is."""

    total: int
    by_status: dict[str, int]
    num_former: int

    @property
    def finished(self) -> int:
        """Scenarios with an outcome."""
        return sum(self.by_status.values())


class Store:
    """An open store; use it in a `with` statement."""

    def __init__(self, path: Path, connection: Any) -> None:
        self.path, self._connection = path, connection

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(duckdb().Error):  # a full disk: what was committed is in the file already
            self._connection.close()

    def begin(self, study: Study, *, retry_failed: bool = False) -> set[str]:
        """Makes the study what this file belongs to.

        Returns: keys of scenarios that are finished already
        Raises: ScenarioError if the file belongs to a study of another name
        """
        name = self.about()["name"]
        if name not in (None, study.name):
            raise ScenarioError(
                f'{self.path} holds the study "{name}", not "{study.name}"', hint="give another file with --store"
            )
        keys = [scenario.key for scenario in study.scenarios()]
        with _explained(self.path):
            self._connection.execute("BEGIN")
            self._connection.execute("DELETE FROM study")
            self._connection.execute(
                "INSERT INTO study VALUES (?, ?, ?, ?, ?)",
                [FORMAT, study.name, study.version, study.catalogue_hash, len(keys)],
            )
            if self._keys("SELECT key FROM scenarios ORDER BY position") != keys:
                # DELETE and INSERT of the same primary keys in one transaction is more than DuckDB's index can do
                self._connection.execute(
                    "CREATE OR REPLACE TABLE scenarios AS "
                    "SELECT unnest(?::BIGINT[]) AS position, unnest(?::VARCHAR[]) AS key",
                    [list(range(len(keys))), keys],
                )
            if retry_failed:
                self._connection.execute("DELETE FROM finished WHERE status = 'failed'")
            self._connection.execute("COMMIT")
            return set(self._keys("SELECT key FROM finished")) & set(keys)

    def add(self, scenario: Scenario, outcome: Outcome) -> None:
        """Keeps what came out of a scenario; it is on the disk when this returns."""
        row = _asked(scenario) | outcome.figures
        row |= {"status": outcome.status, "reason": outcome.reason or None, "result": outcome.result}
        marks = ", ".join("?" * len(COLUMNS))
        with _explained(self.path):
            self._connection.execute(f"INSERT INTO finished VALUES ({marks})", [row.get(name) for name in COLUMNS])

    def about(self) -> dict[str, Any]:
        """Name, version, catalogue hash and size of the study; name None where none has begun."""
        columns = ("name", "version", "catalogue_hash", "num_scenarios")
        rows = self.rows(f"SELECT {', '.join(columns)} FROM study")
        return dict(zip(columns, rows[0], strict=True)) if rows else dict.fromkeys(columns)

    def counts(self) -> Counts:
        """How many scenarios there are, by status, and how many are of former versions of the study."""
        by_status = dict(self.rows("SELECT status, count(*) FROM results GROUP BY status ORDER BY status"))
        ((total,),) = self.rows("SELECT count(*) FROM scenarios")
        ((former,),) = self.rows("SELECT count(*) FROM finished WHERE key NOT IN (SELECT key FROM scenarios)")
        return Counts(total=total, by_status=by_status, num_former=former)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query of ours."""
        with _explained(self.path):
            found: list[tuple[Any, ...]] = self._connection.execute(sql, list(values)).fetchall()
            return found

    def asked(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Column names and rows of a user's query.

        Raises: ScenarioError with DuckDB's words if it can't be answered
        """
        try:
            with _explained(self.path, own=False):
                cursor = self._connection.execute(sql)
                if cursor is None or cursor.description is None:
                    raise ScenarioError("the query is empty", hint='for example "SELECT * FROM results"')
                return [str(column[0]) for column in cursor.description], cursor.fetchall()
        except duckdb().Error as error:
            raise ScenarioError(
                f"DuckDB can't answer: {error}", hint="columns: " + ", ".join(("position", *COLUMNS))
            ) from None

    def export(self, target: Path) -> int:
        """Writes the results, ordered by position, as Parquet or CSV; a file that stands there is replaced at the end.

        Returns: how many rows
        Raises: ScenarioError for another suffix, or if it can't be written
        """
        kind = EXPORTS.get(target.suffix.lower())
        if kind is None:
            raise ScenarioError(f"{target} has no known suffix", allowed=", ".join(EXPORTS))
        if not target.parent.is_dir():
            raise ScenarioError(f"no folder {target.parent}", where=str(target))
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        quoted = str(partial).replace("'", "''")
        try:
            with _explained(target):
                self._connection.execute(f"COPY (SELECT * FROM results ORDER BY position) TO '{quoted}' ({kind})")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return int(self.rows("SELECT count(*) FROM results")[0][0])

    def _keys(self, sql: str) -> list[str]:
        return [key for (key,) in self._connection.execute(sql).fetchall()]


def open_store(path: Path, *, write: bool = False) -> Store:
    """Opens the store of a study; `write` makes one where there is none.

    Raises: ScenarioError if another process writes it, it is damaged, or no store of a study
    """
    if path.is_dir():
        raise ScenarioError(f"{path} is a folder, not a file", hint="give a file with --store, such as study.duckdb")
    if not path.exists():
        if not write:
            raise ScenarioError(f"no file {path}", hint=_others(path))
        _create(path)
    with _explained(path):
        store = Store(path, duckdb().connect(str(path), read_only=not write, config=_SETTINGS))
    try:
        _check_format(store)
    except BaseException:
        store.__exit__()
        raise
    return store


def _create(path: Path) -> None:
    """A new file under another name first: a process killed here leaves no half of a store behind."""
    if not path.parent.is_dir():
        raise ScenarioError(f"no folder {path.parent}", where=str(path))
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _explained(path):
            connection = duckdb().connect(str(new), config=_SETTINGS)
            connection.execute(_CREATE)
            connection.close()
        # a link, not a rename: of two processes that begin at once the second must not replace the first one's file
        with suppress(FileExistsError):
            os.link(new, path)
    finally:
        new.unlink(missing_ok=True)


def _check_format(store: Store) -> None:
    tables = {name for (name,) in store.rows("SELECT table_name FROM information_schema.tables")}
    if not {"study", "scenarios", "finished", "results"} <= tables:
        raise ScenarioError(f"{store.path} is a DuckDB file, but no study", hint="give another file with --store")
    found = store.rows("SELECT format FROM study")
    if found and found[0][0] != FORMAT:
        raise ScenarioError(
            f"{store.path} has format {found[0][0]}", allowed=str(FORMAT), hint="another version of ultratwin wrote it"
        )


def _others(path: Path) -> str:
    try:
        names = sorted(each.name for each in path.parent.glob("*.duckdb"))
    except OSError:
        names = []
    begin = "`ultratwin study run FILE.toml` makes it"
    return f"studies here: {', '.join(names[:10])}; {begin}" if names else begin


def duckdb() -> Any:
    """The module; it is an extra.

    Raises: ScenarioError if it is not installed
    """
    try:
        return importlib.import_module("duckdb")
    except ImportError:
        raise ScenarioError("studies are kept with DuckDB, which is not installed",
                            hint="pip install 'ultratwin[study]'") from None  # fmt: skip


@contextmanager
def _explained(path: Path, *, own: bool = True) -> Iterator[None]:
    """DuckDB's complaints about a file as errors of ours; all of them if the statements are our `own`."""
    module = duckdb()
    try:
        yield
    except module.Error as error:
        text = str(error)
        if locked := _LOCKED.search(text):
            raise ScenarioError(
                f"{path} is in use by another process ({locked[1]})",
                hint="a study is running there: wait for it, or stop it with Ctrl-C; what is finished stays",
            ) from None
        if _FULL.search(text):
            raise ScenarioError(
                f"the disk is full; {path} can't be written", where=text.splitlines()[0][:200],
                hint="what is finished is kept: make room and run the same command again",
            ) from None  # fmt: skip
        severe = module.IOException | module.FatalException | module.InternalException
        if not own and not isinstance(error, severe) and not _CORRUPT.search(text):
            raise
        raise _damaged(path, text) from None


def _damaged(path: Path, text: str) -> ScenarioError:
    return ScenarioError(
        f"{path} can't be used, it may be damaged", where=text.splitlines()[0][:300],
        hint="nothing was deleted. Restore a copy; or move the file (and its .wal) away and run the study again, "
        "which computes every scenario anew",
    )  # fmt: skip


def _asked(scenario: Scenario) -> dict[str, Any]:
    """The question as columns."""
    question = scenario.question
    layout: dict[str, Any] = dict(sorted(question.layout.items()))
    if "recompute" in layout:
        layout["recompute"] = RECOMPUTE[layout["recompute"]]
    if "schedule" in layout:
        layout["schedule"] = SCHEDULE_NAMES[layout["schedule"]]
    return {
        "key": scenario.key,
        "model": str(getattr(question.model, "id", question.model)),
        "system": str(getattr(question.system, "id", question.system)),
        "chips": question.chips,
        "tokens": question.tokens,
        "precision": question.precision,
        "framework": question.framework or None,
        "seq_length": question.seq_length,
        "global_batch_size": question.global_batch_size,
        "objective": question.objective,
        "seed": question.seed,
        "region": question.region,
        "layout": json.dumps(layout) if layout else None,
    }


__all__ = ["COLUMNS", "EXPORTS", "Counts", "Store", "duckdb", "open_store"]
