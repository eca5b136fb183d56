"""The kernel driver's part of a pretended machine: ``python -m pytest_atomtrace.simulator.driver TREE [DELAY_S]``.

Sums up what the processes of ``sys/class/kfd/kfd/proc`` hold into each card's ``mem_info_vram_used``, on top of what
was in it at the start, and removes the entries of processes that died, DELAY_S later: as on a real machine, however
they died. An entry with a file ``leak`` loses its name and keeps its memory. Ends at the end of its standard input.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import time
from pathlib import Path

__all__ = ["main"]

_TICK_S = 0.02


class _Driver:
    def __init__(self, tree: Path, delay_s: float) -> None:
        kfd = tree / "sys" / "class" / "kfd" / "kfd"
        self._processes = kfd / "proc"
        self._delay_s = delay_s
        self._cards = _cards_by_gpu(tree, kfd / "topology" / "nodes")
        self._base = {card: int(card.read_text()) for card in set(self._cards.values())}
        self._dead: dict[str, float] = {}

    def tick(self) -> None:
        used = dict(self._base)
        for entry in list(self._processes.iterdir()):
            held = self._held(entry)
            if not Path(f"/proc/{entry.name}").exists() or _zombie(entry.name):
                since = self._dead.setdefault(entry.name, time.monotonic())
                if time.monotonic() - since >= self._delay_s:
                    if (entry / "leak").exists():
                        for card, size in held.items():
                            self._base[card] += size
                            used[card] += size
                    shutil.rmtree(entry, ignore_errors=True)
                    continue
            for card, size in held.items():
                used[card] += size
        for card, size in used.items():
            if card.read_text() != f"{size}\n":
                fresh = card.with_name(f".{card.name}")
                fresh.write_text(f"{size}\n")
                fresh.replace(card)

    def _held(self, entry: Path) -> dict[Path, int]:
        held: dict[Path, int] = {}
        with contextlib.suppress(OSError, ValueError):
            for path in entry.glob("vram_*"):
                card = self._cards.get(int(path.name.removeprefix("vram_")))
                if card is not None:
                    held[card] = held.get(card, 0) + int(path.read_text() or 0)
        return held


def _zombie(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _cards_by_gpu(tree: Path, nodes: Path) -> dict[int, Path]:
    addresses: dict[str, Path] = {}
    for device in (tree / "sys" / "class" / "drm").glob("card*/device"):
        facts = dict(line.partition("=")[::2] for line in (device / "uevent").read_text().splitlines())
        addresses[facts["PCI_SLOT_NAME"]] = device / "mem_info_vram_used"
    found: dict[int, Path] = {}
    for node in nodes.iterdir():
        gpu = int((node / "gpu_id").read_text())
        if gpu:
            facts = dict(line.split(maxsplit=1) for line in (node / "properties").read_text().splitlines())
            place = int(facts["location_id"]) & 0xFFFF
            pci = f"{int(facts['domain']):04x}:{place >> 8:02x}:{place >> 3 & 31:02x}.{place & 7}"
            found[gpu] = addresses[pci]
    return found


def main(argv: list[str]) -> int:
    """Run until standard input ends."""
    driver = _Driver(Path(argv[0]), float(argv[1]) if len(argv) > 1 else 0.0)
    driver.tick()
    os.write(1, b"driving\n")
    while not select.select([0], [], [], _TICK_S)[0]:
        driver.tick()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
