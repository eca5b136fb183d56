"""Failures that a fresh launch may get past, each with its reason; everything else fails at once.

A retry costs a launch, ten minutes on a real machine, and hides what a second look would find. So a row is here only
where the cause lies outside of the server, its arguments and its code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pytest_atomtrace.errors import ExportError, InfraError, LaunchError, WindowError, WorkloadError

__all__ = ["TRANSIENT", "Attempt", "Transient", "transient"]


@dataclass(frozen=True)
class Transient:
    """A kind of failure that may pass: which errors, what they say, why another launch may do better."""

    errors: tuple[type[InfraError], ...]
    pattern: re.Pattern[str]
    reason: str
    example: str
    about_port: bool = False


_ANY = (LaunchError, WindowError, WorkloadError, ExportError)

TRANSIENT: tuple[Transient, ...] = (
    Transient(
        (LaunchError,),
        re.compile(r"^port \d+ is taken|address already in use|error while attempting to bind"),
        "another process took the free port between its choice and the server's start",
        "port 40123 is taken: another server listens on it",
        about_port=True,
    ),
    Transient(
        _ANY,
        re.compile(r"a worker process died: .*exitcode=-9\b|ended by signal 9\b"),
        "a process was killed from outside, most often for the host's memory, which may be free again",
        "a worker process died: AsyncIOProcManager(ModelRunner): [ModelRunner3/8] proc died unexpectedly (exitcode=-9)",
    ),
    Transient(
        (ExportError,),
        re.compile(r"\borphaned \("),
        "an exporter was killed while it wrote; the next export may find the memory that this one did not",
        "1 of 8 ranks did not export, a worker process died: rank_3 orphaned (x.json of 1,024 bytes)",
    ),
)


def transient(error: BaseException, *, own_port: bool) -> str:
    """Why another launch may succeed where this one failed; "" if it would fail again.

    A port that was chosen by the user (`own_port` false) is as taken at the next launch.
    """
    if not isinstance(error, InfraError):
        return ""
    for row in TRANSIENT:
        if row.about_port and not own_port:
            continue
        # A server that could not bind ends with a status that says nothing; its log does.
        said = [error.problem, *error.evidence] if row.about_port else [error.problem]
        if isinstance(error, row.errors) and any(row.pattern.search(text) for text in said):
            return row.reason
    return ""


@dataclass(frozen=True)
class Attempt:
    """An attempt that failed and was made again."""

    about: str
    error: str
    problem: str
    reason: str

    @property
    def text(self) -> str:
        """One line for errors."""
        return f"first attempt at {self.about}: {self.error}: {self.problem} (tried again: {self.reason})"

    def as_dict(self) -> dict[str, object]:
        """Builtin types only."""
        return {"about": self.about, "error": self.error, "problem": self.problem, "reason": self.reason}
