"""Annotations for GitHub's runner: one command a line on standard output, which the runner turns into marks.

GitHub shows ten errors, ten warnings and ten notices of a step and drops the others without a word, so the worst are
chosen here and one notice tells how many more there are.
"""

from __future__ import annotations

import os.path
from typing import TYPE_CHECKING, Final

from pytest_atomtrace.report.document import by_cause
from pytest_atomtrace.report.escape import clipped_text, command_data, command_property, printable
from pytest_atomtrace.verdicts.evidence import count_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_atomtrace.report.document import CheckRow, ReportDocument

__all__ = ["MOST", "annotation_commands"]

#: Of each kind, per step.
MOST: Final = 10
_LONGEST_TITLE, _LONGEST_LINE, _MOST_LINES = 120, 300, 12
_TITLES = {"infra": "infra error", "wrong_check": "wrong check", "fail": "failed"}


def annotation_commands(
    document: ReportDocument, *, root: str, workspace: str, annotated_elsewhere: bool = False
) -> list[str]:
    """The commands: errors for checks that did not pass, a warning for each note, one notice for what is left.

    Checks with one cause share an error: ten of them would leave no room for what else went wrong.

    `root` is pytest's rootdir, to which files are relative, `workspace` the checkout that GitHub knows ("" if
    unknown). With `annotated_elsewhere` another plugin marks failed tests; what it does not see (inconclusive, infra
    and wrong-check errors are errors of set-up to it) stays ours.
    """
    failed = [row for row in document.failed if not (annotated_elsewhere and row.outcome in ("fail", "regression"))]
    causes = by_cause(failed)
    lines = [_command("error", rows[0], _failure(rows), root, workspace) for rows in causes[:MOST]]
    noted = [(row, note) for row in document.unproven for note in row.notes]
    lines += [_command("warning", row, [note], root, workspace) for row, note in noted[:MOST]]
    rest = []
    if len(causes) > MOST:
        rest.append(f"{count_of(sum(map(len, causes[MOST:])), 'more check')} did not pass")
    if len(noted) > MOST:
        rest.append(f"{count_of(len(noted) - MOST, 'more note')}")
    if rest:
        title = command_property(f"atomtrace: {' and '.join(rest)}")
        text = f"{' and '.join(rest)} than a step can show. The step summary lists them worst first"
        lines.append(f"::notice title={title}::{command_data(text)}, the JSON report has all.")
    return lines


def _failure(rows: Sequence[CheckRow]) -> list[str]:
    row = rows[0]
    lines = [row.sentence, *(row.evidence.split("\n") if row.evidence else [])]
    more = [f"and {count_of(len(rows) - 1, 'more test')} for the same reason"] if len(rows) > 1 else []
    return [*lines[:_MOST_LINES], *(["..."] if len(lines) > _MOST_LINES else []), *more]


def _command(kind: str, row: CheckRow, lines: Sequence[str], root: str, workspace: str) -> str:
    word = "note" if kind == "warning" else _TITLES.get(row.outcome, row.outcome)
    properties = {"title": clipped_text(f"{word}: {row.check or row.nodeid}", _LONGEST_TITLE)}
    if row.file:
        properties = {"file": _in_workspace(row.file, root, workspace), "line": str(row.line or 1), **properties}
    told = [*lines, f"test {row.nodeid}"]
    text = "\n".join(clipped_text(printable(line), _LONGEST_LINE) for line in told)
    listed = ",".join(f"{name}={command_property(value)}" for name, value in properties.items())
    return f"::{kind} {listed}::{command_data(text)}"


def _in_workspace(file: str, root: str, workspace: str) -> str:
    """The path from the repository's root, which is all that GitHub understands."""
    path = os.path.normpath(os.path.join(root, file))  # noqa: PTH118  # text in, text out: no file is looked at
    if not workspace:
        return file
    near = os.path.relpath(path, workspace)
    return file if near.startswith("..") else near
