"""The catalogue: every file loads, derived facts recompute, totals add up, names resolve, faults are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from ultratwin.catalogue import loader
from ultratwin.catalogue.expressions import evaluate
from ultratwin.catalogue.facts import Fact
from ultratwin.catalogue.schema import FIGURES, ChipEntry, PriceEntry, SystemEntry
from ultratwin.errors import CatalogueError
from ultratwin.hardware.chip import load_chip
from ultratwin.hardware.system import load_system

HARDWARE = ("chips", "links", "systems", "prices", "regions", "claims")
FILES = [(kind, each) for kind in HARDWARE for each in loader.ids(kind)]


def figures(kind: str, name: str) -> dict[str, Fact]:
    return loader.load_file(kind, loader.DATA / kind / f"{name}.toml").figures


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_file_loads(kind: str, name: str) -> None:
    entry = loader.load_file(kind, loader.DATA / kind / f"{name}.toml")
    assert entry.name
    assert entry.figures


def test_every_kind_has_files() -> None:
    counts = {kind: len(loader.ids(kind)) for kind in HARDWARE}
    least = {"chips": 45, "links": 30, "systems": 55, "prices": 25, "regions": 13, "claims": 7}
    assert all(counts[kind] >= least[kind] for kind in HARDWARE), counts


DERIVED = [(kind, name, key) for kind, name in FILES for key, fact in figures(kind, name).items() if fact.expression]


@pytest.mark.parametrize(("kind", "name", "key"), DERIVED)
def test_expression_gives_the_fact_again(kind: str, name: str, key: str) -> None:
    entry = loader.load_file(kind, loader.DATA / kind / f"{name}.toml")
    fact, related = entry.figures[key], loader.related_figures(kind, entry)
    assert evaluate(fact.expression, entry.figures, related) == pytest.approx(fact.si, rel=0.01)


def test_contradictions_say_which_value_is_preferred() -> None:
    silent = [
        f"{kind}/{name} {key}"
        for kind, name in FILES
        for key, fact in figures(kind, name).items()
        if fact.alternatives and not fact.preferred_because
    ]
    assert silent == []


def test_alternatives_measure_the_same_thing() -> None:
    for kind, name in FILES:
        for key, fact in figures(kind, name).items():
            for other in fact.alternatives:
                reading = Fact(value=other.value, unit=other.unit, status="measured", source=other.source)
                assert reading.dimension == FIGURES[kind][key], f"{kind}/{name} {key}"


def test_names_and_aliases_are_unique() -> None:
    for kind in HARDWARE:
        seen: dict[str, str] = {}
        for name in loader.ids(kind):
            entry = loader.load_file(kind, loader.DATA / kind / f"{name}.toml")
            for spelling in {each.lower() for each in (name, entry.name, *entry.aliases)}:
                assert seen.setdefault(spelling, name) == name, f"{kind}: {spelling} is {name} and {seen[spelling]}"


UNIT_TOTALS = [
    (name, key)
    for name in loader.ids("systems")
    for key in figures("systems", name)
    if key.endswith("_flop_per_s") or key in ("memory_bytes", "memory_bytes_per_s")
]


@pytest.mark.parametrize(("name", "key"), UNIT_TOTALS)
def test_published_total_is_chips_times_chip(name: str, key: str) -> None:
    entry = loader.entry("systems", name)
    assert isinstance(entry, SystemEntry)
    expected = entry.figures["num_chips"].si * figures("chips", entry.chip)[key].si
    assert entry.figures[key].si == pytest.approx(expected, rel=0.01)


NEEDED = (
    *("num_chips", "chips_per_node", "domain_size", "max_chips", "scale_out_bytes_per_s", "scale_out_latency_s"),
    *("host_power_w", "network_power_w"),
)


@pytest.mark.parametrize("name", loader.ids("systems"))
def test_system_is_complete_and_its_parts_exist(name: str) -> None:
    entry = loader.entry("systems", name)
    assert isinstance(entry, SystemEntry)
    sizes = {key: fact.si for key, fact in entry.figures.items()}
    assert [key for key in NEEDED if key not in sizes] == []
    assert entry.chip in loader.ids("chips")
    assert entry.scale_out in loader.ids("links")
    if sizes["domain_size"] > 1:
        assert entry.scale_up in loader.ids("links")
        assert entry.scale_up_topology != "none"
        assert sizes["scale_up_bytes_per_s"] >= sizes["scale_out_bytes_per_s"]
        assert "scale_up_latency_s" in sizes
    if entry.host:
        assert getattr(loader.entry("chips", entry.host), "family", "") == "cpu"
    assert sizes["num_chips"] % sizes["chips_per_node"] == 0
    assert sizes["domain_size"] % sizes["chips_per_node"] == 0
    assert sizes["max_chips"] >= sizes["num_chips"]
    assert load_system(name).unit_chips == sizes["num_chips"]


@pytest.mark.parametrize("name", loader.ids("prices"))
def test_price_belongs_to_a_system_and_is_dated(name: str) -> None:
    entry = loader.entry("prices", name)
    assert isinstance(entry, PriceEntry)
    assert entry.system in loader.ids("systems")
    prices = {key: fact for key, fact in entry.figures.items() if key != "num_chips"}
    assert prices
    for key, fact in prices.items():
        assert fact.note, f"{name} {key} has no date"
        per_chip_hour = fact.si * 3600 / entry.figures["num_chips"].si
        assert 0.3 < per_chip_hour < 20, f"{name} {key}: {per_chip_hour} USD per chip and hour"


def test_trainium3_has_no_price() -> None:
    assert [name for name in loader.ids("prices") if name.startswith(("trn3", "trn4"))] == []


@pytest.mark.parametrize("name", loader.ids("chips"))
def test_chip_is_complete(name: str) -> None:
    entry = loader.entry("chips", name)
    assert isinstance(entry, ChipEntry)
    assert {"memory_bytes", "memory_bytes_per_s", "num_cores", "clock_hz", "tdp_w"} <= entry.figures.keys()
    sizes = {key: fact.si for key, fact in entry.figures.items()}
    if entry.family != "cpu":
        assert "bf16_flop_per_s" in sizes
        assert load_chip(name).matmul_flop_per_s("bf16") > 0
    for array in (key for key in sizes if key.startswith("array_")):
        headline = sizes[array.removeprefix("array_")]
        assert 0.8 * headline < sizes[array] <= 1.001 * headline
    for best in (key for key in sizes if key.startswith("best_measured_")):
        assert sizes[best] < sizes[best.removeprefix("best_measured_")]
    assert sizes.get("usable_memory_bytes", 0.0) <= sizes["memory_bytes"] * 1.08  # "80 GB" parts hold 80 GiB


def test_trainium3_figures() -> None:
    """Against the chip page and the tensor engine's arithmetic, worked by hand."""
    chip = load_chip("trn3")
    assert chip.memory_bytes == 144 * 2**30
    assert chip.memory_bytes_per_s == 4.9e12
    assert chip.peak_flop_per_s["mxfp8"] == pytest.approx(128 * 128 * 4 * 2 * 2.4e9 * 8, rel=1e-3)
    assert chip.peak_flop_per_s["bf16"] == pytest.approx(128 * 128 * 2 * 2.4e9 * 8, rel=1e-3)
    assert chip.facts["bf16_flop_per_s"].si == 671e12
    assert chip.facts["tdp_w"].range_si == (700.0, 1000.0)


