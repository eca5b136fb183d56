"""Catch performance regressions of the ATOM LLM inference server from its own profiler traces.

This module is the one public door; everything that is not in ``__all__`` is private. Attributes load on
first use, since pytest imports this package at every start and numpy alone would cost it 80 ms.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.errors import (
        AtomTraceError,
        ConfigError,
        EmptyTraceError,
        ExportError,
        InconclusiveError,
        InfraError,
        InsufficientStepsError,
        LaunchError,
        LeaseError,
        MalformedTraceError,
        NoBaselineError,
        NoStepsError,
        RememberedFailureError,
        StoreError,
        TraceFileError,
        TruncatedTraceError,
        UnhealthyTraceError,
        WindowError,
        WorkloadError,
    )
    from pytest_atomtrace.verdicts.bench import Bench
    from pytest_atomtrace.verdicts.kernels import KernelTable
    from pytest_atomtrace.verdicts.outcome import Outcome
    from pytest_atomtrace.verdicts.steps import Steps, Timing
    from pytest_atomtrace.verdicts.trace import RankTrace, Trace, load_trace

__all__ = [
    "AtomTraceError",
    "Bench",
    "Case",
    "ConfigError",
    "EmptyTraceError",
    "ExportError",
    "InconclusiveError",
    "InfraError",
    "InsufficientStepsError",
    "KernelTable",
    "LaunchError",
    "LeaseError",
    "MalformedTraceError",
    "NoBaselineError",
    "NoStepsError",
    "Outcome",
    "RankTrace",
    "RememberedFailureError",
    "Steps",
    "StoreError",
    "Timing",
    "Trace",
    "TraceFileError",
    "TruncatedTraceError",
    "UnhealthyTraceError",
    "WindowError",
    "WorkloadError",
    "load_trace",
]

_HOMES = {
    "Bench": "verdicts.bench",
    "Case": "cases.case",
    "KernelTable": "verdicts.kernels",
    "Outcome": "verdicts.outcome",
    "RankTrace": "verdicts.trace",
    "Steps": "verdicts.steps",
    "Timing": "verdicts.steps",
    "Trace": "verdicts.trace",
    "load_trace": "verdicts.trace",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  # the attributes have types of their own, above
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return __all__
