"""What a finished run leaves on disk; only the controller (or the only process) sees to it, after all reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.plugin.state import record_of

if TYPE_CHECKING:
    from pytest_atomtrace.capture.locks import SharedHold
    from pytest_atomtrace.plugin.state import State

__all__ = ["Keeping"]


class Keeping:
    """Watches how tests end; tidies up last. Registered in every pytest, so the work is in a module of its own."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._ends: list[tuple[pytest.TestReport, dict[str, object]]] = []
        self._hold: SharedHold | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what concerns a case, and every failure: the test of a dead worker has no record."""
        payload = record_of(report)
        if payload or report.failed:
            self._ends.append((report, dict(payload)))
        if payload and self._hold is None:
            self._protect()

    def _protect(self) -> None:
        """Another run that tidies up must not take this one for unused once its workers are gone."""
        run = self._state.output / "runs" / self._state.run_id
        if run.is_dir():
            from pytest_atomtrace.capture.keeping import hold_run

            self._hold = hold_run(run)

    def pytest_unconfigure(self) -> None:
        """Give the run free."""
        if self._hold is not None:
            self._hold.release()

    @pytest.hookimpl(trylast=True)  # reports are made from the traces, so they come first
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        """Cut slices, drop what is not kept, and say so."""
        if self._hold is None:  # nothing was captured here
            return
        from pytest_atomtrace.plugin.tidying import tidy

        # A run that was broken off has judged nothing to its end.
        broken_off = exitstatus in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR)
        for style, text in tidy(self._state, self._ends, drop=not broken_off):
            terminalreporter.write_line(text, **({style: True} if style else {}))
