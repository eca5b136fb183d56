"""Three colours of not green: a check said no (failed), there is no answer (error), nothing to ask (skipped)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.errors import InconclusiveError, InfraError
from pytest_atomtrace.plugin.state import RECORD, REPORT_ATTRIBUTE

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

__all__ = ["amend", "record_of", "status"]

SCOPE_ADVICE = (
    "atom_trace is made for one test at a time (captures behind it are shared by the whole run). In a wider "
    "fixture, ask for atom_trace in the tests, or make the fixture function-scoped: the capture is still "
    "taken once."
)


def amend(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Make inconclusive and infra trouble an error wherever it arose, and attach the item's record.

    "When" becomes "setup" since that is what pytest, JUnit and every other plugin call an error; a failed call
    would claim that the code under test was judged. xfail must not turn it into XFAIL, so its mark goes.
    """
    kind = _kind(call)
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
        report.longrepr = call.excinfo.getrepr(style="value")
        payload = {"case": record.case if record else {}, "verdicts": record.verdicts if record else []}
        payload["trouble"] = kind
        payload["text"] = str(call.excinfo.value)
    elif call.excinfo is not None and _too_wide(str(call.excinfo.value)):
        report.sections.append(("what to write instead", SCOPE_ADVICE))
    elif hasattr(report, "wasxfail") and payload:
        payload["expected"] = True
    if payload:
        setattr(report, REPORT_ATTRIBUTE, payload)


def _too_wide(text: str) -> bool:
    return "ScopeMismatch" in text and ("atom_trace" in text or "atom_case" in text)


def _kind(call: pytest.CallInfo[None]) -> str:
    if call.excinfo is None:
        return ""
    error = call.excinfo.value
    if isinstance(error, InconclusiveError):
        return "inconclusive"
    if isinstance(error, InfraError):
        return "infra"
    return ""


def record_of(report: object) -> Mapping[str, object]:
    """What `amend` attached, an empty mapping for reports of other tests."""
    payload = getattr(report, REPORT_ATTRIBUTE, None)
    return payload if isinstance(payload, dict) else {}


def status(report: object) -> tuple[str, str, str] | None:
    """Name the two kinds of error in the terminal; everything else is pytest's own."""
    # A rerun plugin renames the outcome of an attempt that it repeats; that attempt is no error of the run.
    if getattr(report, "outcome", "") != "failed":
        return None
    trouble = record_of(report).get("trouble")
    if trouble == "inconclusive":
        return "error", "I", "INCONCLUSIVE"
    if trouble == "infra":
        return "error", "E", "INFRA ERROR"
    return None
