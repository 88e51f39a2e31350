"""Extracts the names of a training framework's flags or keys, with type and choices, from a git mirror.

    python tools/extract_launch_flags.py megatron /path/to/repo.git [COMMIT] > tests/launch_flags/megatron.tsv

The framework's code is parsed, not run. Each line is a name, its type and its choices (joined by |); the first says
which commit of which repository was read. The launch tests hold what Ultratwin writes against these lists.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A flag or key. `kind`: int, float, str, bool, list, table, or flag for one without a value."""

    name: str
    kind: str = "str"
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """A git directory at one commit."""

    path: Path
    commit: str
    trees: dict[str, ast.Module] = field(default_factory=dict)

    def git(self, *words: str) -> str:
        """Output of a git command."""
        done = subprocess.run(["git", f"--git-dir={self.path}", *words], capture_output=True, check=True)
        return done.stdout.decode("utf-8")

    def files(self, folder: str, suffix: str) -> list[str]:
        """Paths below a folder that end in a suffix."""
        listed = self.git("ls-tree", "-r", "--name-only", self.commit, folder).splitlines()
        return [each for each in listed if each.endswith(suffix)]

    def text(self, path: str) -> str:
        """A file's text."""
        return self.git("show", f"{self.commit}:{path}")

    def tree(self, path: str) -> ast.Module:
        """A file's syntax tree."""
        if path not in self.trees:
            self.trees[path] = ast.parse(self.text(path))
        return self.trees[path]


def literal(node: ast.expr | None) -> Any:
    """The value of a literal, None for anything else."""
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def annotation(node: ast.expr, enums: dict[str, tuple[str, ...]]) -> tuple[str, tuple[str, ...]]:
    """Kind and choices of an annotation: X | None and Optional[X] count as X."""
    if isinstance(node, ast.BinOp):
        sides = [each for each in (node.left, node.right) if not _is_none(each)]
        found = [annotation(each, enums) for each in sides]
        if {kind for kind, _ in found} == {"int", "float"}:
            return "float", ()
        return next((each for each in found if each[1]), found[0])
    if isinstance(node, ast.Subscript):
        name = ast.unparse(node.value).rpartition(".")[2]
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name == "Literal":
            values = [literal(each) for each in parts]
            return ("int" if isinstance(values[0], int) else "str"), tuple(str(each) for each in values)
        if name in ("Optional", "Union"):
            return annotation(parts[0], enums)
        return ("list" if name in ("list", "List", "tuple", "Tuple") else "str"), ()
    name = ast.unparse(node).rpartition(".")[2]
    if name in enums:
        return "str", enums[name]
    simple = {"PositiveInt": "int", "NonNegativeInt": "int", "PositiveFloat": "float", "NonNegativeFloat": "float"}
    return simple.get(name, name if name in ("int", "float", "str", "bool", "list") else "str"), ()


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def classes(mirror: Mirror, paths: list[str]) -> dict[str, ast.ClassDef]:
    """Every class of some files by name; the first of a name counts."""
    found: dict[str, ast.ClassDef] = {}
    for path in paths:
        for node in ast.walk(mirror.tree(path)):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, node)
    return found


def enums_of(known: dict[str, ast.ClassDef]) -> dict[str, tuple[str, ...]]:
    """Values of every enumeration among classes."""
    return {
        name: tuple(str(literal(each.value)) for each in node.body if isinstance(each, ast.Assign))
        for name, node in known.items()
        if any(ast.unparse(base).endswith("Enum") for base in node.bases)
    }


def fields_of(known: dict[str, ast.ClassDef], name: str) -> Iterator[ast.AnnAssign]:
    """Annotated fields of a class and its bases."""
    node = known[name]
    for base in node.bases:
        inherited = ast.unparse(base).rpartition(".")[2]
        if inherited in known:
            yield from fields_of(known, inherited)
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            yield each


def megatron(mirror: Mirror) -> list[Entry]:
    """Flags of megatron/training/arguments.py: those it adds itself, and those it makes of dataclasses."""
    tree = mirror.tree("megatron/training/arguments.py")
    known = classes(mirror, [*mirror.files("megatron/training/config", ".py"), *mirror.files("megatron/core", ".py")])
    enums: dict[str, tuple[str, ...]] = {}
    for name, node in known.items():
        if any(ast.unparse(base).endswith("Enum") for base in node.bases):
            enums[name] = tuple(str(ast.unparse(each.targets[0])) for each in node.body if isinstance(each, ast.Assign))
    found: list[Entry] = []
    for function in (each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)):
        lists = {
            ast.unparse(each.targets[0]): literal(each.value)
            for each in ast.walk(function)
            if isinstance(each, ast.Assign)
        }
        for call in (each for each in ast.walk(function) if isinstance(each, ast.Call)):
            words = {each.arg: each.value for each in call.keywords if each.arg}
            called = ast.unparse(call.func).rpartition(".")[2]
            if called == "add_argument":
                names = [literal(each) for each in call.args]
                found += [argument(name, words) for name in names if isinstance(name, str) and name.startswith("--")]
            if called == "ArgumentGroupFactory":
                exclude = words.get("exclude")
                skipped = (lists.get(ast.unparse(exclude)) or literal(exclude) or []) if exclude is not None else []
                of_class = ast.unparse(call.args[0])
                for each in fields_of(known, of_class):
                    if ast.unparse(each.target) not in skipped:
                        found += dataclass_flags(each, enums)
    return found


