"""The Trainium kernel model: worked numbers, bounds, monotony, and measured products that it was not fitted to."""

from __future__ import annotations

import dataclasses
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultratwin.errors import CatalogueError, ScenarioError
from ultratwin.hardware.chip import load_chip
from ultratwin.timing.kernels.neuron import NeuronKernels
from ultratwin.timing.kernels.neuron_attention import backward_cycles, forward_cycles, num_tiles
from ultratwin.timing.kernels.neuron_core import GENERATIONS, core_file, engine_scale, neuron_core, neuron_core_bounds
from ultratwin.timing.kernels.neuron_gemm import Product, padded_sizes, product_time, stream, tensor_cycles
from ultratwin.validation.trn3_gemm import predict_profile, predict_rows, read_row

CHIPS = ("inferentia2", "trainium1", "trainium2", "trainium3", "trainium4", "trainium4-per-ultraserver")
DTYPES = ("bf16", "fp16", "fp32", "fp8", "mxfp8", "mxfp4", "nvfp4", "int8", "tf32")

# Neuron profiler, two NeuronCores-v4, bf16: m, n, k, total [us], tensor engine active [us], HBM read, HBM written [MiB]
MEASURED = (
    (1024, 1024, 1024, 79.61, 59.30, 12, 8),
    (2048, 2048, 1025, 135.13, 114.45, 24, 8),
    (2048, 2048, 4096, 245.75, 225.37, 48, 8),
    (4, 4096, 1024, 135.10, 114.69, 16, 16),
    (2048, 4096, 2048, 245.53, 225.14, 32, 16),
    (2048, 6144, 7168, 1196.85, 1170.23, 252, 24),
    (4, 8192, 8192, 1812.66, 1780.07, 384, 32),
    (1024, 28672, 8192, 6282.14, 6230.24, 1344, 112),
    (4096, 128, 4096, 473.30, 448.72, 80, 16),
    (4096, 4096, 3072, 702.88, 671.68, 120, 32),
    (4096, 12288, 5120, 3412.79, 3348.73, 600, 96),
    (4097, 2048, 1024, 204.96, 176.83, 28, 24),
    (8192, 4096, 1024, 508.99, 475.45, 72, 64),
    (8192, 8192, 8192, 7220.69, 7153.51, 1152, 128),
)


def measured_row(m: int, n: int, k: int, total_us: float) -> dict[str, str]:
    sizes = {"m": str(m), "n": str(n), "k": str(k), "total_us_median": str(total_us)}
    return sizes | {"dtype": "bf16", "backend": "nkilib", "lnc": "2", "instance": "trn3pd98.3xlarge"}


def kernels(chip: str) -> NeuronKernels:
    return NeuronKernels(chip=load_chip(chip))


def test_measured_products_are_predicted_from_documents() -> None:
    results = predict_rows([measured_row(*row[:4]) for row in MEASURED])
    assert all(result.status == "scored" for result in results)
    errors = [result.predicted / result.measured - 1 for result in results]
    assert statistics.median(map(abs, errors)) < 0.03
    assert max(map(abs, errors)) < 0.10
    inside = [result.low <= result.measured <= result.high for result in results]
    assert sum(inside) >= 0.75 * len(inside)


def test_measured_counters_are_predicted_too() -> None:
    for m, n, k, total_us, tensor_us, read_mib, write_mib in MEASURED:
        profile = predict_profile(read_row(measured_row(m, n, k, total_us)))
        assert profile.tensor_active_s * 1e6 == pytest.approx(tensor_us, rel=0.07)
        assert profile.hbm_read_bytes / 2**20 == pytest.approx(read_mib, rel=0.01)
        assert profile.hbm_write_bytes / 2**20 == pytest.approx(write_mib, rel=0.01)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"m": ""}, "m is empty"),
        ({"k": "-3"}, "k is -3"),
        ({"dtype": "octet"}, "not a number format"),
        ({"instance": ""}, "instance is empty"),
        ({"instance": "nowhere9.large"}, "unknown chip"),
        ({"instance": "h100-sxm"}, "no NeuronCores"),
        ({"lnc": "64"}, "64 cores"),
    ],
)
def test_rows_that_cannot_be_scored_say_why(change: dict[str, str], reason: str) -> None:
    (result,) = predict_rows([measured_row(512, 512, 512, 100.0) | change])
    assert result.status == "skipped"
    assert reason in result.reason
    assert result.id == "2"


def test_other_sizes_of_an_instance_are_the_same_chip() -> None:
    row = measured_row(2048, 2048, 4096, 245.0)
    first, second = predict_rows([row, row | {"instance": "trn3.48xlarge", "id": "mine"}])
    assert first.predicted == second.predicted
    assert second.id == "mine"


