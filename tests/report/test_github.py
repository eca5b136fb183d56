"""Annotations: ten of a kind, at the right place, and nothing that a name holds becomes a command."""

from __future__ import annotations

import re

import pytest

from pytest_atomtrace.report.github import MOST, annotation_commands
from tests.report.rows import PAYLOADS, document, entry, failing


def commands(*entries: dict[str, object], root: str = "/w/repo", workspace: str = "/w/repo", **more: bool) -> list[str]:
    return annotation_commands(document(*entries), root=root, workspace=workspace, **more)


def kinds(lines: list[str]) -> list[str]:
    return [re.match("::(error|warning|notice) ", line)[1] for line in lines]  # type: ignore[index]  # fails if none


def test_each_failed_check_is_an_error_at_its_line_in_the_repository() -> None:
    (line,) = commands(failing(4, "kernel is missing"), root="/w/repo/perf", workspace="/w/repo")
    assert line == (
        "::error file=perf/test_spec.py,line=5,title=failed%3A check 4::kernel is missing%0Atest test_spec.py::test_4"
    )


def test_a_spec_outside_of_the_workspace_keeps_its_own_path() -> None:
    (line,) = commands(failing(4, "s"), root="/elsewhere", workspace="/w/repo")
    assert "file=test_spec.py," in line


def test_ten_errors_are_shown_worst_first_and_the_rest_is_counted() -> None:
    rows = [failing(number, "s") for number in range(30)]
    rows.append(entry(40, outcome="failed", trouble="infra", text="the server died"))
    lines = commands(*rows)
    assert kinds(lines) == ["error"] * MOST + ["notice"]
    assert "the server died" in lines[0]
    assert "21 more checks did not pass" in lines[-1]


def test_notes_are_warnings_with_a_limit_of_their_own() -> None:
    notes = [f"unproven: {number}" for number in range(12)]
    row = entry(0, verdicts=[{"check": "c", "outcome": "pass", "sentence": "s", "notes": notes}])
    lines = commands(row, failing(1, "s"))
    assert kinds(lines) == ["error"] + ["warning"] * MOST + ["notice"]
    assert "2 more notes" in lines[-1]


def test_what_another_plugin_annotates_is_left_to_it_and_what_it_does_not_see_is_ours() -> None:
    rows = [failing(0, "s"), failing(1, "s", outcome="regression")]
    rows += [entry(2, outcome="failed", trouble=word, text=word) for word in ("inconclusive", "infra")]
    lines = commands(*rows, annotated_elsewhere=True)
    assert [re.search("title=([a-z ]+)", line)[1] for line in lines] == ["infra error", "inconclusive"]  # type: ignore[index]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_payload_adds_a_line_or_a_property(payload: str) -> None:
    lines = commands(failing(0, payload, check=payload, lines=[payload], nodeid=payload, file=payload))
    (line,) = lines
    assert line.splitlines() == [line]
    head = line.removeprefix("::error ").partition("::")[0]
    assert [pair.partition("=")[0] for pair in head.split(",")] == ["file", "line", "title"]
    assert "\x1b" not in line
