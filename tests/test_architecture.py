"""The import graph: arrows point left only, no circles, and nothing heavy is loaded before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import ultratwin

ROOT = Path(ultratwin.__file__).parent
REPOSITORY = Path(__file__).parents[1]
ORDER = (
    ("errors",), ("units",), ("catalogue",), ("hardware",), ("workload",), ("mapping",), ("timing",), ("simulation",),
    ("planning",), ("validation", "report"), ("api",), ("cli",),
)  # fmt: skip
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
FILES = {
    ".".join(("ultratwin", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}


def is_type_checking(node: ast.AST) -> bool:
    """`if TYPE_CHECKING:`: its imports never run."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(node: ast.AST) -> list[ast.AST]:
    """A tree's nodes, those that are for the type checker left out; imports inside functions count."""
    if is_type_checking(node):
        return []
    return [node, *(found for child in ast.iter_child_nodes(node) for found in statements(child))]


def imported(tree: ast.AST) -> set[str]:
    """Modules of ultratwin that a tree imports. `from package import name` is the module `name` where there is one."""
    found: set[str] = set()
    for node in statements(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            for alias in node.names:
                submodule = f"{module}.{alias.name}"
                found.add(submodule if submodule in FILES else module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {module for module in found if module.partition(".")[0] == "ultratwin"}


GRAPH = {module: imported(ast.parse(path.read_text(encoding="utf-8"))) for module, path in FILES.items()}


def package(module: str) -> str:
    """The part of ultratwin that a module belongs to; "" is the package itself."""
    return module.split(".")[1] if "." in module else ""


def wrong_arrows(graph: dict[str, set[str]]) -> list[str]:
    """Imports from a package that stands further right, or beside it. Anybody may ask the package for its version."""
    return [
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in sorted(others)
        if package(module) and package(other) not in ("", package(module))
        and RANK[package(other)] >= RANK[package(module)]
    ]  # fmt: skip


def test_every_package_has_a_place_in_the_order_and_on_the_map() -> None:
    found = {package(module) for module in FILES} - {""}
    assert found == RANK.keys()
    page = (REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8")
    (line,) = [line for line in page.splitlines() if " <- " in line]
    assert [tuple(names.strip().split(", ")) for names in line.split("<-")] == [tuple(names) for names in ORDER]


def test_imports_point_left_only() -> None:
    assert wrong_arrows(GRAPH) == []


def test_the_walk_would_notice() -> None:
    assert wrong_arrows({"ultratwin.timing.step": {"ultratwin.planning.search"}})
    assert imported(ast.parse("def f():\n    from ultratwin.cli import train\n")) == {"ultratwin.cli.train"}
    assert imported(ast.parse("if TYPE_CHECKING:\n    import ultratwin.api.training\n")) == set()


def test_no_module_imports_itself_in_a_circle() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize(
    ("imports", "unloaded"),
    [
        ("ultratwin", {"numpy", "msgspec", "rich", "cyclopts", "scipy", "huggingface_hub"}),
        (
            "ultratwin.api.training",
            {"rich", "cyclopts", "scipy", "pandas", "huggingface_hub", "numba", "duckdb", "ray"},
        ),
        ("ultratwin.api.serving", {"rich", "cyclopts", "scipy", "numba"}),
        ("ultratwin.cli", {"numpy", "rich", "cyclopts", "scipy", "numba", "duckdb", "ray"}),
    ],
)
def test_importing_loads_nothing_heavy(imports: str, unloaded: set[str]) -> None:
    code = f"import sys, {imports}; print(*sorted({unloaded!r} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
