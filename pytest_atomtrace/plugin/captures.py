"""Cases become traces for tests: one capture per case and run, one load per process."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import OrderedDict
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar

import pytest

from pytest_atomtrace.errors import InfraError
from pytest_atomtrace.plugin.launches import ItemLaunches
from pytest_atomtrace.plugin.places import asked_at
from pytest_atomtrace.plugin.state import CASE, RECORD, STATE, ItemRecord, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from pytest_atomtrace.capture.locks import SharedHold
    from pytest_atomtrace.capture.record import Capture
    from pytest_atomtrace.capture.session import CaptureSession
    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.plugin.recording_plan import RecordingPlan
    from pytest_atomtrace.trace.data import TraceData
    from pytest_atomtrace.verdicts.fingerprint import Fingerprint
    from pytest_atomtrace.verdicts.trace import Trace
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["Captures", "captures_of"]

_View = TypeVar("_View", bound="TraceView")
# A rank of a long window is some 40 MB of columns; a session with many cases must not keep them all.
TRACES_KEPT = 2


def captures_of(session: pytest.Session) -> Captures:
    """This process's captures, made when the first test asks."""
    stash = session.config.stash
    if CAPTURES not in stash:
        stash[CAPTURES] = Captures(stash[STATE], session)
        session.config.add_cleanup(stash[CAPTURES].close)
    return stash[CAPTURES]


