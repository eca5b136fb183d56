"""What a test's trace may ask for beyond its window, answered by this process's captures."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from pytest_atomtrace.plugin.state import CASE
from pytest_atomtrace.settings import rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.plugin.captures import Captures
    from pytest_atomtrace.settings import Settings
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["WINDOWS", "ItemLaunches", "asks_for_times", "recording_plan", "windows_needed"]

# A baseline has three windows a launch (see the statistics page); what is compared with it has as many.
WINDOWS, LAUNCHES = 3, 5
_CHECK = "assert_no_regression"
_UPDATE = "--atom-update-baselines"
# What only says how this run judges, reports and cleans up.
_OF_THE_RUN = (
    "update_baselines", "output", "keep", "keep_size", "tolerance", "confirm", "drift", "waivers", "error_exit",
    "json", "html", "markdown", "github", "dashboard", "junit",
)  # fmt: skip


def asks_for_times(item: pytest.Item) -> bool:
    """Whether the item's own code compares with a baseline: known before anything is captured, unlike what it does."""
    function = getattr(item, "obj", None)
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    # The function of a spec file's entry holds what it asserts.
    entry = getattr(function, "__globals__", {}).get("assertion")
    return _CHECK in code.co_names or getattr(entry, "method", "") == _CHECK


def windows_needed(items: Sequence[pytest.Item]) -> dict[str, int]:
    """By slug how many windows a case needs; the same in every worker, since all have the same items."""
    cases = [item.stash[CASE] for item in items if CASE in item.stash and asks_for_times(item)]
    return {case.slug: WINDOWS for case in cases if not case.load_dummy}


def recording_plan(items: Sequence[pytest.Item], mode: str, baselines: Path) -> str:
    """What a recording run is about to cost, said before its first launch; "" where nothing will be recorded."""
    cases = dict.fromkeys(item.stash[CASE] for item in items if CASE in item.stash and asks_for_times(item))
    wanted = [case for case in cases if mode == "all" or not any(baselines.glob(f"*/{case.slug}.json"))]
    if not wanted:
        return ""
    servers = len({case.server_key for case in wanted})
    windows = WINDOWS * LAUNCHES * len(wanted)
    return (
        f"recording baselines of {len(wanted)} cases on {servers} servers: {LAUNCHES * servers} launches, {windows} "
        f"windows ({LAUNCHES} launches a server, {WINDOWS} windows a case and launch)"
    )


def _joined(words: Sequence[str]) -> str:
    return " ".join(["pytest", *(shlex.quote(word) for word in words)])


def _pasted_id(item: pytest.Item) -> str:
    """The item's id from where pytest was started: ids count from the rootdir, arguments from the directory."""
    nodeid = item.nodeid
    group = item.get_closest_marker("xdist_group")
    if group is not None:  # --dist loadgroup appends the group, and no argument may have it
        nodeid = nodeid.removesuffix(f"@{group.args[0] if group.args else group.kwargs.get('name', 'default')}")
    place, *names = nodeid.split("::", 1)
    here = item.config.invocation_params.dir
    path = os.path.relpath(item.config.rootpath / place, here)
    return "::".join([path.replace(os.sep, "/"), *names])


def _given_options(config: pytest.Config) -> list[str]:
    """Options of the command line that decide what is measured, or where baselines lie."""
    found = []
    for row in rows():
        value = config.getoption(row.dest, None)
        if value is None or row.name in _OF_THE_RUN:
            continue
        found.append(row.option if row.kind == "flag" else f"{row.option}={value}")
    return found


class ItemLaunches:
    """One item's view of the launches of its case."""

    def __init__(self, captures: Captures, item: pytest.Item, case: Case, settings: Settings) -> None:
        self._captures = captures
        self._item = item
        self._case = case
        self._settings = settings

    @property
    def baselines(self) -> Path:
        """Root of the baselines."""
        return self._item.config.rootpath / self._settings.baselines

    @property
    def saved(self) -> int | None:
        """How many launches a replay has, None where more can be taken."""
        return self._captures.saved_launches(self._case) if self._settings.backend == "replay" else None

    @property
    def no_more(self) -> str:
        """Why no further launch can be taken."""
        saved = self.saved
        if saved is not None and saved < 2:
            return "a replay has no second launch"
        return ""

    @property
    def launch_s(self) -> float:
        """What the first launch and its windows took."""
        return self._captures.seconds(self._item, self._case)

    def windows(self, launch: int) -> Sequence[TraceView]:
        """The windows of a launch, taken if need be."""
        return self._captures.windows(self._item, self._case, launch)

    def command(self, mode: str) -> str:
        """How to record, good to paste where pytest was started: the item by its id, with this run's options."""
        return _joined([_pasted_id(self._item), *_given_options(self._item.config), f"{_UPDATE}={mode}"])

    @property
    def lasting_command(self) -> str:
        """The command for the file: every check of the case in its spec, wherever it is run."""
        backend = ["--atom-backend=sim"] if self._captures.simulated(self._case) else []
        spec = self._item.nodeid.partition("::")[0]
        return _joined([spec, "-k", self._case.slug, *backend, f"{_UPDATE}=all"])

    def say(self, text: str) -> None:
        """A progress line."""
        self._captures.say(f"atomtrace [{self._case.slug}] {text}")

    def write(self, path: Path, data: bytes) -> None:
        """Write a file, whole or not at all."""
        from pytest_atomtrace.capture.files import write_bytes

        write_bytes(path, data)

    def first_recording(self) -> bool:
        """True once per run and case, whichever worker asks."""
        return self._captures.mark(f"recorded-{self._case.slug}")
