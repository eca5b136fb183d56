"""What this machine offers to a capture, and what stands in its way; looks only, and changes nothing."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.availability import choose_engine
from pytest_atomtrace.capture.cards import find_cards
from pytest_atomtrace.capture.gpus import GpuSite, read_topology, visible
from pytest_atomtrace.capture.lease import LOCK_NAME, QUEUE_NAME, lock_name
from pytest_atomtrace.capture.locks import is_locked, read_holder
from pytest_atomtrace.capture.mounts import container_sign, judge_lock_directory, mount_of
from pytest_atomtrace.capture.software import inspect_package, installed_packages
from pytest_atomtrace.capture.tenants import read_tenants
from pytest_atomtrace.capture.tickets import waiting_in
from pytest_atomtrace.capture.vram import read_levels
from pytest_atomtrace.errors import LeaseError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_atomtrace.capture.gpus import Gpu, Topology
    from pytest_atomtrace.settings import Settings

__all__ = ["Examination", "GpuRow", "Holder", "LockPlace", "Package", "examine"]

_VARIABLES = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
_PROFILER = re.compile(r"lib(rocprofiler-sdk|roctracer64)(-[0-9a-f]{8})?\.so.*")
_MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class GpuRow:
    """One GPU; what the machine does not show is None."""

    index: int
    pci: str
    partition: str
    uuid: str
    gfx: str
    compute_units: int
    vram_used_bytes: int | None
    vram_total_bytes: int | None
    mode: str
    power_cap_w: int | None
    throttle_counters: bool
    visible: bool


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, or waits."""

    lock: str
    text: str


@dataclass(frozen=True)
class LockPlace:
    """The lock directory."""

    path: str
    exists: bool
    mount: str
    warning: str
    holders: tuple[Holder, ...]
    queue: tuple[str, ...]


@dataclass(frozen=True)
class Package:
    """A package of the interpreter that runs ATOM; `text` is its version and commit, "" if it is not there."""

    name: str
    text: str
    place: str


@dataclass(frozen=True)
class Examination:
    """The whole answer; `problems` are what a capture from the real server would fail on."""

    machine: str
    container: str
    gpus: tuple[GpuRow, ...]
    hidden: int
    variables: Mapping[str, str]
    tenants: tuple[str, ...]
    rocm_version: str
    driver_version: str
    lock_place: LockPlace
    python: str
    packages: tuple[Package, ...]
    profilers: tuple[str, ...]
    reader: str
    backend: str
    problems: tuple[str, ...]


def examine(settings: Settings, env: Mapping[str, str]) -> Examination:
    """Look at GPUs, visible sets, memory, locks, ATOM, AITER, profiler libraries and container."""
    root = settings.machine
    topology = read_topology(root)
    problems: list[str] = []
    shown = _visible(topology, env, problems)
    packages = _packages(settings, env, problems)
    container = container_sign(root, env)
    choice = choose_engine(settings)
    return Examination(
        machine=str(root),
        container=container,
        gpus=_gpu_rows(root, topology, shown, env, problems),
        hidden=topology.hidden,
        variables={name: env[name] for name in _VARIABLES if name in env},
        tenants=tuple(str(tenant) for tenant in read_tenants(root, topology.gpus)),
        rocm_version=_text(root / "opt/rocm/.info/version"),
        driver_version=_text(root / "sys/module/amdgpu/version"),
        lock_place=_lock_place(settings, topology, container, problems),
        python=settings.atom_python,
        packages=packages,
        profilers=_profilers(root, packages),
        reader=_reader(),
        backend=choice if isinstance(choice, str) else choice.name,
        problems=tuple(problems),
    )


def _visible(topology: Topology, env: Mapping[str, str], problems: list[str]) -> tuple[Gpu, ...]:
    try:
        return visible(topology, env)
    except LeaseError as error:
        problems.append(error.problem)
        return ()


