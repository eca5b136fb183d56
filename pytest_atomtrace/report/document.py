"""The report document: what every writer reads, built once from the records on the reports."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_atomtrace.verdicts.evidence import shown_engine

if TYPE_CHECKING:
    from pytest_atomtrace.report.detail import CaseDetail

__all__ = [
    "CaseRow",
    "CheckRow",
    "ReportDocument",
    "build",
    "by_cause",
    "outcome_of",
    "shown_engine",
    "simulated_note",
]

# Worst first, in every table.
RANKING = ("infra", "wrong_check", "inconclusive", "regression", "fail", "skip", "pass")


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
    simulated: bool = False
    worst_rank: str = ""
    per_token_ns: int | None = None
    gpu: str = ""
    rocm: str = ""
    asked: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    bench: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    def stays(self, keep: str) -> bool:
        """Whether the capture stays on disk by the setting `keep`; what is gone is no advice."""
        return keep == "all" or (keep == "failed" and self.outcome not in ("pass", "skip"))


@dataclass(frozen=True)
class CheckRow:
    """One check, or one item that ended without a verdict.

    `text` is everything that was said (the sentence and its evidence, or the error), `facts` flat numbers. `file` is
    relative to the rootdir, `line` counts from 1 (of the check itself where it is known, else of its test). `cause` is
    equal for errors that have one cause, "" for verdicts; of several rows with one cause the first has the text, the
    others name its test in `same_as`.
    """

    nodeid: str
    slug: str
    check: str
    outcome: str
    sentence: str
    notes: tuple[str, ...]
    text: str = ""
    facts: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    file: str = ""
    line: int | None = None
    cause: str = ""
    same_as: str = ""

    @property
    def evidence(self) -> str:
        """What `text` says beyond the sentence."""
        return self.text[len(self.sentence) :].lstrip("\n") if self.text.startswith(self.sentence) else self.text


@dataclass(frozen=True)
class ReportDocument:
    """Everything a writer may say about one run; `remarks` are about the run itself, such as a waiver without use.

    Cases and checks stand worst first, then in the order of the run. `checks` did not simply pass, `passed` did,
    `expected` are those of tests that were to fail and did (xfail); `details` are there once `gather.with_details` has
    read the captures.
    """

    run_id: str
    cases: tuple[CaseRow, ...]
    checks: tuple[CheckRow, ...]
    verdicts: int
    remarks: tuple[str, ...] = ()
    passed: tuple[CheckRow, ...] = ()
    expected: tuple[CheckRow, ...] = ()
    details: tuple[CaseDetail, ...] = ()

    @property
    def failed(self) -> tuple[CheckRow, ...]:
        """Checks that need somebody, worst first."""
        return tuple(row for row in self.checks if row.outcome not in ("pass", "skip"))

    @property
    def simulated_note(self) -> str:
        """A sentence on captures whose times are made up, "" where there are none."""
        made_up = sum(row.simulated or row.engine == "sim" for row in self.cases)
        if not made_up:
            return ""
        which = "All captures" if made_up == len(self.cases) else f"{made_up} of {len(self.cases)} captures"
        return f"{which} are of the built-in simulator: their times are made up and say nothing about a GPU."

    @property
    def unproven(self) -> tuple[CheckRow, ...]:
        """Checks that passed with a note."""
        return tuple(row for row in self.checks if row.outcome == "pass" and row.notes)


def build(entries: Sequence[Mapping[str, object]], *, run_id: str, remarks: Sequence[str] = ()) -> ReportDocument:
    """Join the records of all items, which come as they finished; `place` is an item's in the order of the run."""
    checks: list[CheckRow] = []
    passed: list[CheckRow] = []
    expected: list[CheckRow] = []
    by_slug: dict[str, list[Mapping[str, object]]] = {}
    verdicts = 0
    slugs = sorted({_slug(entry) for entry in entries} - {""}, key=len, reverse=True)
    for entry in sorted(entries, key=_place):
        # The test of a worker that died left no record; its id names the case.
        slug = _slug(entry) or next((one for one in slugs if one in str(entry["nodeid"])), "")
        by_slug.setdefault(slug, []).append(entry)
        recorded = [_mapping(v) for v in _sequence(entry.get("verdicts"))]
        verdicts += len(recorded)
        rows = [_check(entry, slug, v) for v in recorded]
        if entry.get("expected"):
            expected += rows
        else:
            checks += [row for row in rows if row.outcome != "pass" or row.notes]
            passed += [row for row in rows if row.outcome == "pass" and not row.notes]
        text = str(entry.get("text", ""))
        # A test that failed on an assertion of its own has no verdict that says so.
        trouble = str(entry.get("trouble", "")) or ("fail" if text else "")
        reason = str(entry.get("skipped", ""))
        if trouble or reason:
            said = {"check": "", "outcome": trouble or "skip", "sentence": _one_line(text or reason)}
            cause = str(entry.get("cause", ""))
            checks.append(replace(_check(entry, slug, said), text=text or reason, cause=cause))
    cases = [_case(slug, items) for slug, items in by_slug.items()]
    return ReportDocument(
        run_id=run_id,
        cases=tuple(sorted(cases, key=_rank)),
        checks=tuple(_told_once(sorted(checks, key=_rank))),
        verdicts=verdicts,
        remarks=tuple(remarks),
        passed=tuple(passed),
        expected=tuple(expected),
    )


