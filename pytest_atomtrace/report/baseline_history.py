"""Every baseline that a case had, and since when: from the file's history in git, or from the file alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.process import read_output
from pytest_atomtrace.errors import ConfigError
from pytest_atomtrace.settings import environment
from pytest_atomtrace.verdicts.baseline_reading import parse_baseline

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_atomtrace.verdicts.baseline import Baseline

__all__ = ["Recording", "recordings"]

_GIT_S = 20.0
# Older ones are of no use beside the runs that are kept.
_MOST = 60


@dataclass(frozen=True)
class Recording:
    """A baseline and when it came into force (seconds since 1970); `commit` is "" for a file that is not committed."""

    since_unix_s: float
    commit: str
    baseline: Baseline


def recordings(path: Path) -> list[Recording]:
    """Baselines that `path` has held, oldest first; contents that are none are left out."""
    found: list[Recording] = []
    try:
        now = path.read_bytes()
        changed_s = path.stat().st_mtime
    except OSError:
        now = b""
        changed_s = 0.0
    last = b""
    for commit, since_s in _commits(path):
        try:
            last = _git(path, "show", f"{commit}:./{path.name}")
        except OSError:
            continue  # the commit that deleted it
        found += _parsed(last, since_s, commit)
    if now and now != last:
        found += _parsed(now, changed_s, "")
    return found


def _parsed(text: bytes, since_s: float, commit: str) -> list[Recording]:
    try:
        return [Recording(since_s, commit, parse_baseline(text, where=commit))]
    except ConfigError:
        return []


def _commits(path: Path) -> list[tuple[str, float]]:
    try:
        text = _git(path, "log", f"-{_MOST}", "--format=%H %ct", "--", path.name).decode()
    except OSError:
        return []  # no repository, or no git: the file's own time has to do
    rows = [line.split() for line in text.splitlines()]
    return [(row[0], float(row[1])) for row in reversed(rows) if len(row) == 2]


def _git(path: Path, *words: str) -> bytes:
    clean = {key: value for key, value in environment().items() if not key.startswith("GIT_")}
    # A repository of another user is only read here; a file system monitor of its choice must not run.
    argv = ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-C", str(path.parent), *words]
    return read_output(argv, env={**clean, "GIT_OPTIONAL_LOCKS": "0"}, timeout_s=_GIT_S)
