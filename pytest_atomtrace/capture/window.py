"""Warm-up, the unprofiled pass and the profiled window of one case on a ready server."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, TypeVar

from pytest_atomtrace.capture.acceptance import DraftCounts, draft_counts
from pytest_atomtrace.capture.decoding import DecodingLoad
from pytest_atomtrace.capture.held_window import OurWindow
from pytest_atomtrace.capture.http import Client, Reply, Stream, TransportError
from pytest_atomtrace.capture.prompts import requests_for
from pytest_atomtrace.capture.server import Patience
from pytest_atomtrace.capture.workload import Workload, completion
from pytest_atomtrace.errors import InfraError, WindowError, WorkloadError
from pytest_atomtrace.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_atomtrace.capture.loads import Loads
    from pytest_atomtrace.capture.progress import Progress
    from pytest_atomtrace.capture.server import Server
    from pytest_atomtrace.capture.serverlog import LogEvent
    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.settings import Settings

__all__ = ["Window"]

_AnyLoad = TypeVar("_AnyLoad", bound=Workload)

# ATOM's own limit for /start_profile is 300 s; ours must not cut it short.
_START_S = 330.0
# All ranks log their start; the reply comes after rank 0's (or, before 2026-06-05, before all).
_STARTED_S = 60.0
_NO_RANK_STARTED_S = 3.0
# In the window the shapes are warm: two minutes without one token on any stream are a hang.
_SILENCE_S = 120.0
_POLL_S = 0.05


@dataclass
class Window:
    """The stages between a ready server and the end of the window, for one case and window number."""

    server: Server
    case: Case
    number: int
    settings: Settings
    progress: Progress
    client: Client
    loads: Loads
    stages: list[dict[str, object]] = field(default_factory=list)
    _runs: list[Workload] = field(default_factory=list)
    ours: OurWindow = field(init=False)

    def __post_init__(self) -> None:
        """No window is open yet."""
        self.ours = OurWindow(self.server)

    async def warm_up(self) -> None:
        """One full pass of the case's concurrency with other prompts, drained; before it, measure the tokenizer.

        One-token probes would leave the measured shapes cold, and equal prompts would hit the prefix cache.
        """
        text = f"warm-up: {self.case.conc} requests of {self.case.isl}/{self.case.output_tokens} tokens"
        self.progress.stage(text, limit_s=self.settings.workload_timeout)
        with self.timed("warm_up"):
            await self._measure_tokenizer()
            load = self._keep(self.loads.builtin("warm-up", self.case.conc))
            await self._run(load, "warm-up")
            load.check("warm-up")

    async def unprofiled(self) -> dict[str, object]:
        """The workload without the profiler, with prompts of its own; its figures are the honest ones.

        Raises:
            WorkloadError: a request failed.

        """
        text = f"unprofiled pass: {self.case.requests} requests, {self.case.conc} in flight"
        self.progress.stage(text, limit_s=self.settings.workload_timeout)
        with self.timed("unprofiled"):
            before = await self.draft_counts()
            load = self._keep(self.loads.measured("unprofiled"))
            await self._run(load, "unprofiled pass")
            load.check("unprofiled pass")
            return {**load.figures(), **await self.accepted_since(before)}

    async def accepted_since(self, before: DraftCounts) -> dict[str, object]:
        """The acceptance of drafts since an earlier look."""
        return (await self.draft_counts()).since(before, per_step=self.case.speculative_tokens)

    async def draft_counts(self) -> DraftCounts:
        """What became of draft tokens so far; asked outside the window only, since it occupies the engine."""
        if not self.case.speculative_tokens:
            return DraftCounts()
        return await draft_counts(self.client)

    async def open(self) -> int:
        """Start the profiler and see every rank say so; returns the log's size before it.

        A start that failed half-way is undone on a server that is not ours.

        Raises:
            WindowError: refused, unanswered, or a rank did not start.

        """
        self.progress.passing("starting the profiler")
        with self.timed("start_profile"):
            self.server.log.poll()
            before = self.server.log.size
            self.ours.opening(before)
            try:
                await self._start()
                await self._see_ranks_start(before)
            except InfraError:
                await self.ours.undo(self.client, before)
                raise
        return before

    async def _start(self) -> None:
        call = self.client.post("/start_profile", timeout_s=_START_S)
        try:
            reply = await self.server.beside(call, "start_profile", WindowError, Patience(_START_S + 5.0))
        except TransportError as error:
            raise WindowError(f"the profiler did not start: {error}", "", self.server.log.tail()) from error
        if reply.status == 200:
            return
        if reply.status < 500:  # 500 is the server's time-out: the ranks may start yet
            self.ours.closed()
        raise WindowError(f"the profiler did not start: {reply.reason}", "", self.server.log.tail())

    async def run(self) -> Workload:
        """The measured requests; raises WorkloadError when one failed."""
        text = f"window {self.number}: {self.case.requests} requests, {self.case.conc} in flight"
        self.progress.stage(text, limit_s=self.settings.workload_timeout)
        with self.timed("workload"):
            load = self._keep(self.loads.measured(f"window {self.number}"))
            await self._run(load, "workload")
        return load

    def decoding(self) -> DecodingLoad:
        """The measured requests as a load that goes on while the window opens and closes."""
        load = self.loads.builtin(f"window {self.number}", self.case.requests)
        self._keep(load)
        return DecodingLoad(load, self.server, self.settings.workload_timeout, self.progress)

    async def _run(self, load: Workload, stage: str) -> None:
        # In the window the shapes are warm; a client of its own may build prompts for minutes before it sends any.
        limited = stage != "warm-up" and not load.may_be_silent
        patience = Patience(
            self.settings.workload_timeout,
            min(_SILENCE_S, self.settings.workload_timeout) if limited else None,
            lambda: load.progress,
            lambda: load.so_far,
        )
        tell = self.progress.update
        await self.server.beside(load.run(), stage, WorkloadError, patience, tick=lambda: tell(load.state))

    def close(self) -> asyncio.Task[Reply | None]:
        """Ask for the end of the window. The answer (or its absence) is no evidence of files."""
        return asyncio.ensure_future(self._close())

    async def _close(self) -> Reply | None:
        # The server answers when rank 0 has exported, which may take as long as the export wait itself allows.
        with contextlib.suppress(TransportError):
            return await self.client.post("/stop_profile", timeout_s=86_400.0)
        return None

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record start (unix s) and length of a stage for the manifest, also when it fails."""
        clock = self.server.clock
        wall_ns, start_s = clock.wall_ns(), clock.monotonic_s()
        try:
            yield
        finally:
            seconds = round(clock.monotonic_s() - start_s, 3)
            self.stages.append({"stage": stage, "start_unix_s": round(wall_ns / 1e9, 3), "seconds": seconds})

    def _keep(self, load: _AnyLoad) -> _AnyLoad:
        self._runs.append(load)
        return load

    @property
    def in_flight(self) -> int:
        """Requests that were sent and neither ended nor failed: the server may still be working on them."""
        return sum(load.in_flight for load in self._runs)

    async def _measure_tokenizer(self) -> None:
        """Scale words to tokens by one probe: only text can be sent, and tokenizers differ by some percent."""
        probe = requests_for(self.case, seed=self.loads.seed("tokenizer"), count=1)[0]
        stream = Stream()
        path, body = completion(self.case.model, probe, chat=self.loads.chat.used)
        patience = Patience(self.settings.workload_timeout)
        call = self.client.stream(path, {**body, "max_tokens": 1}, stream)
        await self.server.beside(call, "warm-up", WorkloadError, patience)
        if stream.error:
            raise WorkloadError(f"the first request of the warm-up failed: {stream.error}", "", self.server.log.tail())
        if stream.prompt_tokens > 0:
            self.loads.words_per_token = probe.input_tokens / stream.prompt_tokens

    async def _see_ranks_start(self, before: int) -> None:
        server, clock = self.server, self.server.clock
        # Whoever is patient with no silence of a starting server is not with a silent rank either.
        patience_s = min(_STARTED_S, self.settings.stall_timeout)
        if not server.log_seen:  # an attached server whose log is not to be found: the files will tell
            return
        start_s = clock.monotonic_s()
        while True:
            server.check("start_profile", WindowError, since=before)
            started = server.log.events("profiler_started", since=before)
            if len(started) >= len(server.ranks):
                return
            waited_s = clock.monotonic_s() - start_s
            # The engine says so after its ranks did. Before 2026-06-05 it says nothing and kineto may take its time.
            engine_done = bool(server.log.events("engine_started", since=before))
            if not started and waited_s > (_NO_RANK_STARTED_S if engine_done else patience_s):
                raise self._not_started(before)
            if waited_s > patience_s:
                raise self._some_not_started(started, waited_s)
            await asyncio.sleep(_POLL_S)

    def _some_not_started(self, started: Sequence[LogEvent], waited_s: float) -> InfraError:
        said = {PurePath(event.facts["dir"]).name for event in started if event.facts.get("dir")}
        silent = [rank for rank in self.server.ranks if rank not in said] if said else []
        which = f": {', '.join(silent)} did not say so" if silent else ""
        number = f"{len(started)} of {len(self.server.ranks)} ranks"
        return WindowError(
            f"the profiler started on {number} only{which} within {format_seconds(waited_s)} of the request",
            "Traces of some ranks are no capture. See server.log for what the others said instead.",
            self.server.log.tail(),
        )

    def _not_started(self, before: int) -> InfraError:
        earlier = [e for e in self.server.log.events("profiler_started") if e.offset < before]
        if earlier and self.server.windows == 0:
            return WindowError(
                "the profiler did not start: a window was already open when ours began",
                "Somebody else talks to this server, or a start was sent by a start script.",
                self.server.log.tail(),
            )
        return WindowError(
            "the profiler did not start: the server answered 200 to /start_profile and no rank logged it",
            "A server without --torch-profiler-dir answers just so; its command line is in the quarantine.",
            self.server.log.tail(),
        )
