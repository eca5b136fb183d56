"""The one door to starting processes."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Piped", "become_subreaper", "read_output", "run_quietly", "spawn_piped", "spawn_server"]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

Piped = subprocess.Popen[bytes]


def spawn_piped(argv: Sequence[str], *, env: Mapping[str, str], log: Path) -> Piped:
    """Start a helper in a session of its own, spoken to over stdin and stdout; stderr is appended to `log`.

    A session of its own keeps the terminal's Ctrl-C away from it. stderr must not be inherited: a test runner
    that waits for the end of its workers' stderr would wait for the helper too.
    """
    with log.open("ab") as errors:
        return subprocess.Popen(
            list(argv),
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            bufsize=0,
        )


def spawn_server(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own, stdout and stderr appended to one log.

    It is killed by the kernel should its parent be killed: nobody else could then prove that it is ours.
    Must be called from a single-threaded process (it runs code between fork and exec).
    """
    parent = os.getpid()
    libc = ctypes.CDLL(None)  # loaded before the fork: dlopen in the child may deadlock

    def die_with_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    with log.open("ab") as output:
        return subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509  # single-threaded, see above
        )


def become_subreaper() -> bool:
    """Make orphans among our descendants our children, so a double fork or setsid cannot escape the tree."""
    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def run_quietly(argv: Sequence[str], *, env: Mapping[str, str], timeout_s: float) -> int:
    """Exit status of a short command whose output does not matter; 127 if it cannot be run or takes too long."""
    try:
        done = subprocess.run(
            list(argv),
            env=dict(env),
            timeout=timeout_s,
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 127
    return done.returncode


def read_output(argv: Sequence[str], *, env: Mapping[str, str], timeout_s: float, limit_bytes: int = 1 << 24) -> bytes:
    """Standard output of a short command.

    Raises:
        OSError: it cannot be run, takes longer than `timeout_s`, writes more than `limit_bytes`, or fails; the text
            says which.

    """
    # Into memory files: a pipe that nobody drains would block a child that outlives its time-out.
    with open(os.memfd_create("output"), "w+b") as output, open(os.memfd_create("errors"), "w+b") as errors:  # noqa: PTH123
        process = subprocess.Popen(list(argv), env=dict(env), stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise OSError(f"{argv[0]} took longer than {timeout_s:g} s") from None
        finally:
            process.kill()
            process.wait()
        if code != 0:
            errors.seek(0)
            last = errors.read(1 << 16).decode("utf-8", "replace").strip().splitlines()[-1:]
            raise OSError(f"{argv[0]} ended with status {code}{': ' if last else ''}{''.join(last)[:200]}")
        size = output.seek(0, os.SEEK_END)
        if size > limit_bytes:
            raise OSError(f"{argv[0]} wrote {size:,} bytes")
        output.seek(0)
        return output.read()
