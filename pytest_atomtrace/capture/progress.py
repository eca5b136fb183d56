"""What is going on: a line at each stage's start, then one every half minute, or one line that is kept up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.capture.clock import SYSTEM_CLOCK, Clock
from pytest_atomtrace.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Progress"]

_EVERY_S = 30.0
# Often enough that the seconds tick.
_LIVE_EVERY_S = 0.2


class Progress:
    """Writes ``atomtrace [subject] text``.

    `emit` takes lines that stay. `show`, where there is one (a terminal that nobody else writes to), takes the line
    that the next one replaces.
    """

    def __init__(
        self,
        emit: Callable[[str], None],
        subject: str,
        *,
        clock: Clock = SYSTEM_CLOCK,
        show: Callable[[str], None] | None = None,
    ) -> None:
        self._emit = emit
        self._show = show
        self._subject = subject
        self._clock = clock
        self._said_s = self._start_s = clock.monotonic_s()
        self._shown_s = self._start_s - _LIVE_EVERY_S
        self._name = ""
        self._limit_s: float | None = None

    def about(self, subject: str) -> Progress:
        """The same lines about another case."""
        return Progress(self._emit, subject, clock=self._clock, show=self._show)

    def stage(self, text: str, *, name: str = "", limit_s: float | None = None) -> None:
        """A stage begins: always said. Updates call it `name` (else `text` up to its colon) and tell its limit."""
        self._name = name or text.partition(":")[0]
        self._limit_s = limit_s
        self._start_s = self._clock.monotonic_s()
        self._line(text)
        if self._show is not None:
            self._shown_s = self._start_s
            self._show(self._framed(text))

    def done(self, text: str) -> None:
        """A stage or a capture is over, or something must be known: said, and stays on every screen."""
        self._said_s = self._clock.monotonic_s()
        self._emit(self._framed(text))

    def update(self, detail: str) -> None:
        """The stage goes on: on a live screen shown at once, else said when nothing was said for half a minute."""
        now_s = self._clock.monotonic_s()
        if self._show is not None:
            if now_s - self._shown_s >= _LIVE_EVERY_S:
                self._shown_s = now_s
                self._show(self._framed(self._so_far(now_s, detail)))
        elif now_s - self._said_s >= _EVERY_S:
            self._line(self._so_far(now_s, detail))

    def passing(self, text: str) -> None:
        """A stage without news and without limit: for live screens only."""
        if self._show is not None:
            self._show(self._framed(text))

    def _so_far(self, now_s: float, detail: str) -> str:
        limit = f" of {format_seconds(self._limit_s)}" if self._limit_s is not None else ""
        return f"{self._name}, {format_seconds(now_s - self._start_s)}{limit}: {detail}"

    def _line(self, text: str) -> None:
        self._said_s = self._clock.monotonic_s()
        if self._show is None:
            self._emit(self._framed(text))

    def _framed(self, text: str) -> str:
        return f"atomtrace [{self._subject}] {text}"
