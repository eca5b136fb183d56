"""Who is next for the lease: first come, first served.

A ticket is a file named ``<wall ns>-<pid>-<start time>``; it counts while that process lives. Tickets only
order the waiters; exclusion is the flock's. (Across pid namespaces a waiter may look dead: it then loses its
turn, never the exclusion.)
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.clock import SYSTEM_CLOCK, Clock
from pytest_atomtrace.capture.files import write_bytes
from pytest_atomtrace.capture.identity import Identity
from pytest_atomtrace.capture.locks import shared_directory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Ticket", "TicketQueue"]

_NAME = re.compile(r"(?P<wall>\d+)-(?P<pid>\d+)-(?P<start>\d+)")


@dataclass(frozen=True, order=True)
class Ticket:
    """A place in the queue; the order of tickets is the order of service."""

    wall_ns: int
    pid: int
    start: int
    path: Path

    def drop(self) -> None:
        """Leave the queue."""
        with contextlib.suppress(OSError):
            self.path.unlink()


class TicketQueue:
    """The tickets of one lock."""

    def __init__(self, directory: Path, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._directory = shared_directory(directory)
        self._clock = clock

    def take(self, owner: Identity, facts: Mapping[str, object]) -> Ticket:
        """Join the queue at its end."""
        wall_ns = self._clock.wall_ns()
        path = self._directory / f"{wall_ns}-{owner.pid}-{owner.start}"
        write_bytes(path, json.dumps(dict(facts)).encode())
        return Ticket(wall_ns, owner.pid, owner.start, path)

    def waiting(self) -> list[Ticket]:
        """Tickets of live processes in order; those of dead ones are removed."""
        tickets = []
        for path in self._directory.iterdir():
            match = _NAME.fullmatch(path.name)
            if match is None:
                continue
            ticket = Ticket(int(match["wall"]), int(match["pid"]), int(match["start"]), path)
            if Identity(ticket.pid, ticket.start).alive:
                tickets.append(ticket)
            else:  # another user's dead ticket cannot be removed in a sticky directory, only ignored
                ticket.drop()
        return sorted(tickets)

    def ahead_of(self, ticket: Ticket) -> list[Ticket]:
        """Who is served before `ticket`."""
        return [other for other in self.waiting() if other < ticket]
