"""A load around which the window opens late and closes early: only steps of the full batch are profiled."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.server import Patience
from pytest_atomtrace.errors import WorkloadError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from pytest_atomtrace.capture.progress import Progress
    from pytest_atomtrace.capture.server import Server
    from pytest_atomtrace.capture.workload import Load

__all__ = ["DecodingLoad"]

_POLL_S = 0.002


class DecodingLoad:
    """Runs the load as a task of its own; the stages below wait for what the window needs."""

    def __init__(self, load: Load, server: Server, timeout_s: float, progress: Progress) -> None:
        self.load = load
        self._progress = progress
        self._server = server
        self._timeout_s = timeout_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Send the first requests."""
        self._task = asyncio.ensure_future(self.load.run())

    async def until_all_decode(self) -> None:
        """Wait until every slot has its first token and none has ended.

        Raises:
            WorkloadError: a request failed, or the first ones end before the last one's prefill.

        """
        text = f"filling: the window opens when all {self.load.concurrency} slots decode"
        self._progress.stage(text, limit_s=self._timeout_s)
        await self._beside(self._all_decode(), "waiting for all slots to decode")

    async def until_steps(self, steps: int) -> None:
        """Wait until every slot got `steps` more arrivals, which is one a step.

        Raises:
            WorkloadError: a request failed or ended before that.

        """
        await self._beside(self._steps(steps), f"window of {steps} steps")

    async def finish(self) -> None:
        """Wait for the rest of the answers; during an export the server sends none, so this comes after it.

        Raises:
            WorkloadError: they do not end in time.

        """
        if self._task is not None:
            await self._beside(self._rest(self._task), "rest of the workload")

    async def abandon(self) -> None:
        """Cut the connections: something else failed."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _all_decode(self) -> None:
        slots = self.load.streams[: self.load.concurrency]
        while not all(stream.first_s for stream in slots):
            self._refuse_ended("before all slots decoded")
            await asyncio.sleep(_POLL_S)

    async def _steps(self, steps: int) -> None:
        slots = self.load.streams[: self.load.concurrency]
        before = [stream.chunks for stream in slots]
        while min(stream.chunks - start for stream, start in zip(slots, before, strict=True)) < steps:
            self._refuse_ended(f"before {steps} steps were profiled")
            await asyncio.sleep(_POLL_S)

    def _refuse_ended(self, when: str) -> None:
        self.load.check("window")
        ended = sum(stream.done for stream in self.load.streams[: self.load.concurrency])
        if ended:
            raise WorkloadError(
                f"{ended} of {self.load.concurrency} requests ended {when}: the batch was not full",
                "Raise osl: answers must outlast the last prefill and the window (--atom-window-steps).",
            )

    async def _rest(self, task: asyncio.Task[None]) -> None:
        await asyncio.shield(task)

    async def _beside(self, work: Coroutine[object, object, None], stage: str) -> None:
        patience = Patience(self._timeout_s, so_far=lambda: self.load.so_far)
        tell = self._progress.update
        await self._server.beside(work, stage, WorkloadError, patience, tick=lambda: tell(self.load.state))
