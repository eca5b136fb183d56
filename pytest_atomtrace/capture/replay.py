"""Captures that already exist: our store, or a plain trace directory."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.engines import ranks_of
from pytest_atomtrace.capture.files import numbered_children, read_json
from pytest_atomtrace.capture.hosts import host_places
from pytest_atomtrace.capture.public_case import public_fields
from pytest_atomtrace.capture.record import MANIFEST, Capture
from pytest_atomtrace.capture.store import capture_at
from pytest_atomtrace.cases.case import Case
from pytest_atomtrace.errors import ConfigError, StoreError
from pytest_atomtrace.trace.layout import find_ranks, is_rank_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "NOTHING",
    "explain_missing",
    "find_capture",
    "latest_run",
    "list_captures",
    "saved_launches",
    "saved_windows",
]

NOTHING = f"holds neither captures (captures/<case>/<n>/{MANIFEST}) nor traces (rank_0/*.pt.trace.json.gz)"
_FILE_MODEL = re.compile(r"(?P<model>[\w.\-]+)_ts_\d{8}_\d{6}_\d{3}\.pt\.trace\.json(\.gz)?")
# A snapshot path (.../snapshots/<sha>) gives the sha as the files' prefix: it names no model.
_HASH = re.compile(r"[0-9a-f]{12,}|trace")


def find_capture(directory: Path, case: Case) -> Capture | None:
    """The capture of `case` below `directory`, None if it is not there (`explain_missing` says what is).

    `directory` is an output directory (its latest run), a run, a ``captures`` directory, one case's or one
    capture's directory, or a plain trace directory as ATOM's ``run_benchmark.sh`` leaves it with PROFILE=1. The
    latter serves every case whose rank set fits and whose model the file names do not contradict; if the
    file names carry the case's model and ranks are missing, the capture is served with its expected ranks,
    so that a lost rank is found to be lost.

    Raises:
        StoreError: a manifest is damaged, or `directory` is no directory.

    """
    stored = [(slug, path) for slug, path in list_captures(directory) if (path / MANIFEST).is_file()]
    for slug, path in stored:
        if slug == case.slug:
            return capture_at(path, case, engine="replay")
    but_for_secrets = [path for _, path in stored if _is_of(path, case)]
    if len(but_for_secrets) == 1:
        return capture_at(but_for_secrets[0], case, engine="replay")
    if stored:  # a single capture's directory has rank directories too, and its manifest says whose they are
        return None
    ranks = _plain_ranks(directory)
    if not ranks or _misfit(ranks, case):
        return None
    exact = set(ranks) == set(ranks_of(case))
    expected = () if exact else ranks_of(case)
    return Capture(case, directory, ranks, expected, "replay", {}, 0.0)


def _is_of(window: Path, case: Case) -> bool:
    """Whether the capture was taken of `case` but for secrets: no capture keeps them, so neither does a spec that was
    drafted from one, and a name that counts them would part it from its own capture.
    """
    saved = (read_json(window / MANIFEST) or {}).get("case")
    try:
        fields, hidden = public_fields(Case.from_dict(saved)) if isinstance(saved, dict) else ({}, ())
    except (ConfigError, TypeError):  # of another version
        return False
    return bool(hidden) and fields == public_fields(case)[0]


def saved_windows(capture: Capture, *, launch: int = 1) -> list[Capture]:
    """Every window of a saved launch of the capture's case, in order; of a plain trace directory there is one.

    Raises:
        StoreError: a manifest is damaged.

    """
    if not capture.manifest:
        return [capture] if launch == 1 else []
    place = _launch_place(capture.directory.parent, launch)
    found = [capture_at(window, capture.case, engine="replay") for window in _windows(place)]
    return [one for one in found if one is not None]


def saved_launches(capture: Capture) -> int:
    """How many launches of the capture's case are saved, counted from 1 without a gap."""
    number = 1
    while capture.manifest and _windows(_launch_place(capture.directory.parent, number + 1)):
        number += 1
    return number


def _launch_place(case_dir: Path, launch: int) -> Path:
    # <run>/captures/<slug> and <run>/launches/<k>/captures/<slug>
    run = case_dir.parent.parent
    return case_dir if launch == 1 else run / "launches" / str(launch) / "captures" / case_dir.name


