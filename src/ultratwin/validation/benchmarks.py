"""What benchmarks and published runs train and how submissions split it (benchmarks.toml), as cells of power.csv.

A size that nobody published is split by the fastest layout that the search finds.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from ultratwin.catalogue import overrides
from ultratwin.catalogue.loader import read_toml
from ultratwin.mapping.plan import RECOMPUTE
from ultratwin.mapping.profile import Profile, find_profile
from ultratwin.mapping.recipe import recipe
from ultratwin.mapping.schedules import SCHEDULE_NAMES
from ultratwin.planning.evaluate import Setting
from ultratwin.planning.search import search
from ultratwin.validation.machines import pool_of
from ultratwin.validation.rows import Row, Skip, integer, word
from ultratwin.validation.training import model_of

FILE: Final = Path(__file__).with_name("benchmarks.toml")
MAX_CHIPS: Final = 1_000_000
"""More than any machine has: a larger number is a broken cell, and its divisors take long to find."""
_ASKED: Final = (
    "chip", "network", "framework", "date", "precision", "chips_per_node", "model", "task", "layers", "hidden", "heads",
    "kv_heads", "ffn_hidden", "mlp_type", "vocab", "seq_len",
)  # fmt: skip
"""Cells that a searched layout depends on."""
_AXES: Final = {
    "tp": "tensor_parallel_size", "pp": "pipeline_parallel_size", "vpp": "virtual_pipeline_size",
    "cp": "context_parallel_size", "ep": "expert_parallel_size", "dp": "data_parallel_size",
    "micro_batch": "micro_batch_size", "global_batch": "global_batch_size", "zero_stage": "zero_stage",
}  # fmt: skip


class Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one submission splits a benchmark over so many chips."""

    chip: str
    chips: int
    source: str
    cells: dict[str, str | int]


class Benchmark(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is trained, as cells of a row; of a benchmark, how it is split."""

    source: str
    cells: dict[str, str | int]
    aliases: tuple[str, ...] = ()
    splits: tuple[Split, ...] = ()

    def batch(self, chips: int) -> int:
        """Sequences of a global batch: those of the split nearest in chips, which all data-parallel sizes divide.

        Raises: Skip where no split is known
        """
        if not self.splits:
            raise Skip("no submission's global batch is known")
        nearest = min(self.splits, key=lambda each: (abs(math.log(each.chips / chips)), each.chips, each.chip))
        odd = chips // (chips & -chips)
        return odd * math.ceil(int(nearest.cells["global_batch"]) / odd)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    rounds: dict[str, str]
    usual: dict[str, dict[str, str]]
    benchmarks: dict[str, Benchmark]
    runs: dict[str, Benchmark]


@cache
def known() -> _File:
    """The file.

    Raises: CatalogueError naming what is wrong in it
    """
    found: _File = read_toml(FILE, _File)
    return found


def published_run(model: str) -> Benchmark | None:
    """A published run by its model, None where none is known."""
    runs = known().runs
    return next((each for name, each in runs.items() if model in (name, *each.aliases)), None)


def stated_split(benchmark: str, chip_id: str, chips: int) -> dict[str, str]:
    """Cells of a benchmark's model, and of the split of that size where a submission published one."""
    found = known().benchmarks.get(benchmark)
    if found is None:
        return {}
    splits = (each.cells for each in found.splits if (each.chip, each.chips) == (chip_id, chips))
    return _texts(found.cells | next(splits, {}))


def texts_of(found: Benchmark | None) -> dict[str, str]:
    """Cells of a published run."""
    return {} if found is None else _texts(found.cells)


def _texts(cells: dict[str, str | int]) -> dict[str, str]:
    return {key: str(value) for key, value in cells.items()}


def searched_split(row: Row, benchmark: str = "") -> dict[str, str]:
    """Cells of the fastest layout of a row's model on its chips, at the row's batch or a benchmark's usual one.

    Raises: Skip where none fits, or the number of chips is none
    """
    chips = integer(row, "n_chips")
    if chips > MAX_CHIPS:
        raise Skip(f"{chips:.6g} chips are more than {MAX_CHIPS:,}")
    batch = integer(row, "global_batch", 0) or known().benchmarks[benchmark].batch(chips)
    return dict(_searched(tuple((key, word(row, key)) for key in _ASKED), chips, batch))


@overrides.cached
def _searched(cells: tuple[tuple[str, str], ...], chips: int, batch: int) -> tuple[tuple[str, str], ...]:
    row = dict(cells)
    profile = find_profile(word(row, "framework"), word(row, "date"))
    setting = Setting(
        model=model_of(row),
        pool=pool_of(word(row, "chip"), word(row, "network"), 1, integer(row, "chips_per_node")),
        recipe=recipe(word(row, "precision")),
        profile=_frozen(profile) if "lora" in word(row, "task") else profile,
    )
    fixed = {"global_batch_size": batch, "seq_length": integer(row, "seq_len")}
    best = search(setting, chips, fixed, keep=1)
    if not best.plans:
        why = next(iter(best.rejected), "no layout divides them")
        raise Skip(f"no layout of {word(row, 'model')} on {chips} chips can run: {why}")
    plan = best.plans[0]
    layout = {key: str(_whole(getattr(plan, name))) for key, name in _AXES.items()} | {
        "sequence_parallel": "yes" if _whole(plan.sequence_parallel) else "no",
        "recompute": RECOMPUTE[_whole(plan.recompute)],
        "pp_schedule": SCHEDULE_NAMES[_whole(plan.schedule)],
    }
    return tuple(layout.items())


def _whole(value: object) -> int:
    return int(np.ravel(np.asarray(value))[0])


def _frozen(profile: Profile) -> Profile:
    """A framework whose weights are frozen: their gradients and optimizer states are neither kept, sent nor updated."""
    return dataclasses.replace(
        profile, gradient_bytes=0.0, fp16_gradient_bytes=0.0, gradient_wire_bytes=0.0, bucket_copy_bytes=0.0,
        optimizer_bytes=0.0, optimizer_traffic_bytes=0.0,
    )  # fmt: skip
