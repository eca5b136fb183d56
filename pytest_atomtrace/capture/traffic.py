"""Whose requests a server answered: its own counters before and after the load, against what the load sent.

A server that is not ours has other clients, now or in the middle of a window, and a request more in the batch makes
every step longer. ATOM counts finished requests in ``/metrics`` and renews the figures about every 5 s, so a look waits
until they were renewed once.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.http import TransportError

if TYPE_CHECKING:
    from pytest_atomtrace.capture.clock import Clock
    from pytest_atomtrace.capture.http import Client

__all__ = ["Traffic"]

_ASK_S = 10.0
_POLL_S = 0.25
# Half as long again as the server's own interval.
_RENEWED_S = 8.0
_SAMPLE = re.compile(r"^atom:(?P<name>\w+?)(?:_total)?(?:\{[^}]*\})?\s+(?P<value>[-+.\deE]+)\s*$", re.M)
_FINISHED, _RUNNING, _WAITING = "requests_finished", "requests_running", "requests_waiting"
_RENEWED = "metrics_last_refresh_timestamp_seconds"


@dataclass
class Traffic:
    """From `begin` (our requests are not sent yet) to `end` (all are answered)."""

    client: Client
    clock: Clock
    _before: dict[str, float] = field(default_factory=dict)
    _why: str = ""

    async def begin(self) -> None:
        """Read the counters."""
        self._before = await self._renewed()

    async def end(self, *, ours: int) -> dict[str, object]:
        """What the server counted beside `ours`, as builtin types; ``{"unknown": why}`` where it does not tell."""
        after = await self._renewed() if not self._why else {}
        if self._why:
            return {"unknown": self._why}
        finished = round(after[_FINISHED] - self._before[_FINISHED])
        if finished < ours:
            return {"unknown": f"the server counted {finished} finished requests, and ours alone were {ours}"}
        return {
            "finished": finished,
            "ours": ours,
            "in_flight_before": _in_flight(self._before),
            "in_flight_after": _in_flight(after),
        }

    async def _renewed(self) -> dict[str, float]:
        first = await self._read()
        deadline_s = self.clock.monotonic_s() + _RENEWED_S
        while not self._why and _RENEWED in first:
            row = await self._read()
            if row.get(_RENEWED) != first[_RENEWED]:
                return row
            if self.clock.monotonic_s() > deadline_s:
                self._why = f"the server's counters were not renewed within {_RENEWED_S:g} s"
            await asyncio.sleep(_POLL_S)
        return first

    async def _read(self) -> dict[str, float]:
        try:
            reply = await self.client.get("/metrics", timeout_s=_ASK_S)
        except TransportError as error:
            self._why = self._why or str(error)
            return {}
        found: dict[str, float] = {}
        for match in _SAMPLE.finditer(reply.text if reply.status == 200 else ""):
            try:
                found[match["name"]] = found.get(match["name"], 0.0) + float(match["value"])
            except ValueError:
                continue
        if _FINISHED not in found:
            self._why = self._why or f"/metrics does not tell finished requests ({reply.reason[:80]})"
        return found


def _in_flight(row: dict[str, float]) -> int:
    return round(row.get(_RUNNING, 0.0) + row.get(_WAITING, 0.0))
