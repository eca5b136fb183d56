"""The keeper: a small process that owns the lease and the server (``python -m pytest_atomtrace.capture.keeper``).

It holds the locks' descriptors and is the server's parent. When the pipe from its worker ends, or one of the
watched processes dies, it stops the server and everything the server started, waits until the GPUs' memory is back,
and only then exits, which frees the lease: it is never free while a server of ours lives or holds memory. Test workers
cannot promise that, since their clean-up code does not run on kill -9, a second Ctrl-C or the death of a controller.

Protocol: one JSON object a line. Requests carry ``id`` and ``op``; replies carry the same ``id`` and either the
result or ``error``.

========== ======================================= =====================================================
op         request                                 reply
========== ======================================= =====================================================
acquire    paths, holder, memory                   acquired (bool), holder (who has it)
memory     give_up                                 excess (text, "" when idle), tenants (texts), before (pids),
                                                   blind (why nothing can be read)
launch     argv, env, cwd, log                     pid, start
status                                             alive, returncode, pids (live processes of the tree)
stop       patience_s                              returncode, leftover (pids), seconds
start      argv, env, cwd, log                     pid (of a helper beside the server: a benchmark client)
helper                                             returncode (None while it runs)
end_helper                                         returncode
hold_window url, log, since                        held: a window of ours on a server that is not, to be closed
drop_window                                        dropped: it is closed
release                                            released
quit                                               bye; then the process exits
========== ======================================= =====================================================

Only light imports here: it must be up in a fraction of the time that a lease hand-over may take.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.clock import SYSTEM_CLOCK
from pytest_atomtrace.capture.gpus import GpuSite, read_topology
from pytest_atomtrace.capture.held_window import HeldWindow
from pytest_atomtrace.capture.identity import Identity
from pytest_atomtrace.capture.keeper_helper import Helper, WrittenFiles
from pytest_atomtrace.capture.ladder import Ladder
from pytest_atomtrace.capture.locks import LockSet, read_holder
from pytest_atomtrace.capture.process import become_subreaper, spawn_server
from pytest_atomtrace.capture.vram import VramGuard
from pytest_atomtrace.errors import AtomTraceError
from pytest_atomtrace.settings import environment

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Keeper", "main"]

_TICK_S = 0.5
_MEMORY_POLL_S = 0.1
# Patience with SIGINT when nobody waits for the server any more.
_HURRY_S = 2.0
_STDIN = 0
_STDOUT = 1


class Keeper:
    """State of the process: one set of locks, at most one server, the processes it watches."""

    def __init__(self, watched: list[Identity]) -> None:
        self._lock: LockSet | None = None
        self._guard: VramGuard | None = None
        self._memory_timeout_s = 0.0
        self._server: Identity | None = None
        self._returncode: int | None = None
        self._helper = Helper(self._reap)
        self._window: HeldWindow | None = None
        self._buffer = b""
        self._orphaned = False
        self._leaving = False
        self._written = WrittenFiles()
        self._watched = watched
        self._clock = SYSTEM_CLOCK
        self._wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self._poll = select.poll()
        self._poll.register(_STDIN, select.POLLIN)
        self._poll.register(self._wake_read, select.POLLIN)
        for identity in watched:
            # Where pidfd is refused the tick below finds the death by pid and start time, half a second later.
            with contextlib.suppress(OSError):
                self._poll.register(os.pidfd_open(identity.pid), select.POLLIN)

    def run(self) -> int:
        """Serve until the owner says quit, ends, or dies; then leave nothing behind."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_terminate)
        signal.signal(signal.SIGHUP, self._on_terminate)
        # A handler and not SIG_IGN: servers would inherit that through exec and be deaf to our own SIGINT.
        signal.signal(signal.SIGINT, lambda *_: None)
        try:
            while not self._leaving and not self._owner_gone(wait_s=_TICK_S):
                self._reap()
                self._serve_lines()
        finally:  # whatever went wrong above: no exit before the server's
            self._helper.stop()
            self._close_window()
            leftover = self._stop(_HURRY_S)
            if leftover:
                sys.stderr.write(f"processes outlived SIGKILL: {leftover}\n")
            self._outwait_memory()
            if self._lock is not None:
                self._lock.release()
            self._written.redact()
        return 1 if leftover else 0

    def _on_terminate(self, *_: object) -> None:
        self._orphaned = True

    def _owner_gone(self, *, wait_s: float = 0.0) -> bool:
        """True once the pipe ended, a watched process died, or we were told to terminate; reads the pipe."""
        if not self._orphaned:
            patience_ms = 0.0 if b"\n" in self._buffer else wait_s * 1000
            for descriptor, _ in self._poll.poll(patience_ms):
                if descriptor == _STDIN:
                    data = os.read(_STDIN, 1 << 16)
                    self._buffer += data
                    self._orphaned |= not data
                elif descriptor == self._wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake_read, 4096)
            self._orphaned |= any(not identity.alive for identity in self._watched)
        return self._orphaned

    def _serve_lines(self) -> None:
        while b"\n" in self._buffer and not self._leaving:
            line, _, self._buffer = self._buffer.partition(b"\n")
            request = json.loads(line)
            try:
                reply = self._operations()[request["op"]](request)
            except (AtomTraceError, OSError, KeyError) as error:
                reply = {"error": f"{type(error).__name__}: {error}"}
            text = json.dumps({"id": request.get("id"), **reply}) + "\n"
            with contextlib.suppress(BrokenPipeError):  # the end of stdin follows and is what counts
                os.write(_STDOUT, text.encode())

    def _operations(self) -> dict[str, Callable[[dict[str, object]], dict[str, object]]]:
        return {
            "acquire": self._acquire,
            "memory": self._memory,
            "launch": self._launch,
            "status": self._status,
            "stop": self._stop_on_request,
            "start": self._start_helper,
            "helper": self._ask_helper,
            "end_helper": self._end_helper,
            "hold_window": self._hold_window,
            "drop_window": self._drop_window,
            "release": self._release,
            "quit": self._quit,
        }

    def _acquire(self, request: dict[str, object]) -> dict[str, object]:
        listed = request["paths"]
        paths = [Path(str(path)) for path in listed] if isinstance(listed, list) else []
        if not paths:
            return {"error": "acquire needs paths (a list)"}
        if self._lock is None:
            self._lock = LockSet(paths)
        holder = request["holder"]
        facts = dict(holder) if isinstance(holder, dict) else {}
        busy = self._lock.try_acquire(facts | {"keeper": os.getpid()})
        if busy is not None:
            return {"acquired": False, "holder": read_holder(busy)}
        memory = request.get("memory")
        if isinstance(memory, dict) and self._guard is None:
            root, cards = Path(str(memory["root"])), {str(card) for card in memory["cards"]}
            gpus = tuple(gpu for gpu in read_topology(root).gpus if gpu.pci in cards)
            self._guard = VramGuard(GpuSite(root, gpus), paths[0].parent, env=environment())
            self._memory_timeout_s = float(memory["timeout_s"])
        return {"acquired": True, "holder": {}}

    def _memory(self, request: dict[str, object]) -> dict[str, object]:
        """Whether the memory is idle: before a launch at its remembered level, after a stop back at that before it."""
        guard = self._guard
        if guard is None or self._server is not None:
            return {"excess": "", "tenants": [], "before": sorted(guard.tenants_before) if guard else []}
        excess = guard.excess()
        tenants = guard.tenants() if excess else []
        if not excess or request.get("give_up"):
            guard.settle()
        return {"excess": excess, "tenants": tenants, "before": [], "blind": guard.blind}

    def _outwait_memory(self) -> None:
        """With nobody left to ask: hold the lease until the memory is back, or for as long as is allowed."""
        guard = self._guard
        if guard is None or not guard.launched:
            return
        deadline = self._clock.monotonic_s() + self._memory_timeout_s
        excess = guard.excess()
        while excess and self._clock.monotonic_s() < deadline:
            self._clock.sleep_s(_MEMORY_POLL_S)
            excess = guard.excess()
        if excess:
            sys.stderr.write(f"after {self._memory_timeout_s:g} s, {excess}\n")
        guard.settle()

    def _launch(self, request: dict[str, object]) -> dict[str, object]:
        if self._lock is None or not self._lock.held:
            return {"error": "no server is started without the lease"}
        if self._server is not None:
            return {"error": f"a server (pid {self._server.pid}) is running already"}
        argv, env = request["argv"], request["env"]
        if not isinstance(argv, list) or not isinstance(env, dict):
            return {"error": "launch needs argv (a list) and env (an object)"}
        if self._guard is not None:
            self._guard.launching()
        cwd = Path(str(request["cwd"]))
        self._written.add(cwd, argv, env)
        process = spawn_server(argv, env=env, cwd=cwd, log=Path(str(request["log"])))
        # The pid is ours to reap (waitpid below), so Popen must not: it would find no such child.
        process.returncode = 0
        self._returncode = None
        self._server = Identity.of(process.pid) or Identity(process.pid, 0)
        return {"pid": self._server.pid, "start": self._server.start}

    def _status(self, _: dict[str, object]) -> dict[str, object]:
        self._reap()
        alive = self._server is not None and self._returncode is None
        pids = [row.pid for row in self._ladder(self._server).members()] if self._server else []
        return {"alive": alive, "returncode": self._returncode, "pids": pids}

    def _start_helper(self, request: dict[str, object]) -> dict[str, object]:
        if self._lock is None or not self._lock.held:
            return {"error": "nothing is started without the lease"}
        if self._helper.pid is not None:
            return {"error": f"a helper (pid {self._helper.pid}) is running already"}
        argv, env = request["argv"], request["env"]
        if not isinstance(argv, list) or not isinstance(env, dict):
            return {"error": "start needs argv (a list) and env (an object)"}
        cwd = Path(str(request["cwd"]))
        self._written.add(cwd, argv, env)
        return {"pid": self._helper.start(argv, env=env, cwd=cwd, log=Path(str(request["log"])))}

    def _ask_helper(self, _: dict[str, object]) -> dict[str, object]:
        self._reap()
        return {"returncode": self._helper.returncode}

    def _end_helper(self, _: dict[str, object]) -> dict[str, object]:
        self._helper.stop()
        return {"returncode": self._helper.returncode}

    def _hold_window(self, request: dict[str, object]) -> dict[str, object]:
        if self._lock is None or not self._lock.held:
            return {"error": "no window is opened without the lease"}
        self._window = HeldWindow(str(request["url"]), str(request["log"]), int(str(request["since"])))
        return {"held": True}

    def _drop_window(self, _: dict[str, object]) -> dict[str, object]:
        self._window = None
        return {"dropped": True}

    def _close_window(self) -> None:
        """Whatever goes wrong with somebody's server, what follows must be done."""
        window, self._window = self._window, None
        if window is None:
            return
        try:
            sys.stderr.write(f"{window.close()}\n")
        except Exception as error:  # noqa: BLE001  # a lock that is never freed would be worse
            sys.stderr.write(f"our profiler window may be open still: {type(error).__name__}: {error}\n")

    def _stop_on_request(self, request: dict[str, object]) -> dict[str, object]:
        start = self._clock.monotonic_s()
        self._helper.stop()
        leftover = self._stop(float(str(request["patience_s"])))
        seconds = self._clock.monotonic_s() - start
        return {"returncode": self._returncode, "leftover": leftover, "seconds": seconds}

    def _release(self, _: dict[str, object]) -> dict[str, object]:
        if self._server is not None:
            return {"error": "the lease is not released while the server lives"}
        if self._lock is not None:
            self._lock.release()
        return {"released": True}

    def _quit(self, _: dict[str, object]) -> dict[str, object]:
        self._leaving = True
        return {"bye": True}

    def _ladder(self, server: Identity) -> Ladder:
        return Ladder(root=server, clock=self._clock, hurried=self._owner_gone, reap=self._reap)

    def _stop(self, patience_s: float) -> list[int]:
        if self._server is None:
            return []
        leftover = self._ladder(self._server).stop(patience_s)
        if not leftover:
            self._server = None
        return leftover

    def _reap(self) -> None:
        """Collect every dead child, adopted ones too: a zombie would look like a survivor."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._server is not None and pid == self._server.pid:
                self._returncode = os.waitstatus_to_exitcode(status)
            self._helper.ended(pid, status)


def main(argv: list[str]) -> int:
    """``keeper PID:START ...``: the processes whose death ends it."""
    if not become_subreaper():
        sys.stderr.write("this kernel refuses PR_SET_CHILD_SUBREAPER: processes that escape may be missed\n")
    return Keeper([Identity.parse(text) for text in argv]).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
