"""The profiler window that we open on a server that is not ours: closed on every way out, and no other window is.

Before the start is asked for, the keeper is told; once the window is closed, it is told that too. Whatever ends the
worker in between (an error, Ctrl-C, SIGTERM, ``kill -9``), the keeper lives on and closes the window before it gives
the server's lock back. Without that the profiler would run on for days, and every later attach would be refused.

Only light imports at the top: the keeper loads this.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.clock import SYSTEM_CLOCK
from pytest_atomtrace.capture.redact import Redactor
from pytest_atomtrace.capture.serverlog import ServerLog
from pytest_atomtrace.errors import InfraError

if TYPE_CHECKING:
    from pytest_atomtrace.capture.http import Client
    from pytest_atomtrace.capture.server import Server

__all__ = ["HeldWindow", "OurWindow"]

# The server answers after its export. The request alone is what closes the window; while the answer is waited for,
# nobody else begins one on top of the export.
_CLOSE_S = 60.0
_POLL_S = 0.1


@dataclass
class OurWindow:
    """The worker's side; `open` is true from before the start is asked for until the end was answered.

    Nothing of it is needed for a server that we started: that one is stopped.
    """

    server: Server
    open: bool = False

    def opening(self, since: int) -> None:
        """Tell the keeper; `since` is the size of the server's log now.

        Raises:
            InfraError: the keeper is gone, so no window may be opened.

        """
        server = self.server
        if not server.attached:
            return
        log = str(server.log.path) if server.log_seen else ""
        # It may have to wait for the answer to /stop_profile longer than we wait for its end.
        server.link.lingers = True
        server.link.request("hold_window", url=server.url, log=log, since=since)
        self.open = True

    def closed(self) -> None:
        """Tell the keeper that there is nothing to close any more."""
        if self.open:
            self.open = False
            with contextlib.suppress(InfraError):  # gone: it asked the server itself when it went
                self.server.link.request("drop_window")

    async def undo(self, client: Client, since: int) -> None:
        """Close what a failed start may have opened, on some ranks or late; if that fails, the keeper tries again."""
        from pytest_atomtrace.capture.http import TransportError

        if not self.open:
            return
        self.server.log.poll()
        if not (self.server.log_seen and _began_nothing(self.server.log, since)):
            try:
                await client.post("/stop_profile", timeout_s=_CLOSE_S)
            except TransportError:
                return
        self.closed()


@dataclass(frozen=True)
class HeldWindow:
    """The keeper's side: what it must close if nobody else does; `log` is "" where it cannot be seen."""

    url: str
    log: str
    since: int

    def close(self) -> str:
        """Close the window unless the log shows that it is closed, or never was ours; returns what was done.

        Then its export is waited for, or the next attach would take it for a window of somebody else. Both take
        `_CLOSE_S` at most.
        """
        import asyncio

        redactor = Redactor({}, (self.url,))
        where = redactor.text(self.url)
        log = ServerLog(Path(self.log or "/none"), redactor)
        log.size = self.since
        _read(log)
        if _began_nothing(log, self.since):
            return f"no profiler window of ours had begun on {where}"
        if log.events("profiler_stopping") or log.events("profiler_stopped"):
            done = f"our profiler window on {where} was closed already"
        else:
            done = redactor.text(asyncio.run(_stop(self.url))).replace(self.url, where)
        self._outwait_export(log)
        return done

    def _outwait_export(self, log: ServerLog) -> None:
        deadline_s = SYSTEM_CLOCK.monotonic_s() + _CLOSE_S
        while SYSTEM_CLOCK.monotonic_s() < deadline_s:
            _read(log)
            ending = log.events("profiler_stopping")
            # Somebody may have opened a window of their own after ours: that one is not waited for.
            begun = [one for one in log.events("profiler_started") if not ending or one.offset < ending[0].offset]
            if len(log.events("profiler_stopped")) >= len(begun):
                return
            SYSTEM_CLOCK.sleep_s(_POLL_S)


def _read(log: ServerLog) -> None:
    with contextlib.suppress(OSError):
        log.poll()


def _began_nothing(log: ServerLog, since: int) -> bool:
    """The engine has dealt with our start and no rank began: none is bound to a directory, or a window was open."""
    return bool(log.events("engine_started", since=since)) and not log.events("profiler_started", since=since)


async def _stop(url: str) -> str:
    from pytest_atomtrace.capture.http import Client, TransportError

    async with Client(url) as client:
        try:
            reply = await client.post("/stop_profile", timeout_s=_CLOSE_S)
        except TransportError as error:
            return f"our profiler window on {url}: asked for its end; {error}"
    return f"closed our profiler window on {url}: {reply.reason if reply.status != 200 else 'HTTP 200'}"
