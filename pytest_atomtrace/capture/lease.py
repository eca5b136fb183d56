"""Getting the GPUs: a lock for each card, all or none, first come first served, held by a keeper process.

Where no GPU is used (the plain simulator) one host-wide lock takes their place.
"""

from __future__ import annotations

import contextlib
import getpass
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.identity import Identity
from pytest_atomtrace.capture.keeper_link import KeeperLink
from pytest_atomtrace.capture.locks import read_holder, shared_directory
from pytest_atomtrace.capture.tickets import TicketQueue
from pytest_atomtrace.capture.vram_wait import wait_for_return
from pytest_atomtrace.errors import InfraError, LeaseError
from pytest_atomtrace.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pytest_atomtrace.capture.clock import Clock
    from pytest_atomtrace.capture.gpus import GpuSite
    from pytest_atomtrace.capture.progress import Progress
    from pytest_atomtrace.capture.tickets import Ticket

__all__ = ["LOCK_NAME", "QUEUE_NAME", "Lease", "LeaseDesk", "lock_name", "refuse_leftover", "refuse_unreturned"]

_POLL_S = 0.1
# A lock without a holder's name is being handed over; only one that stays so is worth a line.
_CHANGING_S = 1.0
_GPUS = "the GPUs"
LOCK_NAME = "gpus.lock"
QUEUE_NAME = "gpus.queue"


def lock_name(card: str) -> str:
    """Name of the lock file of the card with this PCI address."""
    return f"gpu-{card.replace(':', '_')}.lock"


@dataclass
class Lease:
    """The GPUs are ours until `release`; `link` is the keeper that holds them and may launch one server.

    After the release `unreturned` tells of GPU memory that the server has not given back.
    """

    link: KeeperLink
    progress: Progress
    clock: Clock
    site: GpuSite | None = None
    vram_timeout_s: float = 0.0
    unreturned: InfraError | None = None

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
                    leftover = self.stop_server(stop_patience_s=stop_patience_s)
        finally:
            self.link.close()
        return leftover

    def stop_server(self, *, stop_patience_s: float) -> list[int]:
        """Stop the server and wait for the memory, but keep the GPUs; returns pids that could not be stopped.

        Raises:
            InfraError: the keeper is gone.

        """
        self.progress.passing("stopping the server")
        reply = self.link.request("stop", patience_s=stop_patience_s, timeout_s=stop_patience_s + 60.0)
        listed = reply.get("leftover")
        leftover = [int(pid) for pid in listed] if isinstance(listed, list) else []
        if self.site is not None and not leftover:
            self.unreturned = wait_for_return(
                self.link, timeout_s=self.vram_timeout_s, progress=self.progress, clock=self.clock
            )
        return leftover