def _gpu_rows(
    root: Path, topology: Topology, shown: tuple[Gpu, ...], env: Mapping[str, str], problems: list[str]
) -> tuple[GpuRow, ...]:
    if not topology.gpus:
        return ()
    site = GpuSite(root, topology.gpus)
    cards = find_cards(root, site.cards)
    levels, why = read_levels(site, env=env)
    if why:
        problems.append(f"GPU memory cannot be watched: {why}")
    rows = []
    for gpu in topology.gpus:
        card = cards.get(gpu.pci)
        modes = [mode for mode in (card.compute_partition, card.memory_partition) if mode] if card is not None else []
        rows.append(
            GpuRow(
                index=gpu.index,
                pci=gpu.pci,
                partition=f"{gpu.partition + 1} of {gpu.partitions}" if gpu.partitions > 1 else "",
                uuid=gpu.uuid,
                gfx=gpu.gfx,
                compute_units=gpu.compute_units,
                vram_used_bytes=levels.get(gpu.pci),
                vram_total_bytes=card.vram_total if card is not None else None,
                mode="/".join(modes),
                power_cap_w=card.power_cap_w if card is not None else None,
                throttle_counters=card is not None and card.throttle_counters() is not None,
                visible=gpu in shown,
            )
        )
    return tuple(rows)


def _lock_place(settings: Settings, topology: Topology, container: str, problems: list[str]) -> LockPlace:
    directory = settings.lock_directory
    table = _text(_MOUNTS)
    mount = mount_of(directory, table)
    warning = ""
    try:
        shared = bool(topology.gpus)
        warning = judge_lock_directory(directory, table=table, container=container, shared=shared, ci=False)
    except LeaseError as error:
        problems.append(f"{error.problem}. {error.hint}")
    names = [LOCK_NAME, *(lock_name(pci) for pci in GpuSite(settings.machine, topology.gpus).cards)]
    holders = [Holder(name, _who(read_holder(directory / name))) for name in names if is_locked(directory / name)]
    queue = [_who(read_holder(ticket.path)) for ticket in waiting_in(directory / QUEUE_NAME)]
    return LockPlace(
        path=str(directory),
        exists=directory.is_dir(),
        mount=str(mount) if mount is not None else "",
        warning=warning,
        holders=tuple(holders),
        queue=tuple(queue),
    )


def _who(facts: Mapping[str, object]) -> str:
    if not facts:
        return "somebody who does not say"
    return (
        f"{facts.get('user', '?')}, pid {facts.get('pid', '?')} ({facts.get('test', '?')}), "
        f"since {facts.get('since', '?')}"
    )


def _packages(settings: Settings, env: Mapping[str, str], problems: list[str]) -> tuple[Package, ...]:
    names = ("atom", "aiter", "torch", "triton")
    path = env.get("PYTHONPATH", "")
    root = str(Path(settings.root).resolve()) if settings.root else ""
    full = {**env, "PYTHONPATH": ":".join(filter(None, (root, path)))}
    try:
        found = installed_packages(settings.atom_python, full)
    except OSError as error:
        problems.append(f"{settings.atom_python} does not answer: {error}")
        return tuple(Package(name, "", "") for name in names)
    rows = []
    for name in names:
        package = found.get(name, {})
        text = package.get("version", "")
        if package and name in ("atom", "aiter"):
            facts = inspect_package(name, package, full, {})
            commit = f"commit {str(facts['commit'])[:12]}" if "commit" in facts else ""
            edits = {"": "", "clean": "no local edits"}.get(str(facts.get("edits", "")), f"edits {facts.get('edits')}")
            text = ", ".join(filter(None, (text, commit, edits)))
        rows.append(Package(name, text, package.get("place", "")))
    for name in ("atom", "aiter"):
        if not found.get(name, {}).get("place"):
            who = "" if settings.atom_python == sys.executable else f" for {settings.atom_python}"
            problems.append(f"{name} is not importable{who} (--atom-root, --atom-python)")
    return tuple(rows)


def _profilers(root: Path, packages: tuple[Package, ...]) -> tuple[str, ...]:
    """Libraries that a server could load; which one it does load is in its capture's manifest."""
    places = [root / "opt" / "rocm" / "lib"]
    places += [Path(package.place) / "lib" for package in packages if package.name == "torch" and package.place]
    found: dict[str, None] = {}
    for place in places:
        if place.is_dir():
            for path in sorted(place.iterdir()):
                if _PROFILER.fullmatch(path.name):
                    found[str(path.resolve())] = None
    return tuple(found)


def _reader() -> str:
    # Imported here: it brings numpy, which nothing else of a capture needs.
    from pytest_atomtrace.trace.reader import has_scanner

    return "compiled scanner" if has_scanner() else "Python (no compiler built the scanner: large traces take longer)"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
