"""The run as Markdown: GitHub's step summary, and a file for whoever else shows Markdown (GitLab, Gitea).

GitHub drops a step summary of more than 1 MiB as a whole, so the worst comes first and the rest is cut with a note.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_atomtrace.report.document import by_cause, shown_engine
from pytest_atomtrace.report.escape import clipped_text, code, html_text
from pytest_atomtrace.units import format_duration
from pytest_atomtrace.verdicts.evidence import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_atomtrace.report.document import CaseRow, CheckRow, ReportDocument

__all__ = ["LIMIT_BYTES", "markdown"]

#: Below GitHub's 1,024 KiB by a margin for what other steps of the same job write.
LIMIT_BYTES: Final = 900 * 1024
MOST_CASES: Final = 300
# Kept free for the sentences about what was left out.
_TAIL_BYTES = 2_000
_LONGEST_LINE, _MOST_LINES, _LONGEST_TITLE = 400, 60, 300
_SIGNS = {
    "pass": "✅",
    "skip": "⏭️",
    "fail": "❌",
    "regression": "❌",
    "inconclusive": "❔",
    "infra": "⚠️",
    "wrong_check": "✏️",
}
_WORDS = {"infra": "infra error", "wrong_check": "wrong check"}


def markdown(document: ReportDocument, *, limit_bytes: int = LIMIT_BYTES) -> str:
    """Headline, table of cases, failed checks in folded blocks, notes; never more than `limit_bytes` of UTF-8."""
    blocks = [_head(document), _cases(document.cases)]
    if document.simulated_note:
        blocks.append(f"{document.simulated_note}\n\n")
    left = limit_bytes - _TAIL_BYTES - sum(map(_size, blocks))
    failed = document.failed
    shown = 0
    if failed:
        blocks.append("### Checks that did not pass\n\n")
        left -= _size(blocks[-1])
    for rows in by_cause(failed):
        block = _details(rows[0], rows[1:])
        if _size(block) > left:
            break
        blocks.append(block)
        left -= _size(block)
        shown += len(rows)
    if shown < len(failed):
        rest = count_of(len(failed) - shown, "more check")
        blocks.append(f"**{rest} did not pass and {'is' if len(failed) - shown == 1 else 'are'} left out here**, ")
        blocks.append("since a step summary has room for 1 MiB. The JSON report (--atom-json) has all of them.\n\n")
    blocks += _notes(document, left)
    return "".join(blocks)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _head(document: ReportDocument) -> str:
    cases, failed = len(document.cases), document.failed
    if not cases:
        return "## atomtrace\n\nNo test with a case ran.\n\n"
    worst = document.cases[0].outcome
    words = ", ".join(
        f"{sum(row.outcome == word for row in failed):,} {_WORDS.get(word, word)}"
        for word in dict.fromkeys(row.outcome for row in failed)
    )
    passed, total = (sum(getattr(row, name) for row in document.cases) for name in ("passed", "total"))
    text = f"## {_SIGNS[worst]} atomtrace: {words or 'no check failed'}\n\n{passed:,} of {count_of(total, 'test')} "
    checks = count_of(document.verdicts, "check")
    return f"{text}passed on {count_of(cases, 'case')} ({checks}); run {code(document.run_id)}.\n\n"


def _cases(rows: Sequence[CaseRow]) -> str:
    if not rows:
        return ""
    lines = ["| | case | engine | ranks | steady/steps | decode p50 | p99 | health | tests passed |"]
    lines.append("|---|---|---|--:|--:|--:|--:|---|--:|")
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows[:MOST_CASES]]
    text = "\n".join(lines) + "\n\n"
    if len(rows) > MOST_CASES:
        text += f"{count_of(len(rows) - MOST_CASES, 'more case')} left out of this table.\n\n"
    if any(row.p99_ns is not None and not row.p99_firm for row in rows[:MOST_CASES]):
        text += "p99 with a star: fewer than 200 steady steps, an indication only.\n\n"
    return text


def _cells(row: CaseRow) -> list[str]:
    engine = shown_engine(row.engine, simulated=row.simulated)
    return [
        _SIGNS[row.outcome],
        code(clipped_text(row.slug, _LONGEST_TITLE)),
        engine or "-",
        str(row.ranks) if row.ranks is not None else "-",
        f"{row.steady}/{row.steps}" if row.steps is not None else "-",
        format_duration(row.p50_ns) if row.p50_ns is not None else "-",
        format_duration(row.p99_ns) + "\\*" * (not row.p99_firm) if row.p99_ns is not None else "-",
        code(",".join(row.health)) if row.health else "ok" if row.ranks is not None else "-",
        f"{row.passed}/{row.total}",
    ]


def _details(row: CheckRow, others: Sequence[CheckRow]) -> str:
    """One folded block, with the tests that ended for the same reason.

    Markdown has no say in the summary (HTML up to a blank line) nor between the pre tags.
    """
    word = _WORDS.get(row.outcome, row.outcome)
    title = html_text(clipped_text(_one(row.check or row.nodeid), _LONGEST_TITLE))
    place = f"{row.file}:{row.line}" if row.file and row.line else row.file
    facts = [row.sentence, *_evidence(row), "", f"test    {row.nodeid}"]
    if place:
        facts.append(f"at      {place}")
    facts.append(f"case    {row.slug}")
    if others:
        facts += ["", f"{count_of(len(others), 'more test')} for the same reason:"]
        facts += _cut([f"  {other.nodeid}" for other in others])
    body = html_text("\n".join(clipped_text(line, _LONGEST_LINE) for line in facts))
    more = f" and {count_of(len(others), 'more test')}" if others else ""
    return (
        f"<details><summary>{_SIGNS[row.outcome]} {word}: <code>{title}</code> on <code>{html_text(_one(row.slug))}"
        f"</code>{more}</summary>\n\n<pre>\n{body}\n</pre>\n\n</details>\n\n"
    )


def _evidence(row: CheckRow) -> list[str]:
    return _cut(row.evidence.split("\n") if row.evidence else [])


def _cut(lines: list[str]) -> list[str]:
    if len(lines) <= _MOST_LINES:
        return lines
    return [*lines[:_MOST_LINES], f"... {len(lines) - _MOST_LINES} more lines"]


def _one(text: str) -> str:
    return text.replace("\n", " ")


def _notes(document: ReportDocument, left: int) -> Iterator[str]:
    texts = [f"{row.check}: {note}" for row in document.unproven for note in row.notes]
    items = [*texts, *document.remarks]
    if not items:
        return
    yield "### Notes\n\n"
    for number, item in enumerate(items):
        line = f"- {code(clipped_text(item, _LONGEST_LINE))}\n"
        left -= _size(line)
        if left < 0:
            yield f"- {len(items) - number:,} more\n"
            break
        yield line
    yield "\n"
