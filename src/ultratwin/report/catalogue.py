"""The catalogue as blocks: its kinds, the entries of a kind, one entry with every figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from ultratwin.catalogue import loader
from ultratwin.catalogue.facts import RANGED, STATUSES, Fact, Reading
from ultratwin.catalogue.schema import (
    RELATED,
    ChipEntry,
    ClaimEntry,
    DiffusionEntry,
    EngineEntry,
    Entry,
    LinkEntry,
    ModelEntry,
    PriceEntry,
    ProfileEntry,
    RegionEntry,
    SystemEntry,
)
from ultratwin.errors import CatalogueError, unknown_name
from ultratwin.report.figures import cited
from ultratwin.report.metrics import count_said, said
from ultratwin.report.tables import Block, Grid, Lines, Title
from ultratwin.units import format_seconds, format_si

KINDS: Final = (
    "chips", "links", "systems", "models", "diffusion", "prices", "regions", "profiles", "engines", "reliability",
    "claims", "power",
)  # fmt: skip
_ABSENT: Final = "-"


def _figure(entry: Entry, *names: str, unit: str = "", scale: float = 1.0) -> str:
    """The first of some figures that an entry has, "~" before what is not published or measured."""
    for name in names:
        if name in entry.figures:
            fact = entry.figures[name]
            open_ = fact.status in RANGED or (fact.status == "derived" and fact.low != fact.high)
            mark = "~" if open_ else ""
            return mark + (format_si(fact.si * scale, unit) if unit else said(fact.si * scale))
    return _ABSENT


def _seconds(entry: Entry, name: str) -> str:
    return format_seconds(entry.figures[name].si) if name in entry.figures else _ABSENT


def _count(entry: Entry, name: str) -> str:
    return f"{entry.figures[name].si:,.0f}" if name in entry.figures else _ABSENT


def _chip(entry: ChipEntry) -> tuple[str, ...]:
    return (
        entry.vendor,
        _figure(entry, "bf16_flop_per_s", "fp16_flop_per_s", unit="FLOP/s"),
        _figure(entry, "mxfp8_flop_per_s", "fp8_flop_per_s", unit="FLOP/s"),
        _figure(entry, "memory_bytes", unit="B"),
        _figure(entry, "memory_bytes_per_s", unit="B/s"),
        _figure(entry, "tdp_w", unit="W"),
    )


def _link(entry: LinkEntry) -> tuple[str, ...]:
    return (entry.vendor, _figure(entry, "bytes_per_s", unit="B/s"), _seconds(entry, "latency_s"))


def _system(entry: SystemEntry) -> tuple[str, ...]:
    return (
        entry.kind + (", hypothetical" if entry.hypothetical else ""),
        entry.chip,
        _count(entry, "num_chips"),
        _count(entry, "domain_size"),
        _count(entry, "max_chips"),
        _figure(entry, "scale_up_bytes_per_s", unit="B/s"),
        _figure(entry, "scale_out_bytes_per_s", unit="B/s"),
    )


def _model(entry: ModelEntry) -> tuple[str, ...]:
    total = entry.figures["total_parameters"].si
    sparse = any("expert" in key for key in entry.config)
    fact = entry.figures.get("active_parameters")
    active = count_said(fact.si) if fact else _ABSENT if sparse else count_said(total)
    layers = next(
        (
            entry.config[key]
            for key in ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
            if key in entry.config
        ),
        None,
    )
    shown = str(layers) if layers is not None else _ABSENT
    return entry.architecture, count_said(total), active, shown, ", ".join(entry.aliases[:2])


def _diffusion(entry: DiffusionEntry) -> tuple[str, ...]:
    total, sizes = entry.figures["total_parameters"].si, entry.config
    return count_said(total), str(sizes.num_layers), str(sizes.sample_steps), ", ".join(entry.aliases[:2])


def _price(entry: PriceEntry) -> tuple[str, ...]:
    chips = entry.figures["num_chips"].si

    def per_chip_hour(name: str) -> str:
        fact = entry.figures.get(name)
        return f"{fact.si * 3600 / chips:.2f}" if fact else _ABSENT

    offers = ("on_demand", "capacity_block", "reserved_1y", "reserved_3y", "spot")
    return (entry.system, entry.region, f"{chips:,.0f}", *(per_chip_hour(offer) for offer in offers))


def _region(entry: RegionEntry) -> tuple[str, ...]:
    return (
        _figure(entry, "carbon_kg_per_j", scale=3.6e9),
        _figure(entry, "pue"),
        _figure(entry, "electricity_usd_per_j", scale=3.6e6),
    )


def _profile(entry: ProfileEntry) -> tuple[str, ...]:
    return (
        entry.based_on or _ABSENT,
        entry.attention or "inherited",
        str(len(entry.figures)),
        ", ".join(entry.aliases[:3]),
    )


def _claim(entry: ClaimEntry) -> tuple[str, ...]:
    return (entry.statement, str(len(entry.readings)))


def _engine(entry: EngineEntry) -> tuple[str, ...]:
    return entry.based_on or _ABSENT, entry.policy or _ABSENT, entry.host or _ABSENT, str(len(entry.figures))


def _power(entry: Entry) -> tuple[str, ...]:
    return (str(len(entry.figures)), entry.note)


# kind -> columns after id and name, which of them are numbers, and how a row is read
_Columns = tuple[tuple[str, ...], bool, Callable[[Any], tuple[str, ...]]]
_COLUMNS: Final[dict[str, _Columns]] = {
    "chips": (("vendor", "BF16", "FP8", "memory", "bandwidth", "power"), True, _chip),
    "links": (("vendor", "one way, per chip", "latency"), True, _link),
    "systems": (("kind", "chip", "chips", "domain", "largest", "scale-up", "scale-out"), True, _system),
    "models": (("architecture", "parameters", "active", "layers", "also called"), True, _model),
    "diffusion": (("parameters", "layers", "steps", "also called"), True, _diffusion),
    "prices": (("system", "region", "chips", "on demand", "block", "1 year", "3 years", "spot"), True, _price),
    "regions": (("gCO2/kWh", "PUE", "USD/kWh"), True, _region),
    "profiles": (("based on", "attention", "constants", "also called"), False, _profile),
    "engines": (("based on", "policy", "host", "constants"), False, _engine),
    "reliability": (("figures", "note"), False, _power),
    "claims": (("claim", "readings"), False, _claim),
    "power": (("figures", "note"), False, _power),
}
_TEXT_COLUMNS: Final = frozenset({"vendor", "kind", "chip", "architecture", "also called", "system", "region"})
_NAMELESS: Final = frozenset({"models", "diffusion", "prices", "systems", "claims"})
"""Kinds whose entries' ids say enough: no column for the name."""
_HUB: Final = frozenset({"models", "diffusion"})
"""Kinds whose entries are named as on the hub, with a slash that no file name has."""


