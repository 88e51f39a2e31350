"""A model from a config.json in the hub's format: from a file, a folder, a hub repository or a dictionary.

Only sizes are read. Code that a repository may bring (`auto_map`, `trust_remote_code`) is never loaded.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ultratwin.errors import ModelError, unknown_name
from ultratwin.workload.architectures import FAMILIES, Family, Reader
from ultratwin.workload.architectures.reader import names_of, shown
from ultratwin.workload.model import Model
from ultratwin.workload.stored_format import stored_format

MOST_BYTES: Final = 1_000_000
"""Largest config.json that is read: real ones have a few kB."""

_TEXT_PARTS: Final = ("text_config", "llm_config", "language_config")
_UNKNOWN_MIXERS: Final = (
    *("mamba", "rwkv", "zamba", "falcon_h1", "falconh1", "kimi_linear", "kimilinear", "lfm2", "recurrent", "plamo2"),
    *("xlstm", "retnet"),
)
"""Parts of the names of recurrent architectures that no family reads."""


def model_from_path(path: Path) -> Model:
    """A model from a config.json, or from a folder that holds one.

    Raises: ModelError if it can't be read, is above 1 MB, is not JSON, or describes no possible model
    """
    try:
        file = path / "config.json" if path.is_dir() else path
        size_bytes = file.stat().st_size if file.is_file() else None
    except OSError as error:
        raise ModelError(f"the path can't be read: {error.strerror}", where=str(path)[:200]) from None
    if size_bytes is None:
        raise ModelError(f"no file {file}", hint="give a config.json, or the folder that holds one")
    # weights and logs have been given by mistake: look at the size before reading
    if size_bytes > MOST_BYTES:
        raise ModelError(
            f"{size_bytes:,} bytes are too many for a config.json",
            where=str(file),
            allowed=f"at most {MOST_BYTES:,} bytes",
            hint="give the model's config.json, not its weights",
        )
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ModelError(f"the file can't be read: {error.strerror}", where=str(file)) from None
    model_id = file.parent.name if file.name == "config.json" else file.stem
    return model_from_json(data, model_id=model_id or "model", where=str(file))


def model_from_json(data: bytes, *, model_id: str, where: str) -> Model:
    """A model from the bytes of a config.json.

    Raises: ModelError as `model_from_config`, and if the bytes are not a JSON object
    """
    hint = "the file may be cut off; fetch it again" if data else "the file is empty"
    try:
        config = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ModelError("the file is not text", where=where, allowed="JSON in UTF-8") from None
    except json.JSONDecodeError as error:
        what = f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise ModelError(what, where=where, allowed="one JSON object", hint=hint) from None
    except (ValueError, RecursionError) as error:  # an endless number, or brackets without end
        raise ModelError(f"not a usable JSON: {error}", where=where, allowed="one JSON object") from None
    if not isinstance(config, dict):
        raise ModelError(f"a JSON {type(config).__name__} is no model", where=where, allowed="one JSON object")
    return model_from_config(config, model_id=model_id, where=where)


def model_from_config(config: Mapping[str, object], *, model_id: str = "model", where: str = "") -> Model:
    """A model from the keys of a config.json.

    Args:
        config: the keys as on the hub; of a multimodal model the text part is taken
        model_id: what to call the model
        where: the origin, for messages
    Returns: the model
    Raises: ModelError with all faults together, or for an architecture that is not known
    """
    text, notes = _text_part(config)
    reader = Reader(text, model_id=model_id, where=where or model_id)
    reader.notes.extend(notes)
    family = _family(config, text, reader)
    model = family.read(reader)
    reader.raise_faults()
    stored = stored_format(config)
    return dataclasses.replace(model, stored_format=stored) if stored else model


def _text_part(config: Mapping[str, object]) -> tuple[Mapping[str, object], list[str]]:
    for key in _TEXT_PARTS:
        part = config.get(key)
        if isinstance(part, dict):
            outer = {name: config[name] for name in ("tie_word_embeddings",) if name in config}
            return outer | part, [f"only the text part ({key}) of a multimodal model is counted"]
    return config, []


def _family(config: Mapping[str, object], text: Mapping[str, object], reader: Reader) -> Family:
    """The family by model type, then by class name, innermost first; then Megatron's spelling of sizes."""
    names = [name for table in (text, config) for name in names_of(table)]
    if not names and {"num_layers", "hidden_size", "num_attention_heads"} <= config.keys():
        names = ["megatron"]
    for name in names:
        for family in FAMILIES:
            if name in family.model_types or name in family.classes:
                return family
    known = sorted(each for family in FAMILIES for each in family.model_types)
    for name in names:
        if any(each in name.lower() for each in _UNKNOWN_MIXERS):
            raise ModelError(
                f"architecture {shown(name)} has recurrent layers of a kind that is not known",
                where=reader.where,
                allowed="one of: " + ", ".join(known),
                hint="a layer kind is one file in workload/layers (docs/how-to/add-a-model.md)",
            )
    if not names:
        raise ModelError(
            "neither model_type nor architectures says what the model is",
            where=reader.where,
            allowed="a model_type of: " + ", ".join(known),
            hint='add "model_type" to the config.json',
        )
    raise unknown_name("architecture", names[0][:80], known, error=ModelError, where=reader.where)
