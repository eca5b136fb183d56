"""What was kept: the runs and captures below a path, whole or not, without opening a trace."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.files import numbered_children, read_json
from pytest_atomtrace.capture.keeping import DROPPED
from pytest_atomtrace.capture.record import MANIFEST, MANIFEST_SCHEMA
from pytest_atomtrace.errors import StoreError, TraceFileError
from pytest_atomtrace.trace.layout import find_ranks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["REPORT", "SavedCapture", "SavedRun", "find_runs"]

REPORT = "report.json"
# A run with captures of another launch or side only (a comparison) has no `captures` of its own.
_PARTS = ("captures", "launches", "sides", "hosts")


@dataclass(frozen=True)
class SavedCapture:
    """One window on disk; `side` is "" outside comparisons, `launch` and `window` count from 1.

    A plain trace directory has an empty `manifest`; its `slug` is the directory's name. Of a `dropped` capture the
    trace files were not kept, all else is there.
    """

    directory: Path
    slug: str
    manifest: Mapping[str, object]
    side: str = ""
    launch: int = 1
    window: int = 1
    dropped: bool = False


@dataclass(frozen=True)
class SavedRun:
    """A run, or the part of it that was named; `key` is a name for files, different for different parts.

    `directory` is the run's own, None where only traces are there. `problems` are sentences about what should be a
    capture and is none that can be read.
    """

    name: str
    key: str
    directory: Path | None
    captures: tuple[SavedCapture, ...]
    problems: tuple[str, ...] = ()

    @property
    def report(self) -> Path | None:
        """The run's own report file, None where there is none."""
        path = self.directory / REPORT if self.directory is not None else None
        return path if path is not None and path.is_file() else None


def find_runs(path: Path) -> list[SavedRun]:
    """Runs in order of their names.

    `path` is an output directory, a folder of runs, a run, one case's or one capture's directory, a plain trace
    directory or a trace file.

    Raises:
        TraceFileError: there is nothing of the sort.

    """
    if not path.exists():
        raise TraceFileError(str(path), "there is no such file or directory")
    for folder in (path / "runs", path):
        runs = [child for child in _children(folder) if _is_run(child)] if folder.is_dir() else []
        if runs:
            return [_run(child) for child in runs]
    if path.is_dir() and _is_run(path):
        return [_run(path)]
    base = path.resolve()
    if (base / MANIFEST).is_file() or (base / DROPPED).is_file():
        return [_part(base.parent.parent, [base])]
    if base.name == "captures" and base.is_dir():
        return [_run(base.parent)]
    windows = numbered_children(base)
    if windows:
        return [_part(base.parent, windows)]
    ranks = find_ranks(path)
    if any(files.trace is not None for files in ranks.values()):
        key = f"{base.name.split('.')[0]}-{sha256(str(base).encode()).hexdigest()[:6]}"
        return [SavedRun(key, key, None, (SavedCapture(path, base.name, {}),))]
    raise TraceFileError(str(path), "holds neither runs, captures (captures/<case>/<n>) nor traces (rank_0/*.json.gz)")


def _is_run(directory: Path) -> bool:
    return (directory / REPORT).is_file() or any((directory / part).is_dir() for part in _PARTS)


def _children(directory: Path) -> list[Path]:
    # Links such as `latest` name a run a second time.
    return sorted(one for one in directory.iterdir() if one.is_dir() and not one.is_symlink())


def _run(directory: Path) -> SavedRun:
    directory = directory.resolve()
    places = [
        one
        for captures in _capture_folders(directory, 4)
        for case in _children(captures)
        for one in numbered_children(case)
    ]
    captures, problems = _read(places, directory)
    return SavedRun(directory.name, directory.name, directory, captures, problems)


def _part(captures: Path, windows: list[Path]) -> SavedRun:
    run = captures.parent
    while run.parent.name in _PARTS[1:]:
        run = run.parent.parent
    slug = windows[0].parent.name
    known = captures.name == "captures"
    found, problems = _read(windows, run if known else None)
    number = f"-{windows[0].name}" if len(windows) == 1 else ""
    name = str(next((one.manifest.get("run") for one in found if one.manifest.get("run")), run.name if known else slug))
    where = sha256(str(windows[0].parent).encode()).hexdigest()[:6]
    return SavedRun(name, f"{name}.{where}{number}", run if known and _is_run(run) else None, found, problems)


def _capture_folders(directory: Path, depth: int) -> Iterator[Path]:
    """``captures`` of the run itself, of its further launches and hosts and of the sides of a comparison."""
    if (directory / "captures").is_dir():
        yield directory / "captures"
    for part in _PARTS[1:]:
        if depth and (directory / part).is_dir():
            for child in sorted(_children(directory / part), key=lambda one: (len(one.name), one.name)):
                yield from _capture_folders(child, depth - 1)


def _read(places: list[Path], run: Path | None) -> tuple[tuple[SavedCapture, ...], tuple[str, ...]]:
    captures: list[SavedCapture] = []
    problems: list[str] = []
    for place in places:
        try:
            captures.append(_capture(place, run))
        except StoreError as error:
            problems.append(" ".join(str(error).split("\n")))
    return tuple(captures), tuple(problems)


def _capture(place: Path, run: Path | None) -> SavedCapture:
    manifest = read_json(place / MANIFEST)
    dropped = manifest is None
    if manifest is None:
        manifest = read_json(place / DROPPED)
    if manifest is None:
        raise StoreError(f"{place} has no {MANIFEST}: its capture is not finished, or never was")
    if manifest.get("schema") != MANIFEST_SCHEMA:
        raise StoreError(
            f"{place / MANIFEST} has schema {manifest.get('schema')!r}, this version reads {MANIFEST_SCHEMA}"
        )
    parts = place.relative_to(run).parts if run is not None and place.is_relative_to(run) else ()
    # hosts/<name>/, sides/<name>/ and launches/<k>/ come before captures/<slug>/<n>.
    above = dict(zip(parts[:-3:2], parts[1:-3:2], strict=False))
    launch = above.get("launches", "1")
    return SavedCapture(
        directory=place,
        slug=str(manifest.get("slug") or place.parent.name),
        manifest=manifest,
        side=above.get("sides", ""),
        launch=int(launch) if launch.isdecimal() else 1,
        window=int(place.name) if place.name.isdecimal() else 1,
        dropped=dropped,
    )
