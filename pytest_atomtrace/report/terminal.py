"""The terminal summary as lines of a pure function; pytest's own writer puts them on the screen."""

from __future__ import annotations

import shlex
import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.report.document import by_cause
from pytest_atomtrace.units import format_duration, format_seconds
from pytest_atomtrace.verdicts.evidence import count_of, near_path, shown_engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_atomtrace.report.document import CaseRow, CheckRow, ReportDocument

__all__ = ["lines"]

STYLES = {"pass": "green", "skip": "yellow", "inconclusive": "yellow"}
WORDS = {
    "infra": "INFRA ERROR",
    "wrong_check": "WRONG CHECK",
    "inconclusive": "INCONCLUSIVE",
    "fail": "FAIL",
    "regression": "REGRESSION",
}
SHOWN_CHECKS = 20


def lines(
    document: ReportDocument,
    reports: Sequence[tuple[str, str]] = (),
    *,
    width: int,
    verbosity: int,
    keep: str = "all",
) -> Iterator[tuple[str, str]]:
    """Yield (style, text) pairs; style is "title", "" or a colour name of pytest's writer.

    `reports` are lines about files that were written, or could not be: the latter are told in any case. `keep` says
    whose captures stay on disk (the setting).
    """
    if verbosity < 0:
        yield from _quiet(document, notes=verbosity == -1)
        yield from (line for line in reports if line[0])
        return
    yield "title", "atomtrace"
    if any(row.outcome != "skip" for row in document.cases):
        yield from _case_table(document, width)
        yield from _simulated(document, width)
    yield from _skipped(document)
    groups = by_cause(document.failed)
    shown = groups if verbosity > 0 else groups[:SHOWN_CHECKS]
    for rows in shown:
        yield from _check_lines(rows[0], width)
        yield from _same_cause(rows[1:], every=verbosity > 0)
    if len(groups) > len(shown):
        yield "", f"... and {sum(map(len, groups[len(shown) :]))} more (-v shows all)"
    for row in document.unproven:
        yield "yellow", f"NOTE  {row.nodeid}"
        for note in row.notes:
            yield from _wrapped(f"{row.check}: {note}", width)
    for remark in document.remarks:
        yield "yellow", f"NOTE  {remark}"
    stay = [row for row in document.cases if row.engine not in ("", "replay") and row.stays(keep)]
    roots = dict.fromkeys(_replay_root(row.directory) for row in stay)
    for root in roots:
        again = f"pytest --atom-replay={shlex.quote(root)}"
        yield "", f"captures: {root} (judge them again without a GPU: {again})"
    yield from reports


def _quiet(document: ReportDocument, *, notes: bool) -> Iterator[tuple[str, str]]:
    """One line each: what failed, and with `notes` (-q, not -qq) what is green and yet proves less than it seems."""
    groups = by_cause(document.failed)
    for rows in groups[:SHOWN_CHECKS]:
        number = f" ({len(rows)} tests)" if len(rows) > 1 else ""
        yield "", f"{WORDS.get(rows[0].outcome, rows[0].outcome)} {rows[0].slug}: {rows[0].sentence}{number}"
    if len(groups) > SHOWN_CHECKS:
        yield "", f"... and {sum(map(len, groups[SHOWN_CHECKS:]))} more (without -q, -v shows all)"
    if groups:
        yield from _simulated(document, 0)
    if not notes:
        return
    yield from _skipped(document)
    told = [f"NOTE {row.slug}: {row.check}: {note}" for row in document.unproven for note in row.notes]
    told += [f"NOTE {remark}" for remark in document.remarks]
    yield from (("yellow", line) for line in told[:SHOWN_CHECKS])
    if len(told) > SHOWN_CHECKS:
        yield "", f"... and {len(told) - SHOWN_CHECKS} more notes (without -q all are shown)"


def _simulated(document: ReportDocument, width: int) -> Iterator[tuple[str, str]]:
    note = document.simulated_note
    if note:
        yield from (("", line) for line in (textwrap.wrap(note, width) if width else [note]))


def _same_cause(rows: Sequence[CheckRow], *, every: bool) -> Iterator[tuple[str, str]]:
    if rows and not every:
        yield "", f"      and {count_of(len(rows), 'more test')} for the same reason (-v lists them)"
    elif rows:
        yield "", "      for the same reason:"
        yield from (("", f"      {row.nodeid}") for row in rows)


def _skipped(document: ReportDocument) -> Iterator[tuple[str, str]]:
    reasons = Counter(row.sentence for row in document.checks if row.outcome == "skip")
    for reason, number in reasons.items():
        yield "yellow", f"SKIPPED  {number:,} test{'s' * (number != 1)}: {reason}"


def _replay_root(directory: str) -> str:
    head, found, _ = directory.partition("/captures/")
    return near_path(Path(head if found else directory))


def _case_table(document: ReportDocument, width: int) -> Iterator[tuple[str, str]]:
    from tabulate import tabulate

    headers = ["case", "engine", "ranks", "steady/steps", "decode p50", "p99", "health", "capture", "passed"]
    table = [_cells(row) for row in document.cases]
    text = tabulate(table, headers, tablefmt="simple", disable_numparse=True, colalign=("left",) * 9)
    if max(len(line) for line in text.splitlines()) > width:
        # Narrow terminals keep the name on a line of its own rather than breaking every column.
        text = tabulate(
            [[f"#{i + 1}", *cells[1:]] for i, cells in enumerate(table)],
            ["", *headers[1:]],
            tablefmt="simple",
            disable_numparse=True,
            colalign=("left",) * 9,
        )
        for index, row in enumerate(document.cases):
            yield "", f"#{index + 1} {row.slug}"
    body = text.splitlines()
    yield from (("", line) for line in body[:2])
    for row, line in zip(document.cases, body[2:], strict=True):
        yield STYLES.get(row.outcome, "red"), line
    if any(row.p99_ns is not None and not row.p99_firm for row in document.cases):
        yield "", "p99*: fewer than 200 steady steps, an indication only"


def _cells(row: CaseRow) -> list[str]:
    star = "" if row.p99_firm else "*"
    steps = f"{row.steady}/{row.steps}" if row.steps is not None else "-"
    return [
        row.slug,
        shown_engine(row.engine, simulated=row.simulated) or "-",
        str(row.ranks) if row.ranks is not None else "-",
        steps,
        format_duration(row.p50_ns) if row.p50_ns is not None else "-",
        format_duration(row.p99_ns) + star if row.p99_ns is not None else "-",
        ",".join(row.health) or _health_word(row),
        format_seconds(row.capture_s) if row.capture_s is not None else "-",
        f"{row.passed}/{row.total}",
    ]


def _health_word(row: CaseRow) -> str:
    if row.ranks is None:
        return "-"
    return f"ok ({','.join(row.warnings)})" if row.warnings else "ok"


def _check_lines(row: CheckRow, width: int) -> Iterator[tuple[str, str]]:
    word = WORDS.get(row.outcome, row.outcome.upper())
    yield STYLES.get(row.outcome, "red"), f"{word}  {row.nodeid}"
    body = f"{row.sentence}" if not row.check else f"{row.check}: {row.sentence}"
    yield from _wrapped(body, width)


def _wrapped(text: str, width: int) -> Iterator[tuple[str, str]]:
    # Kernel names and paths are what a reader copies: they are never broken.
    for line in textwrap.wrap(text, max(40, width - 6), break_on_hyphens=False, break_long_words=False):
        yield "", f"      {line}"
