"""Models as they are served: what a sequence keeps, recurrent and sparse layers, windows, names of copies."""

from __future__ import annotations

import numpy as np
import pytest

from ultratwin.catalogue import loader
from ultratwin.catalogue.schema import ModelEntry
from ultratwin.errors import ModelError
from ultratwin.hardware.system import load_system
from ultratwin.mapping.plan import Plan
from ultratwin.mapping.profile import load_profile
from ultratwin.mapping.recipe import recipe
from ultratwin.timing.compute import compute_times
from ultratwin.timing.layer import pool_kernels
from ultratwin.workload.config_json import model_from_config
from ultratwin.workload.kv_cache import (
    kv_bytes_per_rank,
    kv_bytes_per_token,
    state_bytes_per_sequence,
    state_elements,
    windowed,
)
from ultratwin.workload.layers import KINDS, layer_parts, part_of
from ultratwin.workload.load import load_model
from ultratwin.workload.model import (
    NO_ATTENTION,
    NO_MLP,
    Attention,
    GatedDeltaNet,
    LatentAttention,
    LightningAttention,
    Mamba,
    Mamba2,
    Model,
    Moe,
)
from ultratwin.workload.operators import AttentionCore, Gemm, Vector
from ultratwin.workload.parameters import active_parameter_count, layer_parameters, parameter_count
from ultratwin.workload.tables import operator_tables

IDS = loader.ids("models")


def name_of(entry_id: str) -> str:
    found = loader.entry("models", entry_id)
    assert isinstance(found, ModelEntry)
    return found.name


def mixers(model: Model) -> list[str]:
    return [type(layer.attention).__name__ for layer in model.layers]


# --- what a sequence keeps, against published numbers


@pytest.mark.parametrize(
    ("name", "kib"),
    [
        ("llama3.1-70b", 320.0),  # 2 x 8 heads x 128 x 80 layers x 2 bytes
        ("llama3.1-8b", 128.0),
        ("llama3.1-405b", 504.0),
        ("llama-2-7b", 512.0),
        ("qwen3-32b", 256.0),
        ("minimax-m2.5", 248.0),
        ("deepseek-v3", 68.625),  # 70.272 kB: DeepSeek-V3 inference notes (arXiv 2505.09343) table 1
        ("llama3.1-405b", 516.096 * 1000 / 1024),  # the same table
    ],
)
def test_bytes_per_token_are_as_published(name: str, kib: float) -> None:
    model = load_model(name)
    assert kv_bytes_per_token(model, 2.0) == pytest.approx(kib * 1024)
    assert kv_bytes_per_token(model, 1.0) == pytest.approx(kib * 512)


def test_gpt_oss_keeps_half_its_layers_as_windows() -> None:
    model = load_model("gpt-oss-120b")
    per_layer = 2 * 8 * 64 * 2
    assert kv_bytes_per_token(model) == 18 * per_layer
    assert windowed(model) == [(128, 18.0 * per_layer)]


def test_gemma3_keeps_one_layer_of_six_whole() -> None:
    model = load_model("gemma-3-27b")
    per_layer = 2 * 16 * 128 * 2
    assert kv_bytes_per_token(model) == 10 * per_layer
    assert windowed(model) == [(1024, 52.0 * per_layer)]


def test_sparse_attention_keeps_all_tokens_and_an_index_key_for_each() -> None:
    dense, sparse = load_model("deepseek-v3"), load_model("deepseek-v3.2")
    assert kv_bytes_per_token(sparse) - kv_bytes_per_token(dense) == 61 * (128 + 4)
    assert windowed(sparse) == []
    glm = load_model("glm-5.2")
    assert kv_bytes_per_token(glm) < kv_bytes_per_token(load_model("glm-5"))  # most of its layers have no indexer


