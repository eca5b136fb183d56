"""Stopping what we started, all of it, and nothing else: SIGINT, then SIGTERM, then SIGKILL.

The caller is the subreaper of the whole tree, so every process the server ever started, double-forked and
setsid'ed ones included, is among the caller's descendants; renamed titles do not matter. A signal goes through
a pidfd that was opened before the identity was checked, so a recycled pid is never hit.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.identity import Identity, ProcessRow, descendants, process_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_atomtrace.capture.clock import Clock

__all__ = ["Ladder"]

_POLL_S = 0.05
_LOOKS = 3
# ATOM's manager gives its engines 5 s, then terminates and kills them itself.
_TERM_S = 10.0
_KILL_S = 10.0
# With nobody left to wait for us the next run does: seconds in all.
_HURRY_INT_S = 2.0
_HURRY_TERM_S = 1.5
# After an orderly exit of the server its helpers (resource trackers) leave by themselves, late by little.
_STRAGGLER_S = 1.0


@dataclass(frozen=True)
class Ladder:
    """One descent: `hurried` may turn true half-way (the owner died), `reap` collects exit states."""

    root: Identity
    clock: Clock
    hurried: Callable[[], bool]
    reap: Callable[[], None]

    def members(self) -> list[ProcessRow]:
        """Live processes of the server's tree: our descendants, and whoever is in the server's session.

        /proc is listed process by process: a parent that ends while it is read, its child forked a moment before, is
        missed and so is the child. A start script's server was, on a busy machine: nothing is left when it is so
        several times.
        """
        for _ in range(_LOOKS):
            found = self._seen()
            if found:
                return found
        return []

    def _seen(self) -> list[ProcessRow]:
        table = process_table()
        found = {row.pid: row for row in descendants(os.getpid(), table)}
        for row in table.values():
            if row.session == self.root.pid and row.start >= self.root.start:
                found[row.pid] = row
        return [row for row in found.values() if row.alive]

    def stop(self, patience_s: float) -> list[int]:
        """Stop everything; `patience_s` is how long SIGINT may take. Returns pids that outlived SIGKILL."""
        if self.root.alive:
            # The children ignore SIGINT: the API process shuts them down in order.
            _signal([self.root], signal.SIGINT)
            self._wait(lambda: not self.root.alive, patience_s, _HURRY_INT_S)
        if not self.root.alive and self._wait(self._none_left, _STRAGGLER_S, _STRAGGLER_S):
            return []
        self._signal_all(signal.SIGTERM)
        if self._wait(self._none_left, min(_TERM_S, patience_s), _HURRY_TERM_S):
            return []
        deadline = self.clock.monotonic_s() + _KILL_S
        while self.clock.monotonic_s() < deadline:
            self._signal_all(signal.SIGKILL)  # again and again: a dying parent may just have forked
            self.reap()
            if self._none_left():
                return []
            self.clock.sleep_s(_POLL_S)
        return [row.pid for row in self.members()]

    def _none_left(self) -> bool:
        return not self.members()

    def _signal_all(self, number: signal.Signals) -> None:
        _signal([Identity(row.pid, row.start) for row in self.members()], number)

    def _wait(self, done: Callable[[], bool], patient_s: float, hurried_s: float) -> bool:
        start = self.clock.monotonic_s()
        while True:
            self.reap()
            if done():
                return True
            allowed = min(patient_s, hurried_s) if self.hurried() else patient_s
            if self.clock.monotonic_s() - start >= allowed:
                return False
            self.clock.sleep_s(_POLL_S)


def _signal(targets: list[Identity], number: signal.Signals) -> None:
    for target in targets:
        with contextlib.suppress(ProcessLookupError):
            try:
                descriptor = os.pidfd_open(target.pid)
            except OSError as error:
                if isinstance(error, ProcessLookupError):
                    continue
                if target.alive:  # kernels before 5.3, or a sandbox that refuses pidfd
                    os.kill(target.pid, number)
                continue
            try:
                if target.alive:
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)
