"""Report documents made by hand, for writers."""

from __future__ import annotations

from typing import Any

from pytest_atomtrace.report.document import ReportDocument, build

# What a kernel name or a log line may hold: table bars, fences, tags, line breaks, commands of a runner, colours.
PAYLOADS = (
    "void k<a|b>(c) | d",
    "```\n# heading\n```",
    "<script>alert(1)</script>",
    "</pre></details><img src=x onerror=alert(1)>",
    "k\n::set-output name=x::y",
    "::error file=a.py::owned",
    "x ##[add-mask]y",
    "\x1b[31mred\x1b[0m\x07",
    "100%25 %0A, a:b",
    "user @somebody, _under_ *star* [a](http://b) :boom: $x$ ~~s~~",
    "\u202etxt.exe\u2028next\ud800",
)


def entry(place: int, *, slug: str = "case", **more: Any) -> dict[str, Any]:
    """One item's record as the controller keeps it."""
    case = {"slug": slug, **more.pop("case", {})}
    base = {"nodeid": f"test_spec.py::test_{place}", "file": "test_spec.py", "line": place + 1, "place": place}
    return {**base, "outcome": "passed", "case": case, "verdicts": [], **more}


def failing(place: int, sentence: str, *, outcome: str = "fail", **more: Any) -> dict[str, Any]:
    """An item whose one check did not pass."""
    lines = more.pop("lines", [])
    verdict = {"check": more.pop("check", f"check {place}"), "outcome": outcome, "sentence": sentence, "lines": lines}
    return entry(place, outcome="failed", verdicts=[{**verdict, "notes": [], "facts": {}}], **more)


def document(*entries: dict[str, Any], remarks: tuple[str, ...] = ()) -> ReportDocument:
    return build(entries, run_id="20260101-000000-1-abcd", remarks=remarks)
