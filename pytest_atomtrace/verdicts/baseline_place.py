"""Where the baseline of a case lies: by gfx, and by device where several of one gfx have one.

gfx alone is no machine: MI300X and MI325X are both gfx942, MI350X and MI355X both gfx950. The first device to be
recorded has the plain name, since most repositories know only one; another one's file says whose it is. So nobody's
recording overwrites another device's, and no file is renamed when the second device comes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_atomtrace.verdicts.fingerprint import Fingerprint

__all__ = ["anchor_path", "baseline_files", "baseline_path", "hardware_in", "machine_name", "others_of"]

_ANCHOR = ".anchor.json"
_MAKERS = re.compile(r"\b(AMD|Instinct)\b")


def baseline_path(root: Path, now: Fingerprint, slug: str) -> Path:
    """``<root>/<gfx>/<slug>.json``, or ``<slug>@<device>.json`` beside it where that one is another device's."""
    plain = root / now.folder / f"{slug}.json"
    device = _device(now.hardware)
    if not device:
        return plain
    own = plain.with_name(f"{slug}@{device}.json")
    return own if own.exists() or _device(hardware_in(plain)) not in ("", device) else plain


def anchor_path(root: Path, now: Fingerprint, slug: str) -> Path:
    """The anchor beside the baseline: recording writes it once, and anew only where it can serve no more."""
    path = baseline_path(root, now, slug)
    return path.with_name(path.name.removesuffix(".json") + _ANCHOR)


def baseline_files(root: Path, slug: str) -> list[Path]:
    """Every baseline of this case, of whatever machine."""
    found = [*root.glob(f"*/{slug}.json"), *root.glob(f"*/{slug}@*.json")]
    return sorted(path for path in found if not path.name.endswith(_ANCHOR))


def others_of(root: Path, slug: str) -> list[str]:
    """The machines that have a baseline of this case: ``gfx942 (AMD Instinct MI300X)``."""
    return [machine_name(path.parent.name, hardware_in(path)) for path in baseline_files(root, slug)]


def machine_name(folder: str, hardware: Mapping[str, object]) -> str:
    """A kind of machine for people."""
    device = hardware.get("device")
    return f"{folder} ({device})" if device else folder


def hardware_in(path: Path) -> Mapping[str, object]:
    """The hardware that a file names, as far as it can be read; what is wrong with it is for its reader to say."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    hardware = data.get("hardware") if isinstance(data, dict) else None
    return hardware if isinstance(hardware, Mapping) else {}


def _device(hardware: Mapping[str, object]) -> str:
    """``MI300X``; a name that is no model's ("AMD Radeon Graphics") is told apart by the PCI id."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", _MAKERS.sub("", str(hardware.get("device") or ""))).strip("-.")
    pci = str(hardware.get("pci_device_id") or "")
    if name and pci and not any(letter.isdigit() for letter in name):
        return f"{name}-{re.sub('[^A-Za-z0-9]', '', pci)}"
    return name
