"""Waivers in a run: read once per process, applied to every verdict, and the unused ones named at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.plugin.state import State
    from pytest_atomtrace.verdicts.outcome import Verdict

__all__ = ["load_waivers", "unused", "waiving"]


def load_waivers(config: pytest.Config, state: State) -> None:
    """Read the waivers file.

    Raises:
        pytest.UsageError: everything that is wrong in it.

    """
    path = config.rootpath / state.settings.waivers
    import datetime as dt

    from pytest_atomtrace.errors import ConfigError
    from pytest_atomtrace.verdicts.waivers import parse_waivers

    try:
        state.waivers = parse_waivers(path.read_bytes(), state.settings.waivers)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None
    state.today = dt.datetime.now(dt.timezone.utc).date()


def waiving(state: State, case: Case) -> Callable[[Verdict], Verdict] | None:
    """What turns a waived failure of `case` into a pass with a note; None where nothing is waived."""
    today = state.today
    if not state.waivers or today is None:
        return None
    from pytest_atomtrace.verdicts.waivers import waived

    return lambda verdict: waived(verdict, case.slug, state.waivers, today)


def unused(state: State, entries: Sequence[Mapping[str, object]]) -> list[str]:
    """Waivers that no verdict of this run was about: their check or case may have vanished."""
    judged: list[tuple[str, str]] = []
    for entry in entries:
        case, verdicts = entry.get("case"), entry.get("verdicts")
        if isinstance(case, Mapping) and isinstance(verdicts, list):
            judged += [(str(one.get("check", "")), str(case.get("slug", ""))) for one in verdicts]
    if not judged:  # skipped, or stopped before any check: that says nothing about waivers
        return []
    return [
        f"unused waiver: no check of this run is {waiver.check!r} of {waiver.case!r}: {waiver.text}"
        for waiver in state.waivers
        if not any(waiver.fits(check, slug) for check, slug in judged)
    ]
