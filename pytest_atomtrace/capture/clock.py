"""The one door to clock and sleep; waiting code takes a `Clock`, so its tests need no waiting."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SYSTEM_CLOCK", "Clock"]


@dataclass(frozen=True)
class Clock:
    """`monotonic_s` for durations and deadlines, `wall_ns` for records, `sleep_s` for polling."""

    monotonic_s: Callable[[], float] = time.monotonic
    wall_ns: Callable[[], int] = time.time_ns
    sleep_s: Callable[[float], None] = time.sleep

    def local_time(self, wall_ns: int | None = None, *, form: str = "%H:%M") -> str:
        """Local time of day for people."""
        seconds = (self.wall_ns() if wall_ns is None else wall_ns) / 1e9
        return time.strftime(form, time.localtime(seconds))


SYSTEM_CLOCK = Clock()
