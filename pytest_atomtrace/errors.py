"""Everything that can go wrong, as one tree.

::

    AtomTraceError
    ├── ConfigError                 a marker, spec, option or ini value is wrong (pytest: exit 4; in a test: error)
    ├── InconclusiveError           the evidence cannot carry a verdict (pytest: error, never failed, never passed)
    │   ├── TraceFileError          a file cannot be read as a kineto trace
    │   │   ├── TruncatedTraceError     gzip or JSON ends early, or the CRC is wrong
    │   │   ├── MalformedTraceError     whole, but not what a kineto trace looks like
    │   │   └── EmptyTraceError         no bytes, or no events
    │   ├── UnhealthyTraceError     fatal health findings (H01..H13)
    │   ├── NoStepsError            a question about steps, and the trace has none of that kind
    │   ├── InsufficientStepsError  too few steady steps for the statistic asked for
    │   └── NoBaselineError         nothing to compare with: no baseline, a damaged one, or one of other hardware
    └── InfraError                  launch, lock, client, export or store trouble (pytest: error)
        ├── LeaseError              the GPUs could not be leased in time
        ├── LaunchError             the server did not become ready
        ├── WindowError             the profiler window did not open or close
        ├── WorkloadError           the benchmark's requests failed
        ├── ExportError             a rank's trace did not arrive
        ├── StoreError              the capture store is damaged or not writable
        └── RememberedFailureError  this case (or its server) already failed in this run

Neither `InconclusiveError` nor `InfraError` derives from AssertionError: a test framework must be able to
tell "the answer is no" from "there is no answer".

Errors keep their facts as attributes, build their sentence in ``__str__`` and survive pickling, since they
cross process borders (trace readers run in parallel, pytest-xdist workers report to a controller).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "AtomTraceError",
    "ConfigError",
    "EmptyTraceError",
    "ExportError",
    "InconclusiveError",
    "InfraError",
    "InsufficientStepsError",
    "LaunchError",
    "LeaseError",
    "MalformedTraceError",
    "NoBaselineError",
    "NoStepsError",
    "RememberedFailureError",
    "StoreError",
    "TraceFileError",
    "TruncatedTraceError",
    "UnhealthyTraceError",
    "WindowError",
    "WorkloadError",
]


class AtomTraceError(Exception):
    """Root of every error raised by pytest-atomtrace."""


class ConfigError(AtomTraceError):
    """A marker, spec, option or ini value is wrong.

    `where` names the source ("marker at perf_specs/test_x.py:14", "--atom-backend"), `problem` the fault;
    `problems` are its parts where several things are wrong at once.
    """

    def __init__(self, problem: str, where: str = "") -> None:
        super().__init__(problem, where)
        self.problem = problem
        self.where = where
        self.problems: tuple[str, ...] = (problem,)

    @classmethod
    def of_all(cls, problems: Sequence[str]) -> ConfigError:
        """One error of several problems: kept apart, since a sentence may hold the "; " that joins them."""
        error = ConfigError("; ".join(problems))
        error.problems = tuple(problems)
        return error

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}" if self.where else self.problem


class InconclusiveError(AtomTraceError):
    """The evidence cannot carry a verdict: neither pass nor fail may be claimed."""


class TraceFileError(InconclusiveError):
    """A file cannot be read as a kineto trace.

    Facts: `path`, `problem`, `rank` (directory name, "" if unknown) and `offset` (byte offset in the
    uncompressed text, or in the file where `compressed_offset` is true; -1 if it has no place).
    """

    def __init__(
        self, path: str, problem: str, rank: str = "", offset: int = -1, *, compressed_offset: bool = False
    ) -> None:
        super().__init__(path, problem, rank, offset)
        self.path = path
        self.problem = problem
        self.rank = rank
        self.offset = offset
        self.compressed_offset = compressed_offset

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_trace_file_error, (
            type(self),
            self.path,
            self.problem,
            self.rank,
            self.offset,
            self.compressed_offset,
        )

    def __str__(self) -> str:
        rank = f"rank {self.rank}: " if self.rank else ""
        place = ""
        if self.offset >= 0:
            space = "of the compressed file" if self.compressed_offset else "of the text"
            place = f" at byte {self.offset:,} {space}"
        return f"{rank}{self.path}: {self.problem}{place}"


def _rebuild_trace_file_error(
    cls: type[TraceFileError], path: str, problem: str, rank: str, offset: int, compressed: bool
) -> TraceFileError:
    return cls(path, problem, rank, offset, compressed_offset=compressed)


class TruncatedTraceError(TraceFileError):
    """The gzip stream or the JSON text ends early, or the checksum is wrong."""


class MalformedTraceError(TraceFileError):
    """The file is whole but is not what a kineto trace looks like."""


class EmptyTraceError(TraceFileError):
    """The file has no bytes, or the trace has no events."""


class UnhealthyTraceError(InconclusiveError):
    """Fatal health findings; `findings` are their one-line texts, each starting with its code."""

    def __init__(self, findings: Sequence[str], hint: str = "") -> None:
        super().__init__(tuple(findings), hint)
        self.findings = tuple(findings)
        self.hint = hint

    def __str__(self) -> str:
        lines = ["The trace cannot be believed, so no verdict was made:"]
        lines += [f"  {finding}" for finding in self.findings]
        if self.hint:
            lines.append(f"  {self.hint}")
        return "\n".join(lines)


class NoStepsError(InconclusiveError):
    """A question about steps of `kind`, and the trace has none."""

    def __init__(self, kind: str, seen: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(kind, tuple(seen), hint)
        self.kind = kind
        self.seen = tuple(seen)
        self.hint = hint

    def __str__(self) -> str:
        seen = f" Kinds seen: {', '.join(self.seen)}." if self.seen else " It has no step labels at all."
        hint = f" {self.hint}" if self.hint else ""
        return f"The trace has no {self.kind} step.{seen}{hint}"


class InsufficientStepsError(InconclusiveError):
    """`have` steady steps of `kind` where `statistic` needs `need`."""

    def __init__(self, kind: str, statistic: str, have: int, need: int, *, rank: str = "", hint: str = "") -> None:
        super().__init__(kind, statistic, have, need)
        self.kind = kind
        self.statistic = statistic
        self.have = have
        self.need = need
        self.rank = rank
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_insufficient, (self.kind, self.statistic, self.have, self.need, self.rank, self.hint)

    def __str__(self) -> str:
        rank = f" on {self.rank}" if self.rank else ""
        hint = f" {self.hint}" if self.hint else ""
        return (
            f"Insufficient steps: {self.statistic} of {self.kind} needs {self.need} steady steps, "
            f"the trace has {self.have}{rank}.{hint}"
        )


def _rebuild_insufficient(
    kind: str, statistic: str, have: int, need: int, rank: str, hint: str
) -> InsufficientStepsError:
    return InsufficientStepsError(kind, statistic, have, need, rank=rank, hint=hint)


class NoBaselineError(InconclusiveError):
    """There is nothing to compare `case` with.

    `reason` is ``missing``, ``damaged``, ``hardware``, ``profiler``, ``model`` or ``metric``; `problem` says what is
    there instead, `command` records a baseline.
    """

    def __init__(self, case: str, reason: str, problem: str, command: str = "") -> None:
        super().__init__(case, reason, problem, command)
        self.case = case
        self.reason = reason
        self.problem = problem
        self.command = command

    def __str__(self) -> str:
        command = f"\nRecord one with: {self.command}" if self.command else ""
        return f"No baseline for {self.case} ({self.reason}): {self.problem}{command}"


class InfraError(AtomTraceError):
    """Launch, lock, client, export or store trouble: `problem`, what to do (`hint`), and `evidence` lines."""

    def __init__(self, problem: str, hint: str = "", evidence: Sequence[str] = ()) -> None:
        super().__init__(problem, hint, tuple(evidence))
        self.problem = problem
        self.hint = hint
        self.evidence = tuple(evidence)

    def __str__(self) -> str:
        lines = [self.problem]
        if self.hint:
            lines.append(self.hint)
        lines += [f"  | {line}" for line in self.evidence]
        return "\n".join(lines)


class LeaseError(InfraError):
    """The GPUs could not be leased in time."""


class LaunchError(InfraError):
    """The server did not become ready."""


class WindowError(InfraError):
    """The profiler window did not open or close."""


class WorkloadError(InfraError):
    """The benchmark's requests failed."""


class ExportError(InfraError):
    """A rank's trace did not arrive."""


class StoreError(InfraError):
    """The capture store is damaged or cannot be written."""


class RememberedFailureError(InfraError):
    """This case (or its server) already failed in this run; nothing was tried again.

    `first_problem` is the `problem` of the error that is remembered.
    """

    def __init__(self, problem: str, hint: str = "", evidence: Sequence[str] = (), first_problem: str = "") -> None:
        super().__init__(problem, hint, evidence)
        self.args = (problem, hint, tuple(evidence), first_problem)  # what pickling calls the class with
        self.first_problem = first_problem
