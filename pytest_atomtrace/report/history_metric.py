"""The metrics that a history can show, their units, and what baselines call them."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from pytest_atomtrace.errors import ConfigError
from pytest_atomtrace.units import format_duration
from pytest_atomtrace.verdicts.window_figures import FAMILY_PREFIX, STEP

__all__ = ["METRICS", "Metric", "parse_metric"]

_BUSY = "GPU busy per steady decode step on the slowest rank"
METRICS: dict[str, str] = {
    "decode.p50": f"p50 of {_BUSY}",
    "decode.p90": f"p90 of {_BUSY}",
    "decode.p99": f"p99 of {_BUSY}",
    "decode.mean": f"mean of {_BUSY}",
    "decode.max": f"longest {_BUSY}",
    "decode.iteration": "p50 of the whole decode iteration on the slowest rank: sampling, drafts and copies too",
    "decode.per_token": "p50 of the iteration per token that a sequence gains",
    "decode.kernels": "kernels of a steady decode step",
    "draft.gpu_busy": "p50 of GPU busy per draft step on the slowest rank",
    "prefill.per_ktok": "GPU busy of prefill per 1,000 prompt tokens",
    "bench.tpot.p50": "time per output token, p50, seen by the client under the profiler",
    "bench.tpot.p99": "time per output token, p99, likewise",
    "bench.ttft.p50": "time to first token, p50, likewise",
    "bench.ttft.p99": "time to first token, p99, likewise",
    "bench.tokens_per_s": "output tokens per second, likewise",
    "bench.unprofiled.tpot.p50": "time per output token, p50, without the profiler (--atom-bench=on)",
    "bench.unprofiled.ttft.p50": "time to first token, p50, without the profiler",
    "bench.unprofiled.tokens_per_s": "output tokens per second without the profiler",
}
_ALIASES = {STEP: "decode.p50", "draft.p50": "draft.gpu_busy"}
_FAMILY = re.compile(rf"{re.escape(FAMILY_PREFIX)}(?P<family>[a-z_]+)")


@dataclass(frozen=True)
class Metric:
    """`unit` is ``ns``, ``tokens/s`` or ``kernels``; `baseline` is the metric's name in a baseline, "" for none."""

    name: str
    about: str
    unit: str
    bigger_is_worse: bool
    baseline: str

    def shown(self, value: float) -> str:
        """A value for people."""
        return format_duration(value) if self.unit == "ns" else f"{value:,.0f} {self.unit}"


def parse_metric(text: str) -> Metric:
    """Read a metric's name.

    Raises:
        ConfigError: there is none of that name.

    """
    name = _ALIASES.get(text, text)
    family = _FAMILY.fullmatch(name)
    if family is not None:
        about = f"exposed GPU time of {family['family']} kernels per decode step"
        return Metric(name, about, "ns", True, name)
    if name not in METRICS:
        close = difflib.get_close_matches(name, METRICS, n=1)
        mean = f"; did you mean {close[0]!r}?" if close else f" ({', '.join(METRICS)}, {FAMILY_PREFIX}<family>)"
        raise ConfigError(f"there is no metric {text!r}{mean}", "--metric")
    rate = name.endswith("tokens_per_s")
    unit = "tokens/s" if rate else "kernels" if name == "decode.kernels" else "ns"
    of_baseline = {"decode.p50": STEP}.get(name, name)
    return Metric(name, METRICS[name], unit, not rate, of_baseline)
