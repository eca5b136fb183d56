"""The report document: what every writer reads, built once from the records on the reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["CaseRow", "CheckRow", "ReportDocument", "build"]

# Worst first, in every table.
RANKING = ("infra", "inconclusive", "regression", "fail", "skip", "pass")


@dataclass(frozen=True)
class CaseRow:
    """One case of the run. Times are nanoseconds of GPU busy time per decode step on the slowest rank."""

    slug: str
    engine: str
    directory: str
    outcome: str
    passed: int
    total: int
    ranks: int | None
    steady: int | None
    steps: int | None
    p50_ns: int | None
    p99_ns: int | None
    p99_firm: bool
    health: tuple[str, ...]
    warnings: tuple[str, ...]
    capture_s: float | None


@dataclass(frozen=True)
class CheckRow:
    """One check or item that did not simply pass."""

    nodeid: str
    slug: str
    check: str
    outcome: str
    sentence: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ReportDocument:
    """Everything a writer may say about one run; `remarks` are about the run itself, such as a waiver without use."""

    run_id: str
    cases: tuple[CaseRow, ...]
    checks: tuple[CheckRow, ...]
    verdicts: int
    remarks: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[CheckRow, ...]:
        """Checks that need somebody, worst first."""
        return tuple(row for row in self.checks if row.outcome not in ("pass", "skip"))

    @property
    def unproven(self) -> tuple[CheckRow, ...]:
        """Checks that passed with a note."""
        return tuple(row for row in self.checks if row.outcome == "pass" and row.notes)


def build(entries: Sequence[Mapping[str, object]], *, run_id: str, remarks: Sequence[str] = ()) -> ReportDocument:
    """Join the records of all items; `entries` come in the order in which items finished."""
    checks: list[CheckRow] = []
    by_slug: dict[str, list[Mapping[str, object]]] = {}
    verdicts = 0
    for entry in entries:
        case = _mapping(entry.get("case"))
        slug = str(case.get("slug", ""))
        by_slug.setdefault(slug, []).append(entry)
        recorded = [_mapping(v) for v in _sequence(entry.get("verdicts"))]
        verdicts += len(recorded)
        if not entry.get("expected"):
            checks += [_check(entry, slug, v) for v in recorded if v.get("outcome") != "pass" or v.get("notes")]
        trouble = str(entry.get("trouble", ""))
        if trouble:
            text = str(entry.get("text", ""))
            checks.append(CheckRow(str(entry["nodeid"]), slug, "", trouble, _one_line(text), ()))
    cases = [_case(slug, items) for slug, items in by_slug.items()]
    return ReportDocument(
        run_id=run_id,
        cases=tuple(sorted(cases, key=lambda row: (RANKING.index(row.outcome), row.slug))),
        checks=tuple(sorted(checks, key=lambda row: (RANKING.index(row.outcome), row.slug, row.nodeid))),
        verdicts=verdicts,
        remarks=tuple(remarks),
    )


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # "The trace cannot be believed:" alone says nothing; its first finding does.
    return " ".join(lines[:2]) if lines and lines[0].endswith(":") else (lines[0] if lines else "")


def _check(entry: Mapping[str, object], slug: str, verdict: Mapping[str, object]) -> CheckRow:
    return CheckRow(
        nodeid=str(entry["nodeid"]),
        slug=slug,
        check=str(verdict.get("check", "")),
        outcome=str(verdict.get("outcome", "")),
        sentence=str(verdict.get("sentence", "")),
        notes=tuple(str(note) for note in _sequence(verdict.get("notes"))),
    )


def _outcome(entry: Mapping[str, object]) -> str:
    trouble = str(entry.get("trouble", ""))
    if trouble:
        return trouble
    word = {"passed": "pass", "skipped": "skip"}.get(str(entry.get("outcome")), "fail")
    recorded = [_mapping(verdict).get("outcome") for verdict in _sequence(entry.get("verdicts"))]
    return "regression" if word == "fail" and "regression" in recorded else word


def _case(slug: str, entries: Sequence[Mapping[str, object]]) -> CaseRow:
    outcomes = [_outcome(entry) for entry in entries]
    # Facts of the item that saw most: an item that erred before loading knows the slug only.
    facts = max((_mapping(entry.get("case")) for entry in entries), key=len)
    return CaseRow(
        slug=slug,
        engine=str(facts.get("engine", "")),
        directory=str(facts.get("directory", "")),
        outcome=min(outcomes, key=RANKING.index),
        passed=outcomes.count("pass"),
        total=len(outcomes),
        ranks=_int(facts.get("ranks")),
        steady=_int(facts.get("steady")),
        steps=_int(facts.get("steps")),
        p50_ns=_int(facts.get("p50_ns")),
        p99_ns=_int(facts.get("p99_ns")),
        p99_firm=bool(facts.get("p99_firm")),
        health=tuple(dict.fromkeys(str(code) for code in _sequence(facts.get("health")))),
        warnings=tuple(dict.fromkeys(str(code) for code in _sequence(facts.get("warnings")))),
        capture_s=_float(facts.get("capture_s")),
    )


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: object) -> Sequence[object]:
    return value if isinstance(value, (list, tuple)) else ()


def _int(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
