"""Progress lines that show without ``-s``, with ``-q`` and from xdist workers."""

from __future__ import annotations

import contextlib
import os

__all__ = ["Progress"]


class Progress:
    """Writes lines to a duplicate of the real standard error.

    pytest redirects fd 2 while tests run; in ``pytest_configure`` it is the real one (measured: the only place
    from which lines show in all of default, ``-q``, ``-s`` and ``-n 2``).
    """

    def __init__(self) -> None:
        self._mid_line = False
        try:
            self._fd = os.dup(2)
        except OSError:  # fd 2 is closed: nobody to tell
            self._fd = -1

    def test_starts(self) -> None:
        """Note that pytest has written a dot or a name, so the next line must not continue that one."""
        self._mid_line = True

    def say(self, text: str) -> None:
        """Write one line; a closed terminal must not fail a capture."""
        if self._fd < 0:
            return
        start = "\n" if self._mid_line else ""
        self._mid_line = False
        with contextlib.suppress(OSError):
            os.write(self._fd, f"{start}{text}\n".encode("utf-8", "replace"))

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1
