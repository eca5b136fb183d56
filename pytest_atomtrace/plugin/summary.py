"""The controller's view of the run: records arrive on reports, one summary and the reports leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.plugin.state import record_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_atomtrace.plugin.reporting import Reporting
    from pytest_atomtrace.plugin.state import State

__all__ = ["Summary"]

_NOTHING_RAN = (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERNAL_ERROR)


class Summary:
    """Collects the reports of all workers; lives in the controller (or the only process)."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._entries: list[dict[str, object]] = []
        self._recorded: dict[str, int] = {}
        self._failed = False
        # By cause, the test whose error has the whole text.
        self._told: dict[str, str] = {}
        self._reporting: Reporting | None = None

    @pytest.hookimpl(tryfirst=True)  # before JUnit writes what an error says
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what concerns us of each report."""
        payload = record_of(report)
        if "cause" in payload and report.outcome == "failed":
            self._tell_once(report, payload)
        if payload and report.outcome in ("passed", "failed", "skipped"):
            self._entries.append(self._entry(report, payload))
        # A wrong check stays wrong however often CI queues it again.
        if report.failed and payload.get("trouble", "wrong_check") == "wrong_check":
            self._failed = True

    def _tell_once(self, report: pytest.TestReport, payload: Mapping[str, object]) -> None:
        """Keep the whole text of the first error of a cause; the others get a line that points there.

        A launch that fails errs every test of its cases, and twenty times the same log hides what else went wrong.
        """
        first = self._told.setdefault(str(payload["cause"]), report.nodeid)
        text = str(payload.get("text", "")).strip()
        if first == report.nodeid or "\n" not in text:
            return
        from pytest_atomtrace.plugin.outcomes import show_instead
        from pytest_atomtrace.plugin.safe_text import safe_line

        line = text.splitlines()[0].rstrip(":")
        # A failure that is remembered names the test already.
        pointer = "" if f"first in {first}:" in line else f" (the whole text is at {first})"
        show_instead(report, safe_line()(line + pointer))

    def _entry(self, report: pytest.TestReport, payload: Mapping[str, object]) -> dict[str, object]:
        file, line, _ = report.location
        place = {"file": file, "line": (line or 0) + 1}
        entry = {"nodeid": report.nodeid, "outcome": report.outcome, **place, **payload}
        # The reports of a test's subtests and its own share one record.
        verdicts = payload.get("verdicts")
        if isinstance(verdicts, list):
            entry["verdicts"] = verdicts[self._recorded.get(report.nodeid, 0) :]
            self._recorded[report.nodeid] = len(verdicts)
        return entry

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the reports; give "no test failed, but some had no answer" its own exit code where one is set."""
        settings = self._state.settings
        # Whoever asked for a file gets one, also from a run without any case: an old one would be taken for this run's.
        asked = bool(self._entries) or settings.asks_for_files
        if asked and not session.config.option.collectonly and exitstatus not in _NOTHING_RAN:
            from pytest_atomtrace.plugin.reporting import Reporting

            self._reporting = Reporting(session.config, self._state, self._entries, int(exitstatus))
            self._reporting.write()
        troubled = any("trouble" in entry for entry in self._entries)
        if settings.error_exit and troubled and not self._failed and exitstatus == pytest.ExitCode.TESTS_FAILED:
            session.exitstatus = settings.error_exit

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write the summary once, after everything else pytest says."""
        if self._reporting is None:
            return
        from pytest_atomtrace.plugin.safe_text import safe_line
        from pytest_atomtrace.report.terminal import lines

        verbosity = terminalreporter.config.get_verbosity()
        width = terminalreporter._tw.fullwidth
        safe = safe_line()
        reports = self._reporting.lines
        keep = self._state.settings.keep
        for style, text in lines(self._reporting.document, reports, width=width, verbosity=verbosity, keep=keep):
            if style == "title":
                terminalreporter.write_sep("=", text)
            else:
                terminalreporter.write_line(safe(text), **({style: True} if style else {}))
        for command in self._reporting.annotations:
            terminalreporter.write_line(command)
