"""From a path on the command line to a trace: a file, a trace directory, a capture, a run, an output directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.errors import ConfigError, TraceFileError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_atomtrace.cli.screen import Screen
    from pytest_atomtrace.verdicts.trace import Trace

__all__ = ["captures_at", "locate", "open_trace", "rank_file", "saved_ranks"]


def open_trace(path: Path, screen: Screen, *, rank: str | None = None, expected: Sequence[str] | None = None) -> Trace:
    """Load the trace at `path`; a capture's manifest says which ranks it must have, unless `expected` does.

    Raises:
        ConfigError: `path` holds several captures, or there is no such rank.
        TraceFileError: nothing at `path` can be read.

    """
    from pytest_atomtrace.trace.layout import find_ranks
    from pytest_atomtrace.trace.load import load
    from pytest_atomtrace.verdicts.trace import Trace

    place = locate(path)
    files = {name: found.trace for name, found in find_ranks(place).items() if found.trace is not None}
    if rank is not None and rank not in files:
        raise ConfigError(f"no rank {rank!r} in {place}; there are: {', '.join(files) or 'none'}", "--rank")
    wanted = [files[rank]] if rank is not None else list(files.values())
    size = sum(file.stat().st_size for file in wanted) / 1e6
    manifest = _manifest(place)
    if expected is None and rank is None:
        expected = _expected(manifest)
    what = f"reading {len(wanted)} rank{'s' * (len(wanted) != 1)} ({size:,.0f} MB)"
    with screen.watching(what):
        data = load(place, ranks=[rank] if rank is not None else None, expected=expected)
    return Trace(data, directory=place, manifest=manifest)


def locate(path: Path) -> Path:
    """The trace file or directory that `path` stands for.

    Raises:
        ConfigError: it holds several captures.
        TraceFileError: it holds none, or is not there.

    """
    captures = captures_at(path)
    if len(captures) == 1:
        return captures[0][1]
    if captures:
        # All of them would fill the screen with one sentence.
        listing = f"atomtrace summary {path} lists them"
        raise ConfigError(f"{path} holds {len(captures)} captures; name one, such as {captures[0][1]} ({listing})")
    problem = "holds no trace; expected rank_0/*.pt.trace.json.gz, one trace file, or captures of a run"
    raise TraceFileError(str(path), problem)


def captures_at(path: Path) -> list[tuple[str, Path]]:
    """(slug, place) of what `path` stands for: itself, or the captures of a case, a run, an output directory.

    Raises:
        TraceFileError: `path` is not there.

    """
    from pytest_atomtrace.trace.layout import find_ranks

    if not path.exists():
        raise TraceFileError(str(path), "there is no such file or directory")
    if path.is_file() or find_ranks(path):
        return [("", path)]
    from pytest_atomtrace.capture.replay import list_captures

    return list_captures(path)


def rank_file(path: Path, rank: str | None) -> tuple[Path, str, tuple[Path, ...]]:
    """One rank's trace file at `path` (the first one unless `rank` names it), its name and its capture traces.

    Raises:
        ConfigError: there is no such rank, or several captures.
        TraceFileError: there is no trace.

    """
    from pytest_atomtrace.trace.layout import find_ranks

    place = locate(path)
    found = find_ranks(place)
    files = {name: files for name, files in found.items() if files.trace is not None}
    if rank is not None and place.is_dir() and rank not in files:
        raise ConfigError(f"no rank {rank!r} in {place}; there are: {', '.join(files) or 'none'}", "--rank")
    name = rank if rank is not None and rank in files else next(iter(files), "")
    trace = files[name].trace if name else None
    if trace is None:
        raise TraceFileError(str(place), "holds no trace (*.pt.trace.json.gz in rank directories)")
    # Of a single file the captures lie beside it.
    beside = find_ranks(trace.parent) if place.is_file() else found
    captures = [path for files in beside.values() if trace in files.traces for path in files.capture_traces]
    return trace, name, tuple(captures)


def saved_ranks(place: Path) -> tuple[str, ...] | None:
    """The exact rank set that the manifest of a capture names, None where there is none."""
    names = _expected(_manifest(place))
    return tuple(names) if names is not None else None


def _manifest(place: Path) -> Mapping[str, object]:
    if not (place / "manifest.json").is_file():
        return {}
    from pytest_atomtrace.capture.files import read_json

    return read_json(place / "manifest.json") or {}


def _expected(manifest: Mapping[str, object]) -> list[str] | None:
    names = manifest.get("expected_ranks")
    return [str(name) for name in names] if isinstance(names, list) and names else None
