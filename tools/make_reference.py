"""Writes docs/reference/cli.md from the command line's own help, and docs/reference/catalogue.md from the schema.

python tools/make_reference.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

from ultratwin.catalogue import schema
from ultratwin.catalogue.facts import RANGED, STATUSES
from ultratwin.catalogue.schema import (
    ENTRY_TYPES,
    FIGURES,
    REQUIRED,
    DiffusionConfig,
    Entry,
    ReadingEntry,
    Scenario,
)

PARTS: Final[dict[str, tuple[type[Any], ...]]] = {
    "claims": (ReadingEntry, Scenario),
    "diffusion": (DiffusionConfig,),
}
"""What entries of a kind hold several of, beside figures."""
OUT: Final = Path(__file__).parents[1] / "docs/reference"
VERBS: Final = (
    "train", "plan train", "serve", "plan serve", "compare", "study", "cluster", "collective", "power", "diffuse",
    "claims", "catalogue", "validate",
)  # fmt: skip
CLI_HEAD: Final = """# Command line

What `--help` says; written by `tools/make_reference.py`, do not edit. Answers go to stdout, all else to stderr. Exit
codes: 0 done, 1 nothing feasible, 2 bad input, 70 a fault of Ultratwin itself.

Numbers may have a suffix (`15.6T` tokens, `4k` chips). Other tools' names of the same options are understood too, such
as `--tensor-model-parallel-size`, `--tp` or `--mbs` (`src/ultratwin/cli/spellings.py` lists them).
"""
CATALOGUE_HEAD: Final = """# What a catalogue file may hold

One TOML file per entry, `src/ultratwin/catalogue/data/<kind>/<id>.toml`; written from `catalogue/schema.py` by
`tools/make_reference.py`, do not edit. Loading is strict: an unknown key, a wrong dimension or a missing source is an
error that names the file and the key.

Every entry has `name`, and may have `aliases` (spellings that also find it), `note`, and the table `figures`. A figure
is `key = { value = 144, unit = "GiB", status = "published", source = "nd_trn3chip" }`, with one or more ids of
`sources.toml` or `sources-own.toml`, separated by blanks, as its source. It may have `low` and `high` (in `unit`),
`note`, `expression` (SI, over figures of the same file), `alternatives` (readings of other sources: value, unit,
status, source) and `preferred_because`.
"""


def help_text(*words: str) -> str:
    """What the real command says, 100 columns wide, without colour."""
    code = "from ultratwin.cli import main; main()"
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    ran = subprocess.run(
        [sys.executable, "-c", code, *words, "--help"], capture_output=True, text=True, check=True, env=environment
    )
    return "\n".join(line.rstrip() for line in ran.stdout.strip().splitlines())


def cli_page() -> str:
    """The help of the program and of each verb."""
    parts = [CLI_HEAD, f"\n```text\n{help_text()}\n```\n"]
    parts += [f"\n## ultratwin {verb}\n\n```text\n{help_text(*verb.split())}\n```\n" for verb in VERBS]
    return "".join(parts)


def figure_comments() -> dict[tuple[str, str], str]:
    """What schema.py remarks beside a figure, by kind and figure."""
    found, kind = {}, ""
    for line in Path(schema.__file__).read_text(encoding="utf-8").splitlines():
        if opened := re.fullmatch(r' {4}"(\w+)": \{.*', line):
            kind = opened[1]
        elif remark := re.fullmatch(r' {8}"(\w+)": [^#]*,  # (.+)', line):
            found[kind, remark[1]] = remark[2]
    return found


def catalogue_page() -> str:
    """The statuses, then each kind with its own keys and its figures."""
    lines = [CATALOGUE_HEAD, "| status | needs |", "|---|---|"]
    for status in STATUSES:
        needs = "low and high" if status in RANGED else "its expression" if status == "derived" else ""
        lines.append(f"| {status} | {needs} |")
    comments = figure_comments()
    for kind, entry in ENTRY_TYPES.items():
        lines += [f"\n## {kind}\n", " ".join((entry.__doc__ or "").split()), *_keys(entry)]
        for part in PARTS.get(kind, ()):
            lines += [f"\n### {part.__name__}\n", " ".join((part.__doc__ or "").split()), *_table(part.__annotations__)]
        lines += ["", "| figure | measures | |", "|---|---|---|"]
        for name, dimension in FIGURES[kind].items():
            remark = comments.get((kind, name), "")
            if name in REQUIRED.get(kind, ()):
                remark = f"required; {remark}" if remark else "required"
            lines.append(f"| `{name}` | {dimension} | {remark} |")
    return "\n".join(lines) + "\n"


def _keys(entry: type[Entry]) -> list[str]:
    """The keys that a kind has beside those of every entry."""
    own = {name: kind for name, kind in entry.__annotations__.items() if name not in Entry.__annotations__}
    return _table(own) if own else []


def _table(keys: Mapping[str, str]) -> list[str]:
    rows = [f"| `{name}` | {_allowed(str(annotation))} |" for name, annotation in keys.items()]
    return ["", "| key | is |", "|---|---|", *rows]


def _allowed(annotation: str) -> str:
    """A type as people say it; the words of a choice where it is one."""
    if annotation.startswith("Literal["):
        return ", ".join(re.findall(r"""["']([^"']+)["']""", annotation))
    choice = get_args(getattr(schema, annotation, None))
    if choice:
        return ", ".join(choice)
    said = {"str": "text", "bool": "true or false", "int": "a number", "int | None": "a number"}
    said |= {"tuple[str, ...]": "texts", "tuple[int, ...]": "numbers"}
    said |= {"dict[str, Any]": "a table", "dict[str, str]": "a table of texts"}
    said |= {"tuple[ReadingEntry, ...]": "tables, see below", "dict[str, Scenario]": "tables by name, see below"}
    return said.get(annotation, annotation)


def main() -> int:
    """Writes both pages."""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "cli.md").write_text(cli_page(), encoding="utf-8")
    (OUT / "catalogue.md").write_text(catalogue_page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
