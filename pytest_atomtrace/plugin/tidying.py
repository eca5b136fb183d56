"""The end of a run on disk: slices of failing steps are cut, and what the settings do not keep is removed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.files import numbered_children
from pytest_atomtrace.capture.keeping import captures_of_case, drop_capture, keep_under
from pytest_atomtrace.capture.record import MANIFEST
from pytest_atomtrace.capture.slices import write_slice
from pytest_atomtrace.errors import AtomTraceError, TraceFileError
from pytest_atomtrace.trace.layout import find_ranks
from pytest_atomtrace.trace.load import load
from pytest_atomtrace.units import parse_size
from pytest_atomtrace.verdicts.evidence import count_of, near_path
from pytest_atomtrace.verdicts.view import TraceView

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pytest

    from pytest_atomtrace.capture.slices import Slice
    from pytest_atomtrace.plugin.state import State

__all__ = ["tidy"]

# A trace to look at, not a list of everything that went wrong.
_STEPS_A_SLICE = 3


@dataclass(frozen=True)
class _NamedStep:
    """`back` windows before the last one, which is the one that a case's facts are of."""

    back: int
    rank: str
    step: int

    @classmethod
    def of(cls, facts: object) -> _NamedStep | None:
        """What the facts of a verdict name; the verdict on several captures says which of them it shows."""
        said = facts if isinstance(facts, dict) else {}
        rank, step, number, of = (said.get(key) for key in ("rank", "step", "capture", "captures"))
        if not isinstance(rank, str) or not isinstance(step, int):
            return None
        return cls(of - number if isinstance(number, int) and isinstance(of, int) else 0, rank, step)


@dataclass
class _CaseEnd:
    """How the tests of a case ended; `named` are the steps that failed checks name, in order."""

    slug: str
    directory: str = ""
    worst_rank: str = ""
    passed: bool = False
    bad: bool = False
    named: list[_NamedStep] = field(default_factory=list)

    def take(self, report: pytest.TestReport, payload: Mapping[str, object]) -> None:
        facts, verdicts = payload.get("case"), payload.get("verdicts")
        if isinstance(facts, dict):
            self.directory = str(facts.get("directory") or self.directory)
            self.worst_rank = str(facts.get("worst_rank") or self.worst_rank)
        self.passed = self.passed or (report.when == "call" and report.passed)
        self.bad = self.bad or report.failed or "trouble" in payload
        for verdict in verdicts if isinstance(verdicts, list) else []:
            if verdict.get("outcome") == "pass":
                continue
            self.bad = True
            said = _NamedStep.of(verdict.get("facts"))
            if said is not None:
                self.named.append(said)


def tidy(
    state: State, ends: Sequence[tuple[pytest.TestReport, Mapping[str, object]]], *, drop: bool
) -> Iterator[tuple[str, str]]:
    """Cut slices for every case that did not simply pass, then (if `drop`) remove; yields (style, line).

    `ends` are the reports with their records, and failures of tests that left no record. A problem on the way is a
    line too: nothing here changes what the run found.
    """
    run = state.output / "runs" / state.run_id
    cases = _cases(ends)
    slices: dict[str, Slice | None] = {}
    try:
        for case in cases:
            if case.bad:
                slices[case.slug] = _slice(case, run)
        written = [one for one in slices.values() if one is not None]
        if written:
            files = f"{count_of(len(written), 'file')}, {_size(sum(one.size_bytes for one in written))}"
            yield "", f"slices of failing steps: {near_path(run / 'slices')} ({files})"
        if drop:
            said = [
                text for text in (_drop_captures(cases, run, state.settings.keep, slices), _drop_runs(state)) if text
            ]
            if said:
                yield "", f"removed: {'; '.join(said)}"
    except (AtomTraceError, OSError) as error:
        yield "yellow", f"WARNING  the run could not be tidied up: {str(error).partition(chr(10))[0]}"


def _cases(ends: Sequence[tuple[pytest.TestReport, Mapping[str, object]]]) -> list[_CaseEnd]:
    cases: dict[str, _CaseEnd] = {}
    unknown: list[str] = []
    for report, payload in ends:
        facts = payload.get("case")
        slug = str(facts.get("slug") or "") if isinstance(facts, dict) else ""
        if slug:
            cases.setdefault(slug, _CaseEnd(slug)).take(report, payload)
        elif report.failed:
            unknown.append(report.nodeid)
    for case in cases.values():
        # The test of a worker that died names its case in its id only.
        case.bad = case.bad or any(case.slug in nodeid for nodeid in unknown)
    return list(cases.values())


def _drop_captures(cases: Sequence[_CaseEnd], run: Path, keep: str, slices: Mapping[str, Slice | None]) -> str:
    if keep == "all":
        return ""
    freed = dropped = 0
    for case in cases:
        # Of a failure something stays: where there is no slice, that is the capture.
        stays = keep == "failed" or slices.get(case.slug) is None if case.bad else not case.passed
        places = [] if stays else captures_of_case(run, case.slug)
        freed += sum(drop_capture(place, why=f"--atom-keep={keep}") for place in places)
        dropped += bool(places)
    return f"traces of {count_of(dropped, 'case')} ({_size(freed)}, --atom-keep={keep})" if dropped else ""


def _drop_runs(state: State) -> str:
    budget = state.settings.keep_size
    freed = keep_under(state.output / "runs", parse_size(budget), current=state.run_id)
    parts = [f"traces of {count_of(len(freed.stripped), 'older run')}"] * bool(freed.stripped)
    parts += [f"{count_of(len(freed.removed), 'older run')} as a whole"] * bool(freed.removed)
    return f"{' and '.join(parts)} ({_size(freed.size_bytes)}, --atom-keep-size={budget!r})" if parts else ""


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:,.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:,.1f} MB"


def _slice(case: _CaseEnd, run: Path) -> Slice | None:
    """The steps that failed, of the window and rank that failed checks name most; else a typical step.

    That one is of the last window's slowest rank.
    """
    if not case.directory or not Path(case.directory).is_relative_to(run):
        return None
    places = Counter((one.back, one.rank) for one in case.named)
    back, wanted = max(places, key=lambda place: places[place]) if places else (0, case.worst_rank)
    directory = _window(Path(case.directory), back)
    parts = list(directory.relative_to(run).parts)
    parts[parts.index("captures")] = "slices"
    try:
        files = {name: found.trace for name, found in find_ranks(directory).items() if found.trace is not None}
        if not files:
            return None
        name = wanted if wanted in files else next(iter(files))
        view = TraceView(load({name: files[name]}))
        rank = view.data.ranks[name]
        named = (one.step for one in case.named if (one.back, one.rank) == (back, name))
        steps = list(dict.fromkeys(named))[:_STEPS_A_SLICE]
        if not steps and rank.steps:
            typical = view.median_step(rank, "decode") or rank.steps[len(rank.steps) // 2]
            steps = [typical.index]
        return write_slice(rank, steps, run.joinpath(*parts)) if steps else None
    except TraceFileError:  # a trace that cannot be read cannot be cut
        return None


def _window(last: Path, back: int) -> Path:
    """The window of a launch that was taken `back` windows before `last`."""
    windows = [place for place in numbered_children(last.parent) if (place / MANIFEST).is_file()]
    return windows[windows.index(last) - back] if last in windows[back:] else last
