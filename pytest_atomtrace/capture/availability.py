"""Which engine can run here; looks, never imports or starts anything heavy."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.settings import environment

if TYPE_CHECKING:
    from pytest_atomtrace.settings import Settings

__all__ = ["EngineChoice", "choose_engine", "visible_gpus"]

_KFD = Path("/dev/kfd")
_KFD_NODES = Path("/sys/class/kfd/kfd/topology/nodes")
# `atom` alone proves nothing: other packages have that name.
_PROBE = """
import importlib.util, pathlib, sys
spec = importlib.util.find_spec("atom")
places = (spec.submodule_search_locations or ()) if spec else ()
sys.exit(not any((pathlib.Path(place) / "entrypoints").is_dir() for place in places))
"""


@dataclass(frozen=True)
class EngineChoice:
    """The engine to use: ``sim``, ``atom`` or ``replay``."""

    name: str


def choose_engine(settings: Settings) -> EngineChoice | str:
    """The engine, or (for ``auto`` only) a sentence: what is missing here, and how to run all the same.

    A backend that was named is never second-guessed: if it cannot run, its own error says why. The simulator
    is used only where it was named, since a gate must not go green on made-up numbers.
    """
    if settings.backend != "auto":
        return EngineChoice(settings.backend)
    missing = []
    if not _atom_importable(settings):
        where = f" from --atom-root {settings.root}" if settings.root else ""
        missing.append(f"ATOM is not importable{where} by {settings.atom_python}")
    if not visible_gpus():
        missing.append(f"no AMD GPU is visible ({_KFD} and {_KFD_NODES})")
    if not missing:
        return EngineChoice("atom")
    return (
        f"{' and '.join(missing)}; run on the simulator with --atom-backend=sim, "
        "or on saved captures with --atom-replay DIR"
    )


def visible_gpus(*, device: Path = _KFD, nodes: Path = _KFD_NODES) -> int:
    """GPUs that the KFD driver shows; 0 without the driver's device (a node with SIMDs is a GPU, else a CPU)."""
    if not device.exists() or not nodes.is_dir():
        return 0
    count = 0
    for node in nodes.iterdir():
        try:
            text = (node / "properties").read_text()
        except OSError:  # a node of a GPU that this container may not use
            continue
        facts = dict(line.split(maxsplit=1) for line in text.splitlines() if " " in line)
        count += facts.get("simd_count", "0") != "0"
    return count


def _atom_importable(settings: Settings) -> bool:
    if settings.root and (Path(settings.root) / "atom" / "entrypoints").is_dir():
        return True
    if settings.atom_python == sys.executable:
        spec = find_spec("atom")
        places = spec.submodule_search_locations if spec else None
        return any((Path(place) / "entrypoints").is_dir() for place in places or ())
    from pytest_atomtrace.capture.process import run_quietly  # only here: `auto` with a foreign interpreter

    return run_quietly([settings.atom_python, "-c", _PROBE], env=environment(), timeout_s=20.0) == 0
