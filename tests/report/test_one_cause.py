"""Twenty tests that ended for one reason: every report tells it once, and names all of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pytest_atomtrace.report.github import annotation_commands
from pytest_atomtrace.report.html import render
from pytest_atomtrace.report.json_report import json_report
from pytest_atomtrace.report.markdown import markdown
from tests.report.rows import document, entry, failing

if TYPE_CHECKING:
    from pytest_atomtrace.report.document import ReportDocument

LOG = "hipErrorOutOfMemory at line 77 of the log"


def run() -> ReportDocument:
    died = [
        entry(
            place,
            outcome="failed",
            trouble="infra",
            text=f"The server died, seen by test {place}\n{LOG}",
            cause="launch 1",
        )
        for place in range(20)
    ]
    return document(*died, failing(20, "too slow"))


def test_the_first_row_has_the_text_and_the_others_name_its_test() -> None:
    rows = [row for row in run().checks if row.outcome == "infra"]
    assert LOG in rows[0].text
    assert rows[0].same_as == ""
    assert {row.same_as for row in rows[1:]} == {rows[0].nodeid}
    assert not any(row.evidence for row in rows[1:])
    assert [f"seen by test {place}" in row.sentence for place, row in enumerate(rows)] == [True] * 20


def test_equal_errors_of_two_causes_both_have_their_text() -> None:
    rows = [
        entry(place, outcome="failed", trouble="infra", text=f"It died\n{LOG}", cause=f"launch {place}")
        for place in range(2)
    ]
    assert [row.same_as for row in document(*rows).checks] == ["", ""]


def test_markdown_has_one_block_that_lists_the_other_tests() -> None:
    text = markdown(run())
    assert text.count(LOG) == 1
    assert text.count("<details>") == 2
    assert "and 19 more tests</summary>" in text
    assert all(f"  test_spec.py::test_{place}\n" in text for place in range(1, 20))


def test_github_gives_one_mark_to_a_cause_and_the_others_keep_their_place() -> None:
    lines = annotation_commands(run(), root="/w", workspace="/w")
    assert len(lines) == 2
    assert LOG in lines[0]
    assert "and 19 more tests for the same reason" in lines[0]
    assert "too slow" in lines[1]


def test_json_has_every_test_and_the_evidence_once() -> None:
    import msgspec

    report = json.loads(msgspec.json.encode(json_report(run(), version="1", backend="sim", exit_status=1)))
    infra = [check for check in report["checks"] if check["outcome"] == "infra"]
    assert len(infra) == 20
    assert [bool(check["evidence"]) for check in infra] == [True] + [False] * 19
    assert {check["same_as"] for check in infra[1:]} == {infra[0]["test"]}


def test_the_page_has_the_text_once_and_a_pointer_in_the_others() -> None:
    page = render(run())
    assert page.count(LOG) == 1
    assert page.count("which has the whole text") == 19
