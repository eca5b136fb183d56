"""What the plugin keeps on ``config`` and on items, each under its own typed key."""

from __future__ import annotations

from dataclasses import dataclass, field
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
    "RECORD",
    "REPORT_ATTRIBUTE",
    "STATE",
    "WORKER_INPUT",
    "ItemRecord",
    "State",
    "worker_of",
]

WORKER_INPUT = "atomtrace"
REPORT_ATTRIBUTE = "atomtrace"
FAILED_COLLECTION = "atomtrace_mistakes"


def worker_of(config: pytest.Config) -> Mapping[str, object] | None:
    """``workerinput`` of an xdist worker, None elsewhere.

    The variable PYTEST_XDIST_WORKER is no oracle: a child pytest inherits it without being a worker.
    """
    return getattr(config, "workerinput", None)


@dataclass
class State:
    """One run of pytest as this process sees it."""

    settings: Settings
    run_id: str
    output: Path
    worker: str
    controller_pid: int
    mistakes: Mistakes
    progress: Progress
    collected_cases: bool = False
    waivers: tuple[Waiver, ...] = ()
    today: date | None = None


@dataclass
class ItemRecord:
    """What one item adds to its report: builtin types only, since it crosses to the xdist controller."""

    case: dict[str, object] = field(default_factory=dict)
    verdicts: list[dict[str, object]] = field(default_factory=list)


STATE: pytest.StashKey[State] = pytest.StashKey()
CASE: pytest.StashKey[Case] = pytest.StashKey()
RECORD: pytest.StashKey[ItemRecord] = pytest.StashKey()
