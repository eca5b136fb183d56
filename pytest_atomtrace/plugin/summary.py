"""The controller's view of the run: records arrive on reports, one summary leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.plugin.outcomes import record_of
from pytest_atomtrace.plugin.waiving import unused

if TYPE_CHECKING:
    from pytest_atomtrace.plugin.state import State

__all__ = ["Summary"]


class Summary:
    """Collects the reports of all workers; lives in the controller (or the only process)."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._entries: list[dict[str, object]] = []
        self._failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what concerns us of each report."""
        payload = record_of(report)
        if payload and report.outcome in ("passed", "failed", "skipped"):
            self._entries.append({"nodeid": report.nodeid, "outcome": report.outcome, **payload})
        if report.failed and "trouble" not in payload:
            self._failed = True

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write the summary once, after everything else pytest says."""
        if not self._entries:
            return
        from pytest_atomtrace.report.document import build
        from pytest_atomtrace.report.terminal import lines

        document = build(self._entries, run_id=self._state.run_id, remarks=unused(self._state, self._entries))
        config = terminalreporter.config
        width = terminalreporter._tw.fullwidth
        for style, text in lines(document, width=width, verbosity=config.get_verbosity()):
            if style == "title":
                terminalreporter.write_sep("=", text)
            else:
                terminalreporter.write_line(text, **({style: True} if style else {}))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Give "no test failed, but some had no answer" its own exit code where one is set."""
        wanted = self._state.settings.error_exit
        troubled = any("trouble" in entry for entry in self._entries)
        if wanted and troubled and not self._failed and exitstatus == pytest.ExitCode.TESTS_FAILED:
            session.exitstatus = wanted
