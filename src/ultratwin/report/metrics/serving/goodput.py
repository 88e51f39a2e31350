"""Goodput: answers per second that keep every objective, as `vllm bench serve --goodput`."""

from ultratwin.planning.serving.slo import good_requests
from ultratwin.report.metrics.serving.metric import RunMetric, ServingRun, per_second


def _goodput(run: ServingRun) -> float | None:
    if not run.slos.per_request:
        return None
    return per_second(good_requests(run.slos, run.times).sum(), run)


GOODPUT = RunMetric(
    tag="good_requests_per_s", field="request_goodput", label="goodput",
    formula="requests that keep every objective per request / duration", unit="requests/s", scale=1.0, read=_goodput,
)  # fmt: skip
