"""Text without token counts: how long it is depends on a tokenizer that is not here."""

from __future__ import annotations

from math import ceil, isfinite

from ultratwin.errors import ScenarioError


def estimated_tokens(text: str, chars_per_token: float) -> int:
    """Tokens of a text by its length, at least 1.

    Equation:  tokens = ceil(characters / characters per token)
    """
    return max(ceil(len(text) / chars_per_token), 1)


def check_chars_per_token(chars_per_token: float, path: str) -> None:
    """Raises: ScenarioError if text was met and the user did not say how long a token is."""
    if chars_per_token == 0:
        raise ScenarioError(
            "the trace holds text without token counts",
            where=path,
            hint="write prompt_tokens,output_tokens as a CSV with the model's tokenizer, or have them estimated: give "
            "chars_per_token, which depends on the language and the tokenizer",
        )
    if not (isfinite(chars_per_token) and chars_per_token > 0):
        raise ScenarioError(f"{chars_per_token:g} characters per token", allowed="a finite number above 0")


def estimate_note(chars_per_token: float) -> str:
    """What the user should know of such lengths."""
    return f"lengths are estimates: text at {chars_per_token:g} characters per token, not a tokenizer's count"
