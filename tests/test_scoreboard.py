"""The scoreboard: statistics worked by hand, the shape of its JSON, bad files, and the gate on accuracy."""

from __future__ import annotations

import csv
import json
import os
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from ultratwin.errors import TruthError
from ultratwin.validation import truth_file
from ultratwin.validation.formats import FORMATS, Format, Metric
from ultratwin.validation.gate import breaches, measured_families, tightened
from ultratwin.validation.result import RowResult
from ultratwin.validation.rows import Row
from ultratwin.validation.scoreboard import Scoreboard, metrics_of, score, score_all
from ultratwin.validation.statistics import Errors, Verdicts, errors, source_weights, verdicts, weighted_median
from ultratwin.validation.truth_file import Truth, own_truth, read_truth

OWN = tuple(each for each in FORMATS if own_truth(each))
GATE = Path(__file__).parent / "gate.toml"


@pytest.fixture(scope="module")
def boards() -> list[Scoreboard]:
    return score_all()


# statistics


def test_pooled_statistics_by_hand() -> None:
    # source a: errors +10 %, -20 %, +30 %, -40 % with weight 1/4 each; source b: +50 % with weight 1
    predicted = np.array([110.0, 80.0, 130.0, 60.0, 150.0])
    weights = source_weights(["a", "a", "a", "a", "b"])
    assert weights.tolist() == [0.25, 0.25, 0.25, 0.25, 1.0]
    found = errors(predicted, np.full(5, 100.0), np.array([1.0, 0.0, 0.0, 0.0, 1.0]), weights)
    # |e| sorted 10 20 30 40 | 50: the first four weigh 1 of 2, so the half falls between 40 and 50
    assert found.median == pytest.approx(0.45)
    # mean |e|: (0.25 (10 + 20 + 30 + 40) + 50) / 2
    assert found.mean == pytest.approx(0.375)
    # e sorted -40 -20 10 30 | 50: the half falls between 30 and 50
    assert found.bias_median == pytest.approx(0.40)
    # mean e: (0.25 (10 - 20 + 30 - 40) + 50) / 2
    assert found.bias_mean == pytest.approx(0.225)
    assert found.worst == pytest.approx(0.5)
    assert found.inside_frac == pytest.approx((0.25 + 1) / 2)


def test_weighted_median_of_equal_weights_is_the_median() -> None:
    values = np.array([3.0, 1.0, 2.0, 10.0, 5.0])
    assert weighted_median(values, np.ones(5)) == 3.0
    assert weighted_median(values[:4], np.ones(4)) == 2.5
    assert weighted_median(np.array([1.0, 2.0, 9.0]), np.array([1.0, 1.0, 5.0])) == 9.0


def test_verdicts_by_hand() -> None:
    found = verdicts(np.array([1, 1, 0, 0, 1]), np.array([1, 0, 1, 0, 1]), np.array([1.0, 1.0, 1.0, 1.0, 2.0]))
    assert (found.yes_yes, found.yes_no, found.no_yes, found.no_no) == (2, 1, 1, 1)
    assert found.right_frac == pytest.approx(4 / 6)


# a format of our own, so that the scoreboard is tested apart from predictors


def _double(rows: list[Row]) -> list[RowResult]:
    """Predicts twice x; stumbles over a row that says so."""
    if any(row["x"] == "boom" for row in rows):
        raise ZeroDivisionError("boom")
    return [
        RowResult(
            id=row["id"], metric="y", unit="s", status="scored", predicted=2 * float(row["x"]), low=0.0,
            high=float(row["high"] or "inf"), measured=float(row["y"]), groups={"source": row["who"]},
        )
        for row in rows
    ]  # fmt: skip


TOY = Format(
    name="toy", columns=("x", "y"), predict=_double, metrics=(Metric(name="y", unit="s"),), source="source",
    groups=(("source", "source"),), family=("source",),
)  # fmt: skip


def _toy(*rows: tuple[str, str, str, str]) -> Scoreboard:
    held = tuple(dict(zip(("id", "x", "y", "who"), row, strict=True)) | {"high": "100"} for row in rows)
    return score(Truth(path="dir/toy.csv", format=TOY, rows=held))