def test_states_do_not_grow_and_count_as_worked_by_hand() -> None:
    qwen = load_model("qwen3-next-80b")
    one = 32 * 128 * 128 * 4 + 3 * (2 * 16 * 128 + 32 * 128) * 2
    assert state_bytes_per_sequence(qwen) == 36 * one
    assert kv_bytes_per_token(qwen) == 12 * 2 * 2 * 256 * 2
    nano = load_model("nemotron-nano-9b-v2")
    one = 128 * 80 * 128 * 4 + 3 * (128 * 80 + 2 * 8 * 128) * 2
    assert mixers(nano).count("Mamba2") == 27
    assert state_bytes_per_sequence(nano) == 27 * one
    assert state_bytes_per_sequence(load_model("llama3.1-8b")) == 0.0


def test_a_rank_keeps_its_heads_but_all_of_the_latents() -> None:
    ways = np.array([1.0, 4.0, 16.0])
    llama, deepseek, qwen = load_model("llama3.1-70b"), load_model("deepseek-v3"), load_model("qwen3-next-80b")
    assert kv_bytes_per_rank(llama, 2.0, ways)[0] == pytest.approx(320 * 1024 / np.array([1, 4, 8]))
    assert kv_bytes_per_rank(deepseek, 1.0, ways)[0] == pytest.approx(np.full(3, 576 * 61))
    full, windows, state = kv_bytes_per_rank(qwen, 2.0, ways)
    assert full == pytest.approx(kv_bytes_per_token(qwen) / np.array([1, 2, 2]))
    assert np.all(windows == 0)
    assert state == pytest.approx(state_bytes_per_sequence(qwen) / ways)
    _, windows, _ = kv_bytes_per_rank(load_model("gpt-oss-20b"), 2.0, 2.0)
    assert float(windows) == 128 * 12 * 2 * 4 * 64 * 2


@pytest.mark.parametrize("entry_id", IDS)
def test_every_model_keeps_something_and_fewer_bytes_in_fewer_bits(entry_id: str) -> None:
    model = load_model(name_of(entry_id))
    kept = kv_bytes_per_token(model) + sum(each for _, each in windowed(model))
    assert kept > 0
    assert kv_bytes_per_token(model, 1.0) <= kv_bytes_per_token(model, 2.0)
    full, windows, state = kv_bytes_per_rank(model, 2.0, 1.0)
    assert float(full) == pytest.approx(kv_bytes_per_token(model))
    assert float(windows) == pytest.approx(sum(tokens * each for tokens, each in windowed(model)))
    assert float(state) == pytest.approx(state_bytes_per_sequence(model))


# --- layers


@pytest.mark.parametrize("entry_id", IDS)
def test_layers_hold_the_parameters_that_are_counted(entry_id: str) -> None:
    model = load_model(name_of(entry_id))
    tables = operator_tables(model)
    for at, layer in enumerate(model.layer_kinds()):
        parts = layer_parts(layer, model.hidden_size, model.norm)
        held = sum(each.elements for part in parts for each in part.parameters)
        assert held == pytest.approx(layer_parameters(model, layer), rel=3e-4)
        weights = tables.weights
        assert float(weights.tensor[at, 0] + weights.expert[at, 0] + weights.replicated[at, 0]) == pytest.approx(held)


MIXERS = (
    Mamba2(num_heads=128, head_dim=64, state_size=128, num_groups=8, chunk_size=128),
    Mamba(inner_size=8192, state_size=16, step_rank=256),
    GatedDeltaNet(num_heads=32, num_kv_heads=16, key_head_dim=128, value_head_dim=128),
    LightningAttention(num_heads=64, head_dim=128),
)


def test_every_recurrent_kind_is_tested_below() -> None:
    assert {type(each) for each in MIXERS} | {Attention, LatentAttention} >= {
        kind for kind, _ in KINDS if kind.__name__ not in ("Mlp", "Moe")
    }


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda each: type(each).__name__)
def test_projections_of_recurrent_layers_are_their_weights(mixer: object) -> None:
    """Products that are no scan have the weights that the layer holds; what else it holds is small."""
    part = part_of(mixer, 4096)
    products = sum(op.n * op.k for op in part.operators if isinstance(op, Gemm) and not op.is_scan)
    held = sum(each.elements for each in part.parameters)
    assert products < held < 1.02 * products


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda each: type(each).__name__)
def test_a_scan_is_marked_and_its_weights_are_none(mixer: object) -> None:
    part = part_of(mixer, 4096)
    scans = [op for op in part.operators if isinstance(op, Gemm | Vector) and op.is_scan]
    assert {type(each) for each in scans} == {Gemm, Vector}
    assert not any(isinstance(op, AttentionCore) for op in part.operators)
    saved = {each.split for each in part.saved}
    assert saved <= {"tensor", "sequence"}


