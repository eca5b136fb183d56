"""The whole story of a capture in one place: reuse, lease, server, window, export, store, release."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.attach import AttachEngine, lock_name_of
from pytest_atomtrace.capture.availability import choose_engine
from pytest_atomtrace.capture.batch import Batch
from pytest_atomtrace.capture.clock import SYSTEM_CLOCK, Clock
from pytest_atomtrace.capture.engines import RUN_TOKEN, engine_of, launch_environment
from pytest_atomtrace.capture.hosts import host_directory
from pytest_atomtrace.capture.identity import Identity
from pytest_atomtrace.capture.lease import LOCK_NAME, Lease, LeaseDesk, refuse_leftover, refuse_unreturned
from pytest_atomtrace.capture.loads import refuse_unsupported
from pytest_atomtrace.capture.progress import Progress
from pytest_atomtrace.capture.site import check_lock_directory, find_site
from pytest_atomtrace.capture.store import Store
from pytest_atomtrace.capture.surroundings import Surroundings
from pytest_atomtrace.errors import InfraError, LaunchError, RememberedFailureError, StoreError
from pytest_atomtrace.settings import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
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
    """One per worker process; holds nothing between two calls of `obtain`, so item order cannot deadlock.

    `windows` says by slug how many windows a case needs where they are more than its own `captures`; all workers of a
    run must say the same. `progress` takes lines that stay, `show` (of a terminal that is ours alone) the one that is
    kept up to date.
    """

    def __init__(
        self,
        settings: Settings,
        run: RunInfo,
        *,
        progress: Callable[[str], None],
        clock: Clock = SYSTEM_CLOCK,
        windows: Mapping[str, int] | None = None,
        show: Callable[[str], None] | None = None,
    ) -> None:
        self._settings = settings
        self._run = run
        self._emit = progress
        self._show = show
        self._clock = clock
        place = host_directory(run.run_dir.resolve(), settings.lock_directory)
        self._store = Store(place, run.run_id, clock, windows if windows is not None else {})
        self._lease: Lease | None = None
        self._chosen: Engine | None = None
        self._warned = False
        self._env = {**environment(), RUN_TOKEN: run.run_id}

    def windows(self, case: Case, *, launch: int = 1) -> list[Capture]:
        """Every window of a capture that `obtain` gave, in order."""
        return self._store.of_launch(launch).all_windows(case)

    def obtain(self, case: Case, *, needed: Sequence[Case], test_id: str, launch: int = 1) -> Capture:
        """The capture of `case` (its last window), taken now if nobody took it in this run.

        Whoever gets the lease launches the server of a key once and takes every missing capture of that key
        among `needed`, then stops the server and gives the GPUs back. Others get theirs from disk. A `launch` above 1
        asks for the same from another launch of the server, shared in the same way.

        Raises:
            RememberedFailureError: this case or its server failed before in this run (known within a second).
            LeaseError, LaunchError, WindowError, WorkloadError, ExportError, StoreError: it failed now.

        """
        engine = self._engine()
        refuse_unsupported(case, self._settings, engine.name)
        progress = Progress(self._emit, case.slug, clock=self._clock, show=self._show)
        if launch > 1 and engine.name == "attach":
            raise LaunchError("an attached server cannot be launched again", "That needs --atom-backend=atom.")
        store = self._store.of_launch(launch)
        capture = store.settled(case)
        if capture is not None:
            return capture
        lease = self._desk(engine, case, progress).wait(
            settled=lambda: store.settled(case) is not None,
            facts=self._facts(case, test_id),
            timeout_s=self._settings.lock_timeout,
            progress=progress,
        )
        if lease is not None:
            self._lease = lease
            env = launch_environment(self._env, engine, launch)
            batch = self._batch(store, lease, engine, env, progress=progress, test_id=test_id)
            self._take(lease, batch, case, self._missing(store, case, needed))
        capture = store.settled(case)
        if capture is None:
            raise StoreError(f"the capture of {case.slug} is not where it was put: {store.case_dir(case)}")
        return capture

    def interleave(
        self, case: Case, sides: Mapping[str, Mapping[str, str]], *, launches: int, test_id: str
    ) -> dict[str, list[list[Capture]]]:
        """Capture `case` with each side's environment in turn, all under one lease; by side, each launch's windows.

        Every second round goes the other way (A B, B A, ...), so that what drifts with time meets both sides alike.

        Raises:
            InfraError: a launch or a capture failed; nothing more is taken then.

        """
        engine = self._engine()
        refuse_unsupported(case, self._settings, engine.name)
        if engine.name == "attach":
            raise LaunchError("an attached server cannot be launched with another environment")
        progress = Progress(self._emit, case.slug, clock=self._clock, show=self._show)
        lease = self._desk(engine, case, progress).wait(
            settled=lambda: False,
            facts=self._facts(case, test_id),
            timeout_s=self._settings.lock_timeout,
            progress=progress,
        )
        if lease is None:
            raise StoreError("the lease was not waited for")
        self._lease = lease
        orderly = False
        leftover: list[int] = []
        try:
            names = list(sides)
            for number in range(1, launches + 1):
                for name in names if number % 2 else names[::-1]:
                    progress.done(f"side {name}, launch {number} of {launches}")
                    store = self._store.of_side(name).of_launch(number)
                    env = launch_environment({**self._env, **sides[name]}, engine, number)
                    batch = self._batch(store, lease, engine, env, progress=progress, test_id=test_id)
                    try:
                        batch.take(case, [])
                        refuse_leftover(lease.stop_server(stop_patience_s=self._settings.stop_timeout))
                        refuse_unreturned(lease)
                    finally:
                        batch.clean_up()
            orderly = True
        finally:
            leftover = self._give_back(lease, lost=False, hurry=not orderly)
        refuse_leftover(leftover)
        return {
            name: [self._store.of_side(name).of_launch(one + 1).all_windows(case) for one in range(launches)]
            for name in sides
        }

    def _batch(
        self,
        store: Store,
        lease: Lease,
        engine: Engine,
        env: Mapping[str, str],
        *,
        progress: Progress,
        test_id: str,
    ) -> Batch:
        return Batch(
            store=store,
            settings=self._settings,
            engine=engine,
            link=lease.link,
            progress=progress,
            env=env,
            worker=self._run.worker,
            test_id=test_id,
            clock=self._clock,
            around=Surroundings(lease, clock=self._clock, machine=self._settings.machine),
        )

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
        if choice.name == "attach":
            self._chosen = AttachEngine()
            return self._chosen
        if choice.name == "replay":
            raise LaunchError("a replay launches nothing", "Captures of a replay come from replay.find_capture.")
        self._chosen = engine_of(self._settings, choice.name)
        return self._chosen

    def _facts(self, case: Case, test_id: str) -> dict[str, object]:
        """What those who wait for the lease are told of us."""
        who = {"run": self._run.run_id, "worker": self._run.worker, "test": test_id}
        return {**who, "run_dir": str(self._store.run_dir), "case": case.slug, "server_key": case.server_key}

    def _desk(self, engine: Engine, case: Case, progress: Progress) -> LeaseDesk:
        watched = []
        for pid in dict.fromkeys((os.getpid(), *self._run.watch_pids)):
            identity = Identity.of(pid)
            if identity is None:
                raise InfraError(f"the process {pid} that this run depends on is gone")
            watched.append(identity)
        log = self._store.run_dir / "servers" / f"keeper-{self._run.worker}.log"
        settings = self._settings
        site = find_site(settings, engine.name, {**self._env, **dict(case.env)})
        warning = check_lock_directory(settings, site=site, env=self._env, ci=self._run.ci)
        if warning and not self._warned:
            progress.done(f"warning: {warning}")
            self._warned = True
        timeout_s = settings.vram_timeout
        lock = f"{lock_name_of(settings.attach)}.lock" if engine.name == "attach" else LOCK_NAME
        return LeaseDesk(settings.lock_directory, watched, self._env, log, self._clock, site, timeout_s, lock)

    def _take(self, lease: Lease, batch: Batch, case: Case, others: Sequence[Case]) -> None:
        orderly = False
        try:
            # Somebody may have taken it between our last look and the lease.
            if batch.store.settled(case) is None:
                batch.take(case, others)
            orderly = True
        except Exception:
            orderly = True
            raise
        finally:
            leftover = self._give_back(lease, lost=batch.lost, hurry=not orderly)
            batch.clean_up()
        refuse_leftover(leftover)
        refuse_unreturned(lease)

    def _give_back(self, lease: Lease, *, lost: bool, hurry: bool) -> list[int]:
        # A server whose workers died does not shut down in order any more: its event loop waits for them.
        patience_s = min(self._settings.stop_timeout, _LOST_S) if lost else self._settings.stop_timeout
        try:
            return lease.release(stop_patience_s=patience_s, hurry=hurry)
        finally:
            self._lease = None

    def _missing(self, store: Store, case: Case, needed: Sequence[Case]) -> list[Case]:
        missing: dict[str, Case] = {}
        for other in needed:
            if other.server_key != case.server_key or other.slug == case.slug:
                continue
            with contextlib.suppress(RememberedFailureError, InfraError):
                refuse_unsupported(other, self._settings, self._engine().name)
                if store.settled(other) is None:
                    missing[other.slug] = other
        return list(missing.values())