def checked_kind(kind: str) -> str:
    """A kind of the catalogue, also in the singular.

    Raises: CatalogueError for another word
    """
    word = kind.lower()
    for each in KINDS:
        if word in (each, each.rstrip("s")):
            return each
    raise unknown_name("kind of the catalogue", kind[:60], KINDS)


def shown_ids(kind: str) -> list[str]:
    """The ids of a kind as people type them: of models, the hub's."""
    return [each.replace("__", "/") if kind in _HUB else each for each in loader.ids(kind)]


def entry_of(kind: str, name: str) -> tuple[str, Entry]:
    """Id and entry of a name.

    Raises: CatalogueError if nobody has that name
    """
    wanted = name.replace("/", "__") if kind in _HUB else name
    if len(name) > 100 or not name.strip() or any(mark in wanted for mark in ("/", "\\", "\0")):
        raise unknown_name(kind.removesuffix("s"), name[:60], shown_ids(kind))
    try:
        found = loader.resolve(kind, wanted)
    except CatalogueError:
        # of a model the aliases hold the hub's spelling
        known = {alias.lower(): each for each in loader.ids(kind) for alias in loader.entry(kind, each).aliases}
        if name.lower() not in known:
            spelling = [*shown_ids(kind), *known]
            near = unknown_name(kind.removesuffix("s"), name, spelling)
            allowed = ", ".join(shown_ids(kind))
            raise CatalogueError(near.what, allowed=allowed, hint=near.hint) from None
        found = known[name.lower()]
    return found, loader.entry(kind, found)


def kinds_blocks() -> list[Block]:
    """The kinds and how many entries each has."""
    rows = tuple((kind, str(len(loader.ids(kind))), ", ".join(shown_ids(kind)[:4]) + ", ...") for kind in KINDS)
    return [
        Grid(title="catalogue", columns=("kind", "entries", "such as"), rows=rows, right=frozenset({1})),
        Lines(
            title=f"{len(loader.sources())} sources, catalogue {loader.catalogue_hash()}",
            lines=("`ultratwin catalogue KIND` lists a kind, `ultratwin catalogue KIND NAME` shows every figure",),
        ),
    ]


