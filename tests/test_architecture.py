"""The import graph: arrows point left only, and nothing heavy is loaded before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import ultratwin

ROOT = Path(ultratwin.__file__).parent
ORDER = (
    ("errors",), ("units",), ("catalogue",), ("hardware",), ("workload",), ("mapping",), ("timing",), ("planning",),
    ("validation", "report"), ("api",), ("cli",),
)  # fmt: skip
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}


def imports(path: Path) -> set[str]:
    """Packages of ultratwin that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ultratwin."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("ultratwin.")}
    return found


def test_imports_point_left_only() -> None:
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        package = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if package == "__init__":
            continue
        wrong += [
            f"{path.relative_to(ROOT)} imports {other}"
            for other in imports(path)
            if other != package and RANK[other] >= RANK[package]
        ]
    assert not wrong, "\n".join(wrong)


def test_importing_ultratwin_loads_nothing_heavy() -> None:
    code = "import sys, ultratwin; print(sorted({'numpy', 'rich', 'msgspec', 'cyclopts'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
