"""`atomtrace history`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.cli.answer import Answer

if TYPE_CHECKING:
    import argparse

    from pytest_atomtrace.cli.screen import Screen

__all__ = ["history"]


def history(arguments: argparse.Namespace, screen: Screen) -> Answer:
    """Read the runs; what could not be read is named on standard error."""
    from pytest_atomtrace.report.history import read_history
    from pytest_atomtrace.report.history_text import Signs, history_lines
    from pytest_atomtrace.report.records import record
    from pytest_atomtrace.settings import Settings, environment

    settings = Settings.resolve(cli={"atom_baselines": arguments.baselines}, env=environment(), ini={})
    with screen.watching(f"reading the runs in {arguments.runs}"):
        found = read_history(
            arguments.case,
            arguments.runs,
            metric=arguments.metric,
            baselines=Path(settings.baselines),
            settings=settings,
        )
    for problem in found.problems:
        screen.complain(f"atomtrace history: {problem}")
    if arguments.html is not None:
        from pytest_atomtrace.capture.files import write_bytes
        from pytest_atomtrace.report.history_html import history_page

        write_bytes(arguments.html, history_page(found).encode())
    signs = Signs.of(screen.out.encoding)
    return Answer(
        1 if found.problems else 0, record(found), lambda width: history_lines(found, width=width, signs=signs)
    )
