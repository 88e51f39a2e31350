"""Kernel times: bounds, monotony, stand-ins, measured rows, bad rows, speed."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultratwin.catalogue import loader
from ultratwin.errors import CatalogueError, ScenarioError
from ultratwin.hardware.chip import load_chip
from ultratwin.timing.kernels import kernel_model
from ultratwin.timing.kernels.attention import AttentionShape, attention_flop, visible_keys
from ultratwin.timing.kernels.fitted import FittedKernels, likeness, picked, stand_ins
from ultratwin.timing.kernels.libraries import library_name
from ultratwin.validation.kernel_rows import Unreadable, cores_measured, formats, read_row
from ultratwin.validation.kernels import predict_rows

CHIPS = [name for name in loader.ids("chips") if load_chip(name).family not in ("neuron", "cpu")]
SIZES = st.integers(1, 40_000)
FORMATS = st.sampled_from(["bf16", "fp16", "fp8", "mxfp8", "nvfp4", "mxfp4"])


def row(**cells: object) -> dict[str, str]:
    base = {
        "id": "x",
        "source_id": "s",
        "chip": "h100-sxm",
        "op_class": "gemm",
        "kernel": "torch",
        "dtype": "bf16",
        "phase": "fwd",
    }
    return base | {key: str(value) for key, value in cells.items()}


@settings(max_examples=150, deadline=None)
@given(chip=st.sampled_from(CHIPS), m=SIZES, n=SIZES, k=SIZES, dtype=FORMATS, groups=st.sampled_from([1, 2, 64]))
def test_gemm_keeps_its_bounds(chip: str, m: int, n: int, k: int, dtype: str, groups: int) -> None:
    model = kernel_model(load_chip(chip))
    peak = model.chip.matmul_flop_per_s(dtype)
    seconds = model.gemm_time_s(m, n, k, dtype=dtype, groups=groups)
    assert seconds >= 2.0 * m * n * k * groups / peak
    moved = groups * 0.5 * (m * k + n * k)  # at least half a byte per element
    if moved > model.chip.l2_bytes:
        assert seconds >= moved / model.chip.memory_bytes_per_s


@settings(max_examples=100, deadline=None)
@given(
    chip=st.sampled_from(CHIPS), batch=st.integers(1, 64), seq=st.integers(1, 32_768),
    heads=st.sampled_from([1, 8, 32]), group=st.sampled_from([1, 4, 8]), width=st.sampled_from([64, 128, 192, 256]),
    causal=st.booleans(),
    phase=st.sampled_from(["forward", "backward"]),
)  # fmt: skip
def test_attention_keeps_its_bounds(
    chip: str, batch: int, seq: int, heads: int, group: int, width: int, causal: bool, phase: str
) -> None:
    model = kernel_model(load_chip(chip))
    seconds = model.attention_time_s(batch, seq, seq, heads * group, heads, width, causal=causal, phase=phase)  # type: ignore[arg-type]
    shape = AttentionShape(batch=batch, seq_q=seq, seq_kv=seq, heads_q=heads * group, heads_kv=heads, head_dim=width,
                           head_dim_v=width, kv_width=2 * width, causal=causal)  # fmt: skip
    flop = attention_flop(shape) * (2.5 if phase == "backward" else 1.0)
    assert seconds >= flop / model.chip.matmul_flop_per_s("bf16") * (1 - 1e-12)


@settings(max_examples=60, deadline=None)
@given(
    chip=st.sampled_from(CHIPS), batch=st.integers(1, 256), keys=st.integers(1, 131_072), heads=st.sampled_from([1, 8])
)
def test_decode_reads_the_stored_keys(chip: str, batch: int, keys: int, heads: int) -> None:
    model = kernel_model(load_chip(chip))
    stored = 2.0 * 2 * batch * keys * heads * 128
    seconds = model.attention_time_s(batch, 1, keys, 8 * heads, heads, 128, phase="decode")
    if stored > model.chip.l2_bytes:
        assert seconds >= stored / model.chip.memory_bytes_per_s


@pytest.mark.parametrize("name", CHIPS)
def test_every_chip_answers_every_question(name: str) -> None:
    model = kernel_model(load_chip(name))
    for dtype in ("bf16", "fp16", "fp32", "fp8", "nvfp4"):
        assert 0 < model.gemm_time_s(512, 1024, 2048, dtype=dtype) < 1
        assert 0 < model.gemm_time_s(64, 1024, 2048, dtype=dtype, groups=8) < 1
        assert 0 < model.moe_time_s(64, 2048, 1024, top_k=2, experts=8, local_experts=8, dtype=dtype) < 1
    assert model.gemm_time_s(4096, 4096, 4096, accumulate=True) > model.gemm_time_s(4096, 4096, 4096)
    for kind in ("elementwise", "norm", "softmax", "rope", "embedding", "activation", "quantize", "amax", "copy"):
        large = model.memory_bound_time_s(1e9, kind=kind)  # type: ignore[arg-type]
        assert large >= 1e9 / model.chip.memory_bytes_per_s
    forward, backward = (
        model.attention_time_s(2, 4096, 4096, 16, 8, 128, phase=phase)  # type: ignore[arg-type]
        for phase in ("forward", "backward")
    )
    assert 1.5 * forward < backward < 5 * forward
    assert model.mla_time_s(8, 1, 4096, 128) > 0
    assert model.mla_time_s(1, 4096, 4096, 128, phase="forward") > 0


@settings(max_examples=40, deadline=None)
@given(m=SIZES, n=SIZES, k=SIZES, factor=st.floats(1.01, 4))
def test_faster_chips_are_never_slower(m: int, n: int, k: int, factor: float) -> None:
    chip = load_chip("h100-sxm")
    more_memory = dataclasses.replace(chip, memory_bytes_per_s=chip.memory_bytes_per_s * factor)
    more_flop = dataclasses.replace(chip, peak_flop_per_s={d: p * factor for d, p in chip.peak_flop_per_s.items()})
    base = kernel_model(chip).gemm_time_s(m, n, k)
    assert kernel_model(more_memory).gemm_time_s(m, n, k) <= base
    assert kernel_model(more_flop).gemm_time_s(m, n, k) <= base


def test_arrays_and_uncertain_rates_give_the_same_numbers_as_scalars() -> None:
    chip = load_chip("b200-sxm")
    m = np.array([1.0, 77.0, 4096.0])
    n = np.array([[512.0], [8192.0]])
    stacked = kernel_model(chip).gemm_time_s(m, n, 4096.0)
    alone = [[kernel_model(chip).gemm_time_s(float(a), float(b), 4096.0) for a in m] for b in n[:, 0]]
    np.testing.assert_allclose(stacked, alone, rtol=1e-12)
    peaks = np.array([1.0, 0.5, 2.0]) * chip.peak_flop_per_s["bf16"]
    sampled = dataclasses.replace(chip, peak_flop_per_s={"bf16": peaks})
    by_sample = kernel_model(sampled).gemm_time_s(m, n, 4096.0)
    assert np.asarray(by_sample).shape == (2, 3)
    half = dataclasses.replace(chip, peak_flop_per_s={"bf16": peaks[1]})
    np.testing.assert_allclose(np.asarray(by_sample)[:, 1], kernel_model(half).gemm_time_s(77.0, n[:, 0], 4096.0))


def test_causal_masks_and_windows_count_the_visible_keys() -> None:
    def seen(**more: object) -> float:
        sizes = {"batch": 1, "heads_q": 1, "heads_kv": 1, "head_dim": 64, "head_dim_v": 64, "kv_width": 128}
        return float(visible_keys(AttentionShape(**(sizes | more)))[0])  # type: ignore[arg-type]

    def counted(queries: int, keys: int, window: int) -> float:
        first = keys - queries
        return float(np.mean([min(first + i + 1, window) for i in range(queries)]))

    assert seen(seq_q=8, seq_kv=8, causal=False) == 8
    assert seen(seq_q=8, seq_kv=8) == counted(8, 8, 99) == 4.5
    assert seen(seq_q=4, seq_kv=8) == counted(4, 8, 99)
    assert seen(seq_q=8, seq_kv=8, window=3) == pytest.approx(counted(8, 8, 3))
    assert seen(seq_q=4, seq_kv=16, window=3) == counted(4, 16, 3) == 3


def test_stand_ins_end_at_the_family_and_widen_the_range() -> None:
    assert stand_ins("rubin", "nvidia")[:2] == ["rubin", "gb300"]
    assert stand_ins("some-new-gpu", "nvidia") == ["some-new-gpu", "h100-sxm"]
    assert stand_ins("some-new-accelerator", "amd") == ["some-new-accelerator", "mi300x", "h100-sxm"]
    with pytest.raises(CatalogueError, match="abacus"):
        stand_ins("abacus-1", "abacus")
    for name in likeness().chips:
        assert name in loader.ids("chips") or name == "tpu-xla", name  # the documented arrays, no chip of its own
    own, stands_in = picked("h100-sxm", "nvidia", "gemm", "bf16", "trtllm-1.3.0rc20")
    assert not stands_in
    other, stands_in = picked("h100-nvl", "nvidia", "gemm", "bf16", "trtllm-1.3.0rc20")
    assert stands_in
    assert other == own
    model = kernel_model(load_chip("h100-nvl"))
    assert isinstance(model, FittedKernels)
    assert model.choice("gemm", "bf16", "trtllm-1.3.0rc20").error_range()[0] == pytest.approx(
        own.low_error - likeness().stand_in_error
    )


def test_part_of_a_chip() -> None:
    model = kernel_model(load_chip("h100-sxm"))
    half = model.on_cores(66)
    assert half.chip.memory_bytes_per_s == model.chip.memory_bytes_per_s / 2
    assert half.gemm_time_s(8192, 8192, 8192) > 1.9 * model.gemm_time_s(8192, 8192, 8192)
    with pytest.raises(ScenarioError, match="at most 132"):
        model.on_cores(133)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("fp16/bf16", ("bf16", "bf16")), ("bf16->fp32", ("bf16", "bf16")), ("w4a8_mxfp4_mxfp8", ("mxfp8", "mxfp4")),
        ("bfloat16/kv fp8", ("bf16", "fp8")), ("fp4", ("nvfp4", "nvfp4")), ("int4_wo", ("bf16", "int4")),
        ("fp8_e4m3 (1x128/128x128 block scale)->bf16", ("fp8", "fp8")), ("bf16 (fp8 KV)", ("bf16", "fp8")),
    ],
)  # fmt: skip
def test_number_formats(label: str, expected: tuple[str, str]) -> None:
    assert formats(label) == expected


def test_labels() -> None:
    assert library_name("", "Standard Attention(PyTorch)", attention=True) == "unfused"
    assert library_name("vLLM layer profile", "Llama-3.1-8B q_proj") == "layer-profile"
    assert library_name("", "DeepGEMM masked (up-proj)", "fp8_e4m3 block") == "deepgemm-masked"
    assert cores_measured("AWS Trainium1 (1 NeuronCore-v2 of 2)") == 1
    assert cores_measured("AWS Trainium (NeuronCore-v2)") == 1
    assert cores_measured("NVIDIA H100 SXM5 80GB") == 0


def test_broken_rows_are_counted_and_named() -> None:
    good = row(M=4096, N=4096, K=4096, time_us=300)
    bad = {
        "M is empty": row(N=1, K=1, time_us=1),
        "M is not a number": row(M="many", N=1, K=1, time_us=1),
        "K is nan": row(M=1, N=1, K="nan", time_us=1),
        "N is -4": row(M=1, N=-4, K=1, time_us=1),
        "time_us is inf": row(M=1, N=1, K=1, time_us="inf"),
        "dtype is empty": row(M=1, N=1, K=1, time_us=1, dtype=""),
        'op_class "ssm"': row(op_class="ssm", time_us=1),
        "chip is empty": row(M=1, N=1, K=1, time_us=1, chip=""),
        'unknown chip "abacus"': row(M=1, N=1, K=1, time_us=1, chip="abacus"),
        "phase": row(M=1, N=1, K=1, time_us=1, phase="unknown"),
        "batch is empty": row(op_class="attention", seq_q=1, time_us=1),
    }
    results = predict_rows([good, *bad.values(), {}])
    unmeasured = predict_rows([row(M=1, N=1, K=1)])[0]
    assert (unmeasured.status, unmeasured.measured) == ("scored", None)
    assert results[0].status == "scored"
    assert results[0].low < results[0].predicted < results[0].high  # type: ignore[operator]
    for reason, result in zip(bad, results[1:], strict=False):
        assert result.status == "skipped", reason
        assert result.reason.startswith(reason), (reason, result.reason)
    assert results[-1].id == str(len(results) + 1)
    assert len(results) == len(bad) + 2


def test_times_from_published_rates() -> None:
    assert read_row(row(M=1000, N=1000, K=1000, tflops=2)).seconds == pytest.approx(1e-3)
    cells = {
        "op_class": "attention",
        "batch": 1,
        "seq_q": 1000,
        "seq_kv": 1000,
        "heads_q": 1,
        "heads_kv": 1,
        "head_dim": 100,
    }
    assert read_row(row(**cells, tflops=0.4)).seconds == pytest.approx(1e-3)
    assert read_row(row(**cells, tflops=0.4, causal=True)).seconds == pytest.approx(0.5e-3)
    assert read_row(row(**cells, tflops=0.4, phase="bwd")).seconds == pytest.approx(2.5e-3)
    with pytest.raises(Unreadable, match="tflops"):
        read_row(row(M=1, N=1, K=1, tflops="fast"))


TE = "Transformer Engine/cuBLAS GEMM layout"
DENSE = {"heads_q": 16, "heads_kv": 16, "head_dim": 128}

# published rows of several kinds: cells, microseconds, tolerance (about twice the fit's median error)
MEASURED = [
    # LLMCompass and Vidur, A100, fp16
    (row(chip="NVIDIA A100 SXM4 80GB", kernel="torch.matmul", dtype="fp16", M=8192, N=8192, K=8192), 3961.4, 0.06),
    (row(chip="NVIDIA A100 80GB", framework="vLLM/sarathi layer profile", M=4096, N=7168, K=8192), 1931.0, 0.08),
    # LLMServingSim, H100, bf16: bound by arithmetic and by memory
    (row(chip="NVIDIA H100", framework="vLLM layer profile", M=1024, N=8192, K=28672), 627.652, 0.1),
    (row(chip="NVIDIA H100", framework="vLLM layer profile", M=1, N=8192, K=28672), 155.966, 0.12),
    # SimuMax, B200: gradients of inputs and of weights
    (row(chip="NVIDIA B200", kernel=f"{TE} NN", phase="dgrad", M=4096, N=16384, K=16384), 1898.09, 0.12),
    (row(chip="NVIDIA B200", kernel=f"{TE} NT", phase="wgrad", M=8192, N=28672, K=16384), 7079.96, 0.15),
    # FlashAttention-3 paper, H100
    (
        row(chip="NVIDIA H100", op_class="attention", kernel="FlashAttention-3", batch=4, seq_q=4096, seq_kv=4096)
        | {key: str(value) for key, value in DENSE.items()}
        | {"causal": "True"},
        474.75,
        0.15,
    ),
    # InferSim, H20: masked grouped products
    (
        row(chip="NVIDIA H20", op_class="grouped_gemm", kernel="DeepGEMM masked (up-proj)", phase="decode")
        | {"dtype": "fp8_e4m3 block", "M": "128", "N": "1536", "K": "2048", "groups": "32"},
        157.27,
        0.2,
    ),
]


@pytest.mark.parametrize(("measured_row", "time_us", "tolerance"), MEASURED)
def test_measured_rows(measured_row: dict[str, str], time_us: float, tolerance: float) -> None:
    (result,) = predict_rows([measured_row | {"time_us": str(time_us)}])
    assert result.status == "scored"
    assert result.predicted == pytest.approx(time_us * 1e-6, rel=tolerance)


def test_thirty_operators_of_eight_thousand_candidates_are_fast() -> None:
    model = kernel_model(load_chip("h100-sxm"))
    random = np.random.default_rng(0)
    m, n, k = (random.integers(64, 65536, (30, 8192)).astype(float) for _ in range(3))
    model.gemm_time_s(m, n, k)
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        model.gemm_time_s(m, n, k)
        taken.append(time.perf_counter() - start)
    assert min(taken) < 0.15  # 25 ms alone on the reference machine; generous for a busy one
