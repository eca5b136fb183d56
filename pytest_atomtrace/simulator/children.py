"""Child processes of the simulator: the one place that starts and adopts them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from pytest_atomtrace.simulator.logs import log
from pytest_atomtrace.simulator.wire import Channel

__all__ = ["Child", "adopt", "leak", "set_title", "spawn"]

PR_SET_PDEATHSIG = 1


class Child:
    """A started process and the channel to it."""

    def __init__(self, process: subprocess.Popen[bytes], channel: Channel, label: str) -> None:
        self.process = process
        self.channel = channel
        self.label = label

    def stop(self, grace_s: float) -> None:
        """Close the channel (a child leaves at its end), wait, terminate, wait a second, kill."""
        self.channel.close()
        for action, wait_s in ((None, grace_s), (self.process.terminate, 1.0), (self.process.kill, 5.0)):
            if action is not None:
                action()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(wait_s)
                return


def spawn(module: str, config: dict[str, Any], label: str, *, inherit: tuple[int, ...] = ()) -> Child:
    """Start ``module.main()`` in a fresh interpreter and send it ``config`` as the first message.

    ``-S`` and a ready-made ``sys.path`` save the time that ``site`` takes: eight workers must be up in a
    second on two cores. Threads never see a fork: this is fork and exec of a single-threaded caller.
    """
    ours, theirs = socket.socketpair()
    code = (
        f"import sys; sys.path[:] = {[entry or str(Path.cwd()) for entry in sys.path]!r}; "
        f"from pytest_atomtrace.simulator import {module} as child; child.main({theirs.fileno()}, {os.getpid()})"
    )
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", code], pass_fds=[theirs.fileno(), *inherit], stdin=subprocess.DEVNULL
    )
    theirs.close()
    channel = Channel(ours)
    channel.send(config)
    return Child(process, channel, label)


def adopt(descriptor: int, parent: int) -> tuple[Channel, dict[str, Any]]:
    """What a child does first: die with its parent, ignore SIGINT, read its configuration."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before prctl took effect
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=descriptor))
    messages: list[dict[str, Any]] = []
    while not messages:
        messages = channel.receive()
    config = messages[0]

    def leave(*_: object) -> None:
        log(f"{config['label']}: received signal 15 (SIGTERM), exiting...")
        os._exit(143)

    signal.signal(signal.SIGTERM, leave)
    return channel, config


def set_title(title: str) -> None:
    """Rename the process as ATOM does; without setproctitle the name stays, as in ATOM."""
    # without it the title overwrites /proc/PID/environ, and whoever looks for our processes by a token in
    # their environment would miss the renamed ones
    os.environ["SPT_NOENV"] = "1"
    try:
        from setproctitle import setproctitle
    except ImportError:
        return
    setproctitle(title)


def leak(seconds: float) -> None:
    """Leave a process behind in a session of its own; it ends by itself after ``seconds``."""
    subprocess.Popen(
        [sys.executable, "-S", "-c", f"import time; time.sleep({seconds})"],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
