"""What pytest prints of a failing check, made safe: kernel names and log lines are anybody's text.

A terminal obeys escape sequences in it, and GitHub's runner obeys lines that begin with ``::`` (or hold ``##[``), of
which a server's log may have some.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_atomtrace.capture.redact import Redactor
from pytest_atomtrace.report.escape import inert, printable
from pytest_atomtrace.settings import environment

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

__all__ = ["make_safe", "safe_line"]


def safe_line() -> Callable[[str], str]:
    """What makes one printed line safe here: no secrets, no control characters; on GitHub's runners no commands."""
    env = environment()
    redacted = Redactor(env).text
    if env.get("GITHUB_ACTIONS") != "true":
        return lambda text: printable(redacted(text))
    return lambda text: inert(printable(redacted(text)))


def make_safe(report: pytest.TestReport) -> None:
    """Make the failure text of `report` safe in place; pytest prints it, and so do JUnit and other reports."""
    if report.outcome != "failed":
        return
    safe = safe_line()
    longrepr: Any = report.longrepr  # one of many private classes of pytest, or text
    for trouble in _parts(longrepr):
        for entry in getattr(getattr(trouble, "reprtraceback", None), "reprentries", ()):
            entry.lines = [_each_line(safe, text) for text in entry.lines]
    crash = getattr(longrepr, "reprcrash", None)
    if crash is not None:
        crash.message = _each_line(safe, crash.message)


def _each_line(safe: Callable[[str], str], text: str) -> str:
    # Blanks for tabs: this is somebody's source too.
    return "\n".join(safe(line.expandtabs(4)) for line in text.split("\n"))


def _parts(longrepr: Any) -> list[Any]:  # noqa: ANN401  # see above
    chain = getattr(longrepr, "chain", None)
    if chain is None:
        return [longrepr]
    return [_Part(traceback) for traceback, *_ in chain]


class _Part:
    def __init__(self, reprtraceback: object) -> None:
        self.reprtraceback = reprtraceback
