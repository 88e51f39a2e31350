"""`ultratwin.train` in process: the result, its table, JSON and explanation."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ultratwin
from ultratwin import PowerResult, ScenarioError, TrainResult, UltratwinError
from ultratwin.catalogue import loader
from ultratwin.report import catalogue as catalogue_report
from ultratwin.report.metrics import METRICS
from ultratwin.report.tables import rendered
from ultratwin.report.tree import Leaf, Node, grown

LAYOUT: dict[str, Any] = {
    "tensor_parallel_size": 8, "pipeline_parallel_size": 8, "micro_batch_size": 1, "global_batch_size": 512,
}  # fmt: skip


@cache
def given_layout() -> TrainResult:
    return ultratwin.train("llama3.1-70b", "p5.48xlarge", chips=512, tokens=1e12, **LAYOUT)


@cache
def searched() -> TrainResult:
    return ultratwin.train("meta-llama/Llama-3.1-8B", "trn2.48xlarge", chips=64, tokens=1e11, zero_stage=1)


@cache
def infeasible() -> TrainResult:
    return ultratwin.train("openai/gpt3-175b", "p5.48xlarge", chips=8, tensor_parallel_size=1, pipeline_parallel_size=1,
                           micro_batch_size=1, global_batch_size=8)  # fmt: skip


def test_given_layout_is_the_plan() -> None:
    result = given_layout()
    assert result.feasible
    assert result.found is None
    assert result.plan is not None
    assert (result.plan.tensor_parallel_size, result.plan.data_parallel_size) == (8, 8)
    assert 0 < result.mfu.expected < 1
    for value in (result.step_time_s, result.days, result.mfu, result.energy_j, result.power_w, result.carbon_kg):
        assert 0 < value.low <= value.expected <= value.high
    steps = math.ceil(1e12 / (512 * int(result.plan.seq_length)))
    assert result.days.expected == pytest.approx(steps * result.step_time_s.expected / 86400)
    assert result.chip_hours.expected == pytest.approx(result.days.expected * 24 * 512)


def test_results_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        given_layout().question = None  # type: ignore[misc]


@pytest.mark.parametrize("result", [given_layout, searched])
def test_children_sum_exactly_to_their_parent(result: Any) -> None:
    reasons = result().explain()
    assert reasons.step is not None
    assert reasons.memory is not None
    for tree in (reasons.step, reasons.memory):
        for _, node in tree.walk():
            if node.children:
                assert node.value == math.fsum(child.value for child in node.children)
                assert node.value == sum(child.value for child in reversed(node.children))
    assert reasons.step.value == pytest.approx(result().step_time_s.expected, rel=1e-12)
    assert reasons.memory.value == pytest.approx(float(result().memory.total_bytes[0]), rel=1e-12)


def test_every_part_of_a_step_is_explained() -> None:
    step = given_layout().explain().step
    assert step is not None
    leaves = [node for _, node in step.walk() if not node.children]
    assert {node.name for node in leaves} == {name for name, value in given_layout().run.parts.items() if value}
    assert all(node.bound_by for node in leaves)
    tensor = next(node for node in leaves if node.name == "tensor-parallel communication")
    pipeline = next(node for node in leaves if node.name == "pipeline hand-over")
    assert "scale-up" in tensor.bound_by
    assert "scale-out" in pipeline.bound_by
    assert "systems/p5.48xlarge/scale_up_bytes_per_s" in tensor.inputs


def test_inputs_name_their_sources_and_ranges() -> None:
    reasons = given_layout().explain()
    assert {each.split("/")[0] for each in reasons.inputs} == {
        "chips", "systems", "profiles", "power", "regions", "prices",
    }  # fmt: skip
    for each in reasons.inputs.values():
        assert each.low <= each.value <= each.high, each.id
        assert each.status
        assert all(title for title, _ in each.sources), each.id
        assert each.sources, each.id
    assert reasons.step is not None
    assert {name for _, node in reasons.step.walk() for name in node.inputs} <= reasons.inputs.keys()
    text = str(reasons)
    assert "chips/h100-sxm/memory_bytes_per_s" in text
    assert (
        loader.sources()[loader.entry("chips", "h100-sxm").figures["bf16_flop_per_s"].source.split()[0]].title in text
    )


def test_own_price_replaces_public_ones() -> None:
    result = ultratwin.train("llama3.1-70b", "p5.48xlarge", chips=512, tokens=1e12, price_per_chip_hour=2.0, **LAYOUT)
    assert list(result.cost_usd) == ["your price"]
    assert result.cost_usd["your price"].expected == pytest.approx(2.0 * result.chip_hours.expected)
    assert "price_per_chip_hour" in result.explain().inputs
    assert not any(each.startswith("prices/") for each in result.explain().inputs)


def test_json_holds_all_and_is_the_same_twice() -> None:
    text = searched().to_json()
    again = ultratwin.train("meta-llama/Llama-3.1-8B", "trn2.48xlarge", chips=64, tokens=1e11, zero_stage=1)
    assert again.to_json() == text
    data = json.loads(text)
    assert data["version"] == ultratwin.__version__
    assert data["catalogue_hash"] == loader.catalogue_hash()
    assert data["seed"] == 0
    assert data["question"]["layout"] == {"zero_stage": 1}
    assert data["plan"]["recompute"] in ("none", "selective", "full")
    assert set(data["result"]) == {metric.tag for metric in METRICS} | {"num_steps", "cost_usd"}
    assert data["result"]["step_time_s"].keys() == {"low", "expected", "high"}
    assert data["search"]["runners_up"][0]["step_time_s"] >= data["result"]["step_time_s"]["expected"] * 0.999999
    assert data["search"]["num_candidates"] == data["search"]["num_feasible"] + sum(data["search"]["rejected"].values())
    assert data["memory"]["rank"]["value"] <= data["memory"]["capacity_bytes"]
    assert data["spread"]


@pytest.mark.parametrize("model", ["meta-llama/Llama-3.1-8B", "google/gemma-2-9b", "deepseek-ai/DeepSeek-V2-Lite"])
def test_the_run_has_the_step_time_that_the_search_found(model: str) -> None:
    # one plan and many plans are the same call, also with several kinds of layers
    result = ultratwin.train(model, "dgx-h100", chips=64, pipeline_parallel_size=2, zero_stage=1, micro_batch_size=1)
    assert result.found is not None
    assert result.step_time_s.expected == pytest.approx(result.found.step_s[0], rel=1e-9)
    assert float(np.ravel(result.memory.total_bytes)[0]) == pytest.approx(result.found.memory_bytes[0], rel=1e-9)


def test_spread_names_what_the_duration_depends_on() -> None:
    names = [name for name, _ in given_layout().run.spread]
    assert names
    assert not any(word in name for name in names for word in ("power", "PUE", "carbon", "price", "tdp"))


def test_seed_moves_ranges_only() -> None:
    other = ultratwin.train("llama3.1-70b", "p5.48xlarge", chips=512, tokens=1e12, seed=7, **LAYOUT)
    assert other.step_time_s.expected == given_layout().step_time_s.expected
    assert other.step_time_s != given_layout().step_time_s


def test_infeasible_is_a_value() -> None:
    result = infeasible()
    assert not result.feasible
    assert result.rejected is not None
    assert result.rejected.needed > result.rejected.available > 0
    data = json.loads(result.to_json())
    assert data["feasible"] is False
    assert data["result"] is None
    assert data["rejected"]["unit"]
    table = result.table()
    assert "nothing can run" in table
    assert "needs" in table
    with pytest.raises(ScenarioError, match="no plan can run"):
        _ = result.step_time_s


@cache
def power_drawn() -> PowerResult:
    return ultratwin.power("llama3.1-8b", "trn2.48xlarge", chips=64, duration_s=10.0)


@pytest.mark.parametrize("result", [given_layout, infeasible, power_drawn])
def test_objects_are_what_the_text_says(result: Any) -> None:
    assert json.loads(result().to_json()).keys() == result().as_dict().keys()


def test_table_says_what_matters() -> None:
    table = searched().table()
    for word in ("step time", "MFU", "days", "chip-hours", "MWh", "CO2", "memory", "runners-up", "layouts evaluated"):
        assert word in table, word
    assert "\x1b" not in table
    priced, unpriced = given_layout().table(), ultratwin.train("gpt2", "trn3", chips=4, zero_stage=1).table()
    assert "cost, on demand" in priced
    assert "no public price" in unpriced
    assert "--price-per-chip-hour" in unpriced


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_table_keeps_to_the_width(width: int) -> None:
    assert max(len(line) for line in given_layout().table(width=width).splitlines()) <= width


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"chips": 0}, "chips is 0"),
        ({"chips": 8.5}, "chips is 8.5"),
        ({"chips": True}, "chips is True"),
        ({"chips": 10**400}, "beyond all measure"),
        ({"chips": float("nan")}, "chips is nan"),
        ({"chips": 10**8}, "p5.48xlarge"),
        ({"chips": 12}, "split a node"),
        ({"tokens": 0}, "tokens is 0"),
        ({"tokens": float("inf")}, "tokens is inf"),
        ({"seed": -1}, "seed is -1"),
        ({"precision": "fp7"}, "unknown precision"),
        ({"framework": "megatorn"}, "did you mean megatron"),
        ({"region": "us-east-9"}, "unknown region"),
        ({"region": "../chips/trainium3"}, "no name"),
        ({"region": "x" * 5000}, "no name"),
        ({"zero_stage": 4}, "zero_stage is 4"),
        ({"recompute": "some"}, "unknown recompute"),
        ({"schedule": "2f2b"}, "unknown schedule"),
        ({"price_per_chip_hour": -1}, "price_per_chip_hour is -1"),
        ({"tensor_parallel_size": -8}, "tensor_parallel_size is -8"),
        ({"tensor_parallel_size": 7, "pipeline_parallel_size": 3, "micro_batch_size": 1}, "tensor x pipeline"),
        ({"data_parallel_size": 4}, "data_parallel_size alone"),
    ],
)
def test_bad_input_is_named(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(UltratwinError, match=says):
        ultratwin.train("gpt2", "p5.48xlarge", **wrong)


@given(values=st.lists(st.floats(0, 1e12, allow_subnormal=False), min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_trees_sum_in_any_order(values: list[float]) -> None:
    leaves = tuple(Leaf(name=f"part {at}", value=value, group="ab"[at % 2]) for at, value in enumerate(values))
    root = grown("whole", "s", leaves)
    assert root.value == pytest.approx(math.fsum(values), rel=1e-12)
    for _, node in root.walk():
        sizes = [child.value for child in node.children]
        assert not sizes or node.value == sum(sizes) == sum(reversed(sizes)) == math.fsum(sorted(sizes))


def test_trees_that_do_not_sum_are_refused() -> None:
    leaf = Node(name="a", value=1.0, unit="s", share_frac=0.5)
    with pytest.raises(ScenarioError, match="do not sum"):
        Node(name="whole", value=3.0, unit="s", share_frac=1.0, children=(leaf, leaf))
    with pytest.raises(ScenarioError, match="not finite"):
        grown("whole", "s", (Leaf(name="a", value=math.inf),))


@pytest.mark.parametrize("kind", catalogue_report.KINDS)
def test_catalogue_views_cover_every_entry(kind: str) -> None:
    listing = rendered(catalogue_report.listing_blocks(kind), width=240)
    for each in catalogue_report.shown_ids(kind):
        assert each in listing
    first = loader.ids(kind)[0]
    shown = rendered(catalogue_report.entry_blocks(kind, first), width=240)
    entry = loader.entry(kind, first)
    for name, fact in entry.figures.items():
        assert name in shown
        assert fact.status in shown
        for source in fact.source.split():
            assert loader.sources()[source].title in shown
    json.dumps(catalogue_report.catalogue_json(kind, None))


def test_contradicting_sources_are_shown() -> None:
    shown = rendered(catalogue_report.entry_blocks("chips", "trainium3"), width=240)
    assert "4.7 TB/s by [nki_v4]" in shown
    assert "preferred because" in shown
    assert "700 to 1,000" in shown


def test_import_is_lazy() -> None:
    heavy = "{'numpy', 'rich', 'msgspec', 'cyclopts'}"
    code = f"import sys, ultratwin, ultratwin.cli; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    assert set(ultratwin.__all__) <= set(dir(ultratwin))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ultratwin.nothing
