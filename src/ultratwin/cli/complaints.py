"""The parser's complaints in the project's form: what, where, what is allowed, what to do."""

from __future__ import annotations

import difflib
from typing import Final

from cyclopts import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from ultratwin.cli.assumptions import OPTION
from ultratwin.cli.spellings import OURS
from ultratwin.errors import ScenarioError, UltratwinError, unknown_name

VERBS: Final[dict[str, tuple[str, ...]]] = {
    "": (
        "train",
        "serve",
        "diffuse",
        "plan",
        "compare",
        "study",
        "cluster",
        "collective",
        "power",
        "catalogue",
        "claims",
        "validate",
    ),
    "plan": ("train", "serve"),
    "study": ("run", "show", "query", "export"),
}
"""The verbs, and what follows some of them."""


def explained(error: CycloptsError) -> UltratwinError:
    """What the parser found wrong, as an error of ours."""
    verb = " ".join(error.command_chain or ())
    hint = f"`ultratwin {verb} --help` lists the options" if verb else "`ultratwin --help` lists the verbs"
    match error:
        case UnknownCommandError():
            word = next(iter(error.unused_tokens or ()), "")
            return unknown_name(f"verb of {verb}" if verb else "verb", word, VERBS.get(verb, ()), error=ScenarioError)
        case UnknownOptionError():
            return _unknown_option(error, verb, hint)
        case MissingArgumentError() if error.argument is not None:
            name = error.argument.name
            shown = name if error.argument.keys or name.startswith("--") else name.upper()
            missing = error.tokens_so_far if hasattr(error, "tokens_so_far") else ()
            what = f"{shown} needs a value" if missing or error.keyword else f"{shown} is missing"
            return ScenarioError(what, hint=hint)
        case CoercionError() if error.argument is not None and error.token is not None:
            wanted = getattr(error.target_type, "__name__", str(error.target_type))
            return ScenarioError(f'"{error.token.value}" is no {wanted}', where=error.argument.name, hint=hint)
        case UnusedCliTokensError():
            words = " ".join(error.unused_tokens or ())
            return ScenarioError(f"too many arguments: {words[:200]}", hint=hint)
        case RepeatArgumentError():
            return ScenarioError(f"{error.token.keyword} is given twice", allowed="once", hint=hint)
    return ScenarioError(str(error).strip().rstrip("."), hint=hint)


def _unknown_option(error: UnknownOptionError, verb: str, hint: str) -> UltratwinError:
    option = (error.token.keyword or error.token.value).partition("=")[0]
    known = [name for argument in error.argument_collection for name in argument.names if name.startswith("-")]
    near = difflib.get_close_matches(option, [*known, *OURS, OPTION], n=1, cutoff=0.6)
    meant = f"did you mean {OURS.get(near[0], near[0])}? " if near else ""
    return ScenarioError(f"unknown option {option[:80]}", where=f"ultratwin {verb}".strip(), hint=meant + hint)
