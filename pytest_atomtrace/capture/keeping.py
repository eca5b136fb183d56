"""What stays on disk: captures without their traces, runs under a budget, and never anything that is in use.

What is dropped of a capture are its trace files, which are nearly all of its size; its manifest (as ``dropped.json``),
the client's figures and the server's log stay. A run that was dropped so still has its reports and slices.
"""

from __future__ import annotations

import re
import secrets
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.engines import RUN_TOKEN
from pytest_atomtrace.capture.files import read_json, write_json
from pytest_atomtrace.capture.hosts import host_places, launch_places
from pytest_atomtrace.capture.identity import Identity, environ_holders
from pytest_atomtrace.capture.locks import HostLock, SharedHold
from pytest_atomtrace.capture.record import MANIFEST
from pytest_atomtrace.errors import InfraError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["DROPPED", "Freed", "captures_of_case", "drop_capture", "hold_run", "keep_under", "run_of", "tree_bytes"]

#: What becomes of a manifest whose trace files were not kept.
DROPPED = "dropped.json"
_LOCK = "in-use.lock"
_RUN_PID = re.compile(r"\d{8}-\d{6}-(?P<pid>\d+)-[0-9a-f]+")
_LIGHT = (DROPPED, "bench.json", "figures.json", "server.log", "reason.txt")


@dataclass(frozen=True)
class Freed:
    """What was removed: names of the runs that lost their traces, of those that are gone, and bytes."""

    stripped: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    size_bytes: int = 0


def hold_run(run: Path, *, reading: bool = False) -> SharedHold:
    """Mark a run as in use for as long as this process lives, or until the hold is released.

    Who is only `reading` leaves nothing behind in it.
    """
    return SharedHold(run / _LOCK, create=not reading)


def run_of(capture: Path) -> Path | None:
    """The run that a capture's directory belongs to; None outside ``<output>/runs``, where nothing is tidied up."""
    place = capture.resolve()
    return next((one for one in place.parents if one.parent.name == "runs"), None)


def captures_of_case(run: Path, slug: str) -> list[Path]:
    """Every window of a case in a run, of all its launches."""
    places = [place for base in launch_places(run) for place in sorted((base / "captures" / slug).glob("*"))]
    return [place for place in places if (place / MANIFEST).is_file()]


def drop_capture(directory: Path, *, why: str) -> int:
    """Remove the trace files of a capture; returns the bytes that were freed.

    The manifest goes first, so that nobody takes what is half removed for a capture.
    """
    before = tree_bytes(directory)
    manifest = directory / MANIFEST
    try:
        facts = read_json(manifest)
    except StoreError:
        facts = {}
    if facts is not None:
        write_json(directory / DROPPED, {"dropped": why, **facts})
        manifest.unlink(missing_ok=True)
    _lighten(directory)
    return before - tree_bytes(directory)


def _lighten(directory: Path) -> None:
    for child in sorted(directory.iterdir()):
        if child.name not in _LIGHT:
            remove(child)


def remove(path: Path) -> None:
    """Remove a file or a directory; it gets another name first, so that nobody takes a half of it for the whole."""
    doomed = path.with_name(f".removing-{path.name}.{secrets.token_hex(4)}")
    try:
        path.replace(doomed)
        if doomed.is_symlink() or not doomed.is_dir():
            doomed.unlink()
        else:
            shutil.rmtree(doomed, ignore_errors=True)
    except OSError:  # another user's, or gone: tidying up is no reason to fail
        return


def tree_bytes(path: Path) -> int:
    """Bytes of all files below `path`, each once however many names it has; links are not followed."""
    sizes: dict[tuple[int, int], int] = {}
    places = [path]
    while places:
        place = places.pop()
        try:
            stat = place.lstat()
            if place.is_dir() and not place.is_symlink():
                places += place.iterdir()
            else:
                sizes[stat.st_dev, stat.st_ino] = stat.st_size
        except OSError:  # gone under our hands
            continue
    return sum(sizes.values())


def keep_under(runs: Path, budget_bytes: int, *, current: str) -> Freed:
    """Bring all runs below `runs` under a budget: traces of the oldest go first, then what is left of the oldest.

    The run `current` and every run that is in use are left alone, even if the budget is then not met.
    """
    sizes = {run: tree_bytes(run) for run in sorted(_runs(runs))}
    before = total = sum(sizes.values())
    if total <= budget_bytes:
        return Freed()
    stripped: list[str] = []
    removed: list[str] = []
    locks: list[HostLock] = []
    try:
        free = []
        for run, size in list(sizes.items()):
            if total <= budget_bytes:
                break
            lock = None if run.name == current else _unused(run)
            if lock is None:
                continue
            locks.append(lock)
            free.append(run)
            left = _strip(run)
            if left < size:
                stripped.append(run.name)
            total, sizes[run] = total - size + left, left
        for run in free:
            if total <= budget_bytes:
                break
            remove(run)
            total -= sizes[run] - tree_bytes(run)
            removed.append(run.name)
    finally:
        for lock in locks:
            lock.release()
    gone = set(removed)
    return Freed(tuple(name for name in stripped if name not in gone), tuple(removed), before - total)


def _runs(runs: Path) -> Iterator[Path]:
    if runs.is_dir():
        yield from (run for run in runs.iterdir() if run.is_dir() and not run.is_symlink() and run.name[0] != ".")


def _unused(run: Path) -> HostLock | None:
    """The lock on a run that nobody uses: no process that reads or writes it, no server or keeper started for it."""
    match = _RUN_PID.fullmatch(run.name)
    # A run without a lock file is one that has just begun, or one of an older version.
    if not (run / _LOCK).exists() and match is not None and Identity.of(int(match["pid"])) is not None:
        return None
    lock = HostLock(run / _LOCK)
    try:
        if not lock.try_acquire({}):
            return None
    except InfraError:  # a place without locks, or another user's run
        return None
    if environ_holders(RUN_TOKEN, run.name):
        lock.release()
        return None
    return lock


def _strip(run: Path) -> int:
    """Drop the traces of a run, those in quarantine too; returns what it still has."""
    for base in _bases(run):
        for capture in sorted((base / "captures").glob("*/*")):
            if capture.is_dir():
                drop_capture(capture, why="--atom-keep-size: the run was one of the oldest")
        for remains in sorted((base / "quarantine").glob("*")):
            if remains.is_dir():
                _lighten(remains)
        for trace in (base / "servers").glob("*/*/trace"):
            remove(trace)
    return tree_bytes(run)


def _bases(run: Path) -> Iterable[Path]:
    parts = ("launches/*", "sides/*", "sides/*/launches/*")
    return [base for host in host_places(run) for base in (host, *(one for part in parts for one in host.glob(part)))]
