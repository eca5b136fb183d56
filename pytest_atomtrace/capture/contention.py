"""Was the window ours alone? Foreign processes on the leased GPUs, and throttling, while it was open.

What is found goes into the manifest; what it means for a verdict is decided where verdicts are made. Tenants are
looked for at both ends of the window and once a second in it; throttle counters are read at both ends only, since
a reading makes the card's firmware answer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.cards import THROTTLES, find_cards
from pytest_atomtrace.capture.tenants import foreign, holders_of_kfd, read_tenants

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pytest_atomtrace.capture.gpus import GpuSite
    from pytest_atomtrace.capture.tenants import Tenant

__all__ = ["WindowWatch", "throttled"]

_EVERY_S = 1.0
_WRAP = 1 << 32
_NO_COUNTERS = "no throttle counters in gpu_metrics (revisions 1.6 to 1.8 are read)"


class WindowWatch:
    """From `start` to `finish`; `ours` are the server's pids, `before` the tenants' before its launch."""

    def __init__(
        self, site: GpuSite, *, ours: Collection[int], before: Collection[int], env: Mapping[str, str]
    ) -> None:
        self._site = site
        self._ours = frozenset(ours)
        self._before = frozenset(before)
        self._env = env
        self._holding = len(holders_of_kfd(site.root, self._ours))
        self._seen: dict[int, Tenant] = {}
        self._unnamed = 0
        self._counters: dict[str, dict[str, int]] = {}
        self._reason = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """The window opens: read the counters, and look for tenants from now on."""
        self._counters, self._reason = self._read_counters()
        self.look()
        self._task = asyncio.ensure_future(self._look_on())

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            self.look()

    def look(self) -> None:
        """Look for tenants now."""
        tenants = read_tenants(self._site.root, self._site.gpus)
        strangers, more = foreign(tenants, ours=self._ours, before=self._before, holding=self._holding)
        self._seen |= {tenant.pid: tenant for tenant in strangers}
        self._unnamed = max(self._unnamed, more)

    def finish(self) -> dict[str, object]:
        """The window is over: what happened in it, as builtin types."""
        self.cancel()
        self.look()
        counters, reason = self._read_counters()
        facts: dict[str, object] = {"foreign": [self._seen[pid].as_dict() for pid in sorted(self._seen)]}
        if self._unnamed:
            facts["foreign_unnamed"] = self._unnamed
        reason = self._reason or reason
        rows: dict[str, dict[str, int]] = {}
        for card, start in self._counters.items():
            row = throttled(start, counters[card]) if card in counters else None
            if row is None:
                reason = reason or f"the throttle counters of {card} were reset in the window"
            else:
                rows[card] = row
        facts["throttle"] = rows
        if reason:
            facts["unknown"] = {"throttle": reason}
        return facts

    def cancel(self) -> None:
        """End the looking; harmless twice."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _read_counters(self) -> tuple[dict[str, dict[str, int]], str]:
        cards = find_cards(self._site.root, self._site.cards)
        found = {pci: counters for pci, card in cards.items() if (counters := card.throttle_counters()) is not None}
        if len(found) == len(self._site.cards):
            return found, ""
        from pytest_atomtrace.capture.smi import SmiError, smi_throttles  # only where sysfs is silent

        try:
            return smi_throttles(self._site.cards, env=self._env), ""
        except SmiError as error:
            return found, f"{_NO_COUNTERS}; {error}"


def throttled(start: Mapping[str, int], end: Mapping[str, int]) -> dict[str, int] | None:
    """How much each counter of `THROTTLES` grew, and ``cycles``; None where they were reset in between.

    Counters are 32 bits wide and wrap.
    """
    names = [name for name in ("cycles", *THROTTLES) if name in start and name in end]
    grown = {name: (end[name] - start[name]) % _WRAP for name in names}
    cycles = grown.get("cycles")
    # A residency counts the cycles in which its limit held, so it cannot outgrow them.
    if cycles is None or any(value > cycles for value in grown.values()):
        return None
    return grown
