"""What the amdgpu driver tells about a card: memory, partition modes, power cap, throttle counters, clocks.

All from ``/sys/class/drm/card*/device`` (kernel documentation "GPU Power/Thermal Controls and Monitoring", "GPU
memory"), matched by PCI address. The layout of ``gpu_metrics`` is that of the kernel's `kgd_pp_interface.h`.
"""

from __future__ import annotations

import contextlib
import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["THROTTLES", "Card", "find_cards"]

_CARD = re.compile(r"card\d+")
#: Accumulated residencies: name -> what it is.
THROTTLES = {
    "prochot": "PROCHOT",
    "power": "the power cap",
    "socket_thermal": "socket temperature",
    "vr_thermal": "voltage regulator temperature",
    "hbm_thermal": "HBM temperature",
}
# Offsets of accumulation_counter in gpu_metrics v1.x by content revision; the five residencies follow it.
_COUNTERS_AT = {6: 32, 7: 40, 8: 40}


class Card:
    """One card's directory; every reading is None (or empty) where the driver or a container does not show it."""

    def __init__(self, pci: str, directory: Path) -> None:
        self.pci = pci
        self.directory = directory

    def _text(self, name: str) -> str | None:
        try:
            return (self.directory / name).read_text().strip()
        except OSError:
            return None

    def _number(self, name: str) -> int | None:
        text = self._text(name)
        return int(text) if text is not None and text.isdecimal() else None

    @property
    def vram_used(self) -> int | None:
        """Bytes of device memory in use by all processes, those of other containers included."""
        return self._number("mem_info_vram_used")

    @property
    def vram_total(self) -> int | None:
        """Bytes of device memory."""
        return self._number("mem_info_vram_total")

    @property
    def compute_partition(self) -> str | None:
        """``SPX``, ``CPX``, ..."""
        return self._text("current_compute_partition")

    @property
    def memory_partition(self) -> str | None:
        """``NPS1``, ``NPS4``, ..."""
        return self._text("current_memory_partition")

    @property
    def power_cap_w(self) -> int | None:
        """The power cap in watts."""
        microwatts = self._sensor("power1_cap")
        return microwatts // 1_000_000 if microwatts is not None else None

    def _sensor(self, name: str) -> int | None:
        with contextlib.suppress(OSError):
            for folder in sorted((self.directory / "hwmon").iterdir()):
                value = self._number(f"hwmon/{folder.name}/{name}")
                if value is not None:
                    return value
        return None

    @property
    def sensors(self) -> dict[str, int]:
        """Clocks in MHz, temperatures in degrees, power in watts: what changes by the second."""
        rows = (
            ("gfx_mhz", "freq1_input", 1_000_000),
            ("memory_mhz", "freq2_input", 1_000_000),
            ("junction_c", "temp2_input", 1000),
            ("memory_c", "temp3_input", 1000),
            ("power_w", "power1_average", 1_000_000),
            ("power_w", "power1_input", 1_000_000),
        )
        found = {name: self._sensor(file) for name, file, _ in rows}
        found |= {name: value // unit for name, file, unit in rows if (value := self._sensor(file)) is not None}
        return {name: value for name, value in found.items() if value is not None}

    def throttle_counters(self) -> dict[str, int] | None:
        """Accumulated residencies (`THROTTLES`) and ``cycles``, what they are counted in; None if not known."""
        try:
            data = (self.directory / "gpu_metrics").read_bytes()
        except OSError:
            return None
        if len(data) < 4:
            return None
        _, form, content = struct.unpack_from("<HBB", data)
        offset = _COUNTERS_AT.get(content) if form == 1 else None
        if offset is None or len(data) < offset + 24:
            return None
        values = struct.unpack_from("<6I", data, offset)
        return dict(zip(("cycles", *THROTTLES), values, strict=True))


def find_cards(root: Path, addresses: tuple[str, ...]) -> dict[str, Card]:
    """The directories of these cards by PCI address; cards that are not shown are left out."""
    found: dict[str, Card] = {}
    drm = root / "sys" / "class" / "drm"
    with contextlib.suppress(OSError):
        for path in sorted(drm.iterdir()):
            if _CARD.fullmatch(path.name):
                pci = _address(path / "device")
                if pci in addresses:
                    found[pci] = Card(pci, path / "device")
    for pci in addresses:  # a container may have the devices and no /sys/class/drm
        device = root / "sys" / "bus" / "pci" / "devices" / pci
        if pci not in found and device.is_dir():
            found[pci] = Card(pci, device)
    return found


def _address(device: Path) -> str:
    try:
        text = (device / "uevent").read_text()
    except OSError:
        return ""
    facts = dict(line.partition("=")[::2] for line in text.splitlines())
    return facts.get("PCI_SLOT_NAME", "").lower()
