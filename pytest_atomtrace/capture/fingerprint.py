"""What a capture's numbers depend on: the hardware, the profiler library, and the software down to its local edits.

Stable facts and ``volatile`` ones are kept apart: the first are equal after a reboot and whatever the order of the
environment, the second (host, serial numbers, clocks, temperatures) explain and never decide. What could not be found
out is absent, with its reason under ``unknown``.
"""

from __future__ import annotations

import json
import platform
import re
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.cards import find_cards
from pytest_atomtrace.capture.software import inspect_software

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from pytest_atomtrace.capture.gpus import GpuSite
    from pytest_atomtrace.capture.server import Server

__all__ = [
    "HARDWARE",
    "describe_environment",
    "describe_gpus",
    "file_digest",
    "hardware_key",
    "mapped_files",
    "profiler_of",
]

#: What the hardware key is made of, beside the profiler.
HARDWARE = ("pci_device_id", "compute_units", "compute_partition", "memory_partition", "power_cap_w")
_PROFILER = re.compile(r"lib(?P<name>rocprofiler-sdk|roctracer64)(?:-[0-9a-f]{8})?\.so(?:\.(?P<version>[\d.]+))?")
_JIT = re.compile(r".*/aiter/jit/(?P<name>.+\.so)")
_LARGEST_BYTES = 1 << 30
# Ours, and different in every run: no part of what is measured.
_OURS = ("ATOMTRACE_",)
_PROC = Path("/proc")


def describe_environment(server: Server, site: GpuSite | None, *, pids: Collection[int]) -> dict[str, object]:
    """The ``environment`` of a manifest; `pids` are the server's live processes."""
    facts: dict[str, object] = {}
    unknown: dict[str, str] = {}
    volatile: dict[str, object] = {"host": platform.node()}
    gpu: dict[str, object] = {}
    if site is None:
        unknown["gpu"] = "no GPU was leased: a simulated server uses none"
    else:
        gpu = describe_gpus(site, unknown, volatile)
        facts["gpu"] = gpu
        facts |= _system(site.root, unknown)
    files = mapped_files(pids)
    profiler = profiler_of(files, unknown)
    if profiler:
        facts["profiler"] = profiler
    if gpu:
        facts["key"] = hardware_key(gpu, profiler)
    if server.engine == "atom":
        facts |= inspect_software(server.launch.argv[0], server.launch.env, unknown)
        jit = {match["name"]: file_digest(path) for path in sorted(files) if (match := _JIT.fullmatch(path))}
        if jit:
            facts["aiter_jit"] = jit
        else:
            unknown["aiter_jit"] = "no process of the server has a library of aiter/jit mapped"
    else:
        unknown["software"] = "a simulated server has neither torch nor ATOM nor AITER"
    redactor = server.redactor
    env = {name: value for name, value in server.case.env if not name.startswith(_OURS)}
    facts["server"] = {"args": redactor.argv(server.case.server_args), "env": redactor.env(env)}
    return {**facts, "volatile": volatile, "unknown": unknown}


def describe_gpus(site: GpuSite, unknown: dict[str, str], volatile: dict[str, object]) -> dict[str, object]:
    """Facts that all leased GPUs share; what differs between them, or is not shown, goes to `unknown`."""
    cards = find_cards(site.root, site.cards)
    facts: dict[str, object] = {"count": len(site.gpus), "cards": len(site.cards)}
    rows: dict[str, list[object]] = {
        "gfx": [gpu.gfx for gpu in site.gpus],
        "pci_device_id": [f"0x{gpu.device_id:04x}" for gpu in site.gpus],
        "compute_units": [gpu.compute_units for gpu in site.gpus],
        "compute_partition": [card.compute_partition for card in cards.values()],
        "memory_partition": [card.memory_partition for card in cards.values()],
        "power_cap_w": [card.power_cap_w for card in cards.values()],
        "vram_bytes": [card.vram_total for card in cards.values()],
    }
    for name, values in rows.items():
        if not values or None in values:
            unknown[name] = "sysfs does not show it for every card"
        elif len(set(values)) > 1:
            unknown[name] = f"the GPUs differ: {', '.join(map(str, dict.fromkeys(values)))}"
        else:
            facts[name] = values[0]
    volatile["serials"] = [gpu.uuid for gpu in site.gpus]
    volatile["pci"] = list(site.cards)
    volatile["sensors"] = {pci: card.sensors for pci, card in cards.items()}
    return facts


def hardware_key(gpu: Mapping[str, object], profiler: Mapping[str, object]) -> str:
    """Twelve hex digits over `HARDWARE` and the profiler library: figures are compared only where they are equal."""
    parts = {name: gpu[name] for name in HARDWARE if name in gpu}
    parts["profiler"] = profiler.get("library", "")
    parts["profiler_version"] = profiler.get("version", profiler.get("sha256", ""))
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _system(root: Path, unknown: dict[str, str]) -> dict[str, object]:
    facts: dict[str, object] = {}
    for place in ("opt/rocm/.info/version", "opt/rocm/.info/version-dev"):
        text = _text(root / place)
        if text:
            facts["rocm_version"] = text
            break
    else:
        unknown["rocm_version"] = "there is no /opt/rocm/.info/version"
    driver = _text(root / "sys/module/amdgpu/version")
    # The driver of the kernel itself has no version of its own.
    facts["driver_version"] = driver or f"in kernel {_text(root / 'proc/sys/kernel/osrelease') or platform.release()}"
    return facts


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def mapped_files(pids: Iterable[int]) -> set[str]:
    """Paths of all files that these processes have mapped, of those that may be looked at."""
    found: set[str] = set()
    for pid in pids:
        for line in _text(_PROC / str(pid) / "maps").splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[5].startswith("/"):
                found.add(fields[5].removesuffix(" (deleted)"))
    return found


def profiler_of(files: Iterable[str], unknown: dict[str, str]) -> dict[str, object]:
    """The profiler library that is really loaded, by the maps of a rank: library, path, version, sha256.

    torch may bring its own copy, so neither the ROCm release nor torch's build says which one it is.
    """
    found: dict[str, tuple[str, str]] = {}
    for path in sorted(files):
        match = _PROFILER.fullmatch(Path(path).name)
        if match:
            found[f"lib{match['name']}"] = (path, match["version"] or "")
    if not found:
        unknown["profiler"] = "no process of the server has librocprofiler-sdk or libroctracer64 mapped"
        return {}
    if len(found) > 1:
        names = ", ".join(path for path, _ in found.values())
        unknown["profiler"] = f"several are loaded, and which one records is not known: {names}"
        return {}
    library, (path, version) = next(iter(found.items()))
    facts: dict[str, object] = {"library": library, "path": path, "sha256": file_digest(path)}
    if version:
        facts["version"] = version
    else:
        unknown["profiler_version"] = f"{Path(path).name} carries none in its name"
    return facts


def file_digest(path: str) -> str:
    """Sixteen hex digits of a file's sha256, or in words why there are none."""
    try:
        stat = Path(path).stat()
    except OSError as error:
        return f"unreadable: {error.strerror}"
    if stat.st_size > _LARGEST_BYTES:
        return f"not hashed: {stat.st_size:,} bytes"
    return _digest(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)  # the same libraries stand below every window of a run
def _digest(path: str, size: int, mtime_ns: int) -> str:  # noqa: ARG001  # they make the cache notice a change
    total = sha256()
    try:
        with Path(path).open("rb") as stream:
            while block := stream.read(1 << 20):
                total.update(block)
    except OSError as error:
        return f"unreadable: {error.strerror}"
    return total.hexdigest()[:16]
