"""Progress lines that show without ``-s``, with ``-q`` and from workers; on a terminal, one that is kept up to date.

Loaded by runs that have something to tell; every other run of pytest only pays for the duplicate of a descriptor.
"""

from __future__ import annotations

import contextlib
import os

__all__ = ["Progress"]

_CLEAR = "\r\x1b[2K"
_NARROWEST = 20


class Progress:
    """Writes to `fd`, a duplicate of the real standard error (-1: there is none, and nobody to tell).

    `live` allows the line that is kept up to date; it needs a terminal too.
    """

    def __init__(self, fd: int, *, live: bool = False) -> None:
        self._mid_line = False
        self._shown = False
        self._fd = fd
        self.live = live and self._fd >= 0 and os.isatty(self._fd)

    def test_starts(self) -> None:
        """Note that pytest has written a dot or a name, so the next line must not continue that one."""
        self._mid_line = True

    def say(self, text: str) -> None:
        """Write one line that stays."""
        self._write(f"{self._start()}{self._safe(text)}\n")

    def show(self, text: str) -> None:
        """Write the line that the next `show` or `say` replaces, cut to the terminal's width."""
        start = self._start()
        self._write(f"{start}{self._safe(text)[: self._width()]}")
        self._shown = True

    def clear(self) -> None:
        """Take the line of `show` away: what pytest writes next begins where it stood."""
        if self._shown:
            self._write(_CLEAR)
            self._shown = False

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            self.clear()
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def _start(self) -> str:
        if self._shown:
            self._shown = False
            return _CLEAR
        start = "\n" if self._mid_line else ""
        self._mid_line = False
        return start

    def _width(self) -> int:
        # Looked up each time: windows are resized, and a line that wraps cannot be taken back.
        try:
            columns = os.get_terminal_size(self._fd).columns
        except OSError:
            columns = 80
        return max(_NARROWEST, columns - 1)

    def _safe(self, text: str) -> str:
        # Loaded with the first line: a run without captures has none, and log lines are anybody's text.
        from pytest_atomtrace.plugin.safe_text import safe_line

        return "\n".join(map(safe_line(), text.split("\n")))

    def _write(self, text: str) -> None:
        """A closed terminal must not fail a capture."""
        if self._fd < 0:
            return
        with contextlib.suppress(OSError):
            os.write(self._fd, text.encode("utf-8", "replace"))
