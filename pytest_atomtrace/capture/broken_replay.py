"""What a replay lacks because something went wrong: an interrupted run, a lost manifest, nothing at all.

That is not the same as a case that was never captured. Skipping it let an empty directory pass for a green run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.capture.files import numbered_children, read_json
from pytest_atomtrace.capture.keeping import DROPPED
from pytest_atomtrace.capture.record import MANIFEST
from pytest_atomtrace.capture.replay import NOTHING, latest_run, list_captures
from pytest_atomtrace.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_atomtrace.cases.case import Case

__all__ = ["refuse_broken", "useless_replay"]

_AGAIN = "Take the capture again, or name another run: --atom-replay=DIR"


def useless_replay(directory: Path) -> str:
    """Why nothing can ever be replayed from `directory`, "" if something may be; only names are looked at."""
    if not directory.exists():
        return f"{directory} does not exist"
    if not directory.is_dir():
        return f"{directory} is no directory"
    run = latest_run(directory) or directory
    # What a run that went wrong left is told by the tests that it concerns.
    if any((place / name).is_dir() for place in (directory, run) for name in ("captures", "servers")):
        return ""
    try:
        found = list_captures(directory)
    except StoreError:  # a damaged manifest: so there is a capture
        return ""
    if found or any(_is_case(place) for place in (directory, *_directories(directory))):
        return ""
    return f"{directory} {NOTHING}"


def refuse_broken(directory: Path, case: Case) -> None:
    """Refuse a replay that has something of `case`, but no whole capture.

    Raises:
        StoreError: the case failed, was interrupted or lost a manifest; or `directory` holds no capture of any case.

    """
    for place in dict.fromkeys(_case_places(directory, case)):
        _refuse_place(place, case)
    if list_captures(directory):
        return
    server = (latest_run(directory) or directory) / "servers" / case.server_key
    failure = read_json(server / "failed.json")
    if failure is not None:
        raise StoreError(
            f"--atom-replay: the launch of the server of {case.slug} failed ({server}): {_problem(failure)}",
            _AGAIN,
        )


def _refuse_place(place: Path, case: Case) -> None:
    failure = read_json(place / "failed.json")
    if failure is not None:
        raise StoreError(
            f"--atom-replay: the capture of {case.slug} failed when it was taken ({place}): {_problem(failure)}", _AGAIN
        )
    windows = numbered_children(place)
    for window in windows:
        if not (window / MANIFEST).is_file() and not (window / DROPPED).is_file():
            raise StoreError(f"--atom-replay: {window} has no {MANIFEST}: the capture of {case.slug} is broken", _AGAIN)
    if not windows:
        raise StoreError(
            f"--atom-replay: {place} has no finished capture of {case.slug}: the run was interrupted", _AGAIN
        )


def _case_places(directory: Path, case: Case) -> Iterator[Path]:
    run = latest_run(directory)
    bases = [directory, directory / "captures", *([run / "captures"] if run is not None else [])]
    own = [directory] if directory.name == case.slug else []
    # captures/<case>/<n>, named itself
    own += [directory.parent] if directory.name.isdecimal() and directory.parent.name == case.slug else []
    for place in (*own, *(base / case.slug for base in bases)):
        if place.is_dir():
            yield place


def _is_case(place: Path) -> bool:
    return (place / "failed.json").is_file() or any((child / DROPPED).is_file() for child in numbered_children(place))


def _directories(place: Path) -> list[Path]:
    return [child for child in place.iterdir() if child.is_dir()] if place.is_dir() else []


def _problem(failure: dict[str, object]) -> str:
    return str(failure.get("problem") or "no reason was recorded")
