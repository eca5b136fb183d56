"""Who is next for the lease: first come, first served.

A ticket is a file named ``<wall ns>-<pid>-<start time>`` on which its waiter holds a flock: it counts while the lock
is held, whichever user or pid namespace the waiter is of. Tickets only order the waiters; exclusion is the lease's
own locks. A waiter stands behind every earlier one that wants a GPU it wants too, even while that GPU is free: who
wants eight GPUs would else starve behind a stream of those who want one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.clock import SYSTEM_CLOCK, Clock
from pytest_atomtrace.capture.files import write_bytes
from pytest_atomtrace.capture.locks import is_locked, read_holder, shared_directory
from pytest_atomtrace.errors import LeaseError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pytest_atomtrace.capture.identity import Identity

__all__ = ["Ticket", "TicketQueue", "waiting_in"]

_NAME = re.compile(r"(?P<wall>\d+)-(?P<pid>\d+)-(?P<start>\d+)")
_WANTED = "wants"
# A ticket that is being written, under its first name or under that of the atomic write.
_UNFINISHED = re.compile(r"\.{1,2}\d+-\d+-\d+\.new")
_UNFINISHED_S = 600.0


@dataclass(frozen=True, order=True)
class Ticket:
    """A place in the queue; the order of tickets is the order of service. `wants` are the names of the locks."""

    wall_ns: int
    pid: int
    start: int
    path: Path = field(compare=False)
    wants: frozenset[str] = field(compare=False, default=frozenset())
    descriptor: int = field(compare=False, repr=False, default=-1)

    def drop(self) -> None:
        """Leave the queue."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        if self.descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self.descriptor)


class TicketQueue:
    """The tickets of one lock directory."""

    def __init__(self, directory: Path, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._directory = shared_directory(directory)
        self._clock = clock

    def take(self, owner: Identity, facts: Mapping[str, object], *, wants: Iterable[str] = ()) -> Ticket:
        """Join the queue at its end for the locks named by `wants`; the caller's process must live while it waits.

        Raises:
            LeaseError: the place cannot be written, or its disk is full.

        """
        # A clock that was set back must not put us before those who wait: whoever releases would be served again
        # and again until the clock has caught up.
        last_ns = max((ticket.wall_ns for ticket in self.waiting()), default=0)
        now_ns = self._clock.wall_ns()
        self._tidy_unfinished(now_ns)
        wall_ns = max(now_ns, last_ns + 1)
        path = self._directory / f"{wall_ns}-{owner.pid}-{owner.start}"
        names = sorted(wants)
        # Under another name until it is locked, else somebody might take it for a dead one's.
        hidden = path.with_name(f".{path.name}.new")
        try:
            write_bytes(hidden, json.dumps({**facts, _WANTED: names}).encode())
        except StoreError as error:
            hint = "The lock directory needs a few kB of local disk: --atom-lock-dir=DIR"
            raise LeaseError(f"no place in the queue for the GPUs: {error.problem}", hint) from error
        descriptor = os.open(hidden, os.O_RDONLY | os.O_CLOEXEC)
        os.fchmod(descriptor, 0o644)  # other users must be able to see that it is locked
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        hidden.replace(path)
        return Ticket(wall_ns, owner.pid, owner.start, path, frozenset(names), descriptor)

    def waiting(self) -> list[Ticket]:
        """Tickets of live processes in order; those of dead ones are removed."""
        return waiting_in(self._directory, tidy=True)

    def _tidy_unfinished(self, now_ns: int) -> None:
        """Remove what processes left that were killed while they wrote a ticket, which takes a millisecond."""
        limit_s = now_ns / 1e9 - _UNFINISHED_S
        with contextlib.suppress(OSError):
            for path in self._directory.glob(".*"):
                if _UNFINISHED.match(path.name) and path.stat().st_mtime < limit_s:
                    path.unlink()

    def ahead_of(self, ticket: Ticket) -> list[Ticket]:
        """Who is served before `ticket`: earlier ones that want a lock it wants (or do not say which)."""
        return [
            other
            for other in self.waiting()
            if other < ticket and (not other.wants or not ticket.wants or other.wants & ticket.wants)
        ]


def waiting_in(directory: Path, *, tidy: bool = False) -> list[Ticket]:
    """Tickets of live processes in `directory`, in order; looks only, unless `tidy` removes those of dead ones."""
    tickets = []
    try:
        paths = list(directory.iterdir())
    except FileNotFoundError:
        return []
    for path in paths:
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        wanted = read_holder(path).get(_WANTED)
        wants = frozenset(str(name) for name in wanted) if isinstance(wanted, list) else frozenset[str]()
        ticket = Ticket(int(match["wall"]), int(match["pid"]), int(match["start"]), path, wants)
        if is_locked(path):
            tickets.append(ticket)
        elif tidy:  # another user's dead ticket cannot be removed in a sticky directory, only ignored
            ticket.drop()
    return sorted(tickets)
