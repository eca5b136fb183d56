"""The JSON report as types: what is written, and what its published schema is made of.

The shape is a promise to programs that read it: fields and words for outcomes may be added, and a change that takes one
away or gives it another meaning raises the number in `SCHEMA`. `wrong_check`, `Counts.wrong` and `Check.same_as`
came later.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  # msgspec reads the annotations
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta

__all__ = ["SCHEMA", "Case", "Check", "Counts", "Report", "Run"]

SCHEMA: Final = "atomtrace-report/1"

Outcome: TypeAlias = Literal["pass", "skip", "fail", "regression", "inconclusive", "infra", "wrong_check"]
Scalar: TypeAlias = "str | int | float | bool"
Nanoseconds: TypeAlias = Annotated[int, Meta(ge=0)]


@dataclass(frozen=True)
class Counts:
    """Checks of the run by outcome; an item that ended without a verdict counts as one."""

    passed: Annotated[int, Meta(ge=0, description="a waived failure is among them, its note says so")]
    skipped: Annotated[int, Meta(ge=0)]
    failed: Annotated[int, Meta(ge=0)]
    regressed: Annotated[int, Meta(ge=0, description="failed against a baseline")]
    inconclusive: Annotated[int, Meta(ge=0, description="no verdict: the trace cannot carry one")]
    infra: Annotated[int, Meta(ge=0, description="no verdict: launch, lock, client or export trouble")]
    wrong: Annotated[int, Meta(ge=0, description="no verdict: the check itself is wrong, such as a misspelt phase")]
    expected: Annotated[int, Meta(ge=0, description="failed as their test expected (xfail); in no other count")]


@dataclass(frozen=True)
class Run:
    """The run as a whole."""

    id: Annotated[str, Meta(description="name of its directory below runs/; sorts by time")]
    version: Annotated[str, Meta(description="of pytest-atomtrace")]
    backend: Annotated[str, Meta(description="as asked for: auto, atom, attach, sim or replay")]
    exit_status: Annotated[int, Meta(description="pytest's own, before a plugin or --atom-error-exit changes it")]
    outcome: Annotated[Outcome | None, Meta(description="the worst of its cases; null if no test with a case ran")]
    checks: Counts


@dataclass(frozen=True)
class Case:
    """One case. Times are GPU busy time on the slowest rank over steady decode steps, whole nanoseconds."""

    slug: Annotated[str, Meta(description="stable name; baselines and captures are keyed by it")]
    outcome: Annotated[Outcome, Meta(description="the worst of its tests")]
    engine: Annotated[str, Meta(description='what gave the capture: atom, attach, sim or replay; "" if nothing did')]
    simulated: Annotated[bool, Meta(description="the times are made up by the simulator, also when it was replayed")]
    capture: Annotated[str, Meta(description='directory of the capture; "" if there is none')]
    asked: Annotated[Mapping[str, Scalar], Meta(description="model, tp, dp, pp, isl, osl, conc, ...")]
    gpu: Annotated[str, Meta(description='name of the device; "" where the trace has none')]
    rocm: Annotated[str, Meta(description='version; "" where the capture has none')]
    tests: Annotated[int, Meta(ge=0)]
    passed: Annotated[int, Meta(ge=0, description="tests")]
    ranks: int | None
    worst_rank: Annotated[str, Meta(description='the rank with the slowest p50; "" without steady steps')]
    steps: Annotated[int | None, Meta(description="labelled steps of all kinds on the rank that has most")]
    steady_steps: Annotated[int | None, Meta(description="steady decode steps on the rank that has fewest")]
    decode_p50_ns: Nanoseconds | None
    decode_p99_ns: Nanoseconds | None
    decode_p99_firm: Annotated[bool, Meta(description="false: too few steady steps, an indication only")]
    per_token_p50_ns: Annotated[int | None, Meta(description="whole decode iteration per token that a sequence gains")]
    health: Annotated[tuple[str, ...], Meta(description="codes of findings that forbid verdicts")]
    warnings: Annotated[tuple[str, ...], Meta(description="codes of findings that do not")]
    capture_s: Annotated[float | None, Meta(description="wall time from launch to the last rank's file")]
    bench: Annotated[Mapping[str, Scalar], Meta(description="the client's figures; times only count unless profiled")]


@dataclass(frozen=True)
class Check:
    """One check on one case, or a test that ended without a verdict (then `check` is empty)."""

    test: Annotated[str, Meta(description="pytest's node id")]
    file: Annotated[str, Meta(description="of the spec, relative to pytest's rootdir")]
    line: Annotated[int | None, Meta(description="of the check, counted from 1")]
    case: Annotated[str, Meta(description="slug")]
    check: Annotated[str, Meta(description="what was asked")]
    outcome: Outcome
    expected: Annotated[bool, Meta(description="true: the test was to fail and did (xfail)")]
    sentence: Annotated[str, Meta(description="what was found")]
    evidence: Annotated[tuple[str, ...], Meta(description="lines: ranks, steps, counts, nearest names, commands")]
    same_as: Annotated[str, Meta(description='test that ended for the same reason and has its evidence; "" if none')]
    notes: Annotated[tuple[str, ...], Meta(description="what weakens the verdict: unproven, waived")]
    facts: Annotated[Mapping[str, Scalar], Meta(description="flat numbers and names, such as rank, step, p50_ns")]


@dataclass(frozen=True)
class Report:
    """A run of performance checks on ATOM. Cases and checks stand worst first, then in the order of the run."""

    schema: Literal["atomtrace-report/1"]
    run: Run
    cases: tuple[Case, ...]
    checks: tuple[Check, ...]
    remarks: Annotated[tuple[str, ...], Meta(description="about the run itself, such as a waiver without use")]
