"""Writes docs/images/train.svg: the demo's command run in a terminal, and what it shows there.

python tools/make_picture.py
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

OUT: Final = Path(__file__).parents[1] / "docs/images/train.svg"
COMMAND: Final = (
    "train", "meta-llama/Llama-3.1-405B", "--system", "trn3-gen2-ultraserver", "--chips", "4608", "--tokens", "15.6T",
)  # fmt: skip
WIDTH: Final = 104


def shown_in_a_terminal(*arguments: str) -> str:
    """What the real command writes to a terminal, colours included.

    Raises: SystemExit if it fails
    """
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(WIDTH), "LINES": "60", "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    program = Path(sys.executable).with_name("ultratwin")
    with subprocess.Popen([program, *arguments], stdout=theirs, env=environment) as process:
        os.close(theirs)
        parts = []
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux says so when the other end is closed
                break
            if not part:
                break
            parts.append(part)
    os.close(ours)
    if process.returncode:
        raise SystemExit(f"the command failed with exit code {process.returncode}")
    return b"".join(parts).decode().replace("\r\n", "\n")


def main() -> int:
    """Runs the command and exports what it showed."""
    shown = shown_in_a_terminal(*COMMAND)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(Text("$ ultratwin " + " ".join(COMMAND), style="bold"), soft_wrap=False)
        console.print()
        console.print(Text.from_ansi(shown.rstrip("\n")))
        picture = console.export_svg(title="ultratwin", theme=SVG_EXPORT_THEME, unique_id="train")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("\n".join(line.rstrip() for line in picture.splitlines()) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
