"""The tree that every answer is (design D9): children sum exactly to their parent.

Floating-point sums depend on their order. Leaves are therefore rounded to a common power of two, small enough to change
nothing (one part in 10^14) and large enough that their sums are exact in any order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ultratwin.errors import ScenarioError

_KEPT_BITS: Final = 46


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One share of an answer.

    `value` is in `unit`; `share_frac` is of the whole tree. `bound_by` says what a leaf's size is decided by. `inputs`
    are ids of the catalogue figures that it was computed from (report.figures).
    """

    name: str
    value: float
    unit: str
    share_frac: float
    bound_by: str = ""
    inputs: tuple[str, ...] = ()
    children: tuple[Node, ...] = ()

    def __post_init__(self) -> None:
        if self.children and sum(child.value for child in self.children) != self.value:
            raise ScenarioError(f"the children of {self.name} do not sum to it", hint="build trees with grown()")

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Node]]:
        """This node and all below, parents first, with their depth."""
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)

    def as_dict(self) -> dict[str, Any]:
        """The tree as JSON objects."""
        found: dict[str, Any] = {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "share_frac": self.share_frac,
        }
        if self.bound_by:
            found["bound_by"] = self.bound_by
        if self.inputs:
            found["inputs"] = list(self.inputs)
        if self.children:
            found["children"] = [child.as_dict() for child in self.children]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """What `grown` is given for each leaf: its size, its group (empty: the root), and what explains it."""

    name: str
    value: float
    group: str = ""
    bound_by: str = ""
    inputs: tuple[str, ...] = ()


def grown(name: str, unit: str, leaves: tuple[Leaf, ...]) -> Node:
    """A tree of one root, groups in order of first use, and leaves, largest first.

    Args:
        name: of the root
        unit: of every value
        leaves: what is summed; leaves of size zero are left out
    Returns: the root; its value is the sum of the leaves
    Raises: ScenarioError for a leaf that is not finite
    Example:
        >>> root = grown("step", "s", (Leaf(name="compute", value=3.0), Leaf(name="bubble", value=1.0)))
        >>> root.value, [(child.name, child.share_frac) for child in root.children]
        (4.0, [('compute', 0.75), ('bubble', 0.25)])
    """
    sizes = _on_grid([leaf.value for leaf in leaves], name)
    total = sum(sizes)
    groups: dict[str, list[Node]] = {}
    for leaf, size in zip(leaves, sizes, strict=True):
        members = groups.setdefault(leaf.group, [])
        if size:
            share = size / total if total else 0.0
            members.append(
                Node(
                    name=leaf.name, value=size, unit=unit, share_frac=share, bound_by=leaf.bound_by, inputs=leaf.inputs
                )
            )
    children: list[Node] = []
    for group, members in groups.items():
        members.sort(key=lambda node: (-node.value, node.name))
        if not group:
            children += members
        elif members:
            children.append(_parent(group, unit, members, total))
    return _parent(name, unit, children, total)


def _parent(name: str, unit: str, children: list[Node], total: float) -> Node:
    value = float(sum(child.value for child in children))
    share = value / total if total else 0.0
    return Node(name=name, value=value, unit=unit, share_frac=share, children=tuple(children))


def _on_grid(values: list[float], name: str) -> list[float]:
    if not all(math.isfinite(value) for value in values):
        raise ScenarioError(
            f"a part of {name} is not finite", hint="sizes this large are beyond what the formulas hold for"
        )
    most = sum(abs(value) for value in values)
    if most == 0:
        return [0.0 for _ in values]
    # a grid of 2^-46 of the whole: sums of any number of parts in any order stay within 53 bits
    grid = math.ldexp(1.0, math.frexp(most)[1] - _KEPT_BITS)
    return [round(value / grid) * grid for value in values]


def shares(parts: Mapping[str, float]) -> dict[str, float]:
    """Each part over the sum, largest first; ties by name.

    Example:
        >>> shares({"a": 1.0, "b": 3.0})
        {'b': 0.75, 'a': 0.25}
    """
    total = sum(parts.values())
    ranked = sorted(parts.items(), key=lambda each: (-each[1], each[0]))
    return {name: value / total if total else 0.0 for name, value in ranked}