def argument(name: str, words: dict[str, ast.expr]) -> Entry:
    """A flag from the keywords of add_argument."""
    if str(literal(words.get("action"))).startswith("store_"):
        return Entry(name=name, kind="flag")
    kind = ast.unparse(words["type"]) if "type" in words else "str"
    if "nargs" in words:
        kind = "list"
    choices = tuple(str(each) for each in literal(words.get("choices")) or ())
    return Entry(name=name, kind=kind if kind in ("int", "float", "list", "bool") else "str", choices=choices)


def dataclass_flags(each: ast.AnnAssign, enums: dict[str, tuple[str, ...]]) -> list[Entry]:
    """The flags that Megatron's factory makes of one field."""
    name = ast.unparse(each.target)
    kind, choices = annotation(each.annotation, enums)
    default, meta = literal(each.value), {}
    if isinstance(each.value, ast.Call):
        words = {word.arg: word.value for word in each.value.keywords if word.arg}
        default = literal(words.get("default"))
        if literal(words.get("init")) is False:
            return []
        meta = (literal(words.get("metadata")) or {}).get("argparse_meta", {})
        text = ast.unparse(words["metadata"]) if "metadata" in words else ""
        if not meta and (listed := re.search(r"'arg_names': (\[[^\]]*\])", text)):
            meta = {"arg_names": ast.literal_eval(listed.group(1))}
    flag = "--" + name.replace("_", "-")
    names = meta.get("arg_names", [flag])
    if kind == "bool":
        if default is True and "arg_names" not in meta:
            names = [flag.replace("--", "--no-", 1), flag.replace("--", "--disable-", 1)]
        return [Entry(name=each_name, kind="flag") for each_name in names]
    kind = "list" if "nargs" in meta else kind
    return [Entry(name=each_name, kind=kind, choices=choices) for each_name in names]


def yaml_keys(text: str) -> Iterator[tuple[str, str, str]]:
    """Dotted key, value and comment of every line of a block YAML file."""
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        match = re.match(r"^( *)([A-Za-z_]\w*):(?:\s+([^#]*?))?\s*(#.*)?$", line)
        if not match:
            continue
        indent = len(match.group(1))
        path = [each for each in path if each[0] < indent] + [(indent, match.group(2))]
        yield ".".join(key for _, key in path), (match.group(3) or "").strip(), match.group(4) or ""


def yaml_kind(value: str) -> str:
    """Kind of a YAML value."""
    if not value:
        return "table"
    if value.lower() in ("true", "false"):
        return "bool"
    if value.startswith("["):
        return "list"
    if re.fullmatch(r"[-+]?[\d_]+", value):
        return "int"
    if re.fullmatch(r"[-+]?[\d_]*\.?[\d_]*(e[-+]?\d+)?", value.lower()):
        return "float"
    return "any" if value == "null" or "${" in value else "str"


def neuronx_distributed(mirror: Mirror) -> list[Entry]:
    """Keys of the example configurations, and those that the library reads beside them."""
    found: dict[str, Entry] = {}
    for path in mirror.files("examples/conf", ".yaml"):
        for key, value, comment in yaml_keys(mirror.text(path)):
            listed = re.search(r"\[('[^\]]*)\]", comment)
            choices = tuple(re.findall(r"'?([\w.]+)'?", listed.group(1))) if listed else ()
            known = found.get(key)
            if known is None or (choices and not known.choices) or known.kind == "any":
                found[key] = Entry(name=key, kind=yaml_kind(value), choices=choices or (known.choices if known else ()))
    for path in mirror.files("src", ".py"):
        text = mirror.text(path)
        for part, key in re.findall(r"(?:self\.config|cfg)\.([\w.]+)\.get\(\s*['\"](\w+)", text):
            found.setdefault(f"{part}.{key}", Entry(name=f"{part}.{key}", kind="any"))
        for key in re.findall(r"self\.trainer\.(lnc)\b", text):
            found.setdefault(f"trainer.{key}", Entry(name=f"trainer.{key}", kind="any"))
        for key in re.findall(r"get_attribute_from_cfg\(\s*[\w.]+,\s*['\"](\w+)", text):
            found.setdefault(f"*.{key}", Entry(name=f"*.{key}", kind="any"))
    for name, values in re.findall(r"\*\*([\w.]+)\*\*(?:(?!\n\*\*).)*?\*\*Possible Values\*\*: (.*)",
                                   mirror.text("docs/general/config_overview.rst"), flags=re.DOTALL):  # fmt: skip
        key = f"model.{name}"
        choices = tuple(re.findall(r"``(\w+)``", values.split("\n")[0]))
        if key in found and choices and len(choices) < 5:
            found[key] = Entry(name=key, kind=found[key].kind, choices=choices)
    return list(found.values())