def test_json_has_the_promised_shape_and_is_deterministic() -> None:
    board = _toy(("a", "1", "2.5", "p"), ("b", "boom", "1", "p"), ("c", "2", "4", "q"))
    found = json.loads(board.to_json())
    assert list(found) == ["rows", "summary"]
    assert [list(each) for each in found["rows"]] == [
        ["id", "metric", "predicted", "low", "high", "unit", "status", "reason"]
    ] * 3
    assert [(each["id"], each["predicted"], each["status"]) for each in found["rows"]] == [
        ("a", 2.0, "scored"), ("b", None, "skipped"), ("c", 4.0, "scored"),
    ]  # fmt: skip
    assert "ZeroDivisionError: boom" in found["rows"][1]["reason"]
    assert found["summary"]["rows"] == {"scored": 2, "rejected": 0, "skipped": 1}
    assert found["summary"]["metrics"]["y"]["pooled"]["median"] == pytest.approx(0.1)
    assert board.to_json() == _toy(("a", "1", "2.5", "p"), ("b", "boom", "1", "p"), ("c", "2", "4", "q")).to_json()


def test_numbers_that_json_lacks_become_skipped_rows() -> None:
    board = _toy(("a", "nan", "2", "p"), ("b", "1", "2", "p"))
    assert board.rows[0].status == "skipped"
    assert board.rows[0].predicted is None
    assert board.summaries[0].pooled == Errors(
        num_rows=1, median=0.0, mean=0.0, worst=0.0, bias_median=0.0, bias_mean=0.0, inside_frac=1.0
    )


def test_table_is_readable_without_colour_and_names_the_worst_row() -> None:
    text = _toy(("good", "1", "2", "p"), ("bad", "9", "2", "q")).table()
    assert "\x1b" not in text
    assert "bad" in text
    assert "+800.0 %" in text


# the files


@pytest.mark.parametrize("form", OWN, ids=lambda each: each.name)
def test_every_own_file_is_told_by_its_columns(form: Format) -> None:
    path = own_truth(form)
    assert path is not None
    truth = read_truth(path)
    assert truth.format is form
    assert not truth.broken


def test_formats_without_an_own_file_are_those_of_collections_that_own_files_are_made_from() -> None:
    assert [each.name for each in FORMATS if each not in OWN] == ["power_cost"]


def test_own_files_stay_small() -> None:
    assert sum(path.stat().st_size for form in FORMATS if (path := own_truth(form))) < 6_000_000


def _head(name: str, count: int) -> list[dict[str, str]]:
    path = own_truth(next(form for form in FORMATS if form.name == name))
    assert path is not None
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        return [row for row, _ in zip(reader, range(count), strict=False)]


