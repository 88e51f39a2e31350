"""The catalogue figures that an answer used, each with value, status, range and source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ultratwin.catalogue import loader
from ultratwin.catalogue.facts import Fact
from ultratwin.catalogue.schema import ProfileEntry
from ultratwin.mapping.recipe import Recipe
from ultratwin.planning.power.chip import activity_files
from ultratwin.planning.run import OFFERS
from ultratwin.planning.training import TrainingAnswer, TrainingQuestion

_CHIP_FIGURES: Final = (
    "memory_bytes", "usable_memory_bytes", "memory_bytes_per_s", "num_cores", "clock_hz", "l2_bytes",
    "last_level_cache_bytes", "sbuf_bytes_per_core", "tdp_w",
)  # fmt: skip
_SYSTEM_FIGURES: Final = (
    "num_chips", "chips_per_node", "domain_size", "max_chips", "scale_up_bytes_per_s", "scale_up_latency_s",
    "scale_out_bytes_per_s", "scale_out_latency_s", "host_power_w", "network_power_w",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure that an answer rests on. `value`, `low`, `high` are in `unit`, as the source states them.

    `id` is kind/entry/figure. `sources` are titles, with the address where there is one.
    """

    id: str
    value: float
    unit: str
    status: str
    low: float
    high: float
    sources: tuple[tuple[str, str], ...]
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The figure as a JSON object."""
        return {
            "id": self.id,
            "value": self.value,
            "unit": self.unit,
            "status": self.status,
            "low": self.low,
            "high": self.high,
            "sources": [{"title": title, "url": url} for title, url in self.sources],
            "note": self.note,
        }

    def __str__(self) -> str:
        spread = f" ({self.low:g} to {self.high:g})" if self.low != self.high else ""
        titles = "; ".join(title for title, _ in self.sources)
        return f"{self.id} = {self.value:g} {self.unit}".rstrip() + f"{spread} [{self.status}] {titles}".rstrip()


def figure(figure_id: str, fact: Fact) -> Figure:
    """A fact of the catalogue as a figure of an answer."""
    return Figure(
        id=figure_id,
        value=fact.value,
        unit=fact.unit,
        status=fact.status,
        low=fact.value if fact.low is None else fact.low,
        high=fact.value if fact.high is None else fact.high,
        sources=cited(fact.source),
        note=fact.note,
    )


def cited(source_ids: str) -> tuple[tuple[str, str], ...]:
    """Title and address of each source that a fact names."""
    known = loader.sources()
    return tuple((known[each].title, known[each].url) if each in known else (each, "") for each in source_ids.split())


def used_figures(answer: TrainingAnswer, question: TrainingQuestion, recipe: Recipe) -> tuple[Figure, ...]:
    """Every figure of chip, system, framework profile, power, region and price that an answer was computed from."""
    system, chip = answer.system, answer.system.pool.chip
    rates = {
        f"{prefix}{dtype}_flop_per_s"
        for dtype in (recipe.gemm, recipe.weight_gemm, recipe.high)
        for prefix in ("", "array_")
    }
    found = _chosen(f"chips/{chip.id}", chip.facts, (*sorted(rates), *_CHIP_FIGURES))
    found += _chosen(f"systems/{system.id}", system.facts, _SYSTEM_FIGURES)
    found += _profile_figures(answer.profile.id)
    for name, power in activity_files(chip.id).items():
        found += _chosen(f"power/{name}", power, tuple(power))
    region = loader.resolve("regions", question.region)
    found += _chosen(f"regions/{region}", loader.entry("regions", region).figures, ("pue", "carbon_kg_per_j"))
    if question.price_usd_per_chip_s is not None:
        found.append(_own_price(question.price_usd_per_chip_s * 3600))
    else:
        for name in loader.ids("prices"):
            entry = loader.entry("prices", name)
            if getattr(entry, "system", "") == system.id:
                found += _chosen(f"prices/{name}", entry.figures, ("num_chips", *OFFERS))
                break
    return tuple(found)


def _own_price(usd_per_hour: float) -> Figure:
    return Figure(
        id="price_per_chip_hour",
        value=usd_per_hour,
        unit="USD/h",
        status="assumed",
        low=usd_per_hour,
        high=usd_per_hour,
        sources=(("given by the user", ""),),
    )


def _chosen(prefix: str, facts: Mapping[str, Fact], names: Iterable[str]) -> list[Figure]:
    return [figure(f"{prefix}/{name}", facts[name]) for name in names if name in facts]


def _profile_figures(profile_id: str) -> list[Figure]:
    """Each constant from the entry of the chain that states it, the profile's own first."""
    found: dict[str, Figure] = {}
    name = profile_id
    while name:
        entry = loader.entry("profiles", name)
        for key, fact in entry.figures.items():
            found.setdefault(key, figure(f"profiles/{name}/{key}", fact))
        name = entry.based_on if isinstance(entry, ProfileEntry) else ""
    return list(found.values())
