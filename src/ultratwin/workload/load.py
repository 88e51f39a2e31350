"""A model by name: of the catalogue, of a file or folder, or of the hub."""

from __future__ import annotations

import difflib
import importlib
import re
from functools import cache
from pathlib import Path
from typing import Final

from ultratwin.catalogue import loader
from ultratwin.catalogue.schema import ModelEntry
from ultratwin.errors import ModelError
from ultratwin.workload.config_json import MOST_BYTES, model_from_config, model_from_json, model_from_path
from ultratwin.workload.model import Model

# what a name may end in without meaning other sizes: how it was tuned, and the format of its weights
_TUNED: Final = r"instruct|chat|it|hf|base|thinking|preview"
_FORMAT: Final = r"(?:nv|mx)?fp(?:4|8|16)|bf16|int[48]|[48]bit|w\d+a\d+(?:fp8)?|awq|gptq|gguf|marlin|quantized"
_SUFFIX: Final = re.compile(rf"[-_.](?:{_TUNED}|{_FORMAT}|dynamic|static|block|pertensor|kv)$")
_SPELLINGS: Final = re.compile(r'^(?:name|aliases) = ("[^"]*"|\[[^\]]*\])', re.MULTILINE)
_TEXT: Final = re.compile(r'"([^"]*)"')
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def load_model(name: str | Path) -> Model:
    """A model by catalogue name or alias, by path, or by hub id.

    Args:
        name: "meta-llama/Llama-3.1-405B", "llama3.1-405b", a config.json or its folder, or any hub id. A tuned or
            quantised copy ("nvidia/Llama-3.1-405B-Instruct-FP8") has the sizes of what it was made from. The network is
            used for a hub id that the catalogue lacks, and for nothing else
    Returns: the model
    Raises: ModelError if nobody has that name (with the nearest that exists), or its config.json can't be used
    """
    if isinstance(name, Path):
        return model_from_path(name)
    if not name.strip():
        raise _unknown(name)
    known = _catalogued(name)
    if known is not None:
        return known
    try:
        if Path(name).exists():
            return model_from_path(Path(name))
    except (OSError, ValueError):  # a name too long for a path, or with a zero byte: no path
        pass
    known = _catalogued_origin(name)
    if known is not None:
        return known
    if name.endswith(".json"):
        raise ModelError(f"no file {name}", hint="check the path")
    if _HUB_ID.fullmatch(name):
        return _from_hub(name)
    raise _unknown(name)


@cache
def _catalogued(name: str) -> Model | None:
    exact = name.replace("/", "__")
    entry_id = exact if exact in loader.ids("models") else _entry_ids().get(name.lower())
    if entry_id is None:
        return None
    entry: ModelEntry = loader.read_toml(loader.DATA / "models" / f"{entry_id}.toml", ModelEntry)
    return model_from_config(entry.config, model_id=entry.name, where=f"catalogue/data/models/{entry_id}.toml")


@cache
def _catalogued_origin(name: str) -> Model | None:
    """The catalogued model that a name is a tuned or quantised copy of, whoever published it."""
    bare: dict[str, str] = {}
    for spelling, entry_id in _entry_ids().items():
        bare.setdefault(spelling.rpartition("/")[2], entry_id)
    text = name.lower().partition(" (")[0].rpartition("/")[2]
    while text not in bare:
        shorter = _SUFFIX.sub("", text)
        if shorter == text:
            return None
        text = shorter
    return _catalogued(bare[text])


@cache
def _entry_ids() -> dict[str, str]:
    """File name by every spelling, in lower case.

    Runs at every start, and parsing a hundred files takes 50 ms: only the texts of `name` and `aliases`, which stand
    before the first table, are read.
    """
    found: dict[str, str] = {}
    for entry_id in loader.ids("models"):
        head, _, _ = (loader.DATA / "models" / f"{entry_id}.toml").read_text("utf-8").partition("\n[")
        spellings = [text for part in _SPELLINGS.findall(head) for text in _TEXT.findall(part)]
        for spelling in (entry_id, *spellings):
            found.setdefault(spelling.lower(), entry_id)
    return found


def _from_hub(name: str) -> Model:
    try:
        hub = importlib.import_module("huggingface_hub")
        errors = importlib.import_module("huggingface_hub.errors")
    except ImportError:
        error = _unknown(name)
        install = "`pip install 'ultratwin[hub]'` to ask the hub, or give the path of a config.json"
        what = f"{error.what}, and the hub can't be asked without huggingface_hub"
        raise ModelError(what, allowed=error.allowed, hint=f"{error.hint}; {install}") from None
    try:
        path = Path(hub.hf_hub_download(name, "config.json"))
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ModelError(
            f'the hub gives no config.json for "{name}"',
            where=type(error).__name__,
            hint="check the name, log in if the model is gated, or give the path of a config.json",
        ) from None
    if path.stat().st_size > MOST_BYTES:
        raise ModelError(f"the config.json of {name} is above {MOST_BYTES:,} bytes", where=str(path))
    return model_from_json(path.read_bytes(), model_id=name, where=f"{name} on the hub")


def _unknown(name: str) -> ModelError:
    spellings = _entry_ids()
    shown = name if len(name) <= 80 else name[:77] + "..."
    near = difflib.get_close_matches(shown.lower(), spellings, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}? " if near else ""
    return ModelError(
        f'unknown model "{shown}"',
        allowed=f"one of the {len(set(spellings.values()))} catalogued models, a hub id, or the path of a config.json",
        hint=hint + "`ultratwin catalogue models` lists all",
    )
