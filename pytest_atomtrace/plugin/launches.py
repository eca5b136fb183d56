"""What a test's trace may ask for beyond its window, answered by this process's captures."""

from __future__ import annotations

import contextlib
import os
import shlex
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.clock import SYSTEM_CLOCK
from pytest_atomtrace.capture.files import read_json, write_bytes, write_json
from pytest_atomtrace.capture.locks import HostLock, read_holder
from pytest_atomtrace.errors import LeaseError, StoreError
from pytest_atomtrace.settings import rows
from pytest_atomtrace.verdicts.launches import RecordedBy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pytest

    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.plugin.captures import Captures
    from pytest_atomtrace.settings import Settings
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["ItemLaunches"]

_POLL_S = 0.2
_UPDATE = "--atom-update-baselines"
# What only says how this run judges, reports and cleans up.
_OF_THE_RUN = (
    "update_baselines", "output", "keep", "keep_size", "tolerance", "confirm", "drift", "waivers", "error_exit",
    "json", "html", "markdown", "github", "dashboard", "junit",
)  # fmt: skip


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


def _read_recorded(place: Path) -> RecordedBy | None:
    facts = read_json(place)
    return RecordedBy(str(facts.get("who")), times=bool(facts.get("times"))) if facts is not None else None


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
        item = self._captures.plan.recorder_of(self._item)
        return _joined([_pasted_id(item), *_given_options(self._item.config), f"{_UPDATE}={mode}"])

    @property
    def lasting_command(self) -> str:
        """The command for the file: every check of the case in its spec, wherever it is run."""
        backend = ["--atom-backend=sim"] if self._captures.simulated(self._case) else []
        spec = self._captures.plan.spec_of(self._case) or self._item.nodeid.partition("::")[0]
        return _joined([spec, "-k", self._case.slug, *backend, f"{_UPDATE}=all"])

    def say(self, text: str) -> None:
        """A progress line."""
        self._captures.say(f"atomtrace [{self._case.slug}] {text}")

    def write(self, path: Path, data: bytes) -> None:
        """Write a file, whole or not at all."""
        write_bytes(path, data)

    @property
    def times_wanted(self) -> bool:
        """Whether any check of the run compares times of the case, or its baseline has them."""
        return self._captures.plan.times_wanted(self._case)

    @contextlib.contextmanager
    def recording(self) -> Iterator[RecordedBy | None]:
        """Hold the case's recording; workers that meet here wait for each other, as long as one of them lives."""
        name = f"recording-{self._case.slug}"
        place = self._captures.run_place / f"{name}.json"
        if self._captures.worker == "main":
            yield _read_recorded(place)
            return
        lock = HostLock(self._captures.run_directory / f"{name}.lock")
        with self._captures.one_interrupt():
            self._wait_for(lock)
        try:
            yield _read_recorded(place)
        finally:
            lock.release()

    def _wait_for(self, lock: HostLock) -> None:
        told = False
        try:
            while not lock.try_acquire({"worker": self._captures.worker, "test": self._item.nodeid}):
                if not told:
                    holder = read_holder(lock.path)
                    self.say(f"waits while {holder.get('worker')} records the baseline for {holder.get('test')}")
                told = True
                SYSTEM_CLOCK.sleep_s(_POLL_S)
        except LeaseError as error:
            hint = "Workers record one baseline in turn, which needs file locks: --atom-output on local disk, or -n 0"
            raise StoreError(error.problem, hint) from None

    def recorded(self, *, times: bool) -> None:
        """Leave word in the run's directory."""
        by = f"by {self._captures.worker}, " if self._captures.worker != "main" else ""
        facts = {"who": f"{by}for {self._item.nodeid}", "times": times}
        write_json(self._captures.run_directory / f"recording-{self._case.slug}.json", facts)
