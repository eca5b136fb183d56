"""The worker's end of the pipe to its keeper."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.clock import SYSTEM_CLOCK, Clock
from pytest_atomtrace.capture.process import spawn_piped
from pytest_atomtrace.errors import InfraError, LeaseError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_atomtrace.capture.identity import Identity

__all__ = ["KeeperLink"]

_MODULE = "pytest_atomtrace.capture.keeper"
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_ANSWER_S = 30.0
# The keeper's own worst case is 2 + 1.5 + 10 s when hurried; beyond that it hangs and the kernel must help.
_EXIT_S = 20.0


class KeeperLink:
    """One keeper process, from `start` to `close`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, clock: Clock) -> None:
        self._process = process
        self._log = log
        self._clock = clock
        self._buffer = b""
        self._next_id = 0
        #: It may outlive `close`: it then waits for GPU memory, and the lease with it.
        self.lingers = False

    @classmethod
    def start(
        cls, watched: Sequence[Identity], *, env: Mapping[str, str], log: Path, clock: Clock = SYSTEM_CLOCK
    ) -> KeeperLink:
        """Start a keeper that dies (after cleaning up) with any of `watched`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(filter(None, (str(_PACKAGE_PARENT), env.get("PYTHONPATH", ""))))
        argv = [sys.executable, "-m", _MODULE, *(identity.text for identity in watched)]
        return cls(spawn_piped(argv, env={**env, "PYTHONPATH": path}, log=log), log, clock)

    @property
    def pid(self) -> int:
        """Process id of the keeper."""
        return self._process.pid

    def request(self, op: str, *, timeout_s: float = _ANSWER_S, **facts: object) -> dict[str, object]:
        """Ask and wait for the answer; Ctrl-C interrupts the wait, and a late answer is then dropped.

        Raises:
            InfraError: the keeper is gone, does not answer, or refused.

        """
        self._next_id += 1
        text = json.dumps({"id": self._next_id, "op": op, **facts}) + "\n"
        try:
            self._send(text.encode())
        except OSError as error:
            raise self._gone(op) from error
        deadline = self._clock.monotonic_s() + timeout_s
        while True:
            reply = self._read_line(op, deadline)
            if reply.get("id") == self._next_id:
                break
        if "error" in reply:
            kind, _, text = str(reply["error"]).partition(": ")
            if kind == LeaseError.__name__:  # it did not refuse: it could not, and has told why
                problem, _, hint = text.partition("\n")
                raise LeaseError(problem, hint)
            raise InfraError(f"the lease's keeper refused to {op}: {reply['error']}")
        return reply

    def _send(self, data: bytes) -> None:
        stdin = self._process.stdin
        if stdin is None or stdin.closed:
            raise BrokenPipeError
        while data:
            data = data[os.write(stdin.fileno(), data) :]

    def _read_line(self, op: str, deadline: float) -> dict[str, object]:
        stdout = self._process.stdout
        if stdout is None or stdout.closed:
            raise self._gone(op)
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left_s = deadline - self._clock.monotonic_s()
                if left_s <= 0:
                    raise InfraError(f"the lease's keeper (pid {self.pid}) did not answer to {op!r}")
                if selector.select(min(left_s, 1.0)):
                    data = os.read(stdout.fileno(), 1 << 16)
                    if not data:
                        raise self._gone(op)
                    self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        value = json.loads(line)
        return value if isinstance(value, dict) else {}

    def _gone(self, op: str) -> InfraError:
        evidence: list[str] = []
        with contextlib.suppress(OSError):
            evidence = self._log.read_text(errors="replace").splitlines()[-5:]
        return LeaseError(f"the lease's keeper (pid {self.pid}) is gone, asked to {op}", "", evidence)

    def close(self, *, wait_s: float = _EXIT_S) -> None:
        """Close the pipe, at which the keeper stops everything and exits; wait for that.

        An interrupt of the wait loses nothing: the keeper goes on without us.
        """
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                stream.close()
        if self._process.returncode is not None:
            return
        try:
            self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            if self.lingers:
                self._process.returncode = 0  # it ends by itself; Popen must not warn that it runs on
                return
            # Killing it also kills the server (parent death signal), and the lease is freed by the kernel.
            self._process.kill()
            self._process.wait()
