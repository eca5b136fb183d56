"""The captures of a run, a row each: what `atomtrace summary` says of one, at a glance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.verdicts.summary import summarize

if TYPE_CHECKING:
    from pytest_atomtrace.trace.finding import Finding
    from pytest_atomtrace.verdicts.trace import Trace

__all__ = ["CaptureRow", "CapturesView", "unreadable", "view_capture"]


@dataclass(frozen=True)
class CaptureRow:
    """One capture; p50 and max are GPU busy per step of the `main` kind on the slowest rank.

    `problem` says why it could not be read; then there are no figures.
    """

    slug: str
    source: str
    engine: str
    simulated: bool
    ranks: int
    main: str | None
    main_steps: int
    main_steady: bool
    main_p50_ns: int | None
    main_max_ns: int | None
    findings: tuple[Finding, ...]
    problem: str = ""


@dataclass(frozen=True)
class CapturesView:
    """All captures at `source`, by case."""

    source: str
    captures: tuple[CaptureRow, ...]


def view_capture(slug: str, trace: Trace) -> CaptureRow:
    """One row."""
    found = summarize(trace)
    shown = next(rank for rank in found.ranks if rank.rank == found.focus)
    return CaptureRow(
        slug=slug,
        source=found.source,
        engine=str(trace.manifest.get("engine") or trace.engine),
        simulated=found.simulated,
        ranks=len(found.ranks),
        main=found.main,
        main_steps=found.main_steps,
        main_steady=found.main_steady,
        main_p50_ns=shown.main_p50_ns,
        main_max_ns=shown.main_max_ns,
        findings=found.findings,
    )


def unreadable(slug: str, source: str, problem: str) -> CaptureRow:
    """A capture whose files cannot be read."""
    return CaptureRow(slug, source, "", False, 0, None, 0, False, None, None, (), problem)
