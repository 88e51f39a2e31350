#!/usr/bin/env python
"""Lists the flags of serving engines, and the keys of what deploys them, for tests/launch_flags/serving/.

    python -m zipfile -e vllm-0.33.0-....whl un && tools/extract_serving_flags.py vllm un "vllm 0.33.0 (wheel)"
    tools/extract_serving_flags.py nxd-inference /work/.mirror/aws-neuron+neuronx-distributed-inference/repo

The engines' code is parsed, not run: an unpacked wheel or a checkout for vllm, sglang and trtllm, an unpacked wheel of
botocore for sagemaker, a git directory for nxd-inference and k8s (kubernetes-sigs/lws; needs PyYAML). Each line is a
name, its type and its choices (joined by |); the first says what was read.
"""

from __future__ import annotations

import ast
import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from extract_launch_flags import Entry, Mirror, annotation, argument, literal

UNUSED = (
    "affinity", "initContainers", "ephemeralContainers", "topologySpreadConstraints", "volumeClaimTemplates",
    "lifecycle", "livenessProbe", "startupProbe", "securityContext", "projected", "csi", "managedFields", "ephemeral",
    "status",
)  # fmt: skip
"""Parts of a LeaderWorkerSet that are left out of its list, which would be ten times as long."""


def fields_in(paths: list[Path]) -> tuple[dict[str, ast.expr], dict[str, ast.expr]]:
    """Annotations of all classes' fields by name, and literals that modules give a name."""
    fields: dict[str, ast.expr] = {}
    names: dict[str, ast.expr] = {}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                fields.setdefault(node.target.id, node.annotation)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                names.setdefault(node.targets[0].id, node.value)
    return fields, names


def typed(node: ast.expr | None, names: dict[str, ast.expr]) -> tuple[str, tuple[str, ...]]:
    """Kind and choices of an annotation; what is optional counts as what it may be."""
    if node is None:
        return "str", ()
    if isinstance(node, ast.Name) and node.id in names:
        return typed(names[node.id], {name: value for name, value in names.items() if name != node.id})
    if isinstance(node, ast.BinOp):
        left, right = typed(node.left, names), typed(node.right, names)
        if "None" in (ast.unparse(node.left), ast.unparse(node.right)):
            return right if ast.unparse(node.left) == "None" else left
        return next((each for each in (left, right) if each[1]), ("str", ()))
    return annotation(node, {})


