"""What the plugin keeps on ``config`` and on items, each under its own typed key."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date
    from pathlib import Path

    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.plugin.mistakes import Mistakes
    from pytest_atomtrace.plugin.progress import Progress
    from pytest_atomtrace.settings import Settings
    from pytest_atomtrace.verdicts.waivers import Waiver

__all__ = [
    "CASE",
    "FAILED_COLLECTION",
    "MARKS",
    "PLACE",
    "RECORD",
    "REPORT_ATTRIBUTE",
    "STATE",
    "WORKER_INPUT",
    "ItemRecord",
    "State",
    "record_of",
    "worker_of",
]

MARKS = ("atom_case", "atom_catalog")
WORKER_INPUT = "atomtrace"
REPORT_ATTRIBUTE = "atomtrace"
FAILED_COLLECTION = "atomtrace_mistakes"


def worker_of(config: pytest.Config) -> Mapping[str, object] | None:
    """``workerinput`` of an xdist worker, None elsewhere.

    The variable PYTEST_XDIST_WORKER is no oracle: a child pytest inherits it without being a worker.
    """
    return getattr(config, "workerinput", None)


class State:
    """One run of pytest as this process sees it.

    Every start of every pytest makes one, wherever the plugin is installed. Hence a plain class, as `ItemRecord` is
    (a dataclass costs 0.5 ms to define), and modules that load when they are first needed.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        run_id: str,
        output: Path,
        worker: str,
        controller_pid: int,
        live: bool,
    ) -> None:
        self.settings = settings
        self._run_id = run_id
        self.output = output
        self.worker = worker
        self.controller_pid = controller_pid
        self._live = live
        # pytest redirects fd 2 while tests run; in `pytest_configure`, where this is made, it is the real one
        # (measured: the only place from which lines show in all of default, -q, -s and -n 2).
        try:
            self._stderr = os.dup(2)
        except OSError:  # fd 2 is closed: nobody to tell
            self._stderr = -1
        self.collected_cases = False
        # Wrong settings that stop a run only once it has a test with a case.
        self.problems: list[str] = []
        # Marks whose cases some test uses, by identity; and tests with marks that use none of our fixtures.
        self.used_marks: set[int] = set()
        self.idle_tests: list[pytest.Function] = []
        self.waivers: tuple[Waiver, ...] = ()
        self.today: date | None = None

    @cached_property
    def run_id(self) -> str:
        """The controller's, in its workers as well; made by who is asked first."""
        from pytest_atomtrace.plugin.runs import new_run_id

        return self._run_id or new_run_id()

    @cached_property
    def progress(self) -> Progress:
        """Where this process says how far it is."""
        from pytest_atomtrace.plugin.progress import Progress

        return Progress(self._stderr, live=self._live)

    def close(self) -> None:
        """Give back the descriptor that progress is written to."""
        if "progress" in self.__dict__:
            self.progress.close()
        elif self._stderr >= 0:
            os.close(self._stderr)

    @cached_property
    def mistakes(self) -> Mistakes:
        """What collection found wrong in the specs."""
        from pytest_atomtrace.plugin.mistakes import Mistakes

        return Mistakes()


class ItemRecord:
    """What one item adds to its report: builtin types only, since it crosses to the xdist controller."""

    def __init__(self) -> None:
        self.case: dict[str, object] = {}
        self.verdicts: list[dict[str, object]] = []


def record_of(report: object) -> Mapping[str, object]:
    """What `outcomes.amend` attached, an empty mapping for reports of other tests."""
    payload = getattr(report, REPORT_ATTRIBUTE, None)
    return payload if isinstance(payload, dict) else {}


PLACE: pytest.StashKey[int] = pytest.StashKey()
STATE: pytest.StashKey[State] = pytest.StashKey()
CASE: pytest.StashKey[Case] = pytest.StashKey()
RECORD: pytest.StashKey[ItemRecord] = pytest.StashKey()
