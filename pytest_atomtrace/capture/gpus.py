"""The machine's GPUs as the kernel shows them, and which of them a process would use.

Facts come from KFD's topology in sysfs (documented by the kernel's amdkfd and read so by the ROCm thunk): a node
with SIMDs is a GPU, a CPX-partitioned card has a node per partition. Visible devices are resolved by the rules
of the runtime (ROCR-Runtime `amd_filter_device.cpp`, clr `rocdevice.cpp`): ROCR_VISIBLE_DEVICES filters first,
by index or ``GPU-<uuid>``; HIP_VISIBLE_DEVICES, else CUDA_VISIBLE_DEVICES, then counts what is left. They are
resolved, never rewritten: a server that gets renumbered variables runs on other GPUs than the lease holds.

Every path hangs below one `root`, so that another machine's tree can be looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import LeaseError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Gpu", "GpuSite", "Topology", "read_topology", "visible"]

_NODES = "sys/class/kfd/kfd/topology/nodes"
_RVD = "ROCR_VISIBLE_DEVICES"
# The first one that is set counts, also for ROCm's own HIP.
_HVD = ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
_UUID_LENGTH = 20
_NO_SUCH = "Take indices from 0, or GPU-<uuid> as `rocminfo` and `atomtrace doctor` print them."


@dataclass(frozen=True)
class Gpu:
    """One GPU as the runtime counts them: a card, or one partition of a card.

    `index` is its number with no variable set, `pci` the card's address (partitions share it), `gpu_id` the number
    that names its files under ``/sys/class/kfd/kfd/proc``; `partition` counts from 0 and `partitions` says how many
    the card has (1: it is whole).
    """

    index: int
    node: int
    gpu_id: int
    pci: str
    partition: int
    partitions: int
    gfx: str
    compute_units: int
    device_id: int
    unique_id: int
    render_minor: int

    @property
    def uuid(self) -> str:
        """``GPU-<16 hex digits>``, "" for a GPU without one."""
        return f"GPU-{self.unique_id:016x}" if self.unique_id else ""

    @property
    def label(self) -> str:
        """``GPU 3 (0000:65:00.0)``, with the partition where there are several."""
        part = f", partition {self.partition}" if self.partitions > 1 else ""
        return f"GPU {self.index} ({self.pci}{part})"


@dataclass(frozen=True)
class Topology:
    """All GPUs of one machine in the runtime's order.

    `hidden` counts nodes that the kernel refuses to show (GPUs that a container was not given); `why_none` says why
    `gpus` is empty.
    """

    gpus: tuple[Gpu, ...]
    hidden: int
    why_none: str


@dataclass(frozen=True)
class GpuSite:
    """The GPUs that a capture uses, and the root of the machine that has them; no GPU for the plain simulator."""

    root: Path
    gpus: tuple[Gpu, ...] = ()

    @property
    def cards(self) -> tuple[str, ...]:
        """PCI addresses, each once, in sorted order: the order in which locks are taken."""
        return tuple(sorted({gpu.pci for gpu in self.gpus}))


def read_topology(root: Path) -> Topology:
    """Read KFD's nodes below `root` (``/`` for this machine)."""
    nodes, device = root / _NODES, root / "dev" / "kfd"
    # sysfs shows the host's GPUs to a container that was given none of them.
    if not device.exists():
        return Topology((), 0, f"there is no {device}: no amdgpu driver, or a container without --device /dev/kfd")
    if not nodes.is_dir():
        return Topology((), 0, f"there is no {nodes}")
    found: list[dict[str, int]] = []
    hidden = 0
    for node in sorted((path for path in nodes.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name)):
        try:
            facts = _properties(node)
        except OSError:
            hidden += 1
            continue
        if facts.get("simd_count", 0) > 0:
            if _render_missing(root, facts):
                hidden += 1
                continue
            found.append(facts)
    gpus = _number(found)
    why = "" if gpus else f"no node of {nodes} is a GPU" + (f" ({hidden} are hidden from us)" if hidden else "")
    return Topology(gpus, hidden, why)