class Captures:
    """The captures of one pytest process."""

    def __init__(self, state: State, session: pytest.Session) -> None:
        self._state = state
        self._pytest_session = session
        self._capture_session: CaptureSession | None = None
        self._hold: SharedHold | None = None
        self._on_interrupt: signal.Handlers | Callable[[int, FrameType | None], object] | int | None = None
        self._loaded: OrderedDict[str, tuple[Capture, TraceData]] = OrderedDict()
        self._facts: dict[tuple[str, Path], dict[str, object]] = {}
        # The earlier windows of one case: each of its checks looks at all of them.
        self._earlier: tuple[str, dict[Path, TraceData]] = ("", {})

    def trace(self, item: pytest.Item, case: Case) -> Trace:
        """The trace of `case` for `item`, captured first if nobody in this run has.

        Raises:
            InfraError: the capture failed, now or earlier in this run.
            InconclusiveError: the trace cannot be believed.
            pytest.skip.Exception: nothing can be captured here, or the replay directory lacks the case.

        """
        from pytest_atomtrace.plugin.waiving import waiving
        from pytest_atomtrace.verdicts.trace import Trace

        # A test that is run again starts with a clean record.
        record = item.stash[RECORD] = ItemRecord()
        self._state.progress.test_starts()
        record.case = {"slug": case.slug}
        if case.slug not in self._loaded:
            with self.one_interrupt():
                capture = self._obtain(item, case)
            record.case = {"slug": case.slug, "directory": str(capture.directory), "engine": capture.engine}
            self._loaded[case.slug] = (capture, self._load(capture))
            while len(self._loaded) > TRACES_KEPT:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(case.slug)
        capture, data = self._loaded[case.slug]
        kind = partial(
            Trace,
            record=lambda verdict: record.verdicts.append({**verdict.as_dict(), **asked_at(item.path)}),
            launches=ItemLaunches(self, item, case, self._state.settings),
            waive=waiving(self._state, case),
        )
        trace = self._made(kind, capture, data, case)
        record.case = self._facts_of(trace, case, capture)
        trace.require("all")
        return trace

    def _facts_of(self, trace: Trace, case: Case, capture: Capture) -> dict[str, object]:
        """What reports say of the case: the same for all of its tests, so put together once."""
        from pytest_atomtrace.verdicts.facts import case_facts
        from pytest_atomtrace.verdicts.figures import case_figures

        key = (case.slug, capture.directory)
        facts = self._facts.get(key)
        if facts is None:
            facts = {**case_facts(trace), **case_figures(trace), "capture_s": capture.capture_s}
            self._facts[key] = facts
        return facts

    def windows(self, item: pytest.Item, case: Case, launch: int) -> list[TraceView]:
        """The windows of one launch of the case's server, taken first if nobody in this run has.

        Raises:
            InfraError: the launch or a capture failed.

        """
        with self.one_interrupt():
            captures = self._windows(item, case, launch)
        keep = launch == 1 and case.captures > 1
        return [self._view(capture, self._data_of(capture, case, keep=keep), case) for capture in captures]

    def _view(self, capture: Capture, data: TraceData, case: Case) -> TraceView:
        from pytest_atomtrace.verdicts.view import TraceView

        return self._made(TraceView, capture, data, case)

    def _made(self, kind: Callable[..., _View], capture: Capture, data: TraceData, case: Case) -> _View:
        """The view of a capture, with what lies beside it."""
        from pytest_atomtrace.verdicts.saved import beside

        return kind(
            data,
            case=case,
            directory=capture.directory,
            engine=capture.engine,
            settings=self._state.settings,
            manifest=capture.manifest,
            bench=beside(capture.directory, "bench.json"),
        )

    def _data_of(self, capture: Capture, case: Case, *, keep: bool) -> TraceData:
        loaded = self._loaded.get(case.slug)
        if loaded is not None and loaded[0].directory == capture.directory:
            return loaded[1]
        if not keep:
            return self._load(capture)
        if self._earlier[0] != case.slug:
            self._earlier = (case.slug, {})
        kept = self._earlier[1]
        if capture.directory not in kept:
            kept[capture.directory] = self._load(capture)
        return kept[capture.directory]

    def _windows(self, item: pytest.Item, case: Case, launch: int) -> list[Capture]:
        if self._state.settings.backend == "replay":
            from pytest_atomtrace.capture.replay import saved_windows

            return saved_windows(self._replayed(case), launch=launch)
        if launch == 1:
            self._obtain(item, case)
        else:
            # A recording needs the same launches for every case that is recorded; to confirm one needs its own.
            recording = bool(self._state.settings.update_baselines)
            needed = [case, *(self.plan.partners(self._machine(case)) if recording else [])]
            self._open().obtain(case, needed=list(dict.fromkeys(needed)), test_id=item.nodeid, launch=launch)
        return self._open().windows(case, launch=launch)

    def saved_launches(self, case: Case) -> int:
        """How many launches of the case the replay has."""
        from pytest_atomtrace.capture.replay import saved_launches

        return saved_launches(self._replayed(case))

    def simulated(self, case: Case) -> bool:
        """Whether the capture of the case is a simulated one, replayed or not."""
        loaded = self._loaded.get(case.slug)
        return loaded is not None and self._view(*loaded, case).simulated

    def seconds(self, item: pytest.Item, case: Case) -> float:
        """Wall time of the first launch and its windows."""
        return sum(capture.capture_s for capture in self._windows(item, case, 1))

    def say(self, text: str) -> None:
        """A progress line."""
        self._state.progress.say(text)

    @property
    def worker(self) -> str:
        """``main``, or the xdist worker that this is."""
        return self._state.worker

    @property
    def run_place(self) -> Path:
        """Where the run's directory is, or would be if nobody has made it yet."""
        return self._state.output / "runs" / self._state.run_id

    @property
    def run_directory(self) -> Path:
        """The run's directory, which all of its workers share; made now if nobody has."""
        from pytest_atomtrace.plugin.runs import prepare_run_directory

        return prepare_run_directory(self._state.output, self._state.run_id)

    @cached_property
    def plan(self) -> RecordingPlan:
        """What the run's items ask of baselines."""
        from pytest_atomtrace.plugin.recording_plan import plan_of

        return plan_of(self._pytest_session, self._state.settings)

    def _machine(self, case: Case) -> Fingerprint:
        """The machine that the case was captured on, which is that of all other cases of this run."""
        from pytest_atomtrace.verdicts.fingerprint import fingerprint

        capture, data = self._loaded[case.slug]
        return fingerprint(self._view(capture, data, case))

    def _mark(self, name: str) -> bool:
        """True for the first who asks in this run."""
        place = self.run_directory / name
        try:
            place.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def close(self) -> None:
        """Give back whatever is still held."""
        if self._on_interrupt is not None:
            signal.signal(signal.SIGINT, self._on_interrupt)
        if self._capture_session is not None:
            self._capture_session.close()
        if self._hold is not None:
            self._hold.release()

    @contextlib.contextmanager
    def one_interrupt(self) -> Iterator[None]:
        """What may take long: an interrupt ends it once, and a worker of xdist for good."""
        # A second SIGINT while a worker ends its session makes xdist take the session for a finished one and
        # fail an assertion of its own (INTERNALERROR in the controller). The first one ends the worker anyway.
        try:
            yield
        except KeyboardInterrupt:
            if self._state.worker != "main":
                self._on_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
            raise
        finally:
            self._state.progress.clear()

    def _load(self, capture: Capture) -> TraceData:
        from pytest_atomtrace.trace.load import load

        progress = self._state.progress
        if progress.live:
            progress.show(f"atomtrace reading {len(capture.ranks)} rank{'s' * (len(capture.ranks) != 1)}")
        try:
            return load(capture.ranks, expected=capture.expected_ranks or None)
        finally:
            progress.clear()

    def _obtain(self, item: pytest.Item, case: Case) -> Capture:
        from pytest_atomtrace.capture.availability import choose_engine
        from pytest_atomtrace.plugin.runs import point_latest

        settings = self._state.settings
        if settings.backend == "replay":
            return self._replayed(case)
        choice = choose_engine(settings)
        if isinstance(choice, str):
            if settings.require_gpu:
                raise InfraError(f"--atom-require-gpu: {choice}")
            pytest.skip(choice)
        needed = dict.fromkeys(
            other.stash[CASE]
            for other in self._pytest_session.items
            if CASE in other.stash and other.get_closest_marker("skip") is None
        )
        try:
            return self._open().obtain(case, needed=list(needed), test_id=item.nodeid)
        finally:  # a batch may have finished other cases before this one failed
            point_latest(self._state.output, self._state.run_id)

    def _open(self) -> CaptureSession:
        from pytest_atomtrace.capture.session import CaptureSession, RunInfo
        from pytest_atomtrace.plugin.runs import prepare_run_directory
        from pytest_atomtrace.settings import environment

        if self._capture_session is None:
            state = self._state
            directory = prepare_run_directory(state.output, state.run_id)
            self._protect(directory)
            run = RunInfo(
                run_id=state.run_id,
                run_dir=directory,
                worker=state.worker,
                watch_pids=tuple(dict.fromkeys((os.getpid(), state.controller_pid))),
                ci=bool(environment().get("CI")),
            )
            self._capture_session = CaptureSession(
                state.settings,
                run,
                progress=state.progress.say,
                show=state.progress.show if state.progress.live else None,
                windows=self.plan.windows(),
            )
            self._say_plan()
        return self._capture_session

    def _protect(self, run: Path, *, reading: bool = False) -> None:
        """Let no other run that tidies up take away what is written or read here."""
        from pytest_atomtrace.capture.keeping import hold_run

        if self._hold is None:
            self._hold = hold_run(run, reading=reading)

    def _say_plan(self) -> None:
        text = self.plan.text()
        if text and self._mark("recording-plan"):
            self.say(f"atomtrace {text}")

    def _replayed(self, case: Case) -> Capture:
        from pytest_atomtrace.capture.keeping import run_of
        from pytest_atomtrace.plugin.replaying import replayed_capture

        capture = replayed_capture(self._state.settings, case)
        run = run_of(capture.directory)
        if run is not None:
            self._protect(run, reading=True)
        return capture


CAPTURES: pytest.StashKey[Captures] = pytest.StashKey()
