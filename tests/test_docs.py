"""The pages: links lead somewhere, Python examples are true, the commands shown run."""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (page.parent / link).exists(), link


def test_the_tutorial_is_true() -> None:
    text = (ROOT / "docs/tutorial/first-plan.md").read_text(encoding="utf-8")
    example = doctest.DocTestParser().get_doctest(text, {}, "first-plan", None, 0)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0
    joined = re.sub(r"\\\n +", "", text)
    commands = re.findall(r"^    \.venv/bin/ultratwin (.+)$", joined, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        words = [Path(sys.executable).with_name("ultratwin"), *shlex.split(command)]
        ran = subprocess.run(words, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr


def test_readme_shows_the_scoreboard() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("| training") >= 3
    assert (ROOT / "docs/images/train.svg").stat().st_size > 10_000
