"""Who a process is: its pid and its start time, read from /proc.

A pid alone proves nothing: after a minute of builds it may be somebody else's. Every signal and every "is the
owner still there" goes through an `Identity`.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Identity", "ProcessRow", "descendants", "environ_holders", "environment_of", "process_table"]

_PROC = Path("/proc")
_GONE = "ZX"


@dataclass(frozen=True)
class ProcessRow:
    """One line of the process table; `start` counts clock ticks since boot."""

    pid: int
    ppid: int
    session: int
    start: int
    state: str

    @property
    def alive(self) -> bool:
        """False for zombies: they hold no GPU memory and wait only to be reaped."""
        return self.state not in _GONE


@dataclass(frozen=True)
class Identity:
    """A process, told apart from a later one with the same pid."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The live process with this pid, None if there is none (or a zombie)."""
        row = _row(pid)
        return cls(pid, row.start) if row is not None and row.alive else None

    @classmethod
    def own(cls) -> Identity:
        """This process."""
        identity = cls.of(os.getpid())
        if identity is None:
            raise OSError("/proc is not mounted: processes cannot be told apart")
        return identity

    @property
    def alive(self) -> bool:
        """True while this very process runs."""
        row = _row(self.pid)
        return row is not None and row.alive and row.start == self.start

    @property
    def text(self) -> str:
        """``pid:start``, as commands and file names carry it."""
        return f"{self.pid}:{self.start}"

    @classmethod
    def parse(cls, text: str) -> Identity:
        """Inverse of `text`."""
        pid, _, start = text.partition(":")
        return cls(int(pid), int(start))


def _row(pid: int) -> ProcessRow | None:
    try:
        text = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:  # gone between listing and reading
        return None
    # The name is in parentheses and may itself hold blanks and parentheses.
    fields = text[text.rindex(b")") + 2 :].split()
    return ProcessRow(pid, int(fields[1]), int(fields[3]), int(fields[19]), fields[0].decode())


def process_table() -> dict[int, ProcessRow]:
    """All processes that /proc shows."""
    rows: dict[int, ProcessRow] = {}
    for name in os.listdir(_PROC):  # noqa: PTH208  # Path objects for 1,000 processes cost 10 times as much
        if name.isdecimal():
            row = _row(int(name))
            if row is not None:
                rows[row.pid] = row
    return rows


def descendants(root: int, table: dict[int, ProcessRow]) -> list[ProcessRow]:
    """Every process below `root` (without it), parents first."""
    children: dict[int, list[ProcessRow]] = {}
    for row in table.values():
        children.setdefault(row.ppid, []).append(row)
    found: list[ProcessRow] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += [row.pid for row in below]
    return found


def environment_of(pid: int) -> dict[str, str]:
    """A process's initial environment; empty where it is not ours to see."""
    try:
        rows = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    pairs = (row.decode("utf-8", "surrogateescape").partition("=") for row in rows if b"=" in row)
    return {name: value for name, _, value in pairs}


def environ_holders(name: str, value: str) -> list[int]:
    """Pids (not ours) whose initial environment holds ``name=value``; other users' processes are not shown."""
    wanted = f"{name}={value}".encode()
    pids = []
    for pid, row in process_table().items():
        if not row.alive or pid == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if wanted in (_PROC / str(pid) / "environ").read_bytes().split(b"\0"):
                pids.append(pid)
    return pids
