"""One running server as the stages see it, and waiting beside it without ever waiting for a corpse."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pytest_atomtrace.errors import InfraError
from pytest_atomtrace.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from pytest_atomtrace.capture.clock import Clock
    from pytest_atomtrace.capture.engines import Launch
    from pytest_atomtrace.capture.identity import Identity
    from pytest_atomtrace.capture.keeper_link import KeeperLink
    from pytest_atomtrace.capture.redact import Redactor
    from pytest_atomtrace.capture.serverlog import ServerLog
    from pytest_atomtrace.cases.case import Case

__all__ = ["Patience", "Server"]

_T = TypeVar("_T")
_POLL_S = 0.1


@dataclass(frozen=True)
class Patience:
    """How long a stage may take, and how long it may show no sign of life (`signs` grows with each).

    `so_far` ends the error's sentence: how far it came.
    """

    total_s: float
    silence_s: float | None = None
    signs: Callable[[], int] | None = None
    so_far: Callable[[], str] = str


@dataclass
class Server:
    """A launched server: its process, its log, where its workers write traces."""

    engine: str
    case: Case
    launch: Launch
    identity: Identity
    url: str
    trace_dir: Path
    ranks: tuple[str, ...]
    log: ServerLog
    link: KeeperLink
    redactor: Redactor
    clock: Clock
    windows: int = 0

    def trouble(self, *, since: int = 0) -> InfraError | None:
        """Why the server is lost (dead, or a fault line at byte `since` or later), None while it is not."""
        self.log.poll()
        dead = not self.identity.alive
        if dead:
            self.log.poll(last=True)
        faults = self.log.faults(since=since)
        if faults:
            first = faults[0]
            line = self.redactor.text(first.line.strip())[:300]
            return InfraError(f"{first.fault.name}: {line}", first.fault.hint, self.log.tail())
        if dead:
            return InfraError(f"the server process (pid {self.identity.pid}) ended {self._how()}", "", self.log.tail())
        return None

    def _how(self) -> str:
        try:
            code = self.link.request("status", timeout_s=5.0).get("returncode")
        except InfraError:
            code = None
        if not isinstance(code, int):
            return "(exit status unknown)"
        return f"by signal {-code}" if code < 0 else f"with exit status {code}"

    def check(self, stage: str, kind: type[InfraError], *, since: int = 0) -> None:
        """Raise `kind` if the server is lost; `stage` says when it was seen."""
        trouble = self.trouble(since=since)
        if trouble is not None:
            raise kind(f"{stage}: {trouble.problem}", trouble.hint, trouble.evidence)

    async def beside(
        self,
        work: Coroutine[object, object, _T],
        stage: str,
        kind: type[InfraError],
        patience: Patience,
        *,
        tick: Callable[[], None] | None = None,
    ) -> _T:
        """Run `work` while the server is watched: its death or a fault line ends the wait at once.

        Requests to a server whose worker died hang for ever while its API process goes on answering /health,
        so no stage may wait for HTTP alone.

        Raises:
            InfraError: of class `kind`; the deadline passed, nothing moved for too long, or the server is lost.

        """
        since = self.log.size
        task = asyncio.ensure_future(work)
        start_s = moved_s = self.clock.monotonic_s()
        seen = 0
        try:
            while not (await asyncio.wait({task}, timeout=_POLL_S))[0]:
                self.check(stage, kind, since=since)
                if tick is not None:
                    tick()
                now_s = self.clock.monotonic_s()
                signs = patience.signs() if patience.signs else 0
                if signs != seen:
                    seen, moved_s = signs, now_s
                if now_s - start_s > patience.total_s:
                    raise kind(
                        f"{stage}: not done within {format_seconds(patience.total_s)}{patience.so_far()}",
                        "",
                        self.log.tail(),
                    )
                if patience.silence_s is not None and now_s - moved_s > patience.silence_s:
                    raise kind(
                        f"{stage}: nothing came for {format_seconds(patience.silence_s)}{patience.so_far()}",
                        "The server's process lives, so it hangs; its log's end is below.",
                        self.log.tail(),
                    )
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