def listing_blocks(kind: str) -> list[Block]:
    """The entries of a kind with their key figures; "~" before what is estimated, assumed or announced."""
    columns, numeric, read = _COLUMNS[kind]
    named = kind not in _NAMELESS
    rows = []
    for each, shown in zip(loader.ids(kind), shown_ids(kind), strict=True):
        entry = loader.entry(kind, each)
        rows.append((shown, *((entry.name,) if named else ()), *read(entry)))
    heads = ("id", *(("name",) if named else ()), *columns)
    right = frozenset(at for at, head in enumerate(heads) if numeric and head not in _TEXT_COLUMNS | {"id", "name"})
    title = f"{kind}: {len(rows)}" + (", USD per chip-hour" if kind == "prices" else "")
    return [Grid(title=title, columns=heads, rows=tuple(rows), right=right)]


def entry_blocks(kind: str, name: str) -> list[Block]:
    """One entry: what it is, and every figure with status, range, sources and what other sources say."""
    entry_id, entry = entry_of(kind, name)
    lines = [f"{kind[:-1] if kind.endswith('s') else kind}: {entry_id.replace('__', '/')}"]
    if entry.aliases:
        lines.append("also found as: " + ", ".join(entry.aliases))
    if entry.note:
        lines.append(entry.note)
    lines += [f"{key.replace('_', ' ')}: {value}" for key, value in _texts(entry).items()]
    blocks: list[Block] = [Title(text=entry.name, lines=tuple(lines))]
    blocks += _figure_blocks("figures", entry)
    if isinstance(entry, ModelEntry):
        sizes = tuple(f"{key} = {value}" for key, value in entry.config.items())
        blocks.append(Lines(title=f"config.json, from {_titles(entry.config_source)}", lines=sizes))
    if isinstance(entry, DiffusionEntry):
        sizes = tuple(f"{key} = {value}" for key, value in msgspec.structs.asdict(entry.config).items())
        blocks.append(Lines(title=f"sizes, from {_titles(entry.config_source)}", lines=sizes))
    if isinstance(entry, ClaimEntry):
        blocks += _claim_blocks(entry_id, entry)
    shown = [entry]
    for word, (theirs, part_id, part) in _parts(entry).items():
        blocks += _figure_blocks(f"{word}: {part.name} ({theirs}/{part_id})", part)
        shown.append(part)
    if len(shown) > 1:
        blocks.append(_how_sure(shown, f"{kind}/{entry_id}"))
    facts = [fact for each in shown for fact in each.figures.values()]
    readings = [each for fact in facts for each in (fact.source, *(a.source for a in fact.alternatives))]
    used = {source for each in readings for source in each.split()}
    known = loader.sources()
    numbered = tuple(
        f"[{each}] {known[each].title}{'  ' + known[each].url if known[each].url else ''}"
        + (f"  (read {known[each].accessed})" if known[each].accessed else "")
        for each in sorted(used)
        if each in known
    )
    if numbered:
        blocks.append(Lines(title="sources", lines=numbered))
    return blocks


def _figure_blocks(title: str, entry: Entry) -> list[Block]:
    """An entry's figures as a table, and what is to be said of them."""
    blocks: list[Block] = []
    rows = tuple(
        (key, f"{fact.value:,.6g} {fact.unit}".rstrip(), _range(fact), fact.status, _cite(fact))
        for key, fact in entry.figures.items()
    )
    if rows:
        columns = ("figure", "value", "range", "status", "sources")
        blocks.append(Grid(title=title, columns=columns, rows=rows))
    remarks = [line for key, fact in entry.figures.items() for line in _remarks(key, fact)]
    if remarks:
        blocks.append(Lines(title="notes, and what other sources say", lines=tuple(remarks)))
    return blocks


def _parts(entry: Entry) -> dict[str, tuple[str, str, Entry]]:
    """What a system consists of: its chip, host and links; nothing for other kinds."""
    if not isinstance(entry, SystemEntry):
        return {}
    named = {word: (theirs, getattr(entry, word)) for word, theirs in RELATED["systems"].items()}
    return {
        word.replace("_", "-"): (theirs, name, loader.entry(theirs, name))
        for word, (theirs, name) in named.items()
        if name
    }