def _properties(node: Path) -> dict[str, int]:
    facts = {"node": int(node.name)}
    for line in (node / "properties").read_text().splitlines():
        key, _, value = line.partition(" ")
        if value.strip().isdecimal():
            facts[key] = int(value)
    text = (node / "gpu_id").read_text().strip()
    facts["gpu_id"] = int(text) if text.isdecimal() else 0
    return facts


def _render_missing(root: Path, facts: Mapping[str, int]) -> bool:
    """True for a GPU whose render node this container was not given while it has others."""
    dri = root / "dev" / "dri"
    return dri.is_dir() and not (dri / f"renderD{facts.get('drm_render_minor', 0)}").exists()


def _number(found: Sequence[Mapping[str, int]]) -> tuple[Gpu, ...]:
    addresses = [_pci(facts) for facts in found]
    gpus = []
    for index, (facts, pci) in enumerate(zip(found, addresses, strict=True)):
        per_cu = facts.get("simd_per_cu", 0) or 4
        gpus.append(
            Gpu(
                index=index,
                node=facts["node"],
                gpu_id=facts["gpu_id"],
                pci=pci,
                partition=addresses[:index].count(pci),
                partitions=addresses.count(pci),
                gfx=_gfx(facts.get("gfx_target_version", 0)),
                compute_units=facts["simd_count"] // per_cu,
                device_id=facts.get("device_id", 0),
                unique_id=facts.get("unique_id", 0),
                render_minor=facts.get("drm_render_minor", 0),
            )
        )
    return tuple(gpus)


def _pci(facts: Mapping[str, int]) -> str:
    # Bits 28 and up of location_id hold the partition (kernel, kfd_topology_add_device), the low 16 bus and function.
    place = facts.get("location_id", 0) & 0xFFFF
    return f"{facts.get('domain', 0):04x}:{place >> 8:02x}:{place >> 3 & 31:02x}.{place & 7}"


def _gfx(version: int) -> str:
    """90402 is gfx942 and 90010 is gfx90a: decimal pairs, minor and stepping shown in hex (LLVM's AMDGPUArchByKFD)."""
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}" if version else "gfx?"


def visible(topology: Topology, env: Mapping[str, str]) -> tuple[Gpu, ...]:
    """The GPUs that a process with this environment would see, in its order.

    Raises:
        LeaseError: a variable names a GPU that is not there, or one twice (the runtime would silently drop it and
            everything after it), or leaves none.

    """
    gpus = topology.gpus
    if not gpus:
        raise LeaseError(f"no GPU can be leased: {topology.why_none}")
    if _RVD in env:
        gpus = _select(gpus, env[_RVD], _RVD)
    name = next((name for name in _HVD if env.get(name)), None)
    if name is not None:
        gpus = _select(gpus, env[name], name, already=_RVD if _RVD in env else "")
    return gpus


def _select(gpus: tuple[Gpu, ...], text: str, name: str, *, already: str = "") -> tuple[Gpu, ...]:
    left = f" that {already} leaves" if already else ""
    if not text.strip():
        raise LeaseError(f"{name} is empty, which hides every GPU", f"Unset it, or name GPUs. {_NO_SUCH}")
    chosen: list[Gpu] = []
    for token in (part.strip() for part in text.split(",")):
        gpu = _find(gpus, token)
        if gpu is None:
            raise LeaseError(
                f"{name}={text}: there is no GPU {token!r} among the {len(gpus)}{left} (0 to {len(gpus) - 1}); the "
                "runtime would drop it and all that follow",
                _NO_SUCH,
            )
        if gpu in chosen:
            raise LeaseError(f"{name}={text} names {gpu.label} twice; the runtime stops reading there", _NO_SUCH)
        chosen.append(gpu)
    return tuple(chosen)


def _find(gpus: tuple[Gpu, ...], token: str) -> Gpu | None:
    if token.isdecimal():
        return gpus[int(token)] if int(token) < len(gpus) else None
    upper = token.upper()
    # As the runtime: any prefix that means one GPU.
    if not upper.startswith("GPU-") or not len("GPU-") < len(upper) <= _UUID_LENGTH:
        return None
    matching = [gpu for gpu in gpus if gpu.uuid.upper().startswith(upper)]
    return matching[0] if len(matching) == 1 else None
