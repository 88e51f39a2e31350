"""Models by name and by config.json: published sizes agree, bad input is refused with all its faults."""

from __future__ import annotations

import ast
import json
import operator
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultratwin import serve
from ultratwin.catalogue import loader
from ultratwin.catalogue.schema import ModelEntry
from ultratwin.errors import ModelError
from ultratwin.mapping.serving_formats import serving_formats
from ultratwin.workload.architectures import FAMILIES
from ultratwin.workload.config_json import MOST_BYTES, model_from_config, model_from_json, model_from_path
from ultratwin.workload.load import load_model
from ultratwin.workload.model import Attention, LatentAttention, Mlp, Model, Moe
from ultratwin.workload.parameters import active_parameter_count, mtp_module_parameters, parameter_count
from ultratwin.workload.stored_format import stored_format

EXAMPLES = Path(__file__).parent.parent / "examples" / "configs"
IDS = loader.ids("models")
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}
MIXTRAL = LLAMA | {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}


def entry(entry_id: str) -> ModelEntry:
    found = loader.entry("models", entry_id)
    assert isinstance(found, ModelEntry)
    return found


# --- the catalogue


@pytest.mark.parametrize("entry_id", IDS)
def test_parameter_count_agrees_with_the_published_one(entry_id: str) -> None:
    figures = entry(entry_id).figures
    other = figures["other_parameters"].si if "other_parameters" in figures else 0.0
    assert parameter_count(load_model(entry(entry_id).name)) + other == pytest.approx(
        figures["total_parameters"].si, rel=0.005
    )


@pytest.mark.parametrize("entry_id", [each for each in IDS if "active_parameters" in entry(each).figures])
def test_active_parameter_count_agrees_with_the_published_one(entry_id: str) -> None:
    found = entry(entry_id)
    active = active_parameter_count(load_model(found.name), include_embedding=not found.active_excludes_embedding)
    assert active == pytest.approx(found.figures["active_parameters"].si, rel=0.02)


@pytest.mark.parametrize("entry_id", IDS)
def test_every_entry_is_sourced_and_found_by_each_of_its_names(entry_id: str) -> None:
    found = entry(entry_id)
    assert entry_id == found.name.replace("/", "__")
    assert found.config_source.split()
    assert set(found.config_source.split()) <= set(loader.sources())
    assert found.architecture in {family.name for family in FAMILIES}
    for name in (found.name, found.name.upper(), *found.aliases):
        assert load_model(name).id == found.name


def test_no_spelling_means_two_models() -> None:
    spellings = [each.lower() for entry_id in IDS for each in (entry(entry_id).name, *entry(entry_id).aliases)]
    assert len(spellings) == len(set(spellings))


OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Pow: operator.pow}


def calculated(expression: str) -> float:
    def walk(node: ast.expr) -> float:
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](walk(node.left), walk(node.right))
        assert isinstance(node, ast.Constant)
        return float(node.value)

    return walk(ast.parse(expression, mode="eval").body)


@pytest.mark.parametrize("entry_id", IDS)
def test_derived_figures_follow_from_their_expression(entry_id: str) -> None:
    for fact in entry(entry_id).figures.values():
        if fact.status == "derived":
            assert calculated(fact.expression) == pytest.approx(fact.si, rel=1e-3)


def test_every_family_has_a_catalogued_model_or_a_test_below() -> None:
    tested_below = {"gpt-neox", "gemma", "musicgen"}
    assert {family.name for family in FAMILIES} - tested_below == {entry(each).architecture for each in IDS}


def test_a_catalogued_model_loads_fast() -> None:
    load_model("gpt2")
    path = loader.DATA / "models" / "deepseek-ai__DeepSeek-V3.toml"

    def seconds() -> float:
        start = time.perf_counter()
        found = loader.read_toml(path, ModelEntry)
        model_from_config(found.config)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.005


# --- architectures, against sizes worked by hand


def test_deepseek_v3_has_three_dense_layers_and_one_prediction_module() -> None:
    model = load_model("deepseek-v3")
    assert [isinstance(layer.mlp, Mlp) for layer in model.layers] == [True] * 3 + [False] * 58
    assert model.num_mtp_modules == 1
    assert mtp_module_parameters(model) == pytest.approx(11.5e9, rel=0.02)  # README_WEIGHTS of DeepSeek-V3
    assert parameter_count(model, include_mtp=True) - parameter_count(model) == mtp_module_parameters(model)
    assert isinstance(model.layers[0].attention, LatentAttention)
    assert len({id(layer) for layer in model.layers}) == 2


