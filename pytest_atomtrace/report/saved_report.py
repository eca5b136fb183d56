"""A run's report.json read back: its checks, and what it says of each case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.files import read_json
from pytest_atomtrace.errors import StoreError
from pytest_atomtrace.report.json_types import SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SavedCheck", "SavedReport", "read_report"]


@dataclass(frozen=True)
class SavedCheck:
    """One check, or a test that ended before it asked (`check` is empty); `expected`: it was to fail and did."""

    case: str
    test: str
    file: str
    line: int | None
    check: str
    outcome: str
    expected: bool
    sentence: str
    notes: tuple[str, ...]
    facts: Mapping[str, object]


@dataclass(frozen=True)
class SavedReport:
    """`cases` holds the report's own object of each case, by slug."""

    checks: tuple[SavedCheck, ...]
    cases: Mapping[str, Mapping[str, object]]


def read_report(path: Path) -> SavedReport:
    """The report in `path`.

    Raises:
        StoreError: it is damaged, or of another schema.

    """
    document = read_json(path)
    if document is None:
        raise StoreError(f"{path} is not there")
    schema = document.get("schema")
    if schema != SCHEMA:
        raise StoreError(f"{path} has schema {schema!r}, this version reads {SCHEMA}")
    checks = tuple(_check(row) for row in _rows(document.get("checks")))
    return SavedReport(checks, {str(row.get("slug", "")): row for row in _rows(document.get("cases"))})


def _check(row: Mapping[str, object]) -> SavedCheck:
    notes, facts, line = row.get("notes"), row.get("facts"), row.get("line")
    return SavedCheck(
        case=str(row.get("case", "")),
        test=str(row.get("test", "")),
        file=str(row.get("file", "")),
        line=line if isinstance(line, int) else None,
        check=str(row.get("check", "")),
        outcome=str(row.get("outcome", "")),
        expected=row.get("expected") is True,
        sentence=str(row.get("sentence", "")),
        notes=tuple(str(note) for note in notes) if isinstance(notes, (list, tuple)) else (),
        facts=facts if isinstance(facts, Mapping) else {},
    )


def _rows(value: object) -> list[Mapping[str, object]]:
    listed = value if isinstance(value, Sequence) and not isinstance(value, str) else []
    return [row for row in listed if isinstance(row, Mapping)]
