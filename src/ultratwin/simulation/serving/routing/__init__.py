"""Routing: which replica a request goes to. One rule, one file, and a line in `RULES` and `route`."""

from __future__ import annotations

from typing import Final

RULES: Final = ("round-robin", "least-loaded", "prefix-aware", "random")
