"""What a trace's findings mean: which questions it may answer, and what to do about each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_atomtrace.trace.finding import Finding

__all__ = ["DISTURBING", "MEANINGS", "HealthView", "Meaning", "view_health"]

# What a question needs: fatal findings of any of these scopes forbid it.
_NEEDS = {
    "counts": ("all", "counts"),
    "steps": ("all", "steps"),
    "times": ("all", "times", "steps", "counts"),
    "spans": ("all", "times", "steps", "counts", "span"),
}

# What may have made times longer than the program is: overlaps, somebody else or throttling, a build in the window.
DISTURBING = ("H09", "H11", "H13")


@dataclass(frozen=True)
class Meaning:
    """What a code says about a trace, and what helps."""

    meaning: str
    remedy: str


MEANINGS: dict[str, Meaning] = {
    "H01": Meaning(
        "The set of ranks is not exactly the one that the server has: a missing rank was not looked at, an extra "
        "one is of another run.",
        "Capture again into an empty directory; atomtrace check-layout DIR --tp N names every rank's state.",
    ),
    "H02": Meaning(
        "A file ends early or is damaged: the export was cut off or is still going on.",
        "Wait for the export (a .json beside the .gz means it goes on), or capture again and wait longer.",
    ),
    "H03": Meaning(
        "The profiler recorded the host only, so every kernel would look missing.",
        "Look at the profiler's libraries (roctracer or rocprofiler-sdk) and capture again.",
    ),
    "H04": Meaning(
        "Whole forward passes have no GPU activity: GPU records were lost, not kernels.",
        "Capture a shorter window; if it stays, the profiler loses records on this stack.",
    ),
    "H05": Meaning(
        "Kernels of some launches are not in the trace, or nothing could be compared to be sure that all are.",
        "Capture again; counts are only verified where two launches of one graph can be compared.",
    ),
    "H06": Meaning(
        "The profiler stopped recording on this rank before the window ended: what came later is missing.",
        "Shorten the window (fewer output tokens or requests) or record less detail.",
    ),
    "H07": Meaning(
        "Nothing is labelled as prefill or decode, so nothing can be said per step or phase.",
        "Capture from ATOM, or from vLLM or SGLang with its plug-in labels.",
    ),
    "H08": Meaning(
        "The rank that the trace names is not the one that its directory is for.",
        "Look whether files were moved between rank directories.",
    ),
    "H09": Meaning(
        "Kernels overlap on one stream, which one stream cannot do; clipping removed the overlap.",
        "Counts are exact all the same; capture again before judging times.",
    ),
    "H10": Meaning(
        "The workload did not run as asked, so its times are of another workload.",
        "Look at the benchmark's result beside the capture.",
    ),
    "H11": Meaning(
        "Something else used or throttled the GPUs while the window was open.",
        "Capture again on idle, cool GPUs.",
    ),
    "H12": Meaning(
        "The profiler makes graph launches slow, so spans and host times carry its cost.",
        "Judge by GPU busy time, or use a torch built on roctracer.",
    ),
    "H13": Meaning(
        "A kernel was built or tuned inside the window, so its times are not of a warm server.",
        "Warm up with the same shapes first, then capture again.",
    ),
    "H14": Meaning(
        "GPU annotations and launch records disagree about which kernels are a step's; launches were believed.",
        "Nothing to do: only tools that go by annotation windows are misled.",
    ),
}
_UNKNOWN = Meaning("This finding has no description yet.", "Read its text.")


@dataclass(frozen=True)
class HealthView:
    """All findings; `answers` tells for counts, steps, times and spans whether they may be asked about."""

    source: str
    simulated: bool
    ranks: tuple[str, ...]
    sound: bool
    answers: dict[str, bool]
    findings: tuple[Finding, ...]
    meanings: dict[str, Meaning]


def view_health(
    source: str, ranks: Sequence[str], findings: Sequence[Finding], *, simulated: bool = False
) -> HealthView:
    """Answer `atomtrace health`; fatal findings come first."""
    fatal = {finding.scope for finding in findings if finding.fatal}
    codes = sorted({finding.code for finding in findings})
    return HealthView(
        source=source,
        simulated=simulated,
        ranks=tuple(ranks),
        sound=not fatal,
        answers={question: not fatal & set(scopes) for question, scopes in _NEEDS.items()},
        findings=tuple(sorted(findings, key=lambda finding: (not finding.fatal, finding.code, finding.rank))),
        meanings={code: MEANINGS.get(code, _UNKNOWN) for code in codes},
    )
