"""What the keeper starts beside the server, such as a benchmark client, and the secrets in what was written."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.clock import SYSTEM_CLOCK
from pytest_atomtrace.capture.identity import Identity
from pytest_atomtrace.capture.process import spawn_server
from pytest_atomtrace.capture.redact import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["Helper", "WrittenFiles"]

# A benchmark client that was told to terminate has nothing to put in order.
_PATIENCE_S = 2.0


class Helper:
    """At most one process beside the server; the keeper reaps it and says so by `ended`."""

    def __init__(self, reap: Callable[[], None]) -> None:
        self._reap = reap
        self._clock = SYSTEM_CLOCK
        self._process: Identity | None = None
        self.returncode: int | None = None

    @property
    def pid(self) -> int | None:
        """Its pid while it runs."""
        return self._process.pid if self._process is not None and self._runs() else None

    def _runs(self) -> bool:
        return self._process is not None and self.returncode is None

    def start(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> int:
        """Start it in a session of its own; returns its pid."""
        process = spawn_server(argv, env=env, cwd=cwd, log=log)
        process.returncode = 0  # ours to reap: Popen would find no such child
        self.returncode = None
        self._process = Identity.of(process.pid) or Identity(process.pid, 0)
        return process.pid

    def ended(self, pid: int, status: int) -> None:
        """Take note of a child that was reaped."""
        if self._process is not None and pid == self._process.pid:
            self.returncode = os.waitstatus_to_exitcode(status)

    def stop(self) -> None:
        """End it and what it started; its session is its process group, and it is not reaped yet."""
        self._reap()
        if self._process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self._runs():
                break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            deadline = self._clock.monotonic_s() + _PATIENCE_S
            while self._runs() and self._clock.monotonic_s() < deadline:
                self._clock.sleep_s(0.02)
                self._reap()
        self._process = None


class WrittenFiles:
    """The directories that servers and clients wrote into, and the secrets that each of them knew."""

    def __init__(self) -> None:
        self._redactors: dict[Path, list[Redactor]] = {}

    def add(self, directory: Path, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """A process that is about to be started there."""
        self._redactors.setdefault(directory, []).append(Redactor(env, argv))

    def redact(self) -> None:
        """Blank secrets out of what was written: logs repeat variables.

        Only once the writers have ended, since a file that is being written cannot be replaced, and after the lease is
        free, since nobody needs to wait for it.
        """
        for directory, redactors in self._redactors.items():
            with contextlib.suppress(OSError):
                for path in directory.iterdir():
                    if path.is_file() and not path.is_symlink():
                        _redact_file(path, redactors)


def _redact_file(path: Path, redactors: Sequence[Redactor]) -> None:
    data = clean = path.read_bytes()
    for redactor in redactors:
        clean = redactor.data(clean)
    if clean != data:
        partial = path.with_name(f".{path.name}.part")
        partial.write_bytes(clean)
        partial.replace(path)
