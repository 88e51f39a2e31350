"""Service level objectives: what is asked of every request, or of a statistic over a run, in the words of vLLM.

    ttft:1000 tpot:30       per request, milliseconds as `vllm bench serve --goodput`: a request that keeps all is good
    e2el:5s                 the same with a unit
    p99:ttft:1000           a statistic of the run: mean, median or a percentile; also written p99_ttft_ms:1000

Objectives per request make goodput; a run keeps them if a stated share of its requests does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ultratwin.errors import ScenarioError, UnitError, unknown_name
from ultratwin.hardware.chip import Number
from ultratwin.planning.serving.request_times import (
    RequestTimes,
    Sample,
    e2el_s,
    itl_sample,
    statistics,
    tpot_s,
    tpot_sample,
    ttft_s,
)
from ultratwin.units import parse

SLO_METRICS: Final = ("ttft", "tpot", "e2el", "itl")
ATTAINMENT: Final = 0.99
"""Share of requests that must be good, unless said otherwise."""
_ALIASES: Final = {"e2e": "e2el", "latency": "e2el"}
_STATISTIC: Final = re.compile(r"mean|median|p(\d{1,2}(?:\.\d+)?|100)")
_FIELD: Final = re.compile(r"(mean|median|p[\d.]+)_(ttft|tpot|e2el|itl)_ms")
_EXAMPLE: Final = "such as ttft:1000, tpot:30ms, e2el:5s, p99:ttft:1000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """One objective: `metric` stays at or below `limit_s`.

    statistic: "" asks it of every request; "mean", "median" or a percentile ("p99") of the run
    """

    metric: str
    limit_s: float
    statistic: str = ""

    @property
    def name(self) -> str:
        """Such as ttft or p99_ttft, as vLLM's result fields begin."""
        return f"{self.statistic}_{self.metric}" if self.statistic else self.metric

    def __str__(self) -> str:
        statistic = f"{self.statistic}:" if self.statistic else ""
        return f"{statistic}{self.metric}:{self.limit_s * 1e3:.12g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slos:
    """Objectives of a service; `attainment`: share of requests that must keep all that are asked of every request."""

    each: tuple[Slo, ...] = ()
    attainment: float = ATTAINMENT

    def __post_init__(self) -> None:
        if not 0 < self.attainment <= 1:
            raise ScenarioError(f"attainment {self.attainment:g}", allowed="a share above 0, up to 1")
        names = [slo.name for slo in self.each]
        twice = next((name for name in names if names.count(name) > 1), "")
        if twice:
            raise ScenarioError(f"two objectives for {twice}", hint="keep the stricter one")

    @property
    def per_request(self) -> tuple[Slo, ...]:
        """Those that are asked of every request."""
        return tuple(slo for slo in self.each if not slo.statistic)

    @property
    def of_run(self) -> tuple[Slo, ...]:
        """Those that are asked of a statistic."""
        return tuple(slo for slo in self.each if slo.statistic)

    def __bool__(self) -> bool:
        return bool(self.each)

    def __str__(self) -> str:
        return " ".join(map(str, self.each))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """An objective against a run. `value_s` is the statistic; per request, the percentile at the attainment asked for.

    share: requests that keep it, of all that were sent
    """

    slo: Slo
    value_s: float
    share: float
    is_kept: bool


def parse_slos(text: str | Iterable[str], *, attainment: float = ATTAINMENT) -> Slos:
    """Objectives from words such as "ttft:1000 tpot:30"; numbers without a unit are milliseconds.

    Args:
        text: words separated by blanks or commas, or a list of such
        attainment: share of requests that must keep the objectives asked of every request
    Raises: ScenarioError for a word that is no objective, an unknown metric, a limit that is not above 0, one twice
    Example:
        >>> str(parse_slos("ttft:1s tpot:30 p99:ttft:2000"))
        'ttft:1000 tpot:30 p99:ttft:2000'
    """
    lines = [text] if isinstance(text, str) else list(text)
    words = [word for line in lines for word in re.split(r"[\s,]+", line) if word]
    return Slos(each=tuple(_slo(word) for word in words), attainment=attainment)


def _slo(word: str) -> Slo:
    *statistics_, metric, limit = ["", *word.lower().split(":")]
    field = _FIELD.fullmatch(metric)
    if field:
        statistics_, metric = [*statistics_, field[1]], field[2]
    statistics_ = [each for each in statistics_ if each]
    metric = _ALIASES.get(metric, metric)
    if len(statistics_) > 1 or not metric or not limit:
        raise ScenarioError(f'"{word}" is no objective', allowed=_EXAMPLE)
    statistic = statistics_[0] if statistics_ else ""
    if metric not in SLO_METRICS:
        raise unknown_name("metric", metric, SLO_METRICS, error=ScenarioError, where=f'objective "{word}"')
    if statistic and not _STATISTIC.fullmatch(statistic):
        raise ScenarioError(
            f'unknown statistic "{statistic}"',
            where=f'objective "{word}"',
            allowed="mean, median, p50, p90, p99.9, ...",
        )
    if metric == "itl" and not statistic:
        raise ScenarioError(
            "gaps between tokens belong to no single request", where=f'objective "{word}"',
            hint=f"ask for a statistic, such as p99:itl:{limit}, or for tpot:{limit}",
        )  # fmt: skip
    return Slo(metric=metric, limit_s=_limit_s(limit, word), statistic=statistic)