def test_the_scan_of_mamba2_costs_what_its_algorithm_says() -> None:
    """Dao and Gu 2024: a chunk of Q tokens: C B' for each group, its causal product with x, states in and out."""
    heads, size, state, groups, chunk = 128, 64, 128, 8, 128
    mamba = Mamba2(num_heads=heads, head_dim=size, state_size=state, num_groups=groups, chunk_size=chunk)
    scan = next(op for op in part_of(mamba, 4096).operators if isinstance(op, Gemm) and op.is_scan)
    inner = heads * size
    flop = 2 * (chunk * groups * state + chunk / 2 * inner + 2 * inner * state)
    assert 2 * scan.n * scan.k == pytest.approx(flop, rel=0.01)


def test_the_scan_of_the_delta_rule_costs_what_its_algorithm_says() -> None:
    net = GatedDeltaNet(num_heads=64, num_kv_heads=16, key_head_dim=128, value_head_dim=128)
    scan = next(op for op in part_of(net, 4096).operators if isinstance(op, Gemm) and op.is_scan)
    per_head = 2 * 64 * (3 * 128 + 2 * 128) + 6 * 128 * 128
    assert 2 * scan.n * scan.k == pytest.approx(64 * per_head, rel=0.01)


def test_scans_are_columns_of_the_tables_that_no_recipe_computes_low() -> None:
    tables = operator_tables(load_model("qwen3-next-80b"))
    scans = [at for at in range(len(tables.gemms.n)) if tables.gemms.is_scan[at, 0]]
    assert len(scans) == 1
    assert set(scans) <= set(tables.gemms.is_high)
    assert sum(float(table.is_scan.sum()) for table in tables.vectors) == 4
    assert not operator_tables(load_model("llama3.1-8b")).gemms.is_scan.any()


def test_states_have_the_elements_of_the_kind() -> None:
    assert [state_elements(each) for each in MIXERS] == [128 * 64 * 128, 8192 * 16, 32 * 128 * 128, 64 * 128 * 128]
    assert state_elements(Attention(num_heads=8, num_kv_heads=8, head_dim=64)) == 0


def test_half_a_layer_has_no_operators_of_the_other_half() -> None:
    assert not part_of(NO_ATTENTION, 4096).operators
    assert not part_of(NO_MLP, 4096).parameters
    nas = load_model("llama-3.3-nemotron-super-49b")
    lacking = sum(layer.attention == NO_ATTENTION for layer in nas.layers)
    assert lacking == 31
    assert [layer.num_parts for layer in nas.layers].count(1) == lacking
    assert load_model("llama3.1-8b").layers[0].num_parts == 2


def test_an_indexer_scores_all_keys_and_attention_sees_the_best() -> None:
    part = part_of(load_model("deepseek-v3.2").layers[0].attention, 7168)
    cores = {op.name: op for op in part.operators if isinstance(op, AttentionCore)}
    assert cores["latent attention"].window == 2048
    assert cores["indexer"].window is None
    assert (cores["indexer"].num_heads, cores["indexer"].head_dim) == (64, 128)
    shared = [layer.attention for layer in load_model("glm-5.2").layers if isinstance(layer.attention, LatentAttention)]
    assert [each.index_heads for each in shared[:7]] == [32, 32, 32, 0, 0, 0, 32]
    assert {each.index_topk for each in shared} == {2048}


# --- architectures


