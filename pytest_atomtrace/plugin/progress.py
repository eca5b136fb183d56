"""Progress lines that show without ``-s``, with ``-q`` and from xdist workers."""

from __future__ import annotations

import contextlib
import os

__all__ = ["close", "duplicate_stderr", "say"]


def duplicate_stderr() -> int:
    """A descriptor of the real standard error.

    pytest redirects fd 2 while tests run; in ``pytest_configure`` it is the real one (measured: the only place
    from which lines show in all of default, ``-q``, ``-s`` and ``-n 2``). Returns -1 where fd 2 is closed.
    """
    try:
        return os.dup(2)
    except OSError:
        return -1


def say(fd: int, text: str) -> None:
    """Write one line; a closed terminal must not fail a capture."""
    if fd >= 0:
        with contextlib.suppress(OSError):
            os.write(fd, (text + "\n").encode("utf-8", "replace"))


def close(fd: int) -> None:
    """Give the descriptor back."""
    if fd >= 0:
        with contextlib.suppress(OSError):
            os.close(fd)