def _written(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("form", OWN, ids=lambda each: each.name)
def test_rows_with_other_columns_and_without_ids_are_named_by_their_line(form: Format, tmp_path: Path) -> None:
    rows = _head(form.name, 6)
    for row in rows:
        row.pop("id", None)
        row["a column of the future"] = "?"
    board = score(read_truth(_written(tmp_path / "held.csv", rows)))
    assert board.format is form
    published = [(str(line), metric.name) for line, row in enumerate(rows, 2) for metric in metrics_of(form, row)]
    assert [(each.id, each.metric) for each in board.rows] == published
    assert all(each.reason for each in board.rows if each.status != "scored")


def test_line_numbers_count_blank_lines_and_lines_inside_cells(tmp_path: Path) -> None:
    columns = ("m", "n", "k", "dtype", "backend", "lnc", "instance", "note")
    path = tmp_path / "t.csv"
    path.write_text(f'{",".join(columns)}\n1,1,1,bf16,,2,trn3,"two\nlines"\n\n1,1,1,bf16,,2,trn3,x\n')
    assert [row["id"] for row in read_truth(path).rows] == ["2", "5"]


def test_broken_rows_are_counted_and_named(tmp_path: Path) -> None:
    rows = _head("kernels", 4)
    path = _written(tmp_path / "k.csv", rows)
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[2] = f"{rows[1]['id']},short"
    lines.insert(4, ",".join(["x"] * 99))
    path.write_text("\n".join(lines), encoding="utf-8")
    board = score(read_truth(path))
    assert [each.id for each in board.rows] == [rows[0]["id"], rows[1]["id"], rows[2]["id"], "x", rows[3]["id"]]
    assert board.rows[1].status == board.rows[3].status == "skipped"
    assert board.rows[1].reason == f"line 3 has 2 cells, the header has {len(rows[0])}"
    assert "line 5 has 99 cells" in board.rows[3].reason


@pytest.mark.parametrize("value", ["", "0", "-1", "nan", "inf", "1e400", "x", "1e18", "0.5", " ", "\x00", "9" * 400])
@pytest.mark.parametrize("form", OWN, ids=lambda each: each.name)
def test_broken_cells_never_crash_or_drop_a_row(form: Format, value: str, tmp_path: Path) -> None:
    # one row per column, with that column broken
    rows = []
    for row in _head(form.name, 1):
        rows = [{**row, "id": column, column: value} for column in row if column != "id"]
    board = score(Truth(path="t", format=form, rows=tuple(rows)))
    assert [each.id for each in board.rows] == [row["id"] for row in rows for _ in metrics_of(form, row)]
    json.loads(board.to_json())
    assert all(each.reason for each in board.rows if each.status == "skipped")


HEADER = ",".join(next(form for form in FORMATS if form.name == "collectives").columns)
BAD_FILES = [
    (b"", "the file is empty"),
    (b"  \n \n", "the file is empty"),
    (b"\xff\xfea\x00", "UTF-16"),
    (HEADER.encode() + b"\nM\xfcnchen,1,2,3,4,5\n", r"byte 0xfc on line 2 is not UTF-8"),
    (HEADER.encode() + b"\n", "a header but no rows"),
    (HEADER.encode() + b'\n"open quote,1', "is not CSV"),
    (HEADER.encode() + b'\n"' + b"x" * 200_000 + b'",1,2,3,4,5', "is not CSV"),
    (b'{"rows": []}', "no known columns"),
    (b"\x89PNG\r\n\x1a\n\x00", "not UTF-8"),
    (HEADER.replace(",", ";").encode() + b"\n1;2", "not semicolons"),
    (HEADER.encode() + b",op\n1,2,3,4,5,6,7", "columns appear twice: op"),
    (HEADER.replace("message_bytes", "size").encode() + b"\n1", "collectives, needs the columns message_bytes"),
]


@pytest.mark.parametrize(("data", "message"), BAD_FILES, ids=[message for _, message in BAD_FILES])
def test_bad_files_are_clear_errors(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(data)
    with pytest.raises(TruthError, match=message):
        read_truth(path)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    for path, message in ((tmp_path, "not a file"), (tmp_path / "none.csv", "No such file"), (Path("a\0b"), "null")):
        with pytest.raises(TruthError, match=message):
            read_truth(path)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.csv"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 10**9)
    with pytest.raises(TruthError, match="the file has 1,000 MB"):
        read_truth(path)
    assert truth_file.MAX_FILE_BYTES < 10**9


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    rows = _head("collectives", 2)
    path = _written(tmp_path / "c.csv", rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [row["id"] for row in read_truth(path).rows] == [row["id"] for row in rows]


# the project's own measurements


def test_no_own_row_is_dropped_and_none_stumbles(boards: list[Scoreboard]) -> None:
    assert [board.format for board in boards] == list(OWN)
    for board in boards:
        path = own_truth(board.format)
        assert path is not None
        assert len(board.rows) == sum(len(metrics_of(board.format, row)) for row in read_truth(path).rows)
        assert [each.reason for each in board.rows if each.reason.startswith("prediction failed")] == []
        assert all(isinstance(each.pooled, (Errors, Verdicts)) for each in board.summaries)


def test_gate(boards: list[Scoreboard]) -> None:
    limits = tomllib.loads(GATE.read_text(encoding="utf-8"))
    measured = measured_families(boards)
    assert limits.keys() >= measured.keys(), "new families: run tools/update_gate.py"
    assert [str(each) for each in breaches(measured, limits)] == []


def test_gate_fails_when_a_family_gets_worse_or_vanishes() -> None:
    old = {"f": {"rows": 10.0, "median": 0.1, "worst": 0.5}}
    assert breaches({"f": {"rows": 10, "median": 0.1, "worst": 0.5}}, old) == []
    worse = breaches({"f": {"rows": 9, "median": 0.11, "worst": 0.4}}, old)
    assert [each.figure for each in worse] == ["rows", "median"]
    assert [each.figure for each in breaches({}, old)] == ["rows", "median", "worst"]


def test_the_gate_only_tightens() -> None:
    old = {"f": {"rows": 10.0, "median": 0.1, "worst": 0.5}, "gone": {"median": 0.2}}
    new = tightened({"f": {"rows": 12, "median": 0.05, "worst": 0.9}, "g": {"rows": 3, "median": 0.2}}, old)
    assert new["f"] == {"rows": 12, "median": pytest.approx(0.055), "worst": 0.5}
    assert new["gone"] == {"median": 0.2}
    assert new["g"] == {"rows": 3, "median": pytest.approx(0.22)}


def test_replay(boards: list[Scoreboard]) -> None:
    """A refactor moves no prediction; any other change runs tools/make_replay.py and tells in the changelog."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
    from make_replay import predictions

    kept = json.loads((Path(__file__).parent / "replay.json").read_text(encoding="utf-8"))
    assert predictions(boards) == pytest.approx(kept, rel=1e-8)