@dataclass(frozen=True)
class LeaseDesk:
    """Where a worker asks for the lease of `site`'s GPUs; without them, of the one `lock` in their place."""

    directory: Path
    watched: Sequence[Identity]
    env: Mapping[str, str]
    keeper_log: Path
    clock: Clock
    site: GpuSite | None = None
    vram_timeout_s: float = 0.0
    lock: str = LOCK_NAME

    @property
    def _wanted(self) -> str:
        # The only other lock is that of a server that is not ours, by its URL.
        return _GPUS if self.site is not None or self.lock == LOCK_NAME else "the attached server"

    @property
    def names(self) -> tuple[str, ...]:
        """The lock files that are wanted."""
        return tuple(map(lock_name, self.site.cards)) if self.site is not None else (self.lock,)

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
        holder = {**facts, "user": _user(), "pid": owner.pid, **self._now()}
        queue = TicketQueue(self.directory / QUEUE_NAME, clock=self.clock)
        ticket = queue.take(owner, holder, wants=self.names)
        link: KeeperLink | None = None
        lease: Lease | None = None
        try:
            start_s = self.clock.monotonic_s()
            said = ""
            while not settled():
                ahead = queue.ahead_of(ticket)
                if not ahead:
                    link = link or KeeperLink.start(self.watched, env=self.env, log=self.keeper_log, clock=self.clock)
                    if self._acquire(link, holder):
                        lease = Lease(link, progress, self.clock, self.site, self.vram_timeout_s)
                        return lease
                what, text, who_known = self._waiting(ahead, facts)
                waited_s = self.clock.monotonic_s() - start_s
                if waited_s > timeout_s:
                    were = "were" if self._wanted == _GPUS else "was"
                    raise LeaseError(
                        f"{self._wanted} {were} not free within {format_seconds(timeout_s)}: {text}",
                        "Wait for that run, or raise --atom-lock-timeout.",
                    )
                if said != what and (who_known or (not said and waited_s > _CHANGING_S)):
                    limit = f"; at most {format_seconds(timeout_s)}"
                    progress.stage(f"waiting for {what}: {text}{limit}", limit_s=timeout_s)
                    said = what
                progress.update(text)
                self.clock.sleep_s(_POLL_S)
            return None
        finally:
            ticket.drop()
            if link is not None and lease is None:
                link.close()

    def _acquire(self, link: KeeperLink, holder: Mapping[str, object]) -> bool:
        paths = [str(self.directory / name) for name in self.names]
        holder = {**holder, **self._now()}
        if self.site is None:
            return link.request("acquire", paths=paths, holder=holder)["acquired"] is True
        link.lingers = True
        cards = list(self.site.cards)
        memory = {"root": str(self.site.root), "cards": cards, "timeout_s": self.vram_timeout_s}
        return (
            link.request("acquire", paths=paths, holder={**holder, "cards": cards}, memory=memory)["acquired"] is True
        )

    def _waiting(self, ahead: Sequence[Ticket], facts: Mapping[str, object]) -> tuple[str, str, bool]:
        """What is waited for, who has it, and whether that is known; `facts` are our own."""
        holders = (read_holder(self.directory / name) for name in self.names)
        who = next(filter(None, holders), None) or (read_holder(ahead[0].path) if ahead else {})
        queue = f"; {len(ahead)} before us in the queue" if ahead else ""
        if not who:
            return self._wanted, f"changing hands{queue}", False
        since = f"since {who.get('since', '?')}{self._ago(who)}{queue}"
        if facts.get("run_dir") is None or who.get("run_dir") != facts["run_dir"]:
            holder = f"{who.get('user', '?')}, pid {who.get('pid', '?')} ({who.get('test', '?')})"
            return self._wanted, f"held by {holder}, {since}", True
        worker = f"worker {who.get('worker', '?')} of this run, pid {who.get('pid', '?')},"
        # Who holds a server's lease takes every capture of it that the run needs, this one too.
        if who.get("server_key") == facts.get("server_key"):
            return "this capture", f"{worker} takes it (for {who.get('test', '?')}), {since}", True
        return self._wanted, f"held by {worker} which captures {who.get('case', '?')}, {since}", True

    def _now(self) -> dict[str, object]:
        return {"since": self.clock.local_time(), "since_unix_s": round(self.clock.wall_ns() / 1e9, 1)}

    def _ago(self, who: Mapping[str, object]) -> str:
        began = who.get("since_unix_s")
        if not isinstance(began, (int, float)):
            return ""
        return f" ({format_seconds(max(0.0, self.clock.wall_ns() / 1e9 - began))} ago)"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a uid without a name, as containers have them
        return "unknown"


def refuse_unreturned(lease: Lease) -> None:
    """Raise if the server has not given its GPU memory back: its own case is told, and not the next."""
    if lease.unreturned is not None:
        raise lease.unreturned


def refuse_leftover(leftover: Sequence[int]) -> None:
    """Raise if processes of ours could not be stopped."""
    if leftover:
        raise InfraError(
            f"processes of the server outlived SIGKILL: pids {', '.join(map(str, leftover))}",
            "They hang in the kernel (state D), most often in the GPU driver; the machine needs its owner.",
        )
