"""`atomtrace export`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.cli.answer import Answer

if TYPE_CHECKING:
    import argparse

    from pytest_atomtrace.cli.screen import Screen

__all__ = ["export"]


def export(arguments: argparse.Namespace, screen: Screen) -> Answer:
    """Write the tables; what could not be read is named on standard error."""
    from pytest_atomtrace.report.export import export as write
    from pytest_atomtrace.report.export_text import export_lines
    from pytest_atomtrace.report.parquet import require_pyarrow
    from pytest_atomtrace.report.records import record

    require_pyarrow()
    with screen.watching(f"exporting to {arguments.parquet}"):
        found = write(arguments.paths, arguments.parquet, raw=arguments.raw)
    for problem in found.problems:
        screen.complain(f"atomtrace export: {problem}")
    return Answer(1 if found.problems else 0, record(found), lambda width: export_lines(found, width=width))