def maxtext(mirror: Mirror) -> list[Entry]:
    """Keys of base.yml, with types and choices of the configuration's classes."""
    root = "src/maxtext"
    known = classes(mirror, [f"{root}/configs/types.py", f"{root}/common/common_types.py"])
    enums = enums_of(known)
    declared: dict[str, Entry] = {}
    for name in known:
        for each in fields_of(known, name):
            kind, choices = annotation(each.annotation, enums)
            key = ast.unparse(each.target)
            declared.setdefault(key, Entry(name=key, kind=kind, choices=choices))
    policies = re.findall(r"remat_policy [!=]= \"(\w+)\"", mirror.text(f"{root}/layers/decoders.py"))
    policies += re.findall(r"'(\w+)'", " ".join(re.findall(r"# Choose 'remat_policy'[^\n]*\n[^\n]*",
                                                             mirror.text(f"{root}/configs/base.yml"))))  # fmt: skip
    policies = [each for each in policies if each != "remat_policy"]
    declared["remat_policy"] = Entry(name="remat_policy", choices=tuple(dict.fromkeys(policies)))
    found = {}
    for key, value, _ in yaml_keys(mirror.text(f"{root}/configs/base.yml")):
        found[key] = declared.get(key, Entry(name=key, kind=yaml_kind(value)))
    found["base_config"] = Entry(name="base_config")
    return list(found.values())


def torchtitan(mirror: Mirror) -> list[Entry]:
    """Keys of the TOML, dotted; and the arguments of the models' classes, as Class(argument)."""
    known = classes(mirror, mirror.files("torchtitan/config", ".py"))

    def walk(name: str, prefix: str) -> Iterator[Entry]:
        for each in fields_of(known, name):
            key = f"{prefix}{ast.unparse(each.target)}"
            of_class = ast.unparse(each.annotation)
            if of_class in known:
                yield Entry(name=key, kind="table")
                yield from walk(of_class, f"{key}.")
            else:
                kind, choices = annotation(each.annotation, {})
                yield Entry(name=key, kind=kind, choices=choices)

    found = list(walk("JobConfig", ""))
    models = classes(mirror, mirror.files("torchtitan/models", ".py"))
    for name in ("TransformerModelArgs", "Qwen3ModelArgs", "DeepSeekV3ModelArgs", "MoEArgs"):
        for each in fields_of(models, name):
            kind, choices = annotation(each.annotation, {})
            found.append(Entry(name=f"{name}({ast.unparse(each.target)})", kind=kind, choices=choices))
    converters = re.compile(r"register_model_converter\(\w+, \"([\w.]+)\"\)")
    names = [
        name for path in mirror.files("torchtitan/components", ".py") for name in converters.findall(mirror.text(path))
    ]
    found.append(Entry(name="model.converters[]", choices=tuple(sorted(names))))
    return found


EXTRACTORS: dict[str, tuple[str, Callable[[Mirror], list[Entry]]]] = {
    "megatron": ("NVIDIA/Megatron-LM", megatron),
    "neuronx-distributed": ("aws-neuron/neuronx-distributed-training", neuronx_distributed),
    "maxtext": ("AI-Hypercomputer/maxtext", maxtext),
    "torchtitan": ("pytorch/torchtitan", torchtitan),
}


def main(words: list[str]) -> int:
    """Prints one framework's list."""
    if len(words) not in (2, 3) or words[0] not in EXTRACTORS:
        print(f"usage: extract_launch_flags.py {'|'.join(EXTRACTORS)} GIT_DIRECTORY [COMMIT]", file=sys.stderr)
        return 2
    repository, extract = EXTRACTORS[words[0]]
    mirror = Mirror(path=Path(words[1]), commit=words[2] if len(words) == 3 else "HEAD")
    commit = mirror.git("rev-parse", f"{mirror.commit}^{{commit}}").strip()
    print(f"# {repository} {commit}")
    entries: dict[str, Entry] = {}
    for each in extract(mirror):
        entries.setdefault(each.name, each)
    for each in sorted(entries.values(), key=lambda entry: entry.name):
        print(f"{each.name}\t{each.kind}\t{'|'.join(each.choices)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