def test_hybrids_mix_as_their_config_says() -> None:
    nano = load_model("nemotron-nano-9b-v2")
    assert mixers(nano)[:5] == ["Mamba2"] * 5
    assert [layer.mlp == NO_MLP for layer in nano.layers[:6]] == [False, False, False, True, False, False]
    assert mixers(nano).count("Attention") == 4
    assert sum(layer.num_norms for layer in nano.layers) == 56  # one norm for each of the 56 blocks
    assert mixers(load_model("qwen3-next-80b")) == (["GatedDeltaNet"] * 3 + ["Attention"]) * 12
    assert mixers(load_model("minimax-text-01")) == (["LightningAttention"] * 7 + ["Attention"]) * 10
    jamba = load_model("jamba")
    assert [index for index, each in enumerate(mixers(jamba)) if each == "Attention"] == [4, 12, 20, 28]
    assert [isinstance(layer.mlp, Moe) for layer in jamba.layers[:4]] == [False, True, False, True]
    granite = load_model("granite-4.0-h-small")
    assert [index for index, each in enumerate(mixers(granite)) if each == "Attention"] == [5, 15, 25, 35]


def test_experts_of_nemotron_3_super_work_on_latents() -> None:
    layer = load_model("nemotron-3-super").layers[0]
    assert isinstance(layer.mlp, Moe)
    assert (layer.mlp.latent_size, layer.mlp.gated) == (1024, False)
    gemms = {op.name: op for op in part_of(layer.mlp, 4096).operators if isinstance(op, Gemm)}
    assert (gemms["latent down projection"].k, gemms["latent down projection"].n) == (4096, 1024)
    assert gemms["expert up projection"].k == gemms["expert down projection"].n == 1024


@pytest.mark.parametrize(
    ("name", "active"),
    [
        ("qwen3.5-397b-a17b", 17.0),
        ("qwen3.5-122b-a10b", 10.0),
        ("qwen3-235b-a22b-instruct-2507", 22.0),
        ("qwen3-coder-480b", 35.0),
        ("glm-4.5", 32.0),
        ("glm-5", 40.0),
        ("kimi-k2.5", 32.6),
        ("granite-4.0-h-small", 9.0),
    ],
)
def test_active_parameters_are_as_the_name_or_the_card_says(name: str, active: float) -> None:
    """With or without the input table, whichever the publisher counts; names round to whole billions."""
    model = load_model(name)
    counts = [active_parameter_count(model, include_embedding=each) / 1e9 for each in (True, False)]
    assert min(abs(each - active) for each in counts) <= 0.03 * active


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        # a hub's count of the 16-bit weights, each; a wrong bias, norm or tie would show
        (("olmo2", 4096, 11008, 32, 32, 32, 100352, {}), 7_298_617_344),
        (("cohere", 8192, 22528, 40, 64, 64, 256000, {}), 34_980_831_232),
        (("glm4", 6144, 23040, 61, 48, 2, 151552, {"head_dim": 128, "attention_bias": False}), 32_566_081_536),
        (("starcoder2", 6144, 24576, 40, 48, 4, 49152, {"tie_word_embeddings": False}), 15_957_889_024),
        (
            ("seed_oss", 5120, 27648, 64, 80, 8, 155136,
             {"head_dim": 128, "attention_bias": True, "attention_out_bias": False}),
            36_151_104_512,
        ),
    ],
)  # fmt: skip
def test_families_count_as_published(config: tuple[object, ...], parameters: int) -> None:
    kind, hidden, width, layers, heads, kv_heads, vocab, more = config
    assert isinstance(more, dict)
    keys = {
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
    }
    assert parameter_count(model_from_config(keys | more)) == parameters


def test_command_r7b_sees_all_in_each_fourth_layer() -> None:
    windows = [
        each.attention.window for each in load_model("command-r7b").layers if isinstance(each.attention, Attention)
    ]
    assert windows == [4096, 4096, 4096, None] * 8


NEMOTRON = {
    "model_type": "nemotron_h",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "mamba_num_heads": 8,
    "mamba_head_dim": 16,
    "ssm_state_size": 16,
    "n_groups": 2,
    "vocab_size": 100,
    "hybrid_override_pattern": "M-M*-",
}


