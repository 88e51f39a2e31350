"""A scenario as a TOML file: the question that `train` asks, written down. Studies read their keys the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from ultratwin.catalogue import loader
from ultratwin.errors import CatalogueError, ScenarioError
from ultratwin.mapping.plan import recompute_index
from ultratwin.mapping.recipe import recipe
from ultratwin.mapping.schedules import schedule_index
from ultratwin.planning.checks import (
    checked_amount,
    checked_count,
    checked_name,
    checked_objective,
    layout_indices,
    price_usd_per_chip_s,
)
from ultratwin.planning.settings_file import Reader, count, quantity, read_settings
from ultratwin.planning.training import TrainingQuestion
from ultratwin.workload.load import load_model
from ultratwin.workload.model import Model


def _text(kind: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ScenarioError(f"{kind} is {value!r:.60}", allowed="text in quotes")
    return value


def _size(value: Any, lowest: int = 1) -> int:
    return checked_count("it", count(value), lowest=lowest) or 0


def _price(value: Any) -> float:
    price = quantity(value, "usd")
    price_usd_per_chip_s(price)
    return price


def _catalogued(kind: str, name: Any, kinds: str) -> str:
    return loader.resolve(kinds, checked_name(kind, _text(kind, name)))


def _known_recompute(name: Any) -> str:
    recompute_index(_text("recompute", name))
    return str(name)


def _known_schedule(name: Any) -> str:
    schedule_index(_text("schedule", name))
    return str(name)


def _tokens(value: Any) -> float:
    return checked_amount("it", quantity(value, "number")) or 0.0


def asked_model(name: Any, folder: Path) -> str | Model:
    """The id of a catalogued model; any other model itself, so that whoever answers need not find its file.

    Args:
        name: catalogue name, hub id, or the path of a config.json
        folder: what a path is relative to
    Raises: ModelError for a model that nobody knows, or whose config.json can't be used
    """
    path = folder / _text("model", name)
    try:
        is_path = bool(name.strip()) and path.exists() and not _is_catalogued(name)
    except (OSError, ValueError):  # too long for a path, or with a zero byte
        is_path = False
    model = load_model(path if is_path else name)
    return model.id if not is_path and model.id.replace("/", "__") in loader.ids("models") else model


def _is_catalogued(name: str) -> bool:
    try:
        loader.resolve("models", name)
    except CatalogueError:
        return False
    return True


ModelName = Annotated[str | Model, Reader(asked_model, wants_folder=True)]
Size = Annotated[int, Reader(_size)]
FromZero = Annotated[int, Reader(lambda value: _size(value, lowest=0))]
Tokens = Annotated[float, Reader(_tokens)]
Price = Annotated[float, Reader(_price)]
SystemName = Annotated[str, Reader(lambda name: _catalogued("system", name, "systems"))]
FrameworkName = Annotated[str, Reader(lambda name: _catalogued("framework", name, "profiles"))]
RegionName = Annotated[str, Reader(lambda name: _catalogued("region", name, "regions"))]
PrecisionName = Annotated[str, Reader(lambda name: recipe(_text("precision", name)).name)]
ObjectiveName = Annotated[str, Reader(lambda name: checked_objective(_text("objective", name)))]


class LayoutTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sizes of the parallel axes; what is left out is searched, as in `ultratwin train`."""

    tensor_parallel_size: Size | None = None
    pipeline_parallel_size: Size | None = None
    virtual_pipeline_size: Size | None = None
    context_parallel_size: Size | None = None
    expert_parallel_size: Size | None = None
    expert_tensor_parallel_size: Size | None = None
    data_parallel_size: Size | None = None
    micro_batch_size: Size | None = None
    zero_stage: FromZero | None = None
    shard_size: Size | None = None
    sequence_parallel: bool | None = None
    recompute: Annotated[str, Reader(_known_recompute)] | None = None
    schedule: Annotated[str, Reader(_known_schedule)] | None = None

    def __post_init__(self) -> None:
        self.indices()

    def indices(self) -> dict[str, int]:
        """What is given, by its name in Plan.

        Raises: ScenarioError for a layout that no plan has
        """
        given = msgspec.structs.asdict(self)
        named = {name: given.pop(name) for name in ("sequence_parallel", "recompute", "schedule")}
        return layout_indices(given, **named)


class ScenarioFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a scenario file holds: one question about one system."""

    model: ModelName
    system: SystemName
    chips: Size | None = None
    tokens: Tokens | None = None
    precision: PrecisionName = "bf16"
    framework: FrameworkName = ""
    seq_length: Size | None = None
    global_batch_size: Size | None = None
    region: RegionName = "world"
    price_per_chip_hour: Price | None = None
    seed: FromZero = 0
    objective: ObjectiveName = "time"
    layout: LayoutTable = LayoutTable()


def read_scenario(path: str | Path) -> TrainingQuestion:
    """The question of a scenario file.

    Raises: ScenarioError with all faults of the file
    """
    return training_question(read_settings(path, ScenarioFile))


def training_question(scenario: ScenarioFile) -> TrainingQuestion:
    """A scenario as the question that `train` answers."""
    return TrainingQuestion(
        model=scenario.model,
        system=scenario.system,
        chips=scenario.chips,
        tokens=scenario.tokens,
        precision=scenario.precision,
        framework=scenario.framework,
        seq_length=scenario.seq_length,
        global_batch_size=scenario.global_batch_size,
        layout=scenario.layout.indices(),
        region=scenario.region,
        price_usd_per_chip_s=price_usd_per_chip_s(scenario.price_per_chip_hour),
        seed=scenario.seed,
        objective=scenario.objective,
    )