def by_cause(rows: Sequence[CheckRow]) -> list[tuple[CheckRow, ...]]:
    """Rows that say the same together, each group in the place of its first."""
    groups: dict[object, list[CheckRow]] = {}
    for index, row in enumerate(rows):
        groups.setdefault((row.outcome, row.cause) if row.cause else index, []).append(row)
    return [tuple(group) for group in groups.values()]


def _told_once(rows: Sequence[CheckRow]) -> Iterator[CheckRow]:
    """A launch that fails errs every test of its cases, and twenty times one log hides what else went wrong."""
    first: dict[tuple[str, str], str] = {}
    for row in rows:
        same_as = first.setdefault((row.outcome, row.cause), row.nodeid) if row.cause else row.nodeid
        yield row if same_as == row.nodeid else replace(row, text=row.sentence, same_as=same_as)


def _slug(entry: Mapping[str, object]) -> str:
    return str(_mapping(entry.get("case")).get("slug", ""))


def _place(entry: Mapping[str, object]) -> int:
    place = entry.get("place")
    return place if isinstance(place, int) else 1 << 60


def _rank(row: CaseRow | CheckRow) -> int:
    return RANKING.index(row.outcome) if row.outcome in RANKING else 0


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
        text="\n".join(str(line) for line in (verdict.get("sentence", ""), *_sequence(verdict.get("lines")))),
        facts=_flat(verdict.get("facts")),
        file=str(entry.get("file", "")),
        line=_int(verdict.get("line")) or _int(entry.get("line")),
    )


def simulated_note(what: str = "") -> str:
    """The line above figures that no GPU made; `what` names the side or trace where only some are simulated."""
    return f"{what + ' is simulated' if what else 'Simulated'}: the built-in simulator made its times up, no GPU did."


def outcome_of(entry: Mapping[str, object]) -> str:
    """The word for an item: of its `trouble` if it had any, else of pytest's `outcome` and its verdicts."""
    trouble = str(entry.get("trouble", ""))
    if trouble:
        return trouble
    word = {"passed": "pass", "skipped": "skip"}.get(str(entry.get("outcome")), "fail")
    recorded = [_mapping(verdict).get("outcome") for verdict in _sequence(entry.get("verdicts"))]
    return "regression" if word == "fail" and "regression" in recorded else word


def _case(slug: str, entries: Sequence[Mapping[str, object]]) -> CaseRow:
    outcomes = [outcome_of(entry) for entry in entries]
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
        simulated=bool(facts.get("simulated")),
        worst_rank=str(facts.get("worst_rank", "")),
        per_token_ns=_int(facts.get("per_token_ns")),
        gpu=str(facts.get("gpu", "")),
        rocm=str(facts.get("rocm", "")),
        asked=_flat(facts.get("asked")),
        bench=_flat(facts.get("bench")),
    )


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: object) -> Sequence[object]:
    return value if isinstance(value, (list, tuple)) else ()


def _flat(value: object) -> dict[str, str | int | float | bool]:
    found = {str(key): one for key, one in _mapping(value).items() if isinstance(one, (str, int, float, bool))}
    # JSON has no word for infinity.
    return {key: one for key, one in found.items() if not isinstance(one, float) or math.isfinite(one)}


def _int(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
