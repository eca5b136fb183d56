"""Following one server's log while it grows."""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.logfaults import EVENTS, Fault, fault_in

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_atomtrace.capture.redact import Redactor

__all__ = ["LogEvent", "LogFault", "ServerLog"]

_TAIL_LINES = 15
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class LogEvent:
    """A counted line: `kind` is a key of `logfaults.EVENTS`, `offset` its first byte in the log.

    `facts` holds the named parts of the pattern that the line has.
    """

    kind: str
    offset: int
    line: str
    path: str
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LogFault:
    """A line after which the server is lost."""

    fault: Fault
    offset: int
    line: str


class ServerLog:
    """What was read so far: the tail, the events and the faults; `poll` reads on.

    Progress bars end their lines with a carriage return, so that ends a line here too.
    """

    def __init__(self, path: Path, redactor: Redactor) -> None:
        self.path = path
        self.size = 0
        self._redactor = redactor
        self._partial = b""
        self._tail: deque[str] = deque(maxlen=400)
        self._events: list[LogEvent] = []
        self._faults: list[LogFault] = []

    def poll(self, *, last: bool = False) -> int:
        """Read what was appended; returns how many bytes. `last` also takes an unfinished last line."""
        grown = 0
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.size)
                while data := stream.read(_READ_BYTES):
                    grown += len(data)
                    self._feed(data)
        except FileNotFoundError:
            return 0
        if last and self._partial:
            self._feed(b"\n")
            self.size -= 1
        return grown

    def follow(self, path: Path, *, from_end: bool = False) -> None:
        """Read another file from now on, from its beginning or only what will be appended."""
        self.path, self.size, self._partial = path, 0, b""
        if from_end:
            with contextlib.suppress(OSError):
                self.size = path.stat().st_size

    def _feed(self, data: bytes) -> None:
        start = self.size - len(self._partial)
        self.size += len(data)
        lines = (self._partial + data).replace(b"\r", b"\n").split(b"\n")
        self._partial = lines.pop()
        for raw in lines:
            self._take(raw.decode("utf-8", "replace"), start)
            start += len(raw) + 1

    def _take(self, line: str, offset: int) -> None:
        if not line.strip():
            return
        self._tail.append(line)
        fault = fault_in(line)
        if fault is not None:
            self._faults.append(LogFault(fault, offset, line))
        for kind, pattern in EVENTS.items():
            match = pattern.search(line)
            if match:
                facts = {name: value for name, value in match.groupdict().items() if value is not None}
                self._events.append(LogEvent(kind, offset, line, facts.get("path", ""), facts))

    def events(self, kind: str, *, since: int = 0) -> list[LogEvent]:
        """Events of one kind whose line begins at byte `since` or later."""
        return [event for event in self._events if event.kind == kind and event.offset >= since]

    def faults(self, *, since: int = 0) -> list[LogFault]:
        """Fault lines that begin at byte `since` or later."""
        return [fault for fault in self._faults if fault.offset >= since]

    def tail(self, lines: int = _TAIL_LINES) -> list[str]:
        """The last lines, redacted, each cut to a width that people read."""
        return [self._redactor.text(line)[:300] for line in list(self._tail)[-lines:]]
