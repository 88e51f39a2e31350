"""Runs the console blocks of README.md and docs, and writes what they print below each command.

    python tools/make_outputs.py [PAGE.md ...]

Fails at the first command that fails. Blocks that show no output stay without.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from pages import Block, blocks, commands

ROOT: Final = Path(__file__).parents[1]
ULTRATWIN: Final = Path(sys.executable).with_name("ultratwin")


def output(command: str, folder: Path) -> str:
    """What a command prints.

    Raises: SystemExit if it fails
    """
    words = shlex.split(command)
    ran = subprocess.run(
        [ULTRATWIN, *words[1:]], capture_output=True, text=True, check=False, cwd=folder,
        env=os.environ | {"COLUMNS": "100"},
    )  # fmt: skip
    if ran.returncode:
        raise SystemExit(f"{command}: exit code {ran.returncode}\n{ran.stderr}")
    return ran.stdout


def filled(block: Block, folder: Path) -> str:
    """The block with the commands' present output."""
    found = commands(block)
    if not any(command.startswith("ultratwin ") for _, command in found):
        return block.text
    shows = "".join(written for written, _ in found) != block.text or block.lines_shown is not None
    parts = []
    for written, command in found:
        parts.append(written)
        if not command.startswith("ultratwin "):
            continue
        lines = output(command, folder).splitlines()
        if shows:
            shown = lines if block.lines_shown is None else lines[: block.lines_shown]
            parts += [f"{line}\n" for line in shown]
            parts += ["...\n"] if len(shown) < len(lines) else []
    return "".join(parts)


def rewritten(page: str) -> str:
    """The page with all its console blocks filled. Python blocks run where they stand: they may write files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "examples").symlink_to(ROOT / "examples")
        (folder / "src").symlink_to(ROOT / "src")
        found, program = [], ""
        for block in blocks(page):
            if block.language == "python":
                program = "\n".join(
                    each.text for each in blocks(page) if each.language == "python" and each.line <= block.line
                )
                subprocess.run([sys.executable, "-c", program], check=True, cwd=folder, capture_output=True)
            elif block.language == "console":
                found.append((block, filled(block, folder)))
    for block, text in reversed(found):
        page = page[: block.start] + text + page[block.end :]
    return page


def main() -> int:
    """Rewrites the given pages, or all."""
    named = [Path(each) for each in sys.argv[1:]]
    for path in named or sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]):
        text = path.read_text(encoding="utf-8")
        found = rewritten(text)
        if found != text:
            path.write_text(found, encoding="utf-8")
            print(f"{path}: outputs changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
