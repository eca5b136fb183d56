"""From what `atomtrace open` was given to the trace file of one rank."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import ConfigError, TraceFileError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Place", "find_place", "noted_steps", "of_slice", "rank_files", "slices_place"]

_LISTED = 8


@dataclass(frozen=True)
class Place:
    """A file or directory with traces; `sliced` if only slices are left of the capture."""

    path: Path
    sliced: bool = False


def find_place(target: str, output: Path) -> Place:
    """The file or trace directory that `target` means: a path, or (a part of) the name of a case of the latest run.

    Of a capture whose trace files were not kept the slices are taken.

    Raises:
        ConfigError: it means nothing, or several things.
        TraceFileError: there is no trace at the path.

    """
    from pytest_atomtrace.cli.reading import locate

    path = Path(target)
    slices = slices_place(path)
    if path.exists():
        try:
            return Place(locate(path))
        except TraceFileError:
            if slices is None:
                raise
    if slices is not None:
        return Place(slices, sliced=True)
    latest = output / "latest"
    if not latest.is_dir():
        problem = f"{target!r} is no file or directory, and there is no run in {output} to look for a case in"
        raise ConfigError(problem, "TARGET")
    places = _cases(latest)
    return places[_named(target, list(places), latest)]


def _named(target: str, slugs: list[str], latest: Path) -> str:
    if target in slugs:
        return target
    parts = [slug for slug in slugs if target.lower() in slug.lower()]
    if len(parts) == 1:
        return parts[0]
    if parts:
        more = f" and {len(parts) - _LISTED} more" if len(parts) > _LISTED else ""
        raise ConfigError(f"{target!r} is a part of {', '.join(parts[:_LISTED])}{more}; name one", "TARGET")
    close = difflib.get_close_matches(target, slugs, n=1, cutoff=0.4)
    mean = f" Did you mean {close[0]}?" if close else ""
    there = f"it has {', '.join(slugs[:_LISTED])}" if slugs else "it has no captures"
    raise ConfigError(f"{target!r} is neither a path nor a case of {latest} ({there}).{mean}", "TARGET")


def _cases(run: Path) -> dict[str, Place]:
    """The last window of every case of a run, slices where only those are left."""
    from pytest_atomtrace.capture.hosts import host_places
    from pytest_atomtrace.capture.replay import list_captures

    found: dict[str, Place] = {}
    for case in [case for host in host_places(run) for case in sorted((host / "slices").glob("*"))][::-1]:
        windows = sorted((child for child in case.iterdir() if child.is_dir()), key=lambda child: child.name)
        if windows:
            found[case.name] = Place(windows[-1], sliced=True)
    found |= {slug: Place(path) for slug, path in list_captures(run)}
    return found


def slices_place(capture: Path) -> Path | None:
    """Where the slices of ``<run>/captures/<case>/<n>`` are, None if there are none."""
    parts = capture.parts
    if "captures" not in parts[:-1]:
        return None
    at = len(parts) - 1 - parts[::-1].index("captures")
    place = Path(*parts[:at], "slices", *parts[at + 1 :])
    if not place.is_dir():
        return None
    from pytest_atomtrace.capture.files import numbered_children

    # A case's directory means its last window.
    numbered = numbered_children(place)
    return numbered[-1] if numbered else place


def rank_files(place: Place) -> dict[str, tuple[Path, ...]]:
    """The trace files by rank, in rank order: one of each, several only where they are slices.

    Raises:
        TraceFileError: there is none.

    """
    from pytest_atomtrace.trace.layout import find_ranks

    found = find_ranks(place.path)
    files = {
        name: found_files.traces if place.sliced else (found_files.trace,)
        for name, found_files in found.items()
        if found_files.trace is not None
    }
    if not files:
        raise TraceFileError(str(place.path), "holds no trace (*.pt.trace.json.gz in rank directories)")
    return files


def of_slice(meta: Mapping[str, object]) -> Mapping[str, object] | None:
    """The note of a slice in what stands in a trace beside its events, None if it is none."""
    from pytest_atomtrace.trace.slice import NOTE_KEY

    note = meta.get(NOTE_KEY)
    return note if isinstance(note, dict) else None


def noted_steps(note: Mapping[str, object]) -> list[int]:
    """Numbers that the steps of a slice have in the trace that it was cut from, in order."""
    rows = note.get("steps")
    numbers = [row.get("step") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return [number for number in numbers if isinstance(number, int)]