def test_trainium4_readings_agree_on_the_ultraserver() -> None:
    per_chip, per_unit = load_chip("trainium4"), load_chip("trainium4-per-ultraserver")
    for dtype in ("mxfp4", "mxfp8"):
        assert 144 * per_chip.peak_flop_per_s[dtype] == pytest.approx(72 * per_unit.peak_flop_per_s[dtype])
    assert 144 * per_chip.peak_flop_per_s["mxfp4"] == pytest.approx(2.175e18, rel=0.01)
    assert 144 * per_chip.memory_bytes_per_s == pytest.approx(2.82e15, rel=0.01)


def test_neuronlink_v4_keeps_the_contradicting_values() -> None:
    fact = figures("links", "neuronlink-v4")["bytes_per_s"]
    assert fact.range_si == (704e9, 1.28e12)
    assert sorted(round(each.value) for each in fact.alternatives) == [1, 704, 1024]


SPELLINGS = {
    "inferentia2": ["inf2", "Inf2", "AWS Inferentia2"],
    "trainium1": [
        *("trn1", "Trn1", "Trainium1", "AWS Trainium", "AWS Trainium1 (1 NeuronCore)", "AWS Trainium (NeuronCore-v2)"),
        *("AWS Trainium1 (1 NeuronCore-v2 of 2)", "AWS Trainium1 (derived from 32 ranks per node)"),
        *("AWS Trainium1 (instance not stated)", "AWS Trainium (generation and instance not stated)"),
        *("AWS Trainium (1 NeuronCore, generation unstated)", "AWS Trainium (1 NeuronCore, generation as in blog)"),
        "AWS Trainium (NeuronCore, generation as in tutorial)",
    ],
    "trainium2": ["trn2", "Trn2", "Trainium2", "AWS Trainium2", "AWS Trainium2 (1 NeuronCore)"],
    "trainium3": ["trn3", "TRN3", "Trainium 3", "AWS Trainium3", "AWS Trainium3 (1 NeuronCore)"],
    "trainium4": ["trn4", "AWS Trainium4"],
    "a100-40-sxm": ["A100-40GB", "NVIDIA A100 SXM4 40GB"],
    "a100-80-sxm": [
        *("a100", "A100-80GB", "NVIDIA A100", "NVIDIA A100 80GB", "NVIDIA A100 SXM", "NVIDIA A100 SXM4"),
        *("NVIDIA A100 SXM4 80GB", "A100-SXM-80GB", "A100-SXM-40GB/80GB (see paper)"),
        "NVIDIA (A100-class, 4 nodes; chip not stated)",
    ],
    "a100-pcie": ["A100-PCIe", "NVIDIA A100 PCIe"],
    "h100-sxm": [
        *("h100", "H100", "H100-SXM", "NVIDIA H100", "NVIDIA H100 SXM5", "NVIDIA H100 SXM5 80GB", "NVIDIA H100 SXM"),
        *("H100-SXM-80GB", "H100-SXM-80GB (power capped)", "NVIDIA H100 SXM 80GB", "NVIDIA H100 80GB"),
        "NVIDIA SM90 (Hopper)",
    ],
    "h100-pcie": ["H100-PCIe-80GB"],
    "h100-nvl": ["H100-NVL"],
    "h100-96": ["H100-96GB-HBM2e-500W"],
    "h200-sxm": ["h200", "H200", "H200-SXM-141GB", "NVIDIA H200", "NVIDIA H200 SXM"],
    "h200-nvl": ["H200-NVL"],
    "h800-sxm": ["H800", "H800-SXM-80GB", "NVIDIA H800", "NVIDIA H800 SXM5"],
    "h20": ["H20", "NVIDIA H20", "see post (H20-class)"],
    "gh200": ["GH200", "GH200-96GB", "NVIDIA GH200 SXM"],
    "b200-sxm": [
        *("b200", "B200", "B200-SXM", "NVIDIA B200", "NVIDIA B200 SXM", "NVIDIA B200 SXM 180GB"),
        *("NVIDIA B200-SXM-180GB", "NVIDIA SM100 (Blackwell)"),
    ],
    "b300-sxm": ["b300", "B300", "B300-SXM", "NVIDIA B300", "NVIDIA B300 SXM", "NVIDIA B300 SXM6"],
    "gb200": ["GB200", "GB200-NVL72", "NVIDIA GB200", "NVIDIA GB200 SXM"],
    "gb300": ["GB300", "GB300-NVL72", "NVIDIA GB300"],
    "l40s": ["L40S", "NVIDIA L40S"],
    "rtx-pro-6000": ["RTX-PRO-6000-Blackwell-SE", "NVIDIA RTX PRO 6000 Server"],
    "rtx-4090": ["RTX4090"],
    "jetson-agx-orin": ["NVIDIA Jetson AGX Orin 64G"],
    "mi210": ["AMD Instinct MI210"],
    "mi250": ["MI250"],
    "mi250x": ["AMD MI250X"],
    "mi300x": ["MI300X", "AMD MI300X"],
    "mi325x": ["MI325X", "AMD MI325X"],
    "mi350x": ["AMD MI350X", "AMD Instinct MI350X 288GB HBM3e"],
    "mi355x": ["MI355X", "AMD MI355X"],
    "gaudi2": ["Gaudi2", "Intel Gaudi 2"],
    "gaudi3": ["Intel Gaudi 3"],
    "max-1550": ["Intel-Max-1550(PVC)"],
    "arc-pro-b50": ["Intel(R) Arc Pro(R) B50"],
    "arc-pro-b60": ["Intel Arc Pro B60", "Intel(R) Arc Pro(R) B60", "MS-Intel Arc Pro B60 Dual 48G Turbo"],
    "arc-pro-b70": ["Intel(R) Arc Pro(R) B70"],
    "tpu-v3": ["TPU v3"],
    "tpu-v4": ["TPU v4"],
    "tpu-v5e": ["TPU v5e", "Google TPU (v5e/v5p)"],
    "tpu-v5p": ["TPU v5p", "Google TPU v5p"],
    "tpu-v6e": ["TPU v6e", "Google TPU v6e"],
    "tpu-v7": ["TPU-v7x(Ironwood)", "TPU7x"],
}


