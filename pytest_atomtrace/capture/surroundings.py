"""What surrounds a server: the GPUs' memory before it, other tenants beside it, the machine and software below it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.attach import attached_site
from pytest_atomtrace.capture.contention import WindowWatch
from pytest_atomtrace.capture.fingerprint import describe_environment
from pytest_atomtrace.capture.vram_wait import wait_for_idle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_atomtrace.capture.clock import Clock
    from pytest_atomtrace.capture.gpus import GpuSite
    from pytest_atomtrace.capture.lease import Lease
    from pytest_atomtrace.capture.progress import Progress
    from pytest_atomtrace.capture.server import Server

__all__ = ["Surroundings"]


class Surroundings:
    """Of the servers of one lease."""

    def __init__(self, lease: Lease, *, clock: Clock, machine: Path) -> None:
        self._lease = lease
        self._clock = clock
        self._machine = machine

    def settle(self, progress: Progress) -> None:
        """Before a launch: wait for idle GPU memory.

        Raises:
            LaunchError: it is held by others.

        """
        lease = self._lease
        if lease.site is not None:
            wait_for_idle(lease.link, timeout_s=lease.vram_timeout_s, progress=progress, clock=self._clock)

    @contextlib.contextmanager
    def watching(self, server: Server) -> Iterator[dict[str, object]]:
        """Watch the GPUs while the window is open; what was seen is in the mapping afterwards (empty without GPUs)."""
        seen: dict[str, object] = {}
        site = self._site_of(server)
        if site is None:
            yield seen
            return
        before = self._lease.link.request("memory").get("before") if self._lease.site is not None else None
        known = frozenset(before) if isinstance(before, list) else frozenset[int]()
        watch = WindowWatch(site, ours=server.pids(), before=known, env=server.launch.env)
        watch.start()
        try:
            yield seen
            seen |= watch.finish()
        finally:
            watch.cancel()

    def environment(self, server: Server) -> dict[str, object]:
        """The environment's fingerprint, read while the server lives (see `fingerprint`)."""
        return describe_environment(server, self._site_of(server), pids=server.pids())

    def _site_of(self, server: Server) -> GpuSite | None:
        return attached_site(self._machine, server.pids()) if server.attached else self._lease.site
