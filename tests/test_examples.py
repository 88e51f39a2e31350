"""The worked examples: each has its page and its picture, and charts say where a point lies."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultratwin.workload.kv_cache import kv_bytes_per_token, windowed
from ultratwin.workload.load import load_model
from ultratwin.workload.parameters import parameter_count
from ultratwin.workload.tables import operator_tables

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs/examples").glob("*.md"))
SVG = "{http://www.w3.org/2000/svg}"


def tool(name: str) -> ModuleType:
    """A script of tools/ as a module, found by the name that its neighbours import."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


charts = tool("svg_chart")
pictures = tool("make_example_pictures")


def test_each_picture_has_a_page_and_each_page_a_picture() -> None:
    shown = {page: re.findall(r"!\[[^\]]+\]\(\.\./images/([\w-]+)\.svg\)", page.read_text("utf-8")) for page in PAGES}
    assert sorted(name for names in shown.values() for name in names) == sorted(pictures.PICTURES)
    assert all(len(names) == 1 and names[0] == page.stem for page, names in shown.items())


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_pictures_are_drawings_for_both_backgrounds(name: str) -> None:
    text = (ROOT / f"docs/images/{name}.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.findtext(f"{SVG}title")
    assert "prefers-color-scheme: dark" in text
    assert len(root.findall(f"{SVG}circle")) >= 5
    _, _, width, height = (float(each) for each in root.attrib["viewBox"].split())
    for dot in root.findall(f"{SVG}circle"):
        assert 0 < float(dot.attrib["cx"]) < width
        assert 0 < float(dot.attrib["cy"]) < height


positive = st.floats(1e-3, 1e9)


@given(points=st.lists(st.tuples(positive, positive), min_size=1, max_size=20), log=st.booleans())
def test_a_larger_number_lies_further_right_and_higher(points: list[tuple[float, float]], log: bool) -> None:
    axis = charts.Axis(label="one", log=log)
    drawn = charts.line_chart("title", "", axis, axis, [charts.Series(name="a & b", points=tuple(points))])
    dots = ElementTree.fromstring(drawn).findall(f"{SVG}circle")
    places = [(float(dot.attrib["cx"]), -float(dot.attrib["cy"])) for dot in dots]
    for side in (0, 1):
        order = sorted(range(len(points)), key=lambda at: points[at][side])
        assert all(places[a][side] <= places[b][side] for a, b in pairwise(order))


@given(low=positive, factor=st.floats(1.001, 1e6), log=st.booleans())
def test_ticks_cover_the_range(low: float, factor: float, log: bool) -> None:
    found = charts.ticks(low, low * factor, log=log)
    assert found == sorted(set(found))
    assert found[0] <= low * (1 + 1e-9)
    assert found[-1] >= low * factor * (1 - 1e-9)
    assert len(found) <= 2 + (3 * (2 + math.log10(factor)) if log else 10)


def test_nothing_to_draw_is_an_error() -> None:
    axis = charts.Axis(label="x")
    with pytest.raises(ValueError, match="no points"):
        charts.line_chart("", "", axis, axis, [])
    with pytest.raises(ValueError, match="logarithmic"):
        charts.line_chart("", "", charts.Axis(label="x", log=True), axis, [charts.Series(name="", points=((0, 1),))])


MUSICGEN = [("small", 24, 1024), ("medium", 48, 1536), ("large", 48, 2048)]


@pytest.mark.parametrize(("size", "layers", "width"), MUSICGEN)
def test_musicgen_is_as_worked_by_hand(size: str, layers: int, width: int) -> None:
    model = load_model(ROOT / f"examples/configs/musicgen-{size}.json")
    matrices = layers * 16 * width**2 + 2 * 4 * 2048 * width  # own and text attention, MLP; four tables and heads
    norms = (3 * layers + 1) * 2 * width
    assert parameter_count(model) == matrices + norms
    assert kv_bytes_per_token(model) == layers * 2 * width * 2  # the music's own
    assert windowed(model) == [(64, layers * 2 * width * 2)]  # the text's, however long the music
    table = operator_tables(model).gemms
    read = sum(
        n * k for n, k, name in zip(table.n[:, 0], table.k[:, 0], table.names, strict=True) if "head" not in name
    )
    assert read == 14 * width**2  # a step projects no keys and values of the text