def _limit_s(text: str, word: str) -> float:
    try:
        limit = float(text) * 1e-3
    except ValueError:
        try:
            limit = parse(text, "second")
        except UnitError:
            raise ScenarioError(f'"{text}" is no time', where=f'objective "{word}"', allowed=_EXAMPLE) from None
    if not (np.isfinite(limit) and limit > 0):
        raise ScenarioError(f"a limit of {text}", where=f'objective "{word}"', allowed="a finite time above 0")
    return limit


def good_requests(slos: Slos, times: RequestTimes) -> NDArray[np.bool_]:
    """Which requests keep everything that is asked of every request, shape [request].

    Equation:  TTFT <= limit and TPOT <= limit and E2EL <= limit; TPOT is 0 for an answer of one token
    Source: vllm/benchmarks/serve.py, calculate_metrics
    """
    good = np.ones(len(times), np.bool_)
    for slo in slos.per_request:
        good &= _REQUEST_VALUES[slo.metric](times) <= slo.limit_s
    return good


def attained_frac(slos: Slos, times: RequestTimes) -> float:
    """Share of good requests among all that were sent, failed ones included; NaN if there was none."""
    sent = len(times) + times.num_failed
    return float(good_requests(slos, times).sum()) / sent if sent else float("nan")


def verdicts(slos: Slos, times: RequestTimes) -> tuple[Verdict, ...]:
    """Each objective against a run, in their order. Each apart may be kept and all together not: ask `is_kept`."""
    return tuple(_verdict(slo, slos, times) for slo in slos.each)


def is_kept(slos: Slos, times: RequestTimes) -> bool:
    """Whether a run keeps its objectives: all statistics, and all per request together by the share asked for."""
    if slos.per_request and not attained_frac(slos, times) >= slos.attainment:
        return False
    return all(_verdict(slo, slos, times).is_kept for slo in slos.of_run)


def within(slos: Slos, values: Mapping[str, Number]) -> NDArray[np.bool_]:
    """Which candidates keep all objectives by their predicted values.

    Args:
        slos: objectives
        values: by an objective's name (p99_ttft), or by its metric (ttft) where that is all that is predicted [s],
            numbers or arrays [candidate]
    Returns: shape [candidate]; a value that is NaN keeps nothing
    Raises: ScenarioError if nothing is predicted for an objective
    Example:
        >>> predicted = {"ttft": np.array([0.5, 0.5, 2.0]), "tpot": np.array([0.02, 0.04, 0.01])}
        >>> within(parse_slos("ttft:1000 tpot:30"), predicted).tolist()
        [True, False, False]
    """
    kept: NDArray[np.bool_] = np.ones((), np.bool_)
    for slo in slos.each:
        kept = kept & (np.asarray(_predicted(slo, values)) <= slo.limit_s)
    return kept


def unreachable(slos: Slos, bounds: Mapping[str, Number]) -> tuple[Slo, ...]:
    """Objectives that no candidate can keep, because a physical lower bound lies above the limit for all of them.

    Args: objectives; lower bounds in seconds by metric (or by an objective's name), numbers or arrays [candidate]
    """
    known = [slo for slo in slos.each if slo.name in bounds or slo.metric in bounds]
    return tuple(slo for slo in known if bool(np.all(np.asarray(_predicted(slo, bounds)) > slo.limit_s)))


def _predicted(slo: Slo, values: Mapping[str, Number]) -> Number:
    try:
        return values[slo.name] if slo.name in values else values[slo.metric]
    except KeyError:
        raise ScenarioError(f"nothing is predicted for the objective {slo}", allowed=", ".join(values)) from None


def _verdict(slo: Slo, slos: Slos, times: RequestTimes) -> Verdict:
    sample = _SAMPLES[slo.metric](times)
    if slo.statistic:
        value = _statistic(slo.statistic, sample)
        share = _share(sample, slo.limit_s)
        return Verdict(slo=slo, value_s=value, share=share, is_kept=value <= slo.limit_s)
    percent = slos.attainment * 100
    values = _REQUEST_VALUES[slo.metric](times)
    sent = len(times) + times.num_failed
    share = float((values <= slo.limit_s).sum()) / sent if sent else float("nan")
    value = statistics(Sample(values=values), (percent,)).percentiles[percent]
    return Verdict(slo=slo, value_s=value, share=share, is_kept=share >= slos.attainment)


def _statistic(name: str, sample: Sample) -> float:
    if name == "mean":
        return statistics(sample).mean
    percent = 50.0 if name == "median" else float(name[1:])
    return statistics(sample, (percent,)).percentiles[percent]


def _share(sample: Sample, limit_s: float) -> float:
    counts = np.ones(sample.values.size) if sample.counts is None else sample.counts
    total = counts.sum()
    return float(counts[sample.values <= limit_s].sum() / total) if total else float("nan")


def _ttft_sample(times: RequestTimes) -> Sample:
    return Sample(values=ttft_s(times))


def _e2el_sample(times: RequestTimes) -> Sample:
    return Sample(values=e2el_s(times))


_REQUEST_VALUES: Final = {"ttft": ttft_s, "tpot": tpot_s, "e2el": e2el_s}
_SAMPLES: Final = {"ttft": _ttft_sample, "tpot": tpot_sample, "e2el": _e2el_sample, "itl": itl_sample}