@pytest.mark.parametrize(("chip", "spelling"), [(chip, each) for chip, all_ in SPELLINGS.items() for each in all_])
def test_spelling_finds_the_chip(chip: str, spelling: str) -> None:
    assert loader.resolve("chips", spelling) == chip


@pytest.mark.parametrize(
    ("system", "spelling"),
    [
        ("trn3-gen2-ultraserver", "trn3-ultraserver"),
        ("trn3-gen2-ultraserver", "Trn3 Gen2"),
        ("vr-nvl72", "vr-nvl144"),
        ("p5.48xlarge", "P5.48xlarge"),
        ("gb200-nvl72", "NVL72"),
        ("dgx-a100", "selene"),
    ],
)
def test_spelling_finds_the_system(system: str, spelling: str) -> None:
    assert loader.resolve("systems", spelling) == system


def test_unknown_chip_names_the_nearest() -> None:
    with pytest.raises(CatalogueError, match="did you mean trainium3") as caught:
        loader.entry("chips", "trainum3")
    assert "catalogue chips" in caught.value.hint


GOOD = """
name = "A chip"
vendor = "V"
family = "nvidia"

[figures]
memory_bytes_per_s = { value = 2.0, unit = "TB/s", status = "published", source = "nv_a100" }
"""
FAULTS = {
    "no source at all": (', source = "nv_a100"', "", "missing required field `source`"),
    "empty source": ('source = "nv_a100"', 'source = ""', "figures.memory_bytes_per_s has no source"),
    "unknown source": ("nv_a100", "hearsay", "unknown source hearsay"),
    "bare number": (GOOD[GOOD.index("{") : GOOD.index("}") + 1], "2.0e12", "got `float` - at `$.figures"),
    "unknown figure": ("memory_bytes_per_s", "memory_speed", "figures.memory_speed is not a known figure"),
    "unknown key": ('vendor = "V"', 'vendor = "V"\ncolour = "red"', "unknown field `colour`"),
    "unknown status": ("published", "guessed", "Invalid enum value 'guessed'"),
    "unknown unit": ("TB/s", "furlong", "furlong"),
    "wrong dimension": ("TB/s", "W", "figures.memory_bytes_per_s is a watt, expected a byte_per_s"),
    "range missing": ("published", "estimated", "figures.memory_bytes_per_s is estimated and needs low and high"),
    "range inverted": ('"published"', '"estimated", low = 3, high = 4', "low <= value <= high"),
    "expression missing": ("published", "derived", "figures.memory_bytes_per_s is derived and needs its expression"),
    "required figure missing": ("memory_bytes_per_s", "memory_bytes", "figures.memory_bytes_per_s is missing"),
    "not TOML": ("[figures]", "[figures", "at line 6"),
}