def vllm(folder: Path) -> Iterator[Entry]:
    """Flags of EngineArgs.add_cli_args, each made from a field of a configuration class."""
    fields, names = fields_in(sorted((folder / "vllm/config").glob("*.py")))
    for node in ast.walk(ast.parse((folder / "vllm/engine/arg_utils.py").read_text("utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".add_argument"):
            words = {each.arg: each.value for each in node.keywords if each.arg}
            spread = next((each.value for each in node.keywords if each.arg is None), None)
            inner = [each for each in ast.walk(spread) if isinstance(each, ast.Subscript)] if spread else []
            key = literal(inner[0].slice) if inner else None
            kind, choices = typed(fields.get(str(key)), names)
            flags = [str(value) for each in node.args if (value := literal(each))]
            if spread is None:
                yield from (argument(flag, words) for flag in flags)
                continue
            for flag in flags:
                yield Entry(name=flag, kind="flag" if kind == "bool" else kind, choices=choices)
                if kind == "bool" and flag.startswith("--"):
                    yield Entry(name=flag.replace("--", "--no-", 1), kind="flag")

    front = folder / "vllm/entrypoints/common/cli_args.py"
    tree = ast.parse(front.read_text("utf-8"))
    frontends = ("BaseFrontendArgs", "FrontendArgs")
    for of_class in (each for each in ast.walk(tree) if isinstance(each, ast.ClassDef) and each.name in frontends):
        for field in (each for each in of_class.body if isinstance(each, ast.AnnAssign)):
            kind, choices = typed(field.annotation, names)
            flag = "--" + ast.unparse(field.target).replace("_", "-")
            yield Entry(name=flag, kind="flag" if kind == "bool" else kind, choices=choices)
    for call in (each for each in ast.walk(tree) if isinstance(each, ast.Call)):
        if ast.unparse(call.func).endswith(".add_argument"):
            words = {each.arg: each.value for each in call.keywords if each.arg}
            flags = [str(literal(each)) for each in call.args]
            yield from (argument(flag, words) for flag in flags if flag.startswith("--"))


def sagemaker(folder: Path) -> Iterator[Entry]:
    """Dotted members of the requests that make a model, an endpoint configuration, an endpoint and its components."""
    (path,) = (folder / "botocore/data/sagemaker").glob("*/service-2.json.gz")
    shapes = json.loads(gzip.decompress(path.read_bytes()))["shapes"]

    def walk(shape: str, prefix: str) -> Iterator[Entry]:
        of = shapes[shape]
        if of["type"] == "list":
            yield from walk(of["member"]["shape"], f"{prefix}[]")
        for name, member in of.get("members", {}).items():
            inner = shapes[member["shape"]]
            yield Entry(name=f"{prefix}.{name}", kind=inner["type"], choices=tuple(inner.get("enum", ())))
            yield from walk(member["shape"], f"{prefix}.{name}")

    for request in ("CreateModel", "CreateEndpointConfig", "CreateEndpoint", "CreateInferenceComponent"):
        yield Entry(name=request, kind="required", choices=tuple(shapes[f"{request}Input"].get("required", ())))
        yield from walk(f"{request}Input", request)


def k8s(mirror: Mirror) -> Iterator[Entry]:
    """Dotted keys of a LeaderWorkerSet, its pods among them: the schema that the API server checks."""
    import yaml  # type: ignore[import-untyped]

    crd = yaml.safe_load(mirror.text("config/crd/bases/leaderworkerset.x-k8s.io_leaderworkersets.yaml"))
    versions = [each for each in crd["spec"]["versions"] if each["storage"]]

    def walk(schema: dict[str, Any], prefix: str) -> Iterator[Entry]:
        for name, inner in schema.get("properties", {}).items():
            if name in UNUSED:
                continue
            of_items = "items" in inner
            key = f"{prefix}.{name}" + ("[]" if of_items else "")
            choices = tuple(str(each) for each in inner.get("enum", ()))
            yield Entry(name=key, kind=inner.get("type", "any"), choices=choices)
            yield from walk(inner["items"] if of_items else inner, key)

    for version in versions:
        yield Entry(name=f"{crd['spec']['group']}/{version['name']}", kind="version")
        yield from walk(version["schema"]["openAPIV3Schema"], "LeaderWorkerSet")


def sglang(folder: Path) -> Iterator[Entry]:
    """Flags made of the annotated fields of ServerArgs' namespaces: A[type, help] or A[type, Arg(...)]."""
    root = folder / "sglang/srt/arg_groups"
    _, names = fields_in([root / "choices.py"])
    for path in sorted((root / "fields").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.annotation, ast.Subscript):
                continue
            if ast.unparse(node.annotation.value) != "A" or not isinstance(node.annotation.slice, ast.Tuple):
                continue
            of_type, said = node.annotation.slice.elts[:2]
            words = {each.arg: each.value for each in said.keywords if each.arg} if isinstance(said, ast.Call) else {}
            if literal(words.get("no_cli")) is True:
                continue
            name = literal(words.get("cli_name")) or "--" + ast.unparse(node.target).replace("_", "-")
            kind, choices = typed(of_type, names)
            listed: Any = words.get("choices")
            if isinstance(listed, ast.Name) and listed.id in names:
                listed = names[listed.id]
            choices = choices or tuple(str(each) for each in (literal(listed) or ()) if isinstance(each, str))
            for flag in (name, *(literal(words.get("aliases")) or ())):
                yield Entry(name=flag, kind="flag" if kind == "bool" else kind, choices=choices)
    for node in ast.walk(ast.parse((folder / "sglang/srt/server_args.py").read_text("utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".add_argument"):
            words = {each.arg: each.value for each in node.keywords if each.arg}
            yield from (argument(str(literal(each)), words) for each in node.args if literal(each))


def trtllm(folder: Path) -> Iterator[Entry]:
    """Options of trtllm-serve's `serve` command."""
    tree = ast.parse((folder / "tensorrt_llm/commands/serve.py").read_text("utf-8"))
    functions = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef) and each.name == "serve"]
    for call in (each for each in functions[0].decorator_list if isinstance(each, ast.Call)):
        if ast.unparse(call.func) != "click.option":
            continue
        words = {each.arg: each.value for each in call.keywords if each.arg}
        kind = ast.unparse(words["type"]) if "type" in words else "str"
        flag = literal(words.get("is_flag")) is True
        for each in call.args:
            if str(literal(each)).startswith("--"):
                named = kind if kind in ("int", "float", "str") else "str"
                yield Entry(name=str(literal(each)), kind="flag" if flag else named)


def nxd_inference(mirror: Mirror) -> Iterator[Entry]:
    """Flags of inference_demo, and keys that NeuronConfig takes, as NeuronConfig(key)."""
    root = "src/neuronx_distributed_inference"
    for node in ast.walk(mirror.tree(f"{root}/inference_demo.py")):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".add_argument"):
            words = {each.arg: each.value for each in node.keywords if each.arg}
            for each in node.args:
                entry = argument(str(literal(each)), words)
                yield Entry(name=entry.name, kind="flag" if "BooleanOptional" in ast.dump(node) else entry.kind,
                            choices=entry.choices)  # fmt: skip
    for node in ast.walk(mirror.tree(f"{root}/models/config.py")):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "kwargs.pop" and node.args:
            default = literal(node.args[1]) if len(node.args) > 1 else None
            kind = type(default).__name__ if isinstance(default, bool | int | float | str) else "any"
            yield Entry(name=f"NeuronConfig({literal(node.args[0])})", kind=kind)


def main(words: list[str]) -> int:
    """Prints one engine's list."""
    folders = {"vllm": vllm, "sglang": sglang, "trtllm": trtllm, "sagemaker": sagemaker}
    mirrors = {
        "nxd-inference": (nxd_inference, "aws-neuron/neuronx-distributed-inference"),
        "k8s": (k8s, "kubernetes-sigs/lws"),
    }
    if len(words) not in (2, 3) or words[0] not in (*folders, *mirrors):
        usage = "|".join((*folders, *mirrors))
        print(f"usage: extract_serving_flags.py {usage} FOLDER [WHAT WAS READ]", file=sys.stderr)
        return 2
    if words[0] in mirrors:
        extract, repository = mirrors[words[0]]
        mirror = Mirror(path=Path(words[1]), commit="HEAD")
        found = list(extract(mirror))
        print(f"# {repository} {mirror.git('rev-parse', 'HEAD').strip()}")
    else:
        found = list(folders[words[0]](Path(words[1])))
        print(f"# {words[2] if len(words) == 3 else words[0]}")
    entries: dict[str, Entry] = {}
    for each in found:
        entries.setdefault(each.name, each)
    for each in sorted(entries.values(), key=lambda entry: entry.name):
        print(f"{each.name}\t{each.kind}\t{'|'.join(each.choices)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