def _claim_blocks(claim_id: str, entry: ClaimEntry) -> list[Block]:
    """How a claim may be read, and what its expressions name."""
    rows = tuple((each.name, each.expression, each.claimed) for each in entry.readings)
    named = [f"{word}: {text}" for word, text in entry.entries.items()]
    named += [
        f"{word}: {each.verb} {each.model} on {each.chips:,} chips of {each.system}, {' or '.join(each.precisions)}"
        for word, each in entry.scenarios.items()
    ]
    blocks: list[Block] = [
        Grid(title="readings", columns=("reading", "expression", "compared with"), rows=rows),
        Lines(title="where", lines=tuple(named)),
        Lines(title="verdict", lines=(f"`ultratwin claims {claim_id}` computes it",)),
    ]
    return blocks


def _how_sure(entries: list[Entry], entry_id: str) -> Lines:
    """How many figures are of each status, and how the open ones are changed."""
    facts = [fact for each in entries for fact in each.figures.values()]
    counts = [(status, sum(fact.status == status for fact in facts)) for status in STATUSES]
    told = ", ".join(f"{count} {status}" for status, count in counts if count)
    wide = {key: fact for key, fact in entries[0].figures.items() if fact.low and fact.high and fact.low < fact.high}
    widest = max(wide, key=lambda key: (wide[key].high or 0.0) / (wide[key].low or 1.0), default="")
    changed = f"{widest}={wide[widest].high:g}{wide[widest].unit.replace(' ', '')}" if widest else ""
    lines = [f"{len(facts)} figures of the system and its parts: {told}"]
    if changed:
        lines.append(f"a figure with a range can be changed: --assume {entry_id.partition('/')[2]}.{changed}")
    return Lines(title="how sure", lines=tuple(lines))


def _texts(entry: Entry) -> dict[str, str]:
    """What an entry says in words, beside name, aliases and note."""
    skipped = {"name", "aliases", "note", "figures", "config", "config_source", "readings", "entries", "scenarios"}
    values = {key: getattr(entry, key) for key in entry.__struct_fields__ if key not in skipped}
    return {key: str(value) for key, value in values.items() if value not in ("", False)}


def _range(fact: Fact) -> str:
    if fact.low is None and fact.high is None:
        return ""
    low, high = (fact.value if end is None else end for end in (fact.low, fact.high))
    return f"{low:,.6g} to {high:,.6g}"


def _cite(fact: Fact | Reading) -> str:
    return " ".join(f"[{each}]" for each in fact.source.split())


def _titles(source_ids: str) -> str:
    return "; ".join(title for title, _ in cited(source_ids))


def _remarks(key: str, fact: Fact) -> list[str]:
    lines = [f"{key}: {fact.note}"] if fact.note else []
    if fact.expression:
        lines.append(f"{key}: = {fact.expression}")
    for each in fact.alternatives:
        note = f", {each.note}" if each.note else ""
        lines.append(f"{key}: {each.value:,.6g} {each.unit} by {_cite(each)} ({each.status}{note})")
    if fact.preferred_because:
        lines.append(f"{key}: the value above is preferred because {fact.preferred_because}")
    return lines


def catalogue_json(kind: str | None, name: str | None) -> dict[str, Any]:
    """What the blocks show, as JSON objects: counts, a kind's entries, or one entry with its sources."""
    head: dict[str, Any] = {"verb": "catalogue", "catalogue_hash": loader.catalogue_hash()}
    if kind is None:
        return head | {"kinds": {each: len(loader.ids(each)) for each in KINDS}, "num_sources": len(loader.sources())}
    names = loader.ids(kind) if name is None else [entry_of(kind, name)[0]]
    return head | {"kind": kind, "entries": [_entry_json(kind, each) for each in names]}


def _entry_json(kind: str, entry_id: str) -> dict[str, Any]:
    entry = loader.entry(kind, entry_id)
    found: dict[str, Any] = {"id": entry_id.replace("__", "/")} | msgspec.to_builtins(entry)
    _add_sources(found["figures"], entry)
    parts = _parts(entry)
    if parts:
        found["parts"] = {}
        for word, (theirs, part_id, part) in parts.items():
            figures = msgspec.to_builtins(part.figures)
            _add_sources(figures, part)
            found["parts"][word] = {"id": f"{theirs}/{part_id}", "name": part.name, "figures": figures}
    return found


def _add_sources(figures: dict[str, Any], entry: Entry) -> None:
    """Values in SI, and the sources spelled out, beside what the file has."""
    for key, fact in entry.figures.items():
        figures[key]["si"] = fact.si
        figures[key]["sources"] = [{"title": title, "url": url} for title, url in cited(fact.source)]
