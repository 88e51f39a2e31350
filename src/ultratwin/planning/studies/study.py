"""What a study is: lists of models, systems, sizes; every combination of them is a scenario."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

import ultratwin
from ultratwin.catalogue import loader
from ultratwin.errors import ScenarioError
from ultratwin.planning.checks import price_usd_per_chip_s
from ultratwin.planning.scenario_file import (
    FrameworkName,
    FromZero,
    LayoutTable,
    ModelName,
    ObjectiveName,
    PrecisionName,
    Price,
    RegionName,
    Size,
    SystemName,
    Tokens,
)
from ultratwin.planning.settings_file import Distinct, Reader, read_settings
from ultratwin.planning.training import TrainingQuestion
from ultratwin.workload.model import Model

MOST_SCENARIOS: Final = 1_000_000
"""Scenarios of one study: a table of keys of more would not fit beside the answers in a laptop's memory."""
_STUDY_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")


def _study_name(value: Any) -> str:
    if not isinstance(value, str) or not _STUDY_NAME.fullmatch(value):
        raise ScenarioError(f"name is {value!r:.60}", allowed="letters, digits, dots and dashes: it names a file too")
    return value


_Sizes = Annotated[list[Size], Distinct]


class StudyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a study file holds. Lists are combined with each other; `chips` may be a list for each system."""

    name: Annotated[str, Reader(_study_name)]
    models: Annotated[list[ModelName], Distinct]
    systems: Annotated[list[SystemName], Distinct]
    chips: _Sizes | dict[str, _Sizes] = msgspec.field(default_factory=list)
    tokens: Tokens | None = None
    precisions: Annotated[list[PrecisionName], Distinct] = msgspec.field(default_factory=lambda: ["bf16"])
    objectives: Annotated[list[ObjectiveName], Distinct] = msgspec.field(default_factory=lambda: ["time"])
    seeds: Annotated[list[FromZero], Distinct] = msgspec.field(default_factory=lambda: [0])
    seq_lengths: Annotated[list[Size], Distinct] = msgspec.field(default_factory=list)
    global_batch_sizes: Annotated[list[Size], Distinct] = msgspec.field(default_factory=list)
    framework: FrameworkName = ""
    region: RegionName = "world"
    price_per_chip_hour: Price | None = None
    layout: LayoutTable = LayoutTable()

    def __post_init__(self) -> None:
        if isinstance(self.chips, dict):
            strangers = {loader.resolve("systems", name) for name in self.chips} - {*self.systems}
            if strangers:
                raise ScenarioError(f"chips has a list for {sorted(strangers)[0]}, which is none of the systems")

    def chips_of(self, system: str) -> Sequence[int | None]:
        """The sizes asked of a system; one unit of it where none is given."""
        if isinstance(self.chips, dict):
            by_id = {loader.resolve("systems", name): sizes for name, sizes in self.chips.items()}
            return by_id.get(system) or [None]
        return self.chips or [None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One question of a study. `position` counts from 0; `key` is equal for equal questions, version and catalogue."""

    position: int
    key: str
    question: TrainingQuestion


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came out of a scenario; holds nothing that differs from run to run.

    `status`: "done", "infeasible" (no plan can run), "rejected" (the question contradicts itself, such as more chips
    than the system can have) or "failed" (its computation broke). `figures` are expected values by column of the store.
    """

    status: str
    reason: str = ""
    figures: dict[str, float | int | str | None] = dataclasses.field(default_factory=dict)
    result: str | None = None


STATUSES: Final = ("done", "infeasible", "rejected", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study as read. `version` and `catalogue_hash` say what its answers are computed with."""

    file: StudyFile
    version: str
    catalogue_hash: str

    @property
    def name(self) -> str:
        """Its name, which its store is named after."""
        return self.file.name

    @property
    def num_scenarios(self) -> int:
        """How many combinations there are."""
        file = self.file
        sizes = sum(len(file.chips_of(system)) for system in file.systems)
        others = (file.precisions, file.seq_lengths, file.global_batch_sizes, file.objectives, file.seeds)
        return len(file.models) * sizes * math.prod(max(len(each), 1) for each in others)

    def scenarios(self) -> Iterator[Scenario]:
        """Every combination, in the order of the lists; the last list varies fastest."""
        file = self.file
        machines = [(system, chips) for system in file.systems for chips in file.chips_of(system)]
        unsaid: tuple[int | None, ...] = (None,)
        combinations = itertools.product(
            file.models, machines, file.precisions, file.seq_lengths or unsaid, file.global_batch_sizes or unsaid,
            file.objectives, file.seeds,
        )  # fmt: skip
        layout, price = file.layout.indices(), price_usd_per_chip_s(file.price_per_chip_hour)
        digests = {id(model): _model_digest(model) for model in file.models}
        for position, (model, machine, precision, seq, batch, objective, seed) in enumerate(combinations):
            question = TrainingQuestion(
                model=model, system=machine[0], chips=machine[1], tokens=file.tokens, precision=precision,
                framework=file.framework, seq_length=seq, global_batch_size=batch, layout=layout, region=file.region,
                price_usd_per_chip_s=price, seed=seed, objective=objective,
            )  # fmt: skip
            yield Scenario(position=position, key=self._key(question, digests[id(model)]), question=question)

    def _key(self, question: TrainingQuestion, model: str) -> str:
        asked = {each.name: getattr(question, each.name) for each in dataclasses.fields(question)}
        canonical = [self.version, self.catalogue_hash, asked | {"model": model}]
        text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def _model_digest(model: str | Model) -> str:
    """A catalogued model's id; for others what they are made of, as two files may give their models the same id."""
    if isinstance(model, str):
        return model
    return f"{model.id} {hashlib.sha256(msgspec.json.encode(model)).hexdigest()}"


def read_study(path: str | Path) -> Study:
    """A study file.

    Raises: ScenarioError with all faults of the file, unknown models among them
    """
    study = Study(
        file=read_settings(path, StudyFile), version=ultratwin.__version__, catalogue_hash=loader.catalogue_hash()
    )
    if study.num_scenarios > MOST_SCENARIOS:
        raise ScenarioError(
            f"the study has {study.num_scenarios:,} scenarios", where=str(path), allowed=f"up to {MOST_SCENARIOS:,}",
            hint="shorten a list, or make two studies of it",
        )  # fmt: skip
    return study
