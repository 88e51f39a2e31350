"""`--assume ENTRY.FIGURE=VALUE`, of all verbs that answer from the catalogue; taken out before they parse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from ultratwin.errors import ScenarioError

OPTION: Final = "--assume"
VERBS: Final = ("train", "serve", "diffuse", "plan", "compare", "cluster", "collective", "power", "catalogue", "claims")
"""Verbs that answer from the catalogue in one process: what they print says what was assumed."""
HELP: Final = (
    f"{OPTION} ENTRY.FIGURE=VALUE, with {', '.join(VERBS[:-1])} or {VERBS[-1]}: answers rest on another value of a "
    "figure, inside the range that its sources leave, such as --assume trainium4.memory_bytes=432GiB. It may be given "
    "several times; `ultratwin catalogue KIND NAME` shows figures and ranges."
)


def without_assumptions(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments without --assume, and its values.

    Raises: ScenarioError if a value is missing, or the verb takes none
    Example:
        >>> without_assumptions(["train", "M", "--assume", "trn4.tdp_w=2kW", "--json"])
        (['train', 'M', '--json'], ['trn4.tdp_w=2kW'])
    """
    others, values = [], []
    given = iter(arguments)
    for each in given:
        name, equals, value = each.partition("=")
        if name != OPTION:
            others.append(each)
            continue
        text = value if equals else next(given, "")
        if not text or text.startswith("--"):
            raise ScenarioError(f"{OPTION} needs a value", allowed="ENTRY.FIGURE=VALUE")
        values.append(text)
    verb = next((each for each in others if not each.startswith("-")), "")
    if values and verb not in VERBS:
        raise ScenarioError(f"{OPTION} does not go with {verb or 'no verb'}", allowed=", ".join(VERBS))
    return others, values


@contextmanager
def under_assumptions(texts: Sequence[str]) -> Iterator[None]:
    """A `with` block in which what the texts say is assumed."""
    if not texts:  # and the catalogue is not loaded
        yield
        return
    from ultratwin.catalogue.assumptions import assuming, parsed

    with assuming(parsed(texts)):
        yield
