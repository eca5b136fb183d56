"""Colours of not green: a check said no (failed), no answer or a wrong question (error), nothing to ask (skipped)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_atomtrace.errors import ConfigError, InconclusiveError, InfraError, RememberedFailureError
from pytest_atomtrace.plugin.state import CASE, PLACE, RECORD, REPORT_ATTRIBUTE, record_of

if TYPE_CHECKING:
    import pytest

    from pytest_atomtrace.plugin.state import ItemRecord

__all__ = ["amend", "show_instead", "status"]

MOST_TEXT = 16_000
# pytest's category, letter and word.
_WORDS = {
    "inconclusive": ("error", "I", "INCONCLUSIVE"),
    "infra": ("error", "E", "INFRA ERROR"),
    "wrong_check": ("error", "W", "WRONG CHECK"),
}

SCOPE_ADVICE = (
    "atom_trace is made for one test at a time (captures behind it are shared by the whole run). In a wider "
    "fixture, ask for atom_trace in the tests, or make the fixture function-scoped: the capture is still "
    "taken once."
)


def amend(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Make inconclusive, infra and wrong-check trouble an error wherever it arose, and attach the item's record.

    "When" becomes "setup" since that is what pytest, JUnit and every other plugin call an error; a failed call
    would claim that the code under test was judged. xfail must not turn it into XFAIL, so its mark goes.
    """
    kind, text = _trouble(item, call)
    record = item.stash.get(RECORD, None)
    payload: dict[str, object] = {}
    if record is not None and call.when == "call":
        payload = {"case": record.case, "verdicts": record.verdicts}
    if kind:
        assert call.excinfo is not None
        report.outcome = "failed"
        report.when = "setup"
        if hasattr(report, "wasxfail"):
            del report.wasxfail
        _show(report, call.excinfo, text)
        payload = {"case": record.case if record else {}, "verdicts": record.verdicts if record else []}
        payload["trouble"] = kind
        payload["text"] = _shortened(text)
        payload["cause"] = _cause(call.excinfo.value, text)
    elif payload and report.outcome == "failed" and call.excinfo is not None and not _judged(record):
        payload["text"] = _shortened(str(call.excinfo.value) or call.excinfo.typename)
    elif call.excinfo is not None and _too_wide(str(call.excinfo.value)):
        report.sections.append(("what to write instead", SCOPE_ADVICE))
    elif hasattr(report, "wasxfail") and payload:
        payload["expected"] = True
    if report.outcome == "skipped" and not hasattr(report, "wasxfail") and CASE in item.stash:
        payload = payload or {"case": {"slug": item.stash[CASE].slug}, "verdicts": []}
        payload["skipped"] = _reason(report)
    if payload:
        _complete(item, call, report, payload)
        setattr(report, REPORT_ATTRIBUTE, payload)


def _complete(
    item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, payload: dict[str, object]
) -> None:
    # Only now: `amend` sees the tests of every project that has the plugin installed.
    from pytest_atomtrace.plugin.junit import with_properties
    from pytest_atomtrace.plugin.places import raised_at
    from pytest_atomtrace.plugin.safe_text import make_safe

    payload["place"] = item.stash.get(PLACE, 0)
    if "text" in payload and call.excinfo is not None:
        payload.update(raised_at(item.path, call.excinfo))
    with_properties(item, report, payload)
    make_safe(report)


def _reason(report: pytest.TestReport) -> str:
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr or "")
    return said.removeprefix("Skipped: ") or "no reason given"


def _judged(record: ItemRecord | None) -> bool:
    """Whether a check said why the item failed."""
    return record is not None and any(verdict.get("outcome") != "pass" for verdict in record.verdicts)


def _shortened(text: str) -> str:
    """A record crosses the wire between processes: 64 KB an item, and no log needs more to be understood."""
    if len(text) <= MOST_TEXT:
        return text
    return f"{text[: MOST_TEXT // 2]}\n... {len(text) - MOST_TEXT:,} characters left out ...\n{text[-MOST_TEXT // 2 :]}"


def _too_wide(text: str) -> bool:
    return "ScopeMismatch" in text and ("atom_trace" in text or "atom_case" in text)


def _trouble(item: pytest.Item, call: pytest.CallInfo[None]) -> tuple[str, str]:
    """The word for an error that is no "no", and its text; two empty ones if there is none."""
    if call.excinfo is None:
        return "", ""
    error = call.excinfo.value
    if isinstance(error, InconclusiveError):
        return "inconclusive", str(error)
    if isinstance(error, InfraError):
        return "infra", str(error)
    if isinstance(error, (ConfigError, TypeError, AttributeError)):
        from pytest_atomtrace.plugin.wrong_checks import wrong_check

        text = wrong_check(item, call.excinfo)
        return ("wrong_check", text) if text else ("", "")
    return "", ""


def _cause(error: BaseException, text: str) -> str:
    """Equal for errors of one cause, of whatever test: a launch that failed, a file that all tests of a case read."""
    import hashlib

    problem = text
    if isinstance(error, InfraError):
        problem = error.first_problem if isinstance(error, RememberedFailureError) else error.problem
    return hashlib.sha256((problem or text).encode("utf-8", "replace")).hexdigest()[:16]


def _show(report: pytest.TestReport, error: pytest.ExceptionInfo[BaseException], text: str) -> None:
    """Let pytest print `text` for the error, and no frame."""
    report.longrepr = error.getrepr(style="value", chain=False)
    show_instead(report, text)


def show_instead(report: pytest.TestReport, text: str) -> None:
    """Let pytest, and who asks it, print `text` for an error that `amend` has made."""
    shown: Any = report.longrepr  # one of many private classes of pytest, or text
    entries = getattr(getattr(shown, "reprtraceback", None), "reprentries", None)
    if not entries:
        report.longrepr = text
        return
    entries[-1].lines = text.split("\n")
    if shown.reprcrash is not None:
        shown.reprcrash.message = text


def status(report: object) -> tuple[str, str, str] | None:
    """Name our kinds of error in the terminal; everything else is pytest's own."""
    # A rerun plugin renames the outcome of an attempt that it repeats; that attempt is no error of the run.
    if getattr(report, "outcome", "") != "failed":
        return None
    return _WORDS.get(str(record_of(report).get("trouble")))
