"""Progress lines: one at each stage's start, then at most one every half minute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.capture.clock import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Progress"]

_EVERY_S = 30.0


class Progress:
    """Writes ``atomtrace [subject] text`` through a callable."""

    def __init__(self, emit: Callable[[str], None], subject: str, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._emit = emit
        self._subject = subject
        self._clock = clock
        self._last_s = clock.monotonic_s()

    def about(self, subject: str) -> Progress:
        """The same lines about another case."""
        return Progress(self._emit, subject, clock=self._clock)

    def stage(self, text: str) -> None:
        """A stage begins or ends: always said."""
        self._last_s = self._clock.monotonic_s()
        self._emit(f"atomtrace [{self._subject}] {text}")

    def update(self, text: str) -> None:
        """The stage goes on: said when nothing was said for half a minute."""
        if self._clock.monotonic_s() - self._last_s >= _EVERY_S:
            self.stage(text)