def test_a_pattern_of_blocks_becomes_layers() -> None:
    model = model_from_config(NEMOTRON)
    assert mixers(model) == ["Mamba2", "Mamba2", "Attention"]
    assert [layer.num_parts for layer in model.layers] == [2, 1, 2]
    listed = {key: value for key, value in NEMOTRON.items() if key != "hybrid_override_pattern"}
    words = ["mamba", "mlp", "mamba", "attention", "mlp"]
    assert model_from_config(listed | {"layers_block_type": words}).layers == model.layers
    alone = model_from_config(NEMOTRON | {"hybrid_override_pattern": "--*"})
    assert [layer.num_parts for layer in alone.layers] == [1, 1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hybrid_override_pattern": "MX"}, "hybrid_override_pattern has 'X'"),
        ({"hybrid_override_pattern": ""}, "hybrid_override_pattern is missing"),
        ({"mamba_num_heads": None}, "mamba_num_heads is missing"),
        ({"layers_block_type": ["mamba", 3]}, "hybrid_override_pattern has ''"),
    ],
)
def test_a_bad_pattern_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        model_from_config(NEMOTRON | change)
    assert message in caught.value.what


def test_key_value_heads_of_each_layer_must_divide() -> None:
    config = {
        "model_type": "deci",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 100,
    }
    model = model_from_config(config | {"num_key_value_heads_per_layer": [4, 1]})
    assert kv_bytes_per_token(model) == 2 * 5 * 16 * 2
    for wrong in ([4], [3, 1], [0, 1], "4"):
        with pytest.raises(ModelError, match="num_key_value_heads_per_layer"):
            model_from_config(config | {"num_key_value_heads_per_layer": wrong})


# --- names


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek-ai/DeepSeek-R1"),
        ("nvidia/Llama-3.3-70B-Instruct-FP4", "meta-llama/Llama-3.1-70B"),
        ("neuralmagic/Meta-Llama-3.1-8B-Instruct-quantized.w8a8", "meta-llama/Llama-3.1-8B"),
        ("someone/Qwen2.5-7B-Instruct-AWQ", "Qwen/Qwen2.5-7B"),
        ("Qwen/Qwen3-30B-A3B (BF16)", "Qwen/Qwen3-30B-A3B"),
        ("mistralai/Mistral-7B-Instruct-v0.2", "mistralai/Mistral-7B-Instruct-v0.2"),
        ("zhipuai/GLM-5", "zai-org/GLM-5"),
        ("gpt-oss-20b", "openai/gpt-oss-20b"),
    ],
)
def test_a_tuned_or_quantised_copy_has_the_sizes_of_its_origin(name: str, meant: str) -> None:
    assert load_model(name).id == meant


@pytest.mark.parametrize("name", ["fp8", "-instruct", "instruct-fp8", "meta-llama/Llama-9-70B-FP8", "x (BF16)"])
def test_a_suffix_alone_names_nothing(name: str) -> None:
    with pytest.raises(ModelError):
        load_model(name)


# --- in training


@pytest.mark.parametrize("name", ["nemotron-nano-9b-v2", "qwen3-next-80b", "jamba", "minimax-text-01", "glm-5"])
@pytest.mark.parametrize("system", ["p5.48xlarge", "trn2.48xlarge"])
def test_new_layers_train_and_are_not_faster_than_their_operations(name: str, system: str) -> None:
    model, pool = load_model(name), load_system(system).pool
    tensor = np.array([1, 2, 4])
    plan = Plan(tensor_parallel_size=tensor, micro_batch_size=1, global_batch_size=8, seq_length=4096).as_arrays()
    tables = operator_tables(model)
    times = compute_times(tables, pool_kernels(pool), plan, recipe("bf16"), load_profile("megatron"))
    assert np.all(np.isfinite(times.forward))
    assert np.all(times.forward[: len(model.layer_kinds())] > 0)
    gemms = tables.gemms
    copies = np.where(gemms.is_expert > 0, gemms.experts_per_token, 1.0)
    flop = 2 * 4096 * gemms.owner_sum @ (gemms.n * gemms.k * copies)
    least = flop / pool_kernels(pool).chip.matmul_flop_per_s("bf16")
    assert np.all(times.forward[:-2, 0] >= least[:-2, 0])
    assert np.all(times.forward[:-2, 0] > times.forward[:-2, 2])
