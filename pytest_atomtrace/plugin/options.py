"""The settings table becomes pytest options and ini keys, and is read back once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.settings import Settings, config_error, environment, rows

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["add_options", "read_settings"]

_METAVARS = {
    "path": "PATH",
    "url": "URL",
    "count": "N",
    "port": "N",
    "duration": "TIME",
    "share": "PERCENT",
    "size": "SIZE",
}


def add_options(parser: pytest.Parser) -> None:
    """Declare every row as ``--atom-x`` and ``atom_x``; defaults stay None so that precedence is decidable."""
    group = parser.getgroup("atomtrace", "performance specs on ATOM's profiler traces (pytest-atomtrace)")
    for row in rows():
        choices = f" ({', '.join(row.choices)})" if row.choices else ""
        text = f"{row.help}{choices}; default: {row.shown_default} [ini {row.ini}, env {row.env}]"
        shown = text.replace("%", "%%")  # argparse formats help texts, ini help texts are printed as they are
        if row.kind == "flag":
            group.addoption(row.option, dest=row.dest, action="store_const", const=True, default=None, help=shown)
        else:
            metavar = _METAVARS.get(row.kind, "NAME")
            group.addoption(row.option, dest=row.dest, default=None, metavar=metavar, help=shown)
        parser.addini(row.ini, text, type="string", default=None)


def read_settings(
    config: pytest.Config, *, unused_so_far: list[str], from_controller: Mapping[str, object] | None = None
) -> Settings:
    """Resolve the table; what the controller of an xdist run decided for the whole run wins.

    What is wrong in environment variables goes to `unused_so_far`: they are set for a whole machine or job, where most
    runs of pytest have no test with a case.

    Raises:
        pytest.UsageError: every wrong value of the command line and the ini file, each with its source.

    """
    cli = {row.dest: config.getoption(row.dest) for row in rows()}
    ini = {row.ini: config.getini(row.ini) for row in rows()}
    try:
        settings = Settings.resolve(cli=cli, env=environment(), ini=ini)
    except config_error() as error:
        try:
            settings = Settings.resolve(cli=cli, env={}, ini=ini)
        except config_error():
            raise pytest.UsageError(str(error)) from None
        unused_so_far.append(str(error))
    if from_controller is None:
        return settings
    return Settings.from_dict({**settings.as_dict(), **from_controller})