def test_llama4_interleaves_experts_and_chunks() -> None:
    maverick, scout = load_model("llama4-maverick"), load_model("llama4-scout")
    assert sum(isinstance(layer.mlp, Moe) for layer in maverick.layers) == 24
    assert isinstance(maverick.layers[1].mlp, Moe)
    assert all(isinstance(layer.mlp, Moe) for layer in scout.layers)
    assert [windows(scout)[i] for i in range(4)] == [8192, 8192, 8192, None]
    assert "text part" in scout.notes[0]


def windows(model: Model) -> list[int | None]:
    return [layer.attention.window for layer in model.layers if isinstance(layer.attention, Attention)]


def test_windows_alternate_as_the_architecture_says() -> None:
    assert windows(load_model("gpt-oss-20b")) == [128, None] * 12
    assert windows(load_model("gemma2-9b")) == [4096, None] * 21
    assert windows(load_model("gemma3-27b"))[:7] == [1024] * 5 + [None, 1024]
    assert windows(load_model("mistral-7b")) == [4096] * 32
    assert windows(load_model("qwen3-8b")) == [None] * 36


def test_gpt_oss_has_sinks_and_biases() -> None:
    layer = load_model("gpt-oss-120b").layers[0]
    assert isinstance(layer.attention, Attention)
    assert isinstance(layer.mlp, Moe)
    assert layer.attention.sinks
    assert layer.attention.qkv_bias
    assert layer.mlp.bias
    assert layer.mlp.router_bias


def test_pythia_1b_counts_as_published() -> None:
    """EleutherAI/pythia-1b: 1,011,781,632 parameters."""
    config = {
        "model_type": "gpt_neox",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_attention_heads": 8,
        "num_hidden_layers": 16,
        "vocab_size": 50304,
    }
    model = model_from_config(config)
    assert parameter_count(model) == 1_011_781_632
    assert model.layers[0].parallel_residual


def test_gemma_2b_counts_as_published() -> None:
    """google/gemma-2b: 2,506,172,416 parameters with the one table that both ends share."""
    config = {
        "model_type": "gemma",
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "num_hidden_layers": 18,
        "vocab_size": 256000,
    }
    assert parameter_count(model_from_config(config)) == 2_506_172_416


def test_qwen2_has_biases_that_its_config_does_not_name() -> None:
    """Qwen/Qwen2.5-0.5B: 494,032,768 parameters."""
    config = {
        "model_type": "qwen2",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "num_hidden_layers": 24,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
        "sliding_window": 32768,
    }
    model = model_from_config(config)
    assert parameter_count(model) == 494_032_768
    assert windows(model) == [None] * 24
    no_type = {key: value for key, value in config.items() if key != "model_type"}
    by_class = model_from_config(no_type | {"architectures": ["Qwen2ForCausalLM"]})
    assert parameter_count(by_class) == 494_032_768


def test_phi3_mini_counts_as_published() -> None:
    """microsoft/Phi-3-mini-4k-instruct: 3,821,079,552 parameters, a window of 2047 keys in every layer."""
    config = {
        "model_type": "phi3",
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "num_hidden_layers": 32,
        "vocab_size": 32064,
        "sliding_window": 2047,
    }
    model = model_from_config(config)
    assert parameter_count(model) == 3_821_079_552
    assert windows(model) == [2047] * 32


def test_rotary_layers_of_llama4_are_the_chunked_ones() -> None:
    text = entry("meta-llama__Llama-4-Scout-17B-16E").config["text_config"] | {"num_hidden_layers": 4}
    assert windows(model_from_config(text | {"no_rope_layers": [1, 0, 1, 1]})) == [8192, None, 8192, 8192]
    with pytest.raises(ModelError, match="no_rope_layers"):
        model_from_config(text | {"no_rope_layers": [1]})


