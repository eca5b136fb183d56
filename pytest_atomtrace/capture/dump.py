"""The machine's sysfs facts as one document, for whoever has no such machine and wants to know its shape.

Only what is read by a capture, and no more: no host name, no process names; serial numbers become digests of the same
form, so that two cards stay two.
"""

from __future__ import annotations

import base64
import re
from hashlib import sha256
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.gpus import read_topology

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["DUMP_SCHEMA", "dump_machine", "plant_machine"]

DUMP_SCHEMA = 1
_UNIQUE = re.compile(r"^unique_id (\d+)$", re.MULTILINE)
_PATTERNS = (
    "sys/class/kfd/kfd/topology/nodes/*/properties",
    "sys/class/kfd/kfd/topology/nodes/*/gpu_id",
    "sys/class/drm/card*/device/uevent",
    "sys/class/drm/card*/device/mem_info_vram_*",
    "sys/class/drm/card*/device/current_*_partition",
    "sys/class/drm/card*/device/gpu_metrics",
    "sys/class/drm/card*/device/hwmon/hwmon*/name",
    "sys/class/drm/card*/device/hwmon/hwmon*/power1_*",
    "sys/class/drm/card*/device/hwmon/hwmon*/temp*_input",
    "sys/class/drm/card*/device/hwmon/hwmon*/temp*_label",
    "sys/class/drm/card*/device/hwmon/hwmon*/freq*_input",
    "sys/class/drm/card*/device/hwmon/hwmon*/freq*_label",
    "sys/module/amdgpu/version",
    "opt/rocm/.info/version*",
)
# Device nodes: that they are there is all.
_PRESENT = ("dev/kfd", "dev/dri/renderD*")
_LARGEST_BYTES = 1 << 16


def dump_machine(root: Path) -> dict[str, object]:
    """Files below `root` by path: text, or ``{"base64": ...}``, or ``{"unreadable": why}``; ``{}`` for device nodes."""
    files: dict[str, object] = {}
    for path in _matching(root, _PATTERNS):
        files[str(path.relative_to(root))] = _content(path)
    for path in _matching(root, _PRESENT):
        files[str(path.relative_to(root))] = {}
    processes = root / "sys" / "class" / "kfd" / "kfd" / "proc"
    listed = sorted(path.name for path in _matching(processes, ("*/*",)) if path.name.startswith(("vram_", "sdma_")))
    return {
        "schema": DUMP_SCHEMA,
        "what": "sysfs facts of a GPU machine, written by atomtrace doctor --dump",
        "gpus": len(read_topology(root).gpus),
        "files": files,
        # Names only: they show whether the kernel lists processes to us.
        "process_files": sorted(set(listed)),
    }


def _matching(root: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        yield from sorted(root.glob(pattern))


def _content(path: Path) -> object:
    try:
        data = path.read_bytes()[:_LARGEST_BYTES]
    except OSError as error:
        return {"unreadable": error.strerror or str(error)}
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
    return _UNIQUE.sub(lambda match: f"unique_id {_masked(int(match[1]))}", text)


def _masked(unique_id: int) -> int:
    return int(sha256(unique_id.to_bytes(16, "big")).hexdigest()[:16], 16) if unique_id else 0


def plant_machine(dump: dict[str, object], root: Path) -> None:
    """Write a dump's files below `root`, so that ``--atom-machine-root`` can look at that machine."""
    files = dump.get("files")
    for name, content in files.items() if isinstance(files, dict) else ():
        path = (root / str(name)).resolve()
        if not path.is_relative_to(root.resolve()):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        elif isinstance(content, dict) and "unreadable" not in content:
            path.write_bytes(base64.b64decode(str(content.get("base64", ""))))
