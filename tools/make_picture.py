"""Writes docs/images/train.svg: the demo's answer as a terminal shows it.

python tools/make_picture.py
"""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console
from rich.text import Text

import ultratwin

OUT = Path(__file__).parents[1] / "docs/images/train.svg"
TITLE = "ultratwin train meta-llama/Llama-3.1-405B --system trn3-gen2-ultraserver --chips 4608 --tokens 15.6T"


def main() -> None:
    """Asks the demo's question and exports its table."""
    result = ultratwin.train("meta-llama/Llama-3.1-405B", "trn3-gen2-ultraserver", chips=4608, tokens=15.6e12)
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(Text(result.table()))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(console.export_svg(title=TITLE), encoding="utf-8")


if __name__ == "__main__":
    main()
