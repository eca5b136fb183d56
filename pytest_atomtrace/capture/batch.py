"""Under one lease: one server, and every missing capture of its key."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from pytest_atomtrace.capture.attach import attach_server
from pytest_atomtrace.capture.collect import collect, quarantine
from pytest_atomtrace.capture.http import Client, TransportError
from pytest_atomtrace.capture.launching import launch_server, with_place
from pytest_atomtrace.capture.lease import refuse_leftover
from pytest_atomtrace.capture.rankstate import files_now
from pytest_atomtrace.capture.redact import Redactor
from pytest_atomtrace.capture.server import Patience
from pytest_atomtrace.capture.taking import Taking
from pytest_atomtrace.capture.transient import Attempt, transient
from pytest_atomtrace.errors import InfraError, StoreError
from pytest_atomtrace.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_atomtrace.capture.clock import Clock
    from pytest_atomtrace.capture.engines import Engine
    from pytest_atomtrace.capture.keeper_link import KeeperLink
    from pytest_atomtrace.capture.progress import Progress
    from pytest_atomtrace.capture.server import Server
    from pytest_atomtrace.capture.store import Store
    from pytest_atomtrace.capture.surroundings import Surroundings
    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.settings import Settings

__all__ = ["Batch"]

_AnyError = TypeVar("_AnyError", bound=BaseException)

# Is the server still good for the next case? A healthy one answers at once; one whose worker died never does.
_HEALTH_S = 30.0
# A server whose workers died does not shut down in order any more.
_LOST_S = 10.0


class _AgainError(Exception):
    """What failed may succeed on a fresh launch; the attempt is recorded."""


@dataclass
class Batch:
    """One launch and its captures; failures go to the store, the asked case's is raised at the end.

    After a failure that is known to be transient what is left is tried once more, on a fresh launch.
    """

    store: Store
    settings: Settings
    engine: Engine
    link: KeeperLink
    progress: Progress
    env: Mapping[str, str]
    worker: str
    test_id: str
    clock: Clock
    around: Surroundings
    lost: bool = False
    _launch_stages: list[dict[str, object]] = field(default_factory=list)
    _trace_dirs: list[Path] = field(default_factory=list)
    _work: Path | None = None
    _attempts: list[Attempt] = field(default_factory=list)
    _failure: InfraError | None = None

    def take(self, asked: Case, others: Sequence[Case]) -> None:
        """Launch the server of `asked` and capture it and `others`, which share its key.

        Raises:
            InfraError: the launch failed, or the capture of `asked` did (the others were tried all the same).

        """
        # A server that is not ours cannot be launched afresh.
        left = self._pass(asked, [asked, *others], last=self.engine.name == "attach")
        if left:
            self.progress.done(f"once more, on a fresh launch: {self._attempts[-1].text[:240]}")
            self._stop_server()
            self._pass(asked, left, last=True)
        if self._failure is not None:
            raise self._failure

    def _pass(self, asked: Case, cases: Sequence[Case], *, last: bool) -> list[Case]:
        """Try every case on one launch; returns those that are worth a fresh one (none if this is the `last`)."""
        self.lost = False
        try:
            server = self._launch(cases[0], last=last)
        except _AgainError:
            return list(cases)
        again: list[Case] = []
        for index, case in enumerate(cases):
            try:
                self._capture(server, case, last=last)
            except _AgainError:
                again.append(case)
                if self.lost:
                    return [*again, *cases[index + 1 :]]
            except InfraError as error:
                self._failure = error if case is asked else self._failure
                if self.lost:
                    if again:  # they get their fresh launch, and whoever comes after them too
                        return [*again, *cases[index + 1 :]]
                    self.store.fail(self.store.server_dir(asked), error, test_id=self.test_id)
                    break
        return again

    def _launch(self, case: Case, *, last: bool) -> Server:
        place = self.store.server_dir(case)
        progress = self.progress.about(case.slug)
        self.store.begin(place, test_id=self.test_id, worker=self.worker)
        try:
            return self._launch_and_wait(case, place, progress)
        except BaseException as error:  # noqa: BLE001  # raised again below
            self.lost = True
            told = self._told(error, case)
            self._note(told, f"the launch of {case.slug}", last=last)
            final = self._with_attempts(told)
            self.store.fail(place, _interruption(final), test_id=self.test_id)
            raise final from (None if isinstance(error, InfraError) else error.__cause__)
        finally:
            self.store.end(place)

    def _launch_and_wait(self, case: Case, place: Path, progress: Progress) -> Server:
        number = 1 + sum(1 for _ in place.glob("launch-*"))
        self._work = work = place / f"launch-{number}"
        wall_ns, start_s = self.clock.wall_ns(), self.clock.monotonic_s()
        if self.engine.name == "attach":
            work.mkdir(parents=True)
            server = attach_server(
                case,
                work=work,
                env=self.env,
                link=self.link,
                settings=self.settings,
                progress=progress,
                clock=self.clock,
            )
        else:
            self.around.settle(progress)
            self._trace_dirs.append(work / "trace")
            server = launch_server(
                case,
                self.engine,
                work=work,
                env=self.env,
                link=self.link,
                settings=self.settings,
                progress=progress,
                clock=self.clock,
            )
        seconds = round(self.clock.monotonic_s() - start_s, 3)
        stage = "attach" if server.attached else "launch"
        self._launch_stages = [{"stage": stage, "start_unix_s": round(wall_ns / 1e9, 3), "seconds": seconds}]
        progress.stage(f"ready in {format_seconds(seconds)}")
        return server

    def _capture(self, server: Server, case: Case, *, last: bool) -> None:
        place = self.store.case_dir(case)
        self.store.begin(place, test_id=self.test_id, worker=self.worker)
        try:
            for number in range(1, self.store.windows_of(case) + 1):
                self._window(server, case, number, last=last)
        except BaseException as error:
            if isinstance(error, _AgainError):
                raise
            final = self._with_attempts(self._told(error, case))
            self.store.fail(place, _interruption(final), test_id=self.test_id)
            raise final from (None if isinstance(error, InfraError) else error.__cause__)
        finally:
            self.store.end(place)

    def _window(self, server: Server, case: Case, number: int, *, last: bool) -> None:
        progress = self.progress.about(case.slug)
        there = files_now(server.trace_dir)
        log_start = server.log.size
        taking = Taking(
            server,
            case,
            number,
            self.settings,
            progress,
            env=self.env,
            work=self._work or server.trace_dir.parent,
            run_id=self.store.run_id,
            test_id=self.test_id,
            around=self.around,
        )
        try:
            taken = asyncio.run(taking.take(self._launch_stages))
            attempts = tuple(attempt.as_dict() for attempt in self._attempts)
            taken = replace(taken, attempts=attempts, environment=self.around.environment(server))
            collect(server, taken, self.store.case_dir(case) / str(number))
        except InfraError as told:
            error = self._told(told, case)
            self.lost = self.lost or taking.hanging or not self._healthy(server, since=log_start)
            again = self._why_again(error, last=last)
            target = self.store.quarantine_dir(case, number)
            target = target.with_name(f"{target.name}-first") if again else target
            with contextlib.suppress(StoreError, OSError):  # a full disk must not hide what went wrong first
                left = files_now(server.trace_dir) if taking.closed_by_others else there
                quarantine(server, target, stale=left, error=error)
            progress.done(f"failed: {error.problem[:160]}")
            self._note(error, f"window {number} of {case.slug}", last=last)
            raise with_place(error, f"What it left: {target}") from None
        except BaseException:
            if taking.left_open:
                progress.done(f"our profiler window is being closed; its files stay in {server.trace_dir}")
            raise
        finally:
            server.windows += 1
            self._launch_stages = []
        ranks = f"{len(taken.states)} rank{'s' * (len(taken.states) != 1)}"
        progress.done(f"captured {ranks} in {format_seconds(taken.capture_s)}")

    def _why_again(self, error: BaseException, *, last: bool) -> str:
        return "" if last else transient(error, own_port=not self.settings.port)

    def _note(self, error: BaseException, about: str, *, last: bool) -> None:
        """Record a failed attempt and raise `_AgainError`, if it is worth another one."""
        reason = self._why_again(error, last=last)
        if reason and isinstance(error, InfraError):
            self._attempts.append(Attempt(about, type(error).__name__, error.problem, reason))
            raise _AgainError from error

    def _told(self, error: _AnyError, case: Case) -> _AnyError:
        """The error without secrets: answers and logs of a server may repeat what it was given.

        What it was raised from goes no further, since that says the same unredacted.
        """
        if not isinstance(error, InfraError):
            return error
        redactor = Redactor({**self.env, **dict(case.env)}, (*case.server_args, *case.bench_args, self.settings.attach))
        return type(error)(redactor.text(error.problem), redactor.text(error.hint), redactor.lines(error.evidence))

    def _with_attempts(self, error: BaseException) -> BaseException:
        if not isinstance(error, InfraError) or not self._attempts:
            return error
        return type(error)(error.problem, error.hint, (*(one.text for one in self._attempts), *error.evidence))

    def _stop_server(self) -> None:
        patience_s = min(self.settings.stop_timeout, _LOST_S) if self.lost else self.settings.stop_timeout
        reply = self.link.request("stop", patience_s=patience_s, timeout_s=patience_s + 60.0)
        listed = reply.get("leftover")
        refuse_leftover([int(pid) for pid in listed] if isinstance(listed, list) else [])

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
        for directory in self._trace_dirs:
            shutil.rmtree(directory, ignore_errors=True)


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
