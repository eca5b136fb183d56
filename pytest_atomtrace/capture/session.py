"""The whole story of a capture in one place: reuse, lease, server, window, export, store, release."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.availability import choose_engine
from pytest_atomtrace.capture.batch import Batch
from pytest_atomtrace.capture.clock import SYSTEM_CLOCK, Clock
from pytest_atomtrace.capture.engines import RUN_TOKEN, engine_of, refuse_unsupported
from pytest_atomtrace.capture.identity import Identity
from pytest_atomtrace.capture.lease import Lease, LeaseDesk, refuse_leftover
from pytest_atomtrace.capture.progress import Progress
from pytest_atomtrace.capture.store import Store
from pytest_atomtrace.errors import InfraError, LaunchError, RememberedFailureError, StoreError
from pytest_atomtrace.settings import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_atomtrace.capture.engines import Engine
    from pytest_atomtrace.capture.record import Capture
    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.settings import Settings

__all__ = ["CaptureSession", "RunInfo"]

_LOST_S = 10.0


@dataclass(frozen=True)
class RunInfo:
    """The run as one worker sees it.

    `worker` is ``main`` or ``gw0``...; the death of any of `watch_pids` (this worker, and the controller of a
    distributed run) ends server and lease; `ci` tells a run that nobody watches.
    """

    run_id: str
    run_dir: Path
    worker: str
    watch_pids: tuple[int, ...]
    ci: bool


class CaptureSession:
    """One per worker process; holds nothing between two calls of `obtain`, so item order cannot deadlock."""

    def __init__(
        self, settings: Settings, run: RunInfo, *, progress: Callable[[str], None], clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._settings = settings
        self._run = run
        self._emit = progress
        self._clock = clock
        self._store = Store(run.run_dir.resolve(), run.run_id, clock)
        self._lease: Lease | None = None
        self._chosen: Engine | None = None
        self._env = {**environment(), RUN_TOKEN: run.run_id}

    def obtain(self, case: Case, *, needed: Sequence[Case], test_id: str) -> Capture:
        """The capture of `case`, taken now if nobody took it in this run.

        Whoever gets the lease launches the server of a key once and takes every missing capture of that key
        among `needed`, then stops the server and gives the GPUs back. Others get theirs from disk.

        Raises:
            RememberedFailureError: this case or its server failed before in this run (known within a second).
            LeaseError, LaunchError, WindowError, WorkloadError, ExportError, StoreError: it failed now.

        """
        refuse_unsupported(case)
        engine = self._engine()
        progress = Progress(self._emit, case.slug, clock=self._clock)
        capture = self._store.settled(case)
        if capture is not None:
            return capture
        lease = self._desk().wait(
            settled=lambda: self._store.settled(case) is not None,
            facts={"run": self._run.run_id, "worker": self._run.worker, "test": test_id},
            timeout_s=self._settings.lock_timeout,
            progress=progress,
        )
        if lease is not None:
            self._take(lease, engine, case, needed, progress=progress, test_id=test_id)
        capture = self._store.settled(case)
        if capture is None:
            raise StoreError(f"the capture of {case.slug} is not where it was put: {self._store.case_dir(case)}")
        return capture

    def close(self) -> None:
        """Leave nothing behind; may be called twice, and from a clean-up after an interrupt."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release(stop_patience_s=0.0, hurry=True)

    def _engine(self) -> Engine:
        if self._chosen is not None:
            return self._chosen
        choice = choose_engine(self._settings)
        if isinstance(choice, str):
            raise LaunchError(choice)
        if choice.name == "replay":
            raise LaunchError("a replay launches nothing", "Captures of a replay come from replay.find_capture.")
        self._chosen = engine_of(self._settings, choice.name)
        return self._chosen

    def _desk(self) -> LeaseDesk:
        watched = []
        for pid in dict.fromkeys((os.getpid(), *self._run.watch_pids)):
            identity = Identity.of(pid)
            if identity is None:
                raise InfraError(f"the process {pid} that this run depends on is gone")
            watched.append(identity)
        log = self._store.run_dir / "servers" / f"keeper-{self._run.worker}.log"
        return LeaseDesk(self._settings.lock_directory, watched, self._env, log, self._clock)

    def _take(
        self, lease: Lease, engine: Engine, case: Case, needed: Sequence[Case], *, progress: Progress, test_id: str
    ) -> None:
        self._lease = lease
        orderly = False
        batch = Batch(
            store=self._store,
            settings=self._settings,
            engine=engine,
            link=lease.link,
            progress=progress,
            env=self._env,
            worker=self._run.worker,
            test_id=test_id,
            clock=self._clock,
        )
        try:
            # Somebody may have taken it between our last look and the lease.
            if self._store.settled(case) is None:
                batch.take(case, self._missing(case, needed))
            orderly = True
        except Exception:
            orderly = True
            raise
        finally:
            leftover = self._give_back(lease, lost=batch.lost, hurry=not orderly)
            batch.clean_up()
        refuse_leftover(leftover)

    def _give_back(self, lease: Lease, *, lost: bool, hurry: bool) -> list[int]:
        # A server whose workers died does not shut down in order any more: its event loop waits for them.
        patience_s = min(self._settings.stop_timeout, _LOST_S) if lost else self._settings.stop_timeout
        try:
            return lease.release(stop_patience_s=patience_s, hurry=hurry)
        finally:
            self._lease = None

    def _missing(self, case: Case, needed: Sequence[Case]) -> list[Case]:
        missing: dict[str, Case] = {}
        for other in needed:
            if other.server_key != case.server_key or other.slug == case.slug:
                continue
            with contextlib.suppress(RememberedFailureError, InfraError):
                refuse_unsupported(other)
                if self._store.settled(other) is None:
                    missing[other.slug] = other
        return list(missing.values())