def test_megatron_words_are_read_without_a_model_type() -> None:
    sizes = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 128, "seq_length": 32}
    model = model_from_config(sizes)
    layer = 12 * 64**2 + 13 * 64
    assert parameter_count(model) == 2 * layer + (128 + 32) * 64 + 2 * 64
    gated = model_from_config(sizes | {"swiglu": True, "num_query_groups": 2, "position_embedding_type": "rope"})
    assert gated.layers[0].mlp == Mlp(intermediate_size=128, gated=True, bias=True)
    assert gated.num_learned_positions == 0
    sparse = model_from_config(sizes | {"num_experts": 4, "moe_layer_freq": [0, 1], "moe_ffn_hidden_size": 32})
    assert [isinstance(each.mlp, Moe) for each in sparse.layers] == [False, True]


def test_mpt_reads_grouped_heads_from_its_attention_table() -> None:
    config = {"model_type": "mpt", "d_model": 64, "n_heads": 8, "n_layers": 2, "vocab_size": 100, "max_seq_len": 16}
    assert model_from_config(config).layers[0].attention == Attention(
        num_heads=8, num_kv_heads=8, head_dim=8, qkv_bias=True, output_bias=True
    )
    grouped = model_from_config(config | {"attn_config": {"kv_n_heads": 2, "alibi": False}})
    assert isinstance(grouped.layers[0].attention, Attention)
    assert grouped.layers[0].attention.num_kv_heads == 2
    assert grouped.num_learned_positions == 16


def test_examples_are_readable_as_file_and_as_folder(tmp_path: Path) -> None:
    assert parameter_count(load_model(EXAMPLES / "llama-3.1-8b.json")) == 8_030_261_248
    small = load_model(str(EXAMPLES / "small-moe.json"))
    assert small.id == "small-moe"
    assert isinstance(small.layers[0].mlp, Mlp)
    assert isinstance(small.layers[1].mlp, Moe)
    assert active_parameter_count(small) < parameter_count(small)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert load_model(tmp_path).id == tmp_path.name
    assert load_model(tmp_path).layers == load_model(tmp_path / "config.json").layers


# --- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 0}, "hidden_size = 0 is below 1"),
        ({"hidden_size": -64}, "hidden_size = -64 is below 1"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": 10**18}, "hidden_size = 1000000000000000000 is above 10,000,000"),
        ({"hidden_size": 10**5000}, "hidden_size = a number of more than 30 digits is above"),
        ({"hidden_size": 64.5}, "hidden_size = 64.5 is not a whole number"),
        ({"hidden_size": "64"}, "hidden_size = '64' is not a whole number"),
        ({"hidden_size": True}, "hidden_size = True is not a whole number"),
        ({"hidden_size": float("inf")}, "hidden_size = inf is not a whole number"),
        ({"hidden_size": float("nan")}, "hidden_size = nan is not a whole number"),
        ({"hidden_size": [64]}, "hidden_size = a list of 1 is not a whole number"),
        ({"hidden_size": 66}, "the hidden size 66 is not a multiple of num_attention_heads = 4"),
        ({"num_key_value_heads": 3}, "num_attention_heads = 4 is not a multiple of num_key_value_heads = 3"),
        ({"num_key_value_heads": 8}, "num_attention_heads = 4 is not a multiple of num_key_value_heads = 8"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers = 1000000 is above 10,000"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings = 'yes' is neither true nor false"),
        ({"sliding_window": 0}, "sliding_window = 0 is below 1"),
        ({"sliding_window": 8, "layer_types": ["full_attention"]}, "layer_types has 1 entries for 2 layers"),
    ],
)
def test_a_bad_size_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        model_from_config(LLAMA | change, where="here/config.json")
    assert message in caught.value.what
    assert "here/config.json" in str(caught.value)


def test_a_config_that_names_its_head_dim_need_not_divide() -> None:
    assert model_from_config(LLAMA | {"hidden_size": 66, "head_dim": 16}).hidden_size == 66


def test_all_faults_of_a_file_come_together_and_only_those() -> None:
    bad = MIXTRAL | {"hidden_size": None, "vocab_size": -1, "intermediate_size": 2.5, "num_experts_per_tok": 9}
    with pytest.raises(ModelError) as caught:
        model_from_config(bad)
    what = caught.value.what
    assert "num_experts_per_tok = 9 is more than num_local_experts = 8" in what
    assert what.count(";") == 3, what


