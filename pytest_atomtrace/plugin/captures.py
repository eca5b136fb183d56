"""Cases become traces for tests: one capture per case and run, one load per process."""

from __future__ import annotations

import os
import signal
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.errors import InfraError, UnhealthyTraceError
from pytest_atomtrace.plugin.state import CASE, RECORD, STATE, ItemRecord, State

if TYPE_CHECKING:
    from pytest_atomtrace.capture.record import Capture
    from pytest_atomtrace.capture.session import CaptureSession
    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.trace.data import TraceData
    from pytest_atomtrace.verdicts.trace import Trace

__all__ = ["Captures", "captures_of"]

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
        self._loaded: OrderedDict[str, tuple[Capture, TraceData]] = OrderedDict()

    def trace(self, item: pytest.Item, case: Case) -> Trace:
        """The trace of `case` for `item`, captured first if nobody in this run has.

        Raises:
            InfraError: the capture failed, now or earlier in this run.
            InconclusiveError: the trace cannot be believed.
            pytest.skip.Exception: nothing can be captured here, or the replay directory lacks the case.

        """
        from pytest_atomtrace.verdicts.evidence import near_path
        from pytest_atomtrace.verdicts.facts import case_facts
        from pytest_atomtrace.verdicts.saved import beside
        from pytest_atomtrace.verdicts.trace import Trace

        record = item.stash.setdefault(RECORD, ItemRecord())
        self._state.progress.test_starts()
        record.case = {"slug": case.slug}
        if case.slug not in self._loaded:
            try:
                capture = self._obtain(item, case)
            except KeyboardInterrupt:
                self._ignore_more_interrupts()
                raise
            record.case = {"slug": case.slug, "directory": str(capture.directory), "engine": capture.engine}
            self._loaded[case.slug] = (capture, self._load(capture))
            while len(self._loaded) > TRACES_KEPT:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(case.slug)
        capture, data = self._loaded[case.slug]
        trace = Trace(
            data,
            case=case,
            directory=capture.directory,
            engine=capture.engine,
            settings=self._state.settings,
            manifest=capture.manifest,
            bench=beside(capture.directory, "bench.json"),
            record=lambda verdict: record.verdicts.append(verdict.as_dict()),
        )
        record.case = {**case_facts(trace), "capture_s": capture.capture_s}
        fatal = [str(finding) for finding in data.findings if finding.fatal and finding.scope == "all"]
        if fatal:
            raise UnhealthyTraceError(fatal, f"Look closer: atomtrace health {near_path(capture.directory)}")
        return trace

    def close(self) -> None:
        """Give back whatever is still held."""
        if self._capture_session is not None:
            self._capture_session.close()

    def _ignore_more_interrupts(self) -> None:
        # A second SIGINT while a worker ends its session makes xdist take the session for a finished one and
        # fail an assertion of its own (INTERNALERROR in the controller). The first one ends the worker anyway.
        if self._state.worker != "main":
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _load(self, capture: Capture) -> TraceData:
        from pytest_atomtrace.trace.load import load

        return load(capture.ranks, expected=capture.expected_ranks or None)

    def _obtain(self, item: pytest.Item, case: Case) -> Capture:
        from pytest_atomtrace.capture.availability import choose_engine

        settings = self._state.settings
        if settings.backend == "replay":
            return self._replayed(case)
        choice = choose_engine(settings)
        if isinstance(choice, str):
            if settings.require_gpu:
                raise InfraError(f"--atom-require-gpu: {choice}")
            pytest.skip(choice)
        needed = dict.fromkeys(other.stash[CASE] for other in self._pytest_session.items if CASE in other.stash)
        return self._open().obtain(case, needed=list(needed), test_id=item.nodeid)

    def _open(self) -> CaptureSession:
        from pytest_atomtrace.capture.session import CaptureSession, RunInfo
        from pytest_atomtrace.plugin.runs import prepare_run_directory
        from pytest_atomtrace.settings import environment

        if self._capture_session is None:
            state = self._state
            run = RunInfo(
                run_id=state.run_id,
                run_dir=prepare_run_directory(state.output, state.run_id),
                worker=state.worker,
                watch_pids=tuple(dict.fromkeys((os.getpid(), state.controller_pid))),
                ci=bool(environment().get("CI")),
            )
            self._capture_session = CaptureSession(state.settings, run, progress=state.progress.say)
        return self._capture_session

    def _replayed(self, case: Case) -> Capture:
        from pytest_atomtrace.capture.replay import explain_missing, find_capture

        directory = Path(self._state.settings.replay)
        if not directory.exists():
            raise InfraError(f"--atom-replay: {directory} does not exist")
        capture = find_capture(directory, case)
        if capture is None:
            pytest.skip(f"--atom-replay: {explain_missing(directory, case)}")
        return capture


CAPTURES: pytest.StashKey[Captures] = pytest.StashKey()
