"""Getting the GPUs: one host-wide lock, first come first served, held by a keeper process."""

from __future__ import annotations

import contextlib
import getpass
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.identity import Identity
from pytest_atomtrace.capture.keeper_link import KeeperLink
from pytest_atomtrace.capture.locks import read_holder, shared_directory
from pytest_atomtrace.capture.tickets import TicketQueue
from pytest_atomtrace.errors import InfraError, LeaseError
from pytest_atomtrace.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pytest_atomtrace.capture.clock import Clock
    from pytest_atomtrace.capture.progress import Progress
    from pytest_atomtrace.capture.tickets import Ticket

__all__ = ["Lease", "LeaseDesk"]

_POLL_S = 0.1
LOCK_NAME = "gpus.lock"
QUEUE_NAME = "gpus.queue"


@dataclass
class Lease:
    """The GPUs are ours until `release`; `link` is the keeper that holds them and may launch one server."""

    link: KeeperLink

    def release(self, *, stop_patience_s: float, hurry: bool = False) -> list[int]:
        """Stop the server if one runs, then give the GPUs back; returns pids that could not be stopped.

        With `hurry` (an interrupt, an exit) the keeper is not asked but left: it stops everything within
        seconds, whether or not we live to see it.
        """
        leftover: list[int] = []
        try:
            if not hurry:
                # A keeper that is gone took the server with it; what went wrong before is what must be told.
                with contextlib.suppress(InfraError):
                    reply = self.link.request("stop", patience_s=stop_patience_s, timeout_s=stop_patience_s + 60.0)
                    listed = reply.get("leftover")
                    leftover = [int(pid) for pid in listed] if isinstance(listed, list) else []
        finally:
            self.link.close()
        return leftover


@dataclass(frozen=True)
class LeaseDesk:
    """Where a worker asks for the lease."""

    directory: Path
    watched: Sequence[Identity]
    env: Mapping[str, str]
    keeper_log: Path
    clock: Clock

    def wait(
        self,
        *,
        settled: Callable[[], bool],
        facts: Mapping[str, object],
        timeout_s: float,
        progress: Progress,
    ) -> Lease | None:
        """Queue for the lease; None as soon as `settled` says that it is no longer needed.

        Whoever released the lease and wants it again stands behind all who waited, so two runs alternate.

        Raises:
            LeaseError: not ours within `timeout_s`; the holder is named.

        """
        shared_directory(self.directory)
        owner = Identity.own()
        holder = {**facts, "user": _user(), "pid": owner.pid, "since": self.clock.local_time()}
        queue = TicketQueue(self.directory / QUEUE_NAME, clock=self.clock)
        ticket = queue.take(owner, holder)
        link: KeeperLink | None = None
        lease: Lease | None = None
        try:
            start_s = self.clock.monotonic_s()
            said = False
            while not settled():
                ahead = queue.ahead_of(ticket)
                if not ahead:
                    link = link or KeeperLink.start(self.watched, env=self.env, log=self.keeper_log, clock=self.clock)
                    if link.request("acquire", path=str(self.directory / LOCK_NAME), holder=holder)["acquired"]:
                        lease = Lease(link)
                        return lease
                text = self._waiting(ahead)
                waited_s = self.clock.monotonic_s() - start_s
                if waited_s > timeout_s:
                    raise LeaseError(
                        f"the GPUs were not free within {format_seconds(timeout_s)}: {text}",
                        "Wait for that run, or raise --atom-lock-timeout.",
                    )
                (progress.update if said else progress.stage)(f"waiting for the GPUs: {text}")
                said = True
                self.clock.sleep_s(_POLL_S)
            return None
        finally:
            ticket.drop()
            if link is not None and lease is None:
                link.close()

    def _waiting(self, ahead: Sequence[Ticket]) -> str:
        who = read_holder(self.directory / LOCK_NAME) or (read_holder(ahead[0].path) if ahead else {})
        queue = f"; {len(ahead)} before us in the queue" if ahead else ""
        if not who:
            return f"changing hands{queue}"
        return (
            f"held by {who.get('user', '?')}, pid {who.get('pid', '?')} ({who.get('test', '?')}), "
            f"since {who.get('since', '?')}{queue}"
        )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a uid without a name, as containers have them
        return "unknown"


def refuse_leftover(leftover: Sequence[int]) -> None:
    """Raise if processes of ours could not be stopped."""
    if leftover:
        raise InfraError(
            f"processes of the server outlived SIGKILL: pids {', '.join(map(str, leftover))}",
            "They hang in the kernel (state D), most often in the GPU driver; the machine needs its owner.",
        )