def test_one_instruction_takes_as_many_cycles_as_columns() -> None:
    core = neuron_core("trainium3")
    tile = Product(m=128.0, n=512.0, k=128.0, groups=1, dtype="bf16", a_bytes=2, b_bytes=2, c_bytes=2, padded=False)
    assert tensor_cycles(core, "bf16", stream(core, tile)) == 512 + core.accumulation_start_cycles
    narrow = dataclasses.replace(tile, n=1.0, m=1.0)
    assert stream(core, narrow).columns == 64  # the issue floor
    for dtype, deep in (("fp8", 256), ("mxfp8", 512), ("bf16", 128)):
        assert stream(core, dataclasses.replace(tile, k=float(deep), dtype=dtype)).deep == 1
    assert core.passes("fp32") == 4


def test_library_pads_to_whole_blocks_of_each_core() -> None:
    core = neuron_core("trainium3")
    assert [float(x) for x in padded_sizes(core, 2049.0, 1.0, 1024.0, 1)] == [4096, 1024, 1024]
    assert [float(x) for x in padded_sizes(core, 2048.0, 2048.0, 1023.0, 2)] == [2048, 2048, 1024]


def test_first_block_and_last_tile_do_not_overlap() -> None:
    core = neuron_core("trainium3")
    block = Product(m=2048.0, n=1024.0, k=1024.0, groups=1, dtype="bf16", a_bytes=2, b_bytes=2, c_bytes=2, padded=True)
    time = product_time(core, block)
    rate = 16 * 33e9
    assert time.fill_s == pytest.approx(4 * 2**20 / rate + 2 * 2**20 / (rate * 2048 / 2485) + 1.5e-6, rel=1e-4)
    assert time.fixed_s == pytest.approx(3.8e-6)
    assert time.total_s == pytest.approx(time.fixed_s + time.fill_s + time.tensor_s + time.drain_s)


def test_attention_tile_is_bound_by_the_vector_engine() -> None:
    core = neuron_core("trainium1")
    cycles = forward_cycles(core, 128.0, 128.0)
    assert (cycles.tensor, cycles.scalar, cycles.vector) == (1536, 612, 512 + 512 + 256 + 300)
    back = backward_cycles(core, 128.0, 128.0)
    assert (back.tensor, back.scalar, back.vector) == (3 * 512 + 256 + 3 * 512, 612, 2 * 512 + 256 + 512 + 128 + 600)
    assert num_tiles(core, 4096.0, 4096.0, True, None) == pytest.approx(32 * (2048 + 256) / 512)
    # one head of 4,096 x 4,096 on one NeuronCore-v2: nki-samples' unit test asserts at most 380 us
    one = kernels("trainium1").on_cores(1).attention_time_s(1, 4096, 4096, 1, 1, 128, causal=False)
    assert one == pytest.approx(380e-6, rel=0.1)


def test_loops_that_load_single_tiles_are_bound_by_descriptors() -> None:
    """Tutorial, one NeuronCore-v2, 4096 x 8192 x 8192: 42.96 ms with loads hoisted, 22.07 ms with 2 x 2 blocks."""
    core = kernels("trainium1").on_cores(1)
    hoisted, blocked, best = (
        float(core.gemm_time_s(4096.0, 8192.0, 8192.0, library=library))
        for library in ("nki-hoisted", "nki-free-blocked", "default")
    )
    assert hoisted == pytest.approx(42.96e-3, rel=0.1)
    assert blocked == pytest.approx(22.07e-3, rel=0.1)
    assert best < blocked < hoisted < float(core.gemm_time_s(4096.0, 8192.0, 8192.0, library="nki-tiled"))


def test_a_blocked_product_on_trainium1_comes_near_the_tutorials() -> None:
    one = kernels("trainium1").on_cores(1).gemm_time_s(4096, 8192, 8192)  # tutorial: 6,970 us
    assert one == pytest.approx(6970e-6, rel=0.15)


sizes = st.integers(min_value=1, max_value=40_000).map(float)


@settings(max_examples=150, deadline=None)
@given(
    chip=st.sampled_from(CHIPS),
    dtype=st.sampled_from(DTYPES),
    m=sizes,
    n=sizes,
    k=sizes,
    library=st.sampled_from(("default", "nkilib", "nki-tiled", "nki-hoisted", "nki-free-blocked")),
)
def test_no_product_beats_its_bounds(chip: str, dtype: str, m: float, n: float, k: float, library: str) -> None:
    model = kernels(chip)
    product = model.product(m, n, k, dtype=dtype, library=library)
    assert product.total_s >= 2 * m * n * k / model.chip.matmul_flop_per_s(dtype) * (1 - 1e-9)
    moved = product.read_bytes + product.c_bytes
    assert product.total_s >= moved * model.chip.num_cores / model.chip.memory_bytes_per_s * (1 - 1e-9)
    assert (
        product.total_s
        <= product.fixed_s + product.tensor_s + product.vector_s + product.dma_s + product.fill_s + product.drain_s
    )
    assert product.unoverlapped_s >= product.total_s


