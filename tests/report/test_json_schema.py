"""The schema of the JSON report: committed, in step with the types, printed, and strict enough to refuse nonsense."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import msgspec
import pytest

from pytest_atomtrace.cli import main
from pytest_atomtrace.report.json_report import SCHEMA_FILE, json_report, report_schema, report_schema_text
from tests.report.rows import PAYLOADS, document, entry, failing


def report(*entries: dict[str, Any]) -> dict[str, Any]:
    made = json_report(document(*entries), version="0.1", backend="sim", exit_status=1)
    values: dict[str, Any] = json.loads(msgspec.json.encode(made))
    return values


def test_the_committed_schema_is_the_one_of_the_types() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == report_schema_text()


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "report"]) == 0
    assert capsys.readouterr().out == report_schema_text()


def test_it_is_a_schema_and_says_what_each_field_is() -> None:
    schema: dict[str, Any] = report_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$defs"]["Report"]["properties"]["schema"]["enum"] == ["atomtrace-report/1"]
    assert all("description" in part for part in schema["$defs"].values())


def test_reports_of_all_outcomes_and_any_text_are_valid() -> None:
    rows = [failing(number, text, check=text, lines=[text]) for number, text in enumerate(PAYLOADS[:-1])]
    rows += [entry(20, outcome="failed", trouble=word, text="why") for word in ("infra", "inconclusive", "wrong_check")]
    rows += [entry(30, outcome="skipped", skipped="no GPU"), entry(31, outcome="failed", text="assert 1 == 2")]
    rows += [failing(32, "slower", outcome="regression", slug="b")]
    facts = {"p50_ns": 3, "limit": float("inf"), "rank": "rank_0"}
    verdict = {"check": "c", "outcome": "pass", "sentence": "s", "notes": ["unproven: x"], "facts": facts}
    rows += [entry(33, verdicts=[verdict], case={"bench": {"profiled": False, "requests": 8}, "ranks": 2})]
    made = report(*rows)
    jsonschema.validate(made, report_schema())
    assert made["run"]["checks"] == {
        "passed": 1, "skipped": 1, "failed": len(PAYLOADS[:-1]) + 1, "regressed": 1,
        "inconclusive": 1, "infra": 1, "wrong": 1, "expected": 0,
    }  # fmt: skip
    assert made["checks"][-1]["facts"] == {"p50_ns": 3, "rank": "rank_0"}


def test_an_empty_run_has_no_outcome() -> None:
    made = report()
    jsonschema.validate(made, report_schema())
    assert made["run"]["outcome"] is None


@pytest.mark.parametrize("breaking", ["schema", "run", "cases", "checks"])
def test_what_is_no_report_is_refused(breaking: str) -> None:
    broken = copy.deepcopy(report(failing(0, "s")))
    broken[breaking] = "atomtrace-report/0"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, report_schema())


def test_checks_of_two_workers_stand_in_the_order_of_the_run() -> None:
    rows = [failing(number, "s", slug=f"case{number % 3}") for number in range(12)]
    assert report(*rows) == report(*rows[1::2], *rows[::2])
    assert [row["test"] for row in report(*reversed(rows))["checks"]] == [row["nodeid"] for row in rows]