def test_minimal_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "good.toml"
    path.write_text(GOOD)
    assert loader.load_file("chips", path).figures["memory_bytes_per_s"].si == 2e12


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_names_file_and_key(fault: str, tmp_path: Path) -> None:
    old, new, message = FAULTS[fault]
    assert old in GOOD
    path = tmp_path / "broken.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(CatalogueError) as caught:
        loader.load_file("chips", path)
    assert "broken.toml" in str(caught.value)
    assert message.lower() in str(caught.value).lower()


def test_all_faults_of_a_file_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(GOOD + 'tdp_w = { value = 1, unit = "GB", status = "estimated", source = "hearsay" }\n')
    with pytest.raises(CatalogueError) as caught:
        loader.load_file("chips", path)
    text = str(caught.value)
    assert "tdp_w is a byte, expected a watt" in text
    assert "unknown source hearsay" in text
    assert "needs low and high" in text


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("1 +", "does not parse"),
        ("nothing * 2", "is not a figure"),
        ("__import__('os')", "is not arithmetic"),
        ("(1).real", "is not arithmetic"),
        ("1 / 0", "division"),
        ("True + 1", "is not arithmetic"),
    ],
)
def test_expression_that_is_not_arithmetic_is_refused(expression: str, message: str) -> None:
    with pytest.raises(CatalogueError, match=message):
        evaluate(expression, {})
