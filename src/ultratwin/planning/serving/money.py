"""What serving costs: a price per chip and second, spread over the tokens of that second."""

from __future__ import annotations

from dataclasses import dataclass

from ultratwin.catalogue.facts import Fact
from ultratwin.planning.run import price_figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """USD per chip and second by offer, empty where none is public; what each is; facts for ranges, and their chips."""

    usd_per_chip_s: dict[str, float]
    notes: dict[str, str]
    facts: dict[str, Fact]
    facts_chips: float

    def first(self, offer: str = "") -> tuple[str, float]:
        """The offer asked for, or the first; an empty name and NaN where there is none."""
        for name, price in self.usd_per_chip_s.items():
            if not offer or name == offer:
                return name, price
        return "", float("nan")


def serving_prices(system_id: str, own_usd_per_chip_s: float | None = None) -> Prices:
    """Prices of a system: the user's own, or the public ones in the order of run.OFFERS."""
    if own_usd_per_chip_s is not None:
        return Prices(
            usd_per_chip_s={"your price": own_usd_per_chip_s},
            notes={"your price": "as given"},
            facts={},
            facts_chips=1.0,
        )
    facts, chips = price_figures(system_id)
    return Prices(
        usd_per_chip_s={offer: fact.si / chips for offer, fact in facts.items()},
        notes={offer: f"{fact.value:g} {fact.unit}, {fact.note or fact.source}" for offer, fact in facts.items()},
        facts=facts,
        facts_chips=chips,
    )


def usd_per_million_tokens(usd_per_s: float, tokens_per_s: float) -> float:
    """Dollars of a million tokens.

    Example:
        >>> usd_per_million_tokens(0.01, 5000.0)
        2.0
    """
    return usd_per_s / tokens_per_s * 1e6 if tokens_per_s > 0 else float("inf")
