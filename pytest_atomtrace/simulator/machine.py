"""The cards of a pretended machine as its driver knows them: what the tools that ask the driver print.

Read from the tree of ``vram.py`` and ``driver.py``: the workers' entries and the driver's sums, leaks included.
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Card", "Holder", "read_cards", "read_holders"]

#: accumulation_counter and its residencies in gpu_metrics v1.x, as ``amd-smi metric --throttle`` calls them.
RESIDENCIES = (
    "accumulation_counter",
    "prochot_accumulated",
    "ppt_accumulated",
    "socket_thermal_accumulated",
    "vr_thermal_accumulated",
    "hbm_thermal_accumulated",
)
_OFFSETS = {6: 32, 7: 40, 8: 40}


@dataclass(frozen=True)
class Card:
    """One card; `gpu_ids` are KFD's numbers of it and its partitions, `throttle` is empty where it has no counters."""

    index: int
    pci: str
    gpu_ids: tuple[int, ...]
    used: int
    total: int
    throttle: dict[str, int]


@dataclass(frozen=True)
class Holder:
    """A process with memory on cards: index of the card -> bytes."""

    pid: int
    name: str
    vram: dict[int, int]


def read_cards(tree: Path) -> list[Card]:
    """All cards in the order of their addresses."""
    ids: dict[str, list[int]] = {}
    nodes = tree / "sys" / "class" / "kfd" / "kfd" / "topology" / "nodes"
    for node in sorted(nodes.iterdir(), key=lambda node: int(node.name)):
        gpu = int((node / "gpu_id").read_text())
        if gpu:
            facts = dict(line.split(maxsplit=1) for line in (node / "properties").read_text().splitlines())
            place = int(facts["location_id"]) & 0xFFFF
            pci = f"{int(facts['domain']):04x}:{place >> 8:02x}:{place >> 3 & 31:02x}.{place & 7}"
            ids.setdefault(pci, []).append(gpu)
    found: dict[str, Path] = {}
    for device in (tree / "sys" / "class" / "drm").glob("card*/device"):
        facts = dict(line.partition("=")[::2] for line in (device / "uevent").read_text().splitlines())
        found[facts["PCI_SLOT_NAME"]] = device
    cards = []
    for index, pci in enumerate(sorted(ids)):
        used, total = (int((found[pci] / f"mem_info_vram_{name}").read_text()) for name in ("used", "total"))
        cards.append(Card(index, pci, tuple(ids[pci]), used, total, _throttle(found[pci])))
    return cards


def _throttle(device: Path) -> dict[str, int]:
    try:
        data = (device / "gpu_metrics").read_bytes()
        _, form, content = struct.unpack_from("<HBB", data)
        values = struct.unpack_from("<6I", data, _OFFSETS[content] if form == 1 else len(data))
    except (OSError, KeyError, struct.error):
        return {}
    return dict(zip(RESIDENCIES, values, strict=True))


def read_holders(tree: Path, cards: list[Card]) -> list[Holder]:
    """Every process that the driver lists, by pid."""
    by_gpu = {gpu: card.index for card in cards for gpu in card.gpu_ids}
    holders = []
    entries = (tree / "sys" / "class" / "kfd" / "kfd" / "proc").iterdir()
    for entry in sorted(entries, key=lambda entry: int(entry.name)):
        vram: dict[int, int] = {}
        with contextlib.suppress(OSError, ValueError):  # it ends while we read
            for path in entry.glob("vram_*"):
                index = by_gpu.get(int(path.name.removeprefix("vram_")))
                if index is not None:
                    vram[index] = vram.get(index, 0) + int(path.read_text() or 0)
        if vram:
            holders.append(Holder(int(entry.name), _name(int(entry.name)), vram))
    return holders


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "UNKNOWN"
