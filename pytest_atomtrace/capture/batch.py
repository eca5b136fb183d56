"""Under one lease: one server, and every missing capture of its key."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.collect import Taken, collect, quarantine
from pytest_atomtrace.capture.engines import RUN_TOKEN, ranks_of
from pytest_atomtrace.capture.export import wait_for_export
from pytest_atomtrace.capture.http import Client, TransportError, free_port, port_is_taken
from pytest_atomtrace.capture.identity import Identity
from pytest_atomtrace.capture.rankstate import files_now
from pytest_atomtrace.capture.ready import wait_until_ready
from pytest_atomtrace.capture.redact import Redactor
from pytest_atomtrace.capture.server import Patience, Server
from pytest_atomtrace.capture.serverlog import ServerLog
from pytest_atomtrace.capture.window import Window
from pytest_atomtrace.errors import InfraError, LaunchError, StoreError, WorkloadError
from pytest_atomtrace.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_atomtrace.capture.clock import Clock
    from pytest_atomtrace.capture.engines import Engine
    from pytest_atomtrace.capture.keeper_link import KeeperLink
    from pytest_atomtrace.capture.progress import Progress
    from pytest_atomtrace.capture.store import Store
    from pytest_atomtrace.capture.workload import Load
    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.settings import Settings

__all__ = ["Batch"]

# Is the server still good for the next case? A healthy one answers at once; one whose worker died never does.
_HEALTH_S = 30.0


@dataclass
class Batch:
    """One launch and its captures; failures go to the store, the asked case's is raised at the end."""

    store: Store
    settings: Settings
    engine: Engine
    link: KeeperLink
    progress: Progress
    env: Mapping[str, str]
    worker: str
    test_id: str
    clock: Clock
    _launch_stages: list[dict[str, object]] = field(default_factory=list)
    _trace_dir: Path | None = None
    lost: bool = False

    def take(self, asked: Case, others: Sequence[Case]) -> None:
        """Launch the server of `asked` and capture it and `others`, which share its key.

        Raises:
            InfraError: the launch failed, or the capture of `asked` did (the others were tried all the same).

        """
        server = self._launch(asked)
        mine: InfraError | None = None
        for case in (asked, *others):
            try:
                self._capture(server, case)
            except InfraError as error:
                mine = error if case is asked else mine
                if self.lost:
                    self.store.fail(self.store.server_dir(asked), error, test_id=self.test_id)
                    break
        if mine is not None:
            raise mine

    def _launch(self, case: Case) -> Server:
        place = self.store.server_dir(case)
        progress = self.progress.about(case.slug)
        self.store.begin(place, test_id=self.test_id, worker=self.worker)
        try:
            return self._launch_and_wait(case, place, progress)
        except BaseException as error:
            self.lost = True
            self.store.fail(place, _interruption(error), test_id=self.test_id)
            raise
        finally:
            self.store.end(place)

    def _launch_and_wait(self, case: Case, place: Path, progress: Progress) -> Server:
        number = 1 + sum(1 for _ in place.glob("launch-*"))
        work = place / f"launch-{number}"
        trace_dir = work / "trace"
        trace_dir.mkdir(parents=True)
        self._trace_dir = trace_dir
        port = self.settings.port or free_port()
        if port_is_taken(port):
            raise LaunchError(
                f"port {port} is taken: another server listens on it",
                "Stop that server, or leave --atom-port out and a free port is taken.",
            )
        launch = self.engine.launch(case, trace_dir=trace_dir, port=port, base_env=self.env, token=self.env[RUN_TOKEN])
        progress.stage(f"launching the server (deadline {format_seconds(self.settings.start_timeout)})")
        wall_ns, start_s = self.clock.wall_ns(), self.clock.monotonic_s()
        log = work / "server.log"
        reply = self.link.request("launch", argv=list(launch.argv), env=dict(launch.env), cwd=str(work), log=str(log))
        redactor = Redactor(launch.env, launch.argv)
        server = Server(
            engine=self.engine.name,
            case=case,
            launch=launch,
            identity=Identity(int(str(reply["pid"])), int(str(reply["start"]))),
            url=f"http://127.0.0.1:{port}",
            trace_dir=trace_dir,
            ranks=ranks_of(case),
            log=ServerLog(log, redactor),
            link=self.link,
            redactor=redactor,
            clock=self.clock,
        )
        try:
            asyncio.run(wait_until_ready(server, self.settings, progress))
        except InfraError as error:
            raise _with_place(error, f"The whole log: {log}") from error
        seconds = round(self.clock.monotonic_s() - start_s, 3)
        self._launch_stages = [{"stage": "launch", "start_unix_s": round(wall_ns / 1e9, 3), "seconds": seconds}]
        progress.stage(f"ready in {format_seconds(seconds)}")
        return server

    def _capture(self, server: Server, case: Case) -> None:
        place = self.store.case_dir(case)
        self.store.begin(place, test_id=self.test_id, worker=self.worker)
        try:
            for number in range(1, case.captures + 1):
                self._window(server, case, number)
        except BaseException as error:
            self.store.fail(place, _interruption(error), test_id=self.test_id)
            raise
        finally:
            self.store.end(place)

    def _window(self, server: Server, case: Case, number: int) -> None:
        progress = self.progress.about(case.slug)
        there = files_now(server.trace_dir)
        log_start = server.log.size
        try:
            taken = asyncio.run(self._take_window(server, case, number, progress))
            collect(server, taken, self.store.case_dir(case) / str(number))
        except InfraError as error:
            target = self.store.quarantine_dir(case, number)
            with contextlib.suppress(StoreError, OSError):  # a full disk must not hide what went wrong first
                quarantine(server, target, stale=there, error=error)
            self.lost = self.lost or not self._healthy(server, since=log_start)
            progress.stage(f"failed: {error.problem[:160]}")
            raise _with_place(error, f"What it left: {target}") from error
        finally:
            server.windows += 1
            self._launch_stages = []
        progress.stage(f"captured {len(taken.states)} ranks in {format_seconds(taken.capture_s)}")

    async def _take_window(self, server: Server, case: Case, number: int, progress: Progress) -> Taken:
        clock = self.clock
        start_s = clock.monotonic_s() - sum(float(str(stage["seconds"])) for stage in self._launch_stages)
        async with Client(server.url, clock=clock) as client:
            window = Window(server, case, number, self.settings, progress, client)
            try:
                await window.warm_up()
                log_start = await window.open()
                load, failure = await _run(window)
            finally:
                # Requests that hang on would run in the next case's window too.
                self.lost = self.lost or window.in_flight > 0
            if failure is not None and server.trouble(since=log_start) is not None:
                raise failure
            # What is here before the window ends was not written by this window: kineto exports at the stop.
            stale = files_now(server.trace_dir)
            server.log.poll()
            log_stop = server.log.size
            progress.stage(f"export: waiting for {len(server.ranks)} ranks")
            with window.timed("export"):
                stop = window.close()
                try:
                    states = await wait_for_export(
                        server,
                        stop,
                        stale=stale,
                        since=log_stop,
                        timeout_s=self.settings.export_timeout,
                        progress=progress,
                    )
                except InfraError:
                    if failure is not None:  # the first thing that went wrong is the one to name
                        raise failure from None
                    raise
                finally:
                    reply = stop.result() if stop.done() and not stop.cancelled() else None
                    stop.cancel()
            if failure is not None:
                raise failure
            if load is None:
                raise WorkloadError("the workload ended without a result")
            load.check(f"window {number}")
        return Taken(
            case=case,
            number=number,
            states=states,
            stale=stale,
            bench=load.figures(),
            stages=[*self._launch_stages, *window.stages],
            window_log=(log_start, log_stop),
            stop_status=reply.status if reply is not None else None,
            capture_s=clock.monotonic_s() - start_s,
            run_id=self.store.run_id,
            test_id=self.test_id,
            created_unix_s=round(clock.wall_ns() / 1e9, 3),
        )

    def _healthy(self, server: Server, *, since: int) -> bool:
        if server.trouble(since=since) is not None:
            return False
        try:
            asyncio.run(_probe(server))
        except (InfraError, TransportError):
            return False
        return True

    def clean_up(self) -> None:
        """After the stop: remove what the captures have no more use for (the logs stay, they are small)."""
        if self._trace_dir is not None:
            shutil.rmtree(self._trace_dir, ignore_errors=True)


async def _run(window: Window) -> tuple[Load | None, InfraError | None]:
    try:
        return await window.run(), None
    except InfraError as error:
        return None, error


async def _probe(server: Server) -> None:
    async with Client(server.url, clock=server.clock) as client:
        body: dict[str, object] = {"prompt": "hi", "max_tokens": 1, "temperature": 0.0}
        call = client.post("/v1/completions", body, timeout_s=_HEALTH_S)
        reply = await server.beside(call, "health", InfraError, Patience(_HEALTH_S))
        if reply.status != 200:
            raise InfraError(reply.reason)


def _interruption(error: BaseException) -> BaseException:
    if isinstance(error, Exception):
        return error
    return InfraError(f"the capture was interrupted ({type(error).__name__})")


def _with_place(error: InfraError, place: str) -> InfraError:
    return type(error)(error.problem, f"{error.hint}\n{place}" if error.hint else place, error.evidence)