def list_captures(directory: Path) -> list[tuple[str, Path]]:
    """What `directory` holds: (slug, path of the last window) of the store's captures in order of their slugs.

    A plain trace directory gives one row; its slug is the model that the file names carry, "" if they carry none.

    Raises:
        StoreError: `directory` is no directory.

    """
    if not directory.is_dir():
        raise StoreError(f"{directory} is no directory", "Name a directory with captures: --atom-replay=DIR")
    found = sorted(_store_captures(directory))
    if found:
        return found
    ranks = _plain_ranks(directory)
    return [(_model_of(ranks), directory)] if ranks else []


def explain_missing(directory: Path, case: Case) -> str:
    """Why `find_capture` gave None: one sentence that names the path and what is there."""
    captures = list_captures(directory)
    if any((path / MANIFEST).is_file() for _, path in captures):
        slugs = [slug for slug, _ in captures]
        shown = ", ".join(slugs[:5]) + (f" and {len(slugs) - 5} more" if len(slugs) > 5 else "")
        return f"{directory} has no capture of {case.slug}; it has {shown}"
    ranks = _plain_ranks(directory)
    if ranks:
        return f"{directory} holds traces that are not of {case.slug}: {_misfit(ranks, case)}"
    return f"{directory} {NOTHING}"


def _store_captures(directory: Path) -> Iterator[tuple[str, Path]]:
    if (directory / MANIFEST).is_file():
        # <slug>/<n>: the name of a capture's directory is a number, its slug stands in the path or the manifest.
        yield _slug_of(directory), directory
        return
    numbered = _windows(directory)
    if numbered:
        yield _slug_of(numbered[-1]), numbered[-1]
        return
    # Of what several hosts captured the first one's serves; the others' can be named by their directories.
    shared = [case for host in host_places(directory) for case in _children(host / "captures") if _windows(case)]
    for cases in (shared, [child for child in _children(directory) if _windows(child)]):
        if cases:
            for child in {case.name: case for case in reversed(cases)}.values():
                last = _windows(child)[-1]
                yield _slug_of(last), last
            return
    run = latest_run(directory)
    if run is not None:
        yield from _store_captures(run)


def latest_run(directory: Path) -> Path | None:
    """The run that an output directory stands for, None if it is none or no run has captures."""
    latest = directory / "latest"
    if latest.is_dir() and _has_captures(latest):
        return latest
    runs = [run for run in _children(directory / "runs") if _has_captures(run)]
    return max(runs, key=lambda run: run.stat().st_mtime_ns, default=None)


def _has_captures(run: Path) -> bool:
    return any((host / "captures").is_dir() for host in host_places(run))


def _windows(directory: Path) -> list[Path]:
    return [child for child in numbered_children(directory) if (child / MANIFEST).is_file()]


def _children(directory: Path) -> list[Path]:
    return sorted(child for child in directory.iterdir() if child.is_dir()) if directory.is_dir() else []


def _slug_of(directory: Path) -> str:
    manifest = read_json(directory / MANIFEST) or {}
    return str(manifest.get("slug") or directory.parent.name)


def _plain_ranks(directory: Path) -> dict[str, Path]:
    found = find_ranks(directory)
    # Loose files count only where the directory itself is a rank's: a replay names whole captures.
    return {rank: files.trace for rank, files in found.items() if files.trace is not None and (is_rank_name(rank))}


def _model_of(ranks: dict[str, Path]) -> str:
    for path in ranks.values():
        match = _FILE_MODEL.fullmatch(path.name)
        if match and not _HASH.fullmatch(match["model"]):
            return match["model"]
    return ""


def _misfit(ranks: dict[str, Path], case: Case) -> str:
    """Why these ranks are not the case's, "" if they can be."""
    model = _model_of(ranks)
    if model and model != case.short_model:
        return f"the files are of the model {model}"
    wanted, have = ranks_of(case), tuple(ranks)
    if set(have) == set(wanted) or (model and set(have) < set(wanted)):
        return ""
    return f"its ranks are {_listed(have)}, the case has {_listed(wanted)}"


def _listed(ranks: tuple[str, ...]) -> str:
    return ", ".join(ranks) if len(ranks) <= 3 else f"{ranks[0]}..{ranks[-1]} ({len(ranks)})"
