"""The document as one JSON file, and the JSON Schema that is published for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_atomtrace.report.json_types import SCHEMA, Case, Check, Counts, Report, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_atomtrace.report.document import CaseRow, CheckRow, ReportDocument
    from pytest_atomtrace.report.json_types import Outcome

__all__ = ["SCHEMA_FILE", "json_report", "report_schema", "report_schema_text"]

#: The committed copy, part of the package.
SCHEMA_FILE: Final = Path(__file__).with_name("report.schema.json")


def json_report(document: ReportDocument, *, version: str, backend: str, exit_status: int) -> Report:
    """Everything but the captures' own numbers (those are in the captures); equal documents give equal reports."""
    shown = [*document.checks, *document.passed]
    counted = {word: sum(row.outcome == word for row in shown) for word in dict.fromkeys(row.outcome for row in shown)}
    counts = Counts(
        passed=counted.get("pass", 0),
        skipped=counted.get("skip", 0),
        failed=counted.get("fail", 0),
        regressed=counted.get("regression", 0),
        inconclusive=counted.get("inconclusive", 0),
        infra=counted.get("infra", 0),
        wrong=counted.get("wrong_check", 0),
        expected=len(document.expected),
    )
    outcome = _outcome(document.cases[0].outcome) if document.cases else None
    checks = [_check(row) for row in shown] + [_check(row, expected=True) for row in document.expected]
    return Report(
        schema=SCHEMA,
        run=Run(document.run_id, version, backend, exit_status, outcome, counts),
        cases=tuple(map(_case, document.cases)),
        checks=tuple(checks),
        remarks=document.remarks,
    )


def report_schema() -> dict[str, object]:
    """The schema, as JSON values."""
    import msgspec

    made: dict[str, object] = msgspec.json.schema(Report, ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"pytest-atomtrace report ({SCHEMA})",
        **made,
    }


def report_schema_text() -> str:
    """`report_schema` as the committed file holds it."""
    return json.dumps(report_schema(), indent=2, ensure_ascii=False) + "\n"


def _case(row: CaseRow) -> Case:
    return Case(
        slug=row.slug,
        outcome=_outcome(row.outcome),
        engine=row.engine,
        simulated=row.simulated,
        capture=row.directory,
        asked=row.asked,
        gpu=row.gpu,
        rocm=row.rocm,
        tests=row.total,
        passed=row.passed,
        ranks=row.ranks,
        worst_rank=row.worst_rank,
        steps=row.steps,
        steady_steps=row.steady,
        decode_p50_ns=row.p50_ns,
        decode_p99_ns=row.p99_ns,
        decode_p99_firm=row.p99_firm,
        per_token_p50_ns=row.per_token_ns,
        health=row.health,
        warnings=row.warnings,
        capture_s=round(row.capture_s, 3) if row.capture_s is not None else None,
        bench=row.bench,
    )


def _check(row: CheckRow, *, expected: bool = False) -> Check:
    return Check(
        test=row.nodeid,
        file=row.file,
        line=row.line,
        case=row.slug,
        check=row.check,
        outcome=_outcome(row.outcome),
        expected=expected,
        sentence=row.sentence,
        evidence=tuple(_without_blank_ends(row.evidence.split("\n"))),
        same_as=row.same_as,
        notes=row.notes,
        facts=row.facts,
    )


def _without_blank_ends(lines: Sequence[str]) -> Sequence[str]:
    return lines if any(lines) else ()


def _outcome(word: str) -> Outcome:
    # Words of verdicts and of items are one set (verdicts.outcome.Outcome).
    return word  # type: ignore[return-value]