def test_an_unknown_architecture_lists_the_known_with_the_nearest() -> None:
    with pytest.raises(ModelError) as caught:
        model_from_config(LLAMA | {"model_type": "lama"})
    assert 'unknown architecture "lama"' in str(caught.value)
    assert "did you mean llama?" in str(caught.value)
    kinds = sorted(kind for family in FAMILIES for kind in family.model_types)
    assert all(kind in caught.value.allowed for kind in kinds[:40])
    assert f"{len(kinds)} in all" in caught.value.allowed
    with pytest.raises(ModelError, match="neither model_type nor architectures"):
        model_from_config({"hidden_size": 64})


@pytest.mark.parametrize("kind", ["mamba2", "rwkv", "kimi_linear", "falcon_h1", "zamba2"])
def test_recurrent_layers_that_no_family_reads_are_named(kind: str) -> None:
    with pytest.raises(ModelError, match="recurrent layers of a kind that is not known"):
        model_from_config(LLAMA | {"model_type": kind})


def test_remote_code_is_not_asked_for() -> None:
    wanted = LLAMA | {"auto_map": {"AutoConfig": "evil.Config"}, "trust_remote_code": True}
    assert model_from_config(wanted).layers == model_from_config(LLAMA).layers


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (json.dumps(LLAMA).encode()[:40], "not JSON"),
        (b"", "not JSON"),
        (b"hidden_size: 64", "not JSON"),
        (b"[1, 2]", "a JSON list is no model"),
        (b"null", "a JSON NoneType is no model"),
        (b"\xff\xfe\x00", "the file is not text"),
        (b'{"hidden_size": ' + b"9" * 5000 + b"}", "not a usable JSON"),
        (b"[" * 200_000, "not"),
        (b'{"a":' * 100_000 + b"1", "not"),
    ],
)
def test_a_file_that_is_no_json_object_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(data)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(str(file))
    assert str(file) in str(caught.value)


def test_a_byte_order_mark_does_no_harm() -> None:
    assert model_from_json(b"\xef\xbb\xbf" + json.dumps(LLAMA).encode(), model_id="m", where="w").hidden_size == 64


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    with file.open("wb") as stream:
        stream.truncate(500_000_000)  # sparse: takes no disk
    start = time.perf_counter()
    with pytest.raises(ModelError, match="500,000,000 bytes are too many"):
        model_from_path(file)
    assert time.perf_counter() - start < 0.5
    assert MOST_BYTES == 1_000_000


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no file"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match="no file"):
        load_model(str(tmp_path / "config.json"))
    with pytest.raises(ModelError, match="the path can't be read"):
        load_model(tmp_path / ("x" * 5000))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("llama3.1-405", "llama3.1-405b"), ("deepseek-v", "deepseek-v3"), ("mixtral8x7b", "mixtral-8x7b")],
)
def test_an_unknown_name_gives_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(name)
    assert f"did you mean {nearest}?" in caught.value.hint


@pytest.mark.parametrize("name", ["", " ", "a\0b", "x" * 5000, "../../etc/passwd", "~", "a/b/c"])
def test_names_that_are_nothing_are_model_errors(name: str) -> None:
    with pytest.raises(ModelError):
        load_model(name)


def test_a_hub_id_without_the_hub_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError) as caught:
        load_model("someone/some-model")
    assert "pip install 'ultratwin[hub]'" in caught.value.hint


class HubError(Exception):
    pass


def fake_hub(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    def download(name: str, file_name: str) -> str:
        if not file.is_file():
            raise HubError("404")
        return str(file)

    errors = SimpleNamespace(HfHubHTTPError=HubError, LocalEntryNotFoundError=HubError)
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=download))
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)


def test_a_hub_id_is_read_like_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_hub(monkeypatch, tmp_path / "config.json")
    with pytest.raises(ModelError, match="the hub gives no"):
        load_model("someone/some-model")
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert load_model("someone/some-model").id == "someone/some-model"
    (tmp_path / "config.json").write_text(json.dumps(LLAMA)[:50])
    with pytest.raises(ModelError, match=r"not JSON.*\(someone/some-model on the hub\)"):
        load_model("someone/some-model")


def test_reading_models_imports_nothing_heavy() -> None:
    heavy = ("huggingface_hub", "torch", "pandas", "scipy")
    code = f"import sys, ultratwin.workload.load; print([each for each in {heavy} if each in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# --- anything at all