@settings(max_examples=60, deadline=None)
@given(
    chip=st.sampled_from(CHIPS),
    causal=st.booleans(),
    batch=st.integers(1, 64),
    seq=st.integers(1, 20_000),
    group=st.integers(1, 8),
)
def test_no_attention_beats_its_bounds(chip: str, causal: bool, batch: int, seq: int, group: int) -> None:
    model = kernels(chip)
    peak, memory = model.chip.matmul_flop_per_s("bf16"), model.chip.memory_bytes_per_s
    share = 0.5 if causal else 1.0
    for phase, passes in (("forward", 2.0), ("backward", 5.0)):
        time = model.attention_time_s(batch, seq, seq, 8 * group, 8, 128, causal=causal, phase=phase)  # type: ignore[arg-type]
        assert time >= passes * 2 * 128 * batch * 8 * group * seq**2 * share / peak
        assert time >= batch * seq * 128 * 2 * (16 * group + 16) / memory
    decode = model.attention_time_s(batch, 1, seq, 8 * group, 8, 128, phase="decode")
    assert decode >= batch * seq * 8 * 256 * 2 / memory


def test_few_rows_are_bound_by_the_dma_engines() -> None:
    model = kernels("trainium3")
    weights_bytes = 8192 * 28672 * 2
    time = model.gemm_time_s(16, 28672, 8192)
    assert weights_bytes / time == pytest.approx(128 * 33e9, rel=0.1)
    assert model.gemm_time_s(1, 28672, 8192) == pytest.approx(time, rel=0.02)


def test_arrays_give_what_numbers_give() -> None:
    model = kernels("trainium2")
    m, n, k = np.array([[16.0], [4096.0]]), np.array([512.0, 5000.0, 28672.0]), np.array([[128.0], [8192.0]])
    times = model.gemm_time_s(m, n, k, groups=np.array([1.0, 4.0, 64.0]))
    assert np.shape(times) == (2, 3)
    assert times[1, 2] == model.gemm_time_s(4096.0, 28672.0, 8192.0, groups=64.0)
    assert times[0, 0] == model.gemm_time_s(16.0, 512.0, 128.0, groups=np.array(1.0))


def test_more_work_and_fewer_cores_take_longer() -> None:
    model = kernels("trainium3")
    steps = np.array([1024.0, 2048.0, 4096.0, 8192.0, 16384.0])
    for times in (
        model.gemm_time_s(steps, 4096, 4096),
        model.gemm_time_s(4096, steps, 4096),
        model.gemm_time_s(4096, 4096, steps),
        model.attention_time_s(1, steps, steps, 32, 8, 128),
        model.attention_time_s(32, 1, steps, 32, 8, 128, phase="decode"),
        model.mla_time_s(32, 1, steps, 128),
        model.memory_bound_time_s(steps * 1e4, kind="norm"),
        model.moe_time_s(steps, 4096, 1536, top_k=8, experts=128, local_experts=16),
        model.gemm_time_s(steps, 4096, 4096, groups=8),
    ):
        assert np.all(np.diff(times) > 0)
    assert model.on_cores(1).gemm_time_s(8192, 8192, 8192) > 7 * model.gemm_time_s(8192, 8192, 8192)
    assert model.gemm_time_s(4096, 4096, 4096, accumulate=True) > model.gemm_time_s(4096, 4096, 4096)


def test_a_window_and_a_mask_save_work() -> None:
    model = kernels("trainium2")
    full = model.attention_time_s(1, 16384, 16384, 32, 8, 128, causal=False)
    causal = model.attention_time_s(1, 16384, 16384, 32, 8, 128)
    window = model.attention_time_s(1, 16384, 16384, 32, 8, 128, window=1024)
    assert 0.5 * full <= causal < 0.55 * full
    assert window < 0.2 * causal


def test_narrow_formats_are_faster_and_headlines_are_not_used() -> None:
    model = kernels("trainium3")
    times = [float(model.gemm_time_s(16384, 16384, 16384, dtype=dtype)) for dtype in ("fp32", "bf16", "fp8", "mxfp8")]
    assert [times[0] / t for t in times] == pytest.approx([1, 4, 8, 16], rel=0.06)
    assert 2 * 16384.0**3 / times[1] < 629.2e12  # the array's rate, not the 671 TFLOP/s of the chip's page


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_generation_loads_with_sources_and_ordered_ranges(generation: str) -> None:
    for name, fact in core_file(generation).figures.items():
        low, high = fact.range_si
        assert low <= fact.si <= high, name


def test_bounds_of_the_facts_enclose_the_expected_core() -> None:
    for chip in ("trainium1", "trainium2", "trainium3"):
        fast, slow = neuron_core_bounds(chip)
        model = kernels(chip)
        times = [float(model.product(4096, 4096, 4096, core=core).total_s) for core in (fast, neuron_core(chip), slow)]
        assert times == sorted(times)
        assert float(engine_scale(model.chip, neuron_core(chip))) == pytest.approx(1.0, rel=1e-3)
    assert float(engine_scale(load_chip("trainium4"), neuron_core("trainium4"))) > 2


def test_errors_name_what_is_allowed() -> None:
    with pytest.raises(ScenarioError, match="allowed: above 0, at most 8"):
        kernels("trainium3").on_cores(9)
    with pytest.raises(CatalogueError, match="allowed: neuroncore-v2, neuroncore-v3, neuroncore-v4"):
        core_file("neuroncore-v1")
