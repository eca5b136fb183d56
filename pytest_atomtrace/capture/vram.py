"""GPU memory around a server's life: idle before its launch, back after its end.

A server that died may leave hundreds of GB behind for seconds (the driver frees them) or for good (a process that
hangs in the kernel). The next one would fail with a misleading "out of memory", so the lease is not given on before
the level is back at what it was before the launch plus 1 GiB a card; if it does not come back, the case that leaked
is told, and what stays is the idle level of those who come later.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.cards import find_cards
from pytest_atomtrace.capture.locks import SharedNote
from pytest_atomtrace.capture.tenants import read_tenants
from pytest_atomtrace.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_atomtrace.capture.gpus import GpuSite

__all__ = ["VramGuard", "level_name", "read_levels"]

#: What a card may hold above its idle level: drivers and runtimes keep some, and never give all of it back.
SLACK_BYTES = 1 << 30


def level_name(card: str) -> str:
    """Name of the file that remembers a card's idle level between runs."""
    return f"gpu-{card.replace(':', '_')}.level"


def read_levels(site: GpuSite, *, env: Mapping[str, str]) -> tuple[dict[str, int], str]:
    """Bytes in use by card, and why there is none ("" if there is)."""
    cards = find_cards(site.root, site.cards)
    found = {pci: used for pci, card in cards.items() if (used := card.vram_used) is not None}
    if len(found) == len(site.cards):
        return found, ""
    from pytest_atomtrace.capture.smi import SmiError, smi_vram_used  # only where sysfs is silent

    try:
        return smi_vram_used(site.cards, env=env), ""
    except SmiError as error:
        missing = ", ".join(pci for pci in site.cards if pci not in found)
        return {}, f"no mem_info_vram_used of {missing} in sysfs; {error}"


class VramGuard:
    """The memory of one lease's cards; `directory` is the lock directory, whose lock the caller holds."""

    def __init__(self, site: GpuSite, directory: Path, *, env: Mapping[str, str]) -> None:
        self._site = site
        self._env = env
        self._notes = {card: SharedNote(directory / level_name(card)) for card in site.cards}
        self._idle: dict[str, int] = {}
        self._before: dict[str, int] | None = None
        self._tenants_before: frozenset[int] = frozenset()
        #: Why the memory cannot be read, "" if it can.
        self.blind = ""

    @property
    def tenants_before(self) -> frozenset[int]:
        """Pids that KFD listed before the launch."""
        return self._tenants_before

    def excess(self) -> str:
        """What is above the level that is waited for, in words; "" when all is well or nothing can be read.

        Before a launch that level is the remembered one (else the one seen first), after it the one before it.
        """
        levels, self.blind = read_levels(self._site, env=self._env)
        if not levels:
            return ""
        if self._before is None:
            for card, level in levels.items():
                self._idle.setdefault(card, self._remembered(card, level))
        limit = self._idle if self._before is None else self._before
        over = {card: level for card, level in levels.items() if level > limit.get(card, level) + SLACK_BYTES}
        if not over:
            return ""
        shown = [
            f"{card} holds {format_bytes(level)}, idle is {format_bytes(limit[card])} + {format_bytes(SLACK_BYTES)}"
            for card, level in list(over.items())[:8]
        ]
        return f"GPU memory is in use: {'; '.join(shown)}"

    def tenants(self) -> list[str]:
        """Every process on these cards, those that were there before the launch marked."""
        rows = read_tenants(self._site.root, self._site.gpus)
        if self._before is None:
            return [str(tenant) for tenant in rows]
        old = self._tenants_before
        return [f"{tenant}{' (was there before the launch)' if tenant.pid in old else ''}" for tenant in rows]

    def launching(self) -> None:
        """Note the level and the tenants that a server is launched beside."""
        self._before, _ = read_levels(self._site, env=self._env)
        self._tenants_before = frozenset(tenant.pid for tenant in read_tenants(self._site.root, self._site.gpus))

    def settle(self) -> None:
        """The server is gone and the wait is over: what is in use now is the idle level of the next."""
        if self._before is None:
            return
        levels, _ = read_levels(self._site, env=self._env)
        for card, level in levels.items():
            self._notes[card].write(json.dumps({"used": level, "boot": self._boot()}))
        self._before = None
        self._idle = dict(levels)

    @property
    def launched(self) -> bool:
        """True between `launching` and `settle`."""
        return self._before is not None

    def _remembered(self, card: str, level: int) -> int:
        try:
            note = json.loads(self._notes[card].read() or "null")
        except ValueError:
            return level
        if not isinstance(note, dict) or note.get("boot") != self._boot() or not isinstance(note.get("used"), int):
            return level
        return int(note["used"])

    def _boot(self) -> str:
        try:
            return (self._site.root / "proc" / "sys" / "kernel" / "random" / "boot_id").read_text().strip()
        except OSError:
            return ""
