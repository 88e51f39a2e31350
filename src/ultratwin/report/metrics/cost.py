"""Cost: one metric for each offer that has a public price, or for the user's own."""

from ultratwin.planning.run import Run
from ultratwin.report.metrics.metric import Metric


def cost_metrics(run: Run) -> tuple[Metric, ...]:
    """A metric for each offer of a run; none where no price is public."""

    def of(offer: str) -> Metric:
        return Metric(
            tag=f"cost_usd.{offer}",
            label=f"cost, {offer.replace('_', ' ')}",
            formula="chip-hours x price per chip-hour",
            unit="USD",
            scale=1.0,
            read=lambda run: run.cost_usd[offer],
        )

    return tuple(of(offer) for offer in run.cost_usd)
