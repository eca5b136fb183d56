"""Standard output and error as the commands see them: width, colours only where somebody looks, progress."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
from typing import TYPE_CHECKING, TextIO

from pytest_atomtrace.settings import environment
from pytest_atomtrace.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Screen"]

# Into a pipe or a file nothing wraps, so names get room.
_PIPE_COLUMNS = 120
_NARROWEST = 60
_PATIENCE_S = 1.0
_REFRESH_S = 0.5
_CODES = {"title": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34"}


class Screen:
    """Where answers go. `width` None asks the terminal."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None, *, width: int | None = None) -> None:
        self.out = out if out is not None else sys.stdout
        self.err = err if err is not None else sys.stderr
        columns = width or shutil.get_terminal_size((_PIPE_COLUMNS, 24)).columns
        self.width = max(columns, _NARROWEST)
        env = environment()
        self.colour = self.out.isatty() and not env.get("NO_COLOR") and env.get("TERM") != "dumb"

    def lines(self, lines: Iterable[tuple[str, str]]) -> None:
        """Write (style, text) pairs."""
        for style, text in lines:
            code = _CODES.get(style) if self.colour and text else None
            self.out.write(f"\x1b[{code}m{text}\x1b[0m\n" if code else f"{text}\n")
        self.out.flush()

    def text(self, text: str) -> None:
        """Write one line as it is."""
        self.out.write(text + "\n")
        self.out.flush()

    def complain(self, text: str) -> None:
        """One line on standard error; a closed one must not hide the exit code."""
        with contextlib.suppress(OSError, ValueError):
            self.err.write(" ".join(text.split("\n")).strip() + "\n")
            self.err.flush()

    @contextlib.contextmanager
    def watching(self, what: str) -> Iterator[None]:
        """Say on standard error what takes so long, once it has taken a second."""
        done = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(what, done), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def _watch(self, what: str, done: threading.Event) -> None:
        if done.wait(_PATIENCE_S):
            return
        with contextlib.suppress(OSError, ValueError):
            if not self.err.isatty():
                self.err.write(f"atomtrace: {what} ...\n")
                self.err.flush()
                return
            waited = _PATIENCE_S
            while True:
                self.err.write(f"\r\x1b[Katomtrace: {what} ... {format_seconds(waited)}")
                self.err.flush()
                if done.wait(_REFRESH_S):
                    break
                waited += _REFRESH_S
            self.err.write("\r\x1b[K")
            self.err.flush()
