"""What a program calls to put claims on trial: `ultratwin.claims` and its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ultratwin.api.result import ExplainedResult
from ultratwin.planning.checks import checked_name
from ultratwin.report.tables import Block

if TYPE_CHECKING:
    from ultratwin.planning.claims.ledger import Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger(ExplainedResult):
    """Published claims on trial; `claims` holds each with its readings, their numbers and verdicts."""

    claims: tuple[Claim, ...]

    def blocks(self) -> list[Block]:
        """The ledger as blocks of a table; a single claim in detail."""
        from ultratwin.report.claims import claim_blocks, ledger_blocks

        return claim_blocks(self.claims[0]) if len(self.claims) == 1 else ledger_blocks(self.claims)

    def explain(self) -> str:
        """How each number is computed: trees down to the figures of the catalogue, with sources."""
        from ultratwin.report.claims import explained

        return explained(self.claims)

    def as_dict(self) -> dict[str, Any]:
        """The answer as JSON objects."""
        from ultratwin.report.claims import claims_json

        return claims_json(self.claims)


def claims(*names: str, seed: int = 0) -> Ledger:
    """Published claims on trial: the readings of each, what the twin computes under them, the verdict.

    Args: names: of claims in the catalogue, all where left out; seed: of the ranges' samples
    Raises: CatalogueError for a name that no claim has
    """
    from ultratwin.planning.claims.ledger import ledger

    return Ledger(claims=ledger([checked_name("claim", each) for each in names], seed))
