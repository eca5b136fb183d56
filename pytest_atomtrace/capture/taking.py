"""One window from warm-up to the last rank's file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.attach import closed_by_others, refuse_open_window
from pytest_atomtrace.capture.collect import Taken
from pytest_atomtrace.capture.export import wait_for_export
from pytest_atomtrace.capture.http import Client
from pytest_atomtrace.capture.loads import Loads
from pytest_atomtrace.capture.rankstate import files_now
from pytest_atomtrace.capture.traffic import Traffic
from pytest_atomtrace.capture.window import Window
from pytest_atomtrace.errors import InfraError, WorkloadError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_atomtrace.capture.decoding import DecodingLoad
    from pytest_atomtrace.capture.http import Reply
    from pytest_atomtrace.capture.progress import Progress
    from pytest_atomtrace.capture.rankstate import RankState
    from pytest_atomtrace.capture.server import Server
    from pytest_atomtrace.capture.surroundings import Surroundings
    from pytest_atomtrace.capture.workload import Workload
    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.settings import Settings

__all__ = ["Taking"]


@dataclass
class Taking:
    """The taking of one window; `hanging` is true if requests of ours may still run on the server afterwards.

    `left_open` is true if the keeper has to close the window, on a server that is not ours.
    `closed_by_others` is true if it failed since another client of the server ended it: the files are that one's.

    `env` and `work` are for a benchmark client that is a process of its own.
    """

    server: Server
    case: Case
    number: int
    settings: Settings
    progress: Progress
    env: Mapping[str, str]
    work: Path
    run_id: str
    test_id: str
    around: Surroundings
    hanging: bool = False
    left_open: bool = False
    closed_by_others: bool = False
    _decoding: DecodingLoad | None = field(default=None, repr=False)

    async def take(self, earlier: list[dict[str, object]]) -> Taken:
        """Warm up, profile, wait for the files; `earlier` are the stages that led to this window.

        Raises:
            InfraError: what went wrong first.

        """
        server, clock = self.server, self.server.clock
        start_s = clock.monotonic_s() - sum(float(str(stage["seconds"])) for stage in earlier)
        async with Client(server.url, clock=clock) as client:
            loads = Loads.of(
                server,
                self.case,
                self.number,
                settings=self.settings,
                client=client,
                env=self.env,
                directory=self.work,
                # What outlives a run has this run's prompts in its prefix cache when the next one comes.
                salt=f"{self.run_id}/" if server.attached else "",
            )
            window = Window(server, self.case, self.number, self.settings, self.progress, client, loads)
            try:
                await window.warm_up()
                if server.attached:
                    await refuse_open_window(server, client)
                honest = await window.unprofiled() if self.settings.bench == "on" else None
                drafts = await window.draft_counts()
                traffic = Traffic(client, clock)
                if server.attached:
                    await traffic.begin()
                there = files_now(server.trace_dir)
                with self.around.watching(server) as contention:
                    log_start, load, failure = await self._profile(window)
                if failure is not None and server.trouble(since=log_start) is not None:
                    raise failure
                closed = closed_by_others(server, there, since=log_start) if server.attached else None
                if closed is not None:
                    window.ours.closed()
                    self.closed_by_others = True
                    raise closed
                stale, log_stop, states, reply = await self._export(window, failure)
                if failure is not None:
                    raise failure
                if load is None:
                    raise WorkloadError("the workload ended without a result")
                if self._decoding is not None:
                    await self._decoding.finish()
            finally:
                if self._decoding is not None:
                    await self._decoding.abandon()
                # Requests that hang on would run in the next case's window too.
                self.hanging = window.in_flight > 0
                self.left_open = window.ours.open
            load.check(f"window {self.number}")
            bench = {**load.figures(), **await window.accepted_since(drafts)}
            if server.attached:
                contention["traffic"] = await traffic.end(ours=int(str(bench["completed"])))
        if self._decoding is not None:
            bench["whole_window"] = False
        if honest is not None:
            bench["unprofiled"] = honest
        return Taken(
            case=self.case,
            number=self.number,
            states=states,
            stale=stale,
            bench=bench,
            stages=[*earlier, *window.stages],
            window_log=(log_start, log_stop),
            stop_status=reply.status if reply is not None else None,
            capture_s=clock.monotonic_s() - start_s,
            run_id=self.run_id,
            test_id=self.test_id,
            created_unix_s=round(clock.wall_ns() / 1e9, 3),
            workload=self._workload(loads),
            contention=contention,
        )

    def _workload(self, loads: Loads) -> dict[str, object]:
        return {
            "kind": loads.kind,
            "chat_template": loads.chat.used,
            "chat_template_why": loads.chat.why,
            "window_steps": self.settings.window_steps,
        }

    async def _profile(self, window: Window) -> tuple[int, Workload | None, InfraError | None]:
        """Open the window and run the load; a failure is held back, since the window has to be closed first."""
        if not self.settings.window_steps:
            log_start = await window.open()
            try:
                return log_start, await window.run(), None
            except InfraError as error:
                return log_start, None, error
        self._decoding = decoding = window.decoding()
        decoding.start()
        with window.timed("until_decoding"):
            await decoding.until_all_decode()
        log_start = await window.open()
        self.progress.stage(f"window {self.number}: {self.settings.window_steps} steps of {self.case.conc} slots")
        try:
            with window.timed("workload"):
                await decoding.until_steps(self.settings.window_steps)
        except InfraError as error:
            return log_start, None, error
        return log_start, decoding.load, None

    async def _export(
        self, window: Window, failure: InfraError | None
    ) -> tuple[frozenset[Path], int, dict[str, RankState], Reply | None]:
        server = self.server
        # What is here before the window ends was not written by this window: kineto exports at the stop.
        stale = files_now(server.trace_dir)
        server.log.poll()
        log_stop = server.log.size
        self.progress.stage(f"export: waiting for {len(server.ranks)} rank{'s' * (len(server.ranks) != 1)}")
        with window.timed("export"):
            stop = window.close()
            try:
                states = await wait_for_export(
                    server,
                    stop,
                    stale=stale,
                    since=log_stop,
                    timeout_s=self.settings.export_timeout,
                    progress=self.progress,
                )
            except InfraError:
                if failure is not None:  # the first thing that went wrong is the one to name
                    raise failure from None
                raise
            finally:
                reply = stop.result() if stop.done() and not stop.cancelled() else None
                if reply is not None:
                    window.ours.closed()
                stop.cancel()
        return stale, log_stop, states, reply