KEYS = sorted(
    {
        *(
            "architectures",
            "text_config",
            "layer_types",
            "moe_layers",
            "mlp_only_layers",
            "attn_config",
            "no_rope_layers",
        ),
        *(
            "moe_layer_freq",
            "use_sliding_window",
            "max_window_layers",
            "new_decoder_architecture",
            "swiglu",
            "num_experts",
        ),
        *("multi_latent_attention", "n_routed_experts", "first_k_dense_replace", "num_layers", "num_query_groups"),
        *(key for each in IDS for key in entry(each).config if key != "model_type"),
    }
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.integers(1, 16), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=6,
)
KINDS = st.sampled_from([kind for family in FAMILIES for kind in (*family.model_types, *family.classes)])


@settings(max_examples=100, deadline=None)
@given(kind=KINDS, keys=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=12), as_class=st.booleans())
def test_any_object_is_a_model_or_a_model_error(kind: str, keys: dict[str, object], as_class: bool) -> None:
    named = {"architectures": [kind]} if as_class else {"model_type": kind}
    for base in ({}, LLAMA, MIXTRAL):
        with suppress(ModelError):
            model = model_from_config(base | keys | named)
            assert parameter_count(model) >= active_parameter_count(model) > 0


@settings(max_examples=60, deadline=None)
@given(config=st.dictionaries(st.text(max_size=12), VALUES, max_size=6))
def test_any_unnamed_object_is_a_model_or_a_model_error(config: dict[str, object]) -> None:
    with suppress(ModelError):
        assert isinstance(model_from_config(config), Model)


@settings(max_examples=60, deadline=None)
@given(entry_id=st.sampled_from(IDS), keys=st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3))
def test_a_damaged_catalogue_entry_is_a_model_or_a_model_error(entry_id: str, keys: dict[str, object]) -> None:
    config = entry(entry_id).config
    damaged = {name: value for name, value in keys.items() if name in config} or keys
    with suppress(ModelError):
        assert parameter_count(model_from_config(config | damaged)) > 0


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_model_or_a_model_error(data: bytes) -> None:
    with suppress(ModelError):
        assert isinstance(model_from_json(data, model_id="m", where="w"), Model)


def test_layers_hold_the_parameters_that_are_counted() -> None:
    """The operators' weights (workload.layers) and the count of the model card (workload.parameters) agree."""
    from ultratwin.workload.layers import layer_parts
    from ultratwin.workload.parameters import layer_parameters

    for name in (
        "meta-llama/Llama-3.1-405B",
        "mistralai/Mixtral-8x7B-v0.1",
        "deepseek-ai/DeepSeek-V3",
        "openai/gpt3-175b",
    ):
        model = load_model(name)
        for layer in model.layer_kinds():
            held = sum(
                each.elements for part in layer_parts(layer, model.hidden_size, model.norm) for each in part.parameters
            )
            assert held == pytest.approx(layer_parameters(model, layer), rel=2e-4), name


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({}, ""),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8-block"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}, "mxfp4"),
        ({"quant_method": "awq", "bits": 4}, "int4-weight-only"),
        ({"quant_method": "gptq", "bits": 8}, "int8-weight-only"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": 4, "type": "int"}}}},
         "int4-weight-only"),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": {
            "weights": {"num_bits": 8, "type": "float"}, "input_activations": {"num_bits": 8}}}}, "fp8"),
        ({"quant_method": "compressed-tensors", "config_groups": ["broken"]}, ""),
        ({"quant_method": 7, "bits": "many"}, ""),
    ],
)  # fmt: skip
def test_the_format_of_a_checkpoint(config: dict[str, Any], name: str) -> None:
    assert stored_format({"quantization_config": config}) == name
    assert stored_format({"text_config": {"quantization_config": config}}) == name
    if name:
        serving_formats(name)


def test_serving_takes_the_checkpoints_format_unless_told() -> None:
    options: dict[str, Any] = {"tensor_parallel_size": 1, "isl": 100, "osl": 10, "concurrency": 1}
    own, told = (
        serve("openai/gpt-oss-20b", "p5en.48xlarge", **options, **more) for more in ({}, {"precision": "bf16"})
    )
    assert (own.question.precision, told.question.precision) == ("mxfp4", "bf16")
    assert own.answer.memory.parts["weights"] < 0.45 * told.answer.memory.parts["weights"]
    assert serve("llama3.1-8b", "p5en.48xlarge", **options).question.precision == "bf16"
