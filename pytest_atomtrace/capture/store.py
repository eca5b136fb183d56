"""The captures of one run on disk, what is being attempted, and what failed: shared by all workers of the run.

::

    <run dir>/captures/<slug>/<n>/manifest.json ...    a finished capture (the manifest is written last)
    <run dir>/captures/<slug>/attempt.json             somebody is at it: who
    <run dir>/captures/<slug>/failed.json              it failed: why, where
    <run dir>/servers/<server key>/attempt.json, failed.json, work/   the same for a launch
    <run dir>/quarantine/<slug>-<n>/                   what a failed window left, and reason.txt
    <run dir>/launches/<k>/...                         all of that again for the k-th launch of a server, k > 1
    <run dir>/sides/<name>/...                         all of that again for one side of a comparison
    <run dir>/hosts/<name>/...                         all of that again for each further host of the run
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.files import read_json, write_json
from pytest_atomtrace.capture.hosts import launch_places
from pytest_atomtrace.capture.identity import Identity
from pytest_atomtrace.capture.record import MANIFEST, MANIFEST_SCHEMA, Capture
from pytest_atomtrace.errors import InfraError, RememberedFailureError, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_atomtrace.capture.clock import Clock
    from pytest_atomtrace.cases.case import Case

__all__ = ["Store", "attempt_of", "capture_at"]


@dataclass(frozen=True)
class Store:
    """Paths and states; every question is answered from disk, so all workers get the same answer.

    `windows` says by slug how many windows a case needs where they are more than its own `captures`.
    """

    run_dir: Path
    run_id: str
    clock: Clock
    windows: Mapping[str, int] = field(default_factory=dict)

    def of_launch(self, number: int) -> Store:
        """The store of another launch of the same servers: nothing of the first one counts there, failures too."""
        return self if number == 1 else replace(self, run_dir=self.run_dir / "launches" / str(number))

    def of_side(self, name: str) -> Store:
        """The store of one side of a comparison."""
        return replace(self, run_dir=self.run_dir / "sides" / name)

    def windows_of(self, case: Case) -> int:
        """How many windows make the capture of `case` complete."""
        return max(case.captures, self.windows.get(case.slug, 1))

    def case_dir(self, case: Case) -> Path:
        """Where the captures of `case` are."""
        return self.run_dir / "captures" / case.slug

    def server_dir(self, case: Case) -> Path:
        """Where the server of `case` works and what is remembered of its launch."""
        return self.run_dir / "servers" / case.server_key

    def quarantine_dir(self, case: Case, number: int) -> Path:
        """Where the remains of a failed window go."""
        return self.run_dir / "quarantine" / f"{case.slug}-{number}"

    def capture(self, case: Case) -> Capture | None:
        """The finished capture of `case` (the last of its windows), None while any window is not finished."""
        return capture_at(self.case_dir(case) / str(self.windows_of(case)), case)

    def all_windows(self, case: Case) -> list[Capture]:
        """Every window of the finished capture, in order; empty while any is not finished."""
        if self.capture(case) is None:
            return []
        found = [capture_at(self.case_dir(case) / str(number + 1), case) for number in range(self.windows_of(case))]
        return [capture for capture in found if capture is not None]

    def settled(self, case: Case) -> Capture | None:
        """The capture if it is there, None if it may still be taken.

        Raises:
            RememberedFailureError: it failed in this run, its server did, or its owner died on the way.

        """
        capture = self.capture(case)
        if capture is not None:
            return capture
        for place, what in (
            (self.case_dir(case), case.slug),
            (self.server_dir(case), f"the server of {case.slug}"),
        ):
            failure = read_json(place / "failed.json") or self._death_of(place, case, what)
            if failure is not None:
                # The owner finished between the two looks: then the capture is there after all.
                capture = self.capture(case)
                if capture is not None:
                    return capture
                raise _remembered(what, failure)
        return None

    def begin(self, place: Path, *, test_id: str, worker: str) -> None:
        """Record an attempt before anything of it starts: a crash must not look like "nobody tried"."""
        owner = Identity.own()
        facts = {
            "pid": owner.pid, "start": owner.start, "worker": worker, "test": test_id, "run": self.run_id,
            "since_unix_s": round(self.clock.wall_ns() / 1e9, 3),
        }  # fmt: skip
        write_json(place / "attempt.json", facts)

    def end(self, place: Path) -> None:
        """The attempt is over (the capture or the failure was written before)."""
        with contextlib.suppress(FileNotFoundError):
            (place / "attempt.json").unlink()

    def fail(self, place: Path, error: BaseException, *, test_id: str) -> None:
        """Remember a failure for the rest of the run; the first one stays."""
        if (place / "failed.json").exists():
            return
        known = isinstance(error, InfraError)
        facts: dict[str, object] = {
            "error": type(error).__name__,
            "problem": error.problem
            if isinstance(error, InfraError)
            else f"{type(error).__name__}: {error}".rstrip(": "),
            "hint": error.hint if isinstance(error, InfraError) else "",
            "evidence": list(error.evidence) if isinstance(error, InfraError) else [],
            "test": test_id,
            "at_unix_s": round(self.clock.wall_ns() / 1e9, 3),
            "expected": known,
        }
        write_json(place / "failed.json", facts)

    def _death_of(self, place: Path, case: Case, what: str) -> dict[str, object] | None:
        attempt = read_json(place / "attempt.json")
        if attempt is None or Identity(_int(attempt, "pid"), _int(attempt, "start")).alive:
            return None
        if self.capture(case) is not None or not (place / "attempt.json").exists():
            return None
        worker = f"worker {attempt.get('worker')} (pid {attempt.get('pid')})"
        error = InfraError(f"{worker} died during the capture of {what}")
        self.fail(place, error, test_id=str(attempt.get("test", "")))
        return read_json(place / "failed.json")


def attempt_of(run_dir: Path, test_id: str) -> str | None:
    """What `test_id` was attempting when its process ended, or failed at before; None if nothing."""
    bases = list(launch_places(run_dir))
    for place, what in (("captures", "the capture of"), ("servers", "the launch of the server")):
        for record in ("attempt.json", "failed.json"):
            for path in [path for base in bases for path in sorted(base.glob(f"{place}/*/{record}"))]:
                if (read_json(path) or {}).get("test") == test_id:
                    return f"{what} {path.parent.name}"
    return None


def capture_at(directory: Path, case: Case, *, engine: str = "") -> Capture | None:
    """The finished capture in `directory`, None if there is no manifest.

    Raises:
        StoreError: the manifest is damaged, of another version, or names a file that is gone.

    """
    manifest = read_json(directory / MANIFEST)
    if manifest is None:
        return None
    path = directory / MANIFEST
    if manifest.get("schema") != MANIFEST_SCHEMA:
        raise StoreError(f"{path} has schema {manifest.get('schema')!r}, this version reads {MANIFEST_SCHEMA}")
    rows, expected = manifest.get("ranks"), manifest.get("expected_ranks")
    if not isinstance(rows, dict) or not isinstance(expected, list):
        raise StoreError(f"{path} is damaged: ranks or expected_ranks are missing")
    ranks: dict[str, Path] = {}
    for rank, row in rows.items():
        file = directory / str(row.get("file", "")) if isinstance(row, dict) else directory
        if not file.is_file():
            raise StoreError(f"{path} names {file.name} of {rank}, which is not there", "Take the capture again.")
        ranks[rank] = file
    seconds = manifest.get("capture_s")
    return Capture(
        case=case,
        directory=directory,
        ranks=ranks,
        expected_ranks=tuple(str(rank) for rank in expected),
        engine=engine or str(manifest.get("engine", "")),
        manifest=manifest,
        capture_s=float(seconds) if isinstance(seconds, (int, float)) else 0.0,
    )


def _remembered(what: str, failure: dict[str, object]) -> RememberedFailureError:
    evidence = failure.get("evidence")
    lines = [str(line) for line in evidence] if isinstance(evidence, list) else []
    test = failure.get("test") or "another test"
    hint = str(failure.get("hint") or "")
    return RememberedFailureError(
        f"{what} already failed in this run, first in {test}: {failure.get('error')}: {failure.get('problem')}",
        f"{hint}\nNothing was tried again." if hint else "Nothing was tried again.",
        lines,
        str(failure.get("problem") or ""),
    )


def _int(facts: dict[str, object], key: str) -> int:
    value = facts.get(key)
    return value if isinstance(value, int) else -1
