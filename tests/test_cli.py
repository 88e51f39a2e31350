"""The command line, from outside: output, exit codes, what is said of bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ultratwin import cli, validation
from ultratwin.cli.spellings import OURS, SPELLINGS

CONFIG = {
    "model_type": "llama", "hidden_size": 1024, "num_hidden_layers": 8, "intermediate_size": 4096,
    "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 32000, "max_position_embeddings": 4096,
}  # fmt: skip
GIVEN = ["--chips", "64", "--tensor-parallel-size", "8", "--pipeline-parallel-size", "2", "--micro-batch-size", "1",
         "--global-batch-size", "64"]  # fmt: skip


def shell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A real process."""
    return subprocess.run(
        [sys.executable, "-c", "from ultratwin.cli import main; main()", *arguments],
        capture_output=True, text=True, timeout=60, check=False, env=os.environ | {"COLUMNS": "100"} | environment,
    )  # fmt: skip


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said of bad input, in process: exit code 2, nothing on stdout, no traceback."""
    assert cli.run(arguments) == cli.BAD_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return err


def test_train_from_the_shell() -> None:
    done = shell("train", "meta-llama/Llama-3.1-8B", "--system", "p5.48xlarge", *GIVEN, "--tokens", "1.5T")
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("meta-llama/Llama-3.1-8B", "TP8 PP2 DP4", "MFU", "days", "linear layers", "GiB", "1.5T tokens"):
        assert word in done.stdout, word
    assert "\x1b" not in done.stdout


def test_json_from_the_shell_is_identical_twice() -> None:
    asked = ("train", "llama3.1-8b", "--system", "trn2.48xlarge", *GIVEN, "--json")
    first, second = shell(*asked, PYTHONHASHSEED="1"), shell(*asked, PYTHONHASHSEED="2")
    assert first.returncode == 0
    assert first.stdout == second.stdout
    data = json.loads(first.stdout)
    assert data["verb"] == "train"

    def check(node: dict[str, object]) -> None:
        children = node.get("children", [])
        assert isinstance(children, list)
        if children:
            assert sum(child["value"] for child in children) == node["value"]
        for child in children:
            check(child)

    check(data["step"])
    check(data["memory"]["rank"])


def test_nothing_feasible_is_exit_code_1() -> None:
    done = shell(
        "train", "openai/gpt3-175b", "--system", "p5.48xlarge", "--tp", "1", "--pp", "1", "--mbs", "1", "--gbs", "8"
    )
    assert done.returncode == 1
    assert "nothing can run" in done.stdout
    assert "does not fit into memory" in done.stdout
    assert done.stderr == ""


def test_help_and_version_from_the_shell() -> None:
    for arguments in (("--help",), ("train", "--help"), ()):
        done = shell(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert "Usage: ultratwin" in done.stdout
    assert shell("--version").stdout.strip() == "0.1.0"


def test_help_imports_neither_numpy_nor_the_catalogue() -> None:
    asked = "import sys; from ultratwin.cli import run; run(['train', '--help'])"
    code = f"{asked}; print('numpy' in sys.modules, 'msgspec' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip().endswith("False False")


def test_bad_input_from_the_shell() -> None:
    done = shell("train", "gpt2", "--system", "p5.48xlarg")
    assert (done.returncode, done.stdout) == (2, "")
    assert 'unknown system "p5.48xlarg"' in done.stderr
    assert "did you mean p5.48xlarge" in done.stderr
    assert "Traceback" not in done.stderr


def test_closed_pipe_is_quiet() -> None:
    code = "from ultratwin.cli import main; main(['catalogue', 'chips', '--json'])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 0


def test_output_without_utf8() -> None:
    done = shell("train", "gpt2", "--system", "p5.48xlarge", "--zero-stage", "1", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "####" in done.stdout


def test_interrupt_and_own_faults_end_without_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for raised, code in ((KeyboardInterrupt(), 130), (RuntimeError("odd"), cli.OWN_FAULT), (MemoryError(), 2)):

        def fails(*_: object, error: BaseException = raised, **__: object) -> None:
            raise error

        monkeypatch.setattr("ultratwin.api.training.train", fails)
        assert cli.run(["train", "gpt2", "--system", "p5.48xlarge"]) == code
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trian"], ['unknown verb "trian"', "did you mean train?"]),
        (["train"], ["MODEL is missing", "--help"]),
        (["train", "gpt2"], ["--system is missing"]),
        (["train", "gpt2", "--system"], ["--system needs a value"]),
        (["train", "gpt2", "--system", "p5.48xlarge", "more"], ["too many arguments: more"]),
        (["train", "gpt2", "--system", "p5.48xlarge", "--chisp", "8"], ["unknown option --chisp", "--chips?"]),
        (["train", "gpt2", "--system", "p5.48xlarge", "--tensor-model-parallel", "8"], ["--tensor-parallel-size?"]),
        (["train", "gpt2", "--system", "p5.48xlarge", "--chips", "many"], ['"many" is not a quantity (--chips)']),
        (["train", "gpt2", "--system", "p5.48xlarge", "--chips", "8", "--chips", "16"], ["given twice"]),
        (["train", "gpt2", "--system", "p5.48xlarge", "--chips", "-8"], ["chips is -8"]),
        (["train", "gpt2", "--system", "p5.48xlarge", "--chips", "1.5"], ["1.5 is not a whole number"]),
        (["train", "gpt2", "--system", "p5.48xlarge", "--chips", "1e400"], ["not finite"]),
        (["train", "gpt2", "--system", "p5.48xlarge", "--chips", "1e18"], ["chips is 1,000,000"]),
        (["train", "gpt2", "--system", "p5.48xlarge", "--chips", "99999999"], ["of p5.48xlarge", "allowed: 1 to"]),
        (["train", "gpt2", "--system", "p5.48xlarge", "--chips", "12"], ["split a node", "multiples of 8"]),
        (["train", "gpt2", "--system", "p5.48xlarge", "--tokens", "15.6X"], ["15.6X", "--tokens"]),
        (["train", "gpt2", "--system", "p5.48xlarge", "--tokens", "15.6 TB"], ["is a byte, not a number"]),
        (["train", "gpt2", "--system", "p5.48xlarge", "--tokens", "-1T"], ["tokens is -1e+12"]),
        (["train", "gpt2", "--system", "p5.48xlarge", "--precision", "bf61"], ["did you mean bf16?"]),
        (["train", "gpt2", "--system", "p5.48xlarge", "--framework", "nanotorn"], ["did you mean nanotron?"]),
        (["train", "gpt2", "--system", "p5.48xlarge", "--region", "eu-west-99"], ["did you mean eu-west-"]),
        (["train", "gpt2", "--system", "p5.48xlarge", "--price-per-chip-hour", "two"], ['"two" is not a quantity']),
        (["train", "gpt2", "--system", "p5.48xlarge", "--tp", "5", "--pp", "1", "--mbs", "1"], ["not the 8 ranks"]),
        (
            ["train", "lama3.1-8b", "--system", "p5.48xlarge"],
            ['unknown model "lama3.1-8b"', "did you mean llama3.1-8b"],
        ),
        (["train", "nowhere/config.json", "--system", "p5.48xlarge"], ["no file"]),
        (["train", "x" * 10_000, "--system", "p5.48xlarge"], ["unknown model"]),
        (["train", "gpt2", "--system", "../chips/trainium3"], ["is no name"]),
        (["train", "gpt2", "--system", "x" * 10_000], ["is no name"]),
        (["catalogue", "chops"], ['unknown kind of the catalogue "chops"', "did you mean chips?"]),
        (["catalogue", "chips", "trainum3"], ['unknown chip "trainum3"', "did you mean trainium3?"]),
        (["catalogue", "chips", "../systems/dgx-h100"], ["unknown chip"]),
        (["catalogue", "models", "meta-llama/Llama-3.1-406B"], ["did you mean meta-llama/Llama-3.1-405B?"]),
    ],
)
def test_bad_input(arguments: list[str], says: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = refused(capsys, *arguments)
    for each in says:
        assert each in text


def changed(**keys: object) -> str:
    return json.dumps({key: value for key, value in (CONFIG | keys).items() if value is not None})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (changed()[:80], "not JSON"),
        ("weights = 3", "not JSON"),
        ("[1, 2]", "JSON list is no model"),
        (changed(hidden_size=0), "hidden_size"),
        (changed(num_hidden_layers=-8), "num_hidden_layers"),
        (changed(hidden_size=10**30), "hidden_size"),
        (changed(intermediate_size=None), "intermediate_size"),
        (changed(num_attention_heads=15), "num_attention_heads"),
        (changed(num_key_value_heads=7), "num_key_value_heads"),
        (changed(vocab_size="many"), "vocab_size"),
        (changed(model_type="lama"), "llama"),
        (changed(model_type=None), "model_type"),
    ],
)
def test_bad_configs(text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    assert says in refused(capsys, "train", str(path), "--system", "p5.48xlarge")


def test_config_of_500_mb_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(500_000_000)
    assert "500,000,000 bytes" in refused(capsys, "train", str(path), "--system", "p5.48xlarge")


def test_config_file_is_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.json"
    path.write_text(changed())
    assert cli.run(["train", str(path), "--system", "p5.48xlarge", *GIVEN, "--explain"]) == 0
    out = capsys.readouterr().out
    assert "chips/h100-sxm/bf16_flop_per_s" in out
    assert "figures used" in out


@pytest.mark.parametrize("other", sorted(OURS))
def test_other_spellings_mean_the_same(other: str) -> None:
    assert other not in SPELLINGS
    app, found = cli.application(), []
    for verb in ("train", "serve"):
        try:
            found.append(app[verb].assemble_argument_collection().match(OURS[other]))
        except ValueError:  # the verb has no such option
            continue
    assert found


def test_other_spellings_give_the_same_plan(capsys: pytest.CaptureFixture[str]) -> None:
    megatron = ["--chips", "64", "--tensor-model-parallel-size=8", "-pp", "2", "--micro_batch_size", "1", "--gbs", "64"]
    outputs = []
    for layout in (GIVEN, megatron):
        assert cli.run(["train", "llama3.1-8b", "--system", "p5.48xlarge", *layout, "--json"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["catalogue"]) == 0
    assert "chips" in capsys.readouterr().out
    assert cli.run(["catalogue", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kinds"]["chips"] >= 20
    assert cli.run(["catalogue", "system", "trn3", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["entries"]
    assert entry["id"] == "trn3-gen2-ultraserver"
    assert entry["figures"]["num_chips"]["sources"][0]["title"]
    assert cli.run(["catalogue", "models", "llama-405b"]) == 0
    assert "hidden_size = 16384" in capsys.readouterr().out


def test_validate_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "truth.csv" in refused(capsys, "validate", "--truth", str(tmp_path / "truth.csv"))
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    refused(capsys, "validate", "--truth", str(path))


def test_validate_scores_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(validation.__file__).parent / "truth" / "trn3_gemm.csv"
    assert cli.run(["validate", "--truth", str(path), "--json"]) == 0
    out = capsys.readouterr().out
    board = json.loads(out)
    assert board.keys() == {"rows", "summary"}
    assert {"id", "metric", "predicted", "low", "high", "unit", "status", "reason"} == board["rows"][0].keys()
    assert {row["metric"] for row in board["rows"]} == {"time_s"}
    assert cli.run(["validate", "--truth", str(path)]) == 0
    assert "trn3_gemm.csv" in capsys.readouterr().out
