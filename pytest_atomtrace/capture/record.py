"""What the rest of the house gets: one finished capture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_atomtrace.cases.case import Case

__all__ = ["MANIFEST", "MANIFEST_SCHEMA", "Capture"]

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = 1


@dataclass(frozen=True)
class Capture:
    """One profiled window of one case on disk.

    `ranks` maps rank names, in order, to trace files. `expected_ranks` is the exact set that a server of this
    case has; it is empty where nothing is known about the server (a plain trace directory). `engine` is
    ``sim``, ``atom`` or ``replay``; `manifest` is the capture's ``manifest.json`` (empty without one);
    `capture_s` is the wall time that taking it cost, the wait for the lease left out.
    """

    case: Case
    directory: Path
    ranks: Mapping[str, Path]
    expected_ranks: tuple[str, ...]
    engine: str
    manifest: Mapping[str, object]
    capture_s: float
