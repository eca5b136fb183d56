"""The figures of a kept capture, read from its trace once and then from a small file beside its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.files import read_json, write_json
from pytest_atomtrace.errors import InconclusiveError, StoreError
from pytest_atomtrace.trace.index import is_writable_place, trace_key
from pytest_atomtrace.trace.layout import find_ranks
from pytest_atomtrace.trace.load import load
from pytest_atomtrace.verdicts.measure import measure
from pytest_atomtrace.verdicts.saved import beside, saved_case
from pytest_atomtrace.verdicts.steps import Timing
from pytest_atomtrace.verdicts.trace import Trace
from pytest_atomtrace.verdicts.window_figures import STEP, measure_window

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_atomtrace.capture.saved_runs import SavedCapture
    from pytest_atomtrace.settings import Settings

__all__ = ["FILE", "KeptFigures", "bench_figures", "kept_figures"]

FILE = "figures.json"
# Raise it when a figure changes its meaning.
_VERSION = 1
_QUANTILES = ("p50", "p90", "p99", "mean", "max")


@dataclass(frozen=True)
class KeptFigures:
    """`figures` by metric (nanoseconds, or kernels of a step); `problem` is why there are none."""

    figures: Mapping[str, float]
    problem: str = ""


def kept_figures(capture: SavedCapture, settings: Settings) -> KeptFigures:
    """Step times of the slowest rank over steady steps, and what baselines keep; see `measure_window`.

    A trace that cannot be read or believed gives a problem, which is kept as well.
    """
    ranks = {name: files.trace for name, files in find_ranks(capture.directory).items() if files.trace is not None}
    rule = [_VERSION, settings.steady_skip_first, settings.steady_skip_last, settings.steady_min]
    traces = {name: trace_key(path) for name, path in ranks.items()}
    place = capture.directory / FILE
    found = _read(place, rule, None if capture.dropped else traces)
    if found is None and capture.dropped:
        return KeptFigures({}, "its traces were not kept")
    if found is None:
        found = _measured(capture, ranks, settings)
        if is_writable_place(place):
            write_json(
                place, {"rule": rule, "traces": traces, "figures": dict(found.figures), "problem": found.problem}
            )
    return found


def _read(place: Path, rule: object, traces: object) -> KeptFigures | None:
    try:
        document = read_json(place)
    except StoreError:
        return None
    if document is None or document.get("rule") != rule:
        return None
    # Of dropped traces there is nothing to compare with: they cannot have changed.
    if traces is not None and document.get("traces") != traces:
        return None
    figures = document.get("figures")
    numbers = figures.items() if isinstance(figures, Mapping) else ()
    known = {str(name): float(value) for name, value in numbers if isinstance(value, (int, float))}
    return KeptFigures(known, str(document.get("problem", "")))


def _measured(capture: SavedCapture, ranks: Mapping[str, Path], settings: Settings) -> KeptFigures:
    expected = capture.manifest.get("expected_ranks")
    try:
        trace = Trace(
            load(ranks, expected=[str(one) for one in expected] if isinstance(expected, list) else None),
            case=saved_case(capture.manifest),
            directory=capture.directory,
            engine=str(capture.manifest.get("engine", "")),
            settings=settings,
            manifest=capture.manifest,
            bench=beside(capture.directory, "bench.json"),
        )
        figures: dict[str, float] = {**measure_window(trace).metrics}
        del figures[STEP]
        return KeptFigures({**figures, **_quantiles(trace)})
    except InconclusiveError as error:
        return KeptFigures({}, " ".join(str(error).split()))


def _quantiles(trace: Trace) -> dict[str, float]:
    steady = {name: trace.steady_steps(rank, "decode") for name, rank in trace.data.ranks.items()}
    timings = [Timing(tuple(step.gpu_busy_ns for step in steps)) for steps in steady.values()]
    figures: dict[str, float] = {
        f"decode.{name}": max(getattr(timing, f"{name}_ns") for timing in timings) for name in _QUANTILES
    }
    counts = [Timing(tuple(step.n_kernels for step in steps)).p50_ns for steps in steady.values()]
    figures["decode.kernels"] = max(counts)
    accepted = trace.accepted_length
    if accepted is not None:
        tokens = [
            measure("per_token", rank, steady[name], accepted_length=accepted)
            for name, rank in trace.data.ranks.items()
        ]
        if all(len(values) >= trace.settings.steady_min for values in tokens):
            figures["decode.per_token"] = max(Timing(values).p50_ns for values in tokens)
    return figures


def bench_figures(directory: Path) -> dict[str, float]:
    """The workload's own figures of a capture: under the profiler, and without it where that was measured."""
    bench = beside(directory, "bench.json")
    honest = bench.get("unprofiled")
    found: dict[str, float] = {}
    for prefix, part in (("bench", bench), ("bench.unprofiled", honest if isinstance(honest, Mapping) else {})):
        for name in ("ttft", "tpot", "itl"):
            times = part.get(f"{name}_ms")
            for quantile, value in times.items() if isinstance(times, Mapping) else ():
                if isinstance(value, (int, float)):
                    found[f"{prefix}.{name}.{quantile}"] = round(value * 1e6)
        rate = part.get("output_tokens_per_s")
        if isinstance(rate, (int, float)):
            found[f"{prefix}.tokens_per_s"] = float(rate)
    return found
