"""The pages: every code block runs, every link leads somewhere, what is generated is what the code says now."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from ultratwin import cli
from ultratwin.catalogue import loader
from ultratwin.catalogue.facts import Source

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LANGUAGES = {"python", "console", "toml", "text"}


def tool(name: str) -> ModuleType:
    """A script of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(f"tools_{name}", ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


pages = tool("pages")
WITH_BLOCKS = [page for page in PAGES if pages.blocks(page.read_text(encoding="utf-8"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name_of)
def test_every_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python blocks share one namespace per page; commands run where a clone's examples and sources are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for folder in ("examples", "src"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    namespace: dict[str, Any] = {"__name__": "page"}
    own_sources: dict[str, Source] = {}
    for block in pages.blocks(page.read_text(encoding="utf-8")):
        assert block.language in LANGUAGES, f"{page}:{block.line}"
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), namespace)
        elif block.language == "console":
            run_commands(page, block)
        elif block.language == "toml":
            load_toml(block.text, tmp_path, own_sources, monkeypatch)


def run_commands(page: Path, block: Any) -> None:
    """Runs the ultratwin commands of a block; of the others, checks that the Makefile has them."""
    found = pages.commands(block)
    assert found, f"{page}:{block.line}: no command"
    for _, command in found:
        program, *words = shlex.split(command)
        if program == "make":
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{words[0]}:", makefile, re.MULTILINE), command
        else:
            assert program == "ultratwin", command
            if not block.is_long or os.environ.get("ULTRATWIN_LONG"):
                assert cli.run(words) == 0, f"{page}:{block.line}: {command}"


def load_toml(text: str, folder: Path, own: dict[str, Source], monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads a block as strictly as the catalogue does; its first line says which file it is."""
    path = re.match(r"# catalogue/data/(\S+)\n", text)
    assert path is not None, "a toml block begins with '# catalogue/data/...'"
    if path[1].startswith("sources"):
        own |= msgspec.toml.decode(text, type=dict[str, Source])
        every = loader.sources() | own
        monkeypatch.setattr(loader, "sources", lambda: every)
    elif path[1].startswith("kernels/"):
        tomllib.loads(text)
    else:
        file = folder / Path(path[1]).name
        file.write_text(text, encoding="utf-8")
        assert loader.load_file(path[1].split("/")[0], file).figures


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in link:
            assert (page.parent / link).exists(), link
    named = re.findall(r"`((?:src|tools|tests|docs|examples)/[\w./-]+\.\w+|tools/\w+\.py)`", text)
    assert [each for each in named if not (ROOT / each).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_command_hides_from_the_tests(page: Path) -> None:
    """Commands and Python stand in fenced blocks, which are run, and not in indented ones, which are not."""
    hidden = re.findall(
        r"^ {4}(?:\$ |>>> |make |ultratwin |\.venv/).*$", page.read_text(encoding="utf-8"), re.MULTILINE
    )
    fenced = "".join(block.text for block in pages.blocks(page.read_text(encoding="utf-8")))
    assert [each for each in hidden if each not in fenced] == []


def test_reference_of_the_catalogue_is_the_schema() -> None:
    assert (ROOT / "docs/reference/catalogue.md").read_text(encoding="utf-8") == tool("make_reference").catalogue_page()


def test_reference_of_the_command_line_has_every_option() -> None:
    page = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    described, now = (set(re.findall(r"--[a-z][a-z-]+", text)) for text in (page, tool("make_reference").cli_page()))
    assert described == now


def test_readme_and_scoreboard_were_written_together() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    board = (ROOT / "docs/reference/scoreboard.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([\d,]+) \| ([\d.]+ %) \|", readme, re.MULTILINE)
    assert len(rows) >= 10
    halves = [row for row in rows if "half" in row[0]]
    assert len(halves) == 2
    missing = [row for row in rows if row not in halves and f"| {row[1]} | {row[2]} |" not in board]
    assert not missing, f"run `make docs`: {missing}"


def test_the_picture_is_a_real_answer() -> None:
    picture = (ROOT / "docs/images/train.svg").read_text(encoding="utf-8")
    for word in ("Llama-3.1-405B", "MFU", "runners-up"):
        assert word in picture, word
