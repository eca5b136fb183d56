"""One running server as the stages see it, and waiting beside it without ever waiting for a corpse."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pytest_atomtrace.capture.life import OwnLife, log_of
from pytest_atomtrace.errors import InfraError
from pytest_atomtrace.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from pytest_atomtrace.capture.clock import Clock
    from pytest_atomtrace.capture.engines import Launch
    from pytest_atomtrace.capture.identity import Identity
    from pytest_atomtrace.capture.keeper_link import KeeperLink
    from pytest_atomtrace.capture.life import Life
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
    """A server: how it lives, its log, where its workers write traces.

    `identity` is the process that was started; 0:0 for an attached server whose process cannot be seen. `attached`
    tells that it is somebody else's.
    """

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
    life: Life | None = None
    attached: bool = False

    def __post_init__(self) -> None:
        """A server whose life is not described is the process that we started."""
        self._life: Life = self.life if self.life is not None else OwnLife(self.identity, self.link)
        self._finds_log = self.launch.scripted

    @property
    def log_seen(self) -> bool:
        """Whether there is a log to read: of a server that is not ours it may be out of sight."""
        return not self.attached or self.log.path.is_file()

    def pids(self) -> list[int]:
        """Live processes of the server."""
        return self._life.pids()

    def trouble(self, *, since: int = 0) -> InfraError | None:
        """Why the server is lost (dead, or a fault line at byte `since` or later), None while it is not."""
        if self._finds_log:
            self._find_log()
        self.log.poll()
        ended = self._life.ended()
        if ended is not None:
            self.log.poll(last=True)
        faults = self.log.faults(since=since)
        if faults:
            first = faults[0]
            line = self.redactor.text(first.line.strip())[:300]
            return InfraError(f"{first.fault.name}: {line}", first.fault.hint, self.log.tail())
        return InfraError(ended, "", self.log.tail()) if ended is not None else None

    def _find_log(self) -> None:
        # The start script sends the server's output to a file of its own; ours holds the script's words only.
        path = log_of(self.pids(), but=self.log.path)
        if path is not None:
            self.log.follow(path)
            self._finds_log = False

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
