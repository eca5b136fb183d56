"""Which engine can run here; looks, never imports or starts anything heavy."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.gpus import read_topology
from pytest_atomtrace.settings import environment

if TYPE_CHECKING:
    from pytest_atomtrace.settings import Settings

__all__ = ["EngineChoice", "atom_benchmark_installed", "choose_engine"]

# `atom` alone proves nothing: other packages have that name.
_PROBE = """
import importlib.util, pathlib, sys
spec = importlib.util.find_spec("atom")
places = (spec.submodule_search_locations or ()) if spec else ()
sys.exit(not any((pathlib.Path(place) / sys.argv[1]).exists() for place in places))
"""
_ADVICE = "run on the simulator with --atom-backend=sim, or on saved captures with --atom-replay=DIR"
_SERVER, _CLIENT = "entrypoints", "benchmarks/benchmark_serving.py"


@dataclass(frozen=True)
class EngineChoice:
    """The engine to use: ``sim``, ``atom``, ``attach`` or ``replay``."""

    name: str


def choose_engine(settings: Settings, *, advice: str = _ADVICE) -> EngineChoice | str:
    """The engine, or (for ``auto`` only) a sentence: what is missing here, and `advice` on how to run all the same.

    A backend that was named is never second-guessed: if it cannot run, its own error says why. The simulator
    is used only where it was named, since a gate must not go green on made-up numbers.
    """
    if settings.backend != "auto":
        return EngineChoice(settings.backend)
    missing = []
    if not _atom_importable(settings):
        where = f" from --atom-root={settings.root}" if settings.root else ""
        missing.append(f"ATOM is not importable{where} by {settings.atom_python}")
    topology = read_topology(settings.machine)
    if not topology.gpus:
        missing.append(f"no AMD GPU is visible ({topology.why_none})")
    if not missing:
        return EngineChoice("atom")
    return f"{' and '.join(missing)}; {advice}"


def atom_benchmark_installed(settings: Settings) -> bool:
    """Whether ATOM's benchmark client is there: in the checkout, or for the interpreter that runs ATOM."""
    return _atom_has(settings, _CLIENT)


def _atom_importable(settings: Settings) -> bool:
    return _atom_has(settings, _SERVER)


def _atom_has(settings: Settings, part: str) -> bool:
    if settings.root and (Path(settings.root) / "atom" / part).exists():
        return True
    if settings.atom_python == sys.executable:
        spec = find_spec("atom")
        places = spec.submodule_search_locations if spec else None
        return any((Path(place) / part).exists() for place in places or ())
    from pytest_atomtrace.capture.process import run_quietly  # only here: `auto` with a foreign interpreter

    return run_quietly([settings.atom_python, "-c", _PROBE, part], env=environment(), timeout_s=20.0) == 0
