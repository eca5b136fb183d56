"""Who else is on the GPUs: the processes that KFD lists, whose they are, and which are ours.

KFD names host pids. Where the server runs in the same pid namespace ours are known by pid; inside a container
they are known by difference only: what was listed before our launch is foreign, and of what came since as many
are ours as processes of ours hold ``/dev/kfd``.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pytest_atomtrace.capture.gpus import Gpu

__all__ = ["Tenant", "foreign", "holders_of_kfd", "read_tenants"]

_PROC = Path("/proc")


@dataclass(frozen=True)
class Tenant:
    """One process with memory or queues on some GPUs; `name` and `user` are "" where its pid is not ours to see."""

    pid: int
    name: str
    user: str
    vram_bytes: int
    cards: tuple[str, ...]

    def __str__(self) -> str:
        who = f" {self.name}" if self.name else ""
        owner = f" of {self.user}" if self.user else ""
        return f"pid {self.pid}{who}{owner}, {format_bytes(self.vram_bytes)} on {', '.join(self.cards)}"

    def as_dict(self) -> dict[str, object]:
        """Builtin types only."""
        return {
            "pid": self.pid,
            "name": self.name,
            "user": self.user,
            "vram_bytes": self.vram_bytes,
            "cards": list(self.cards),
        }


def read_tenants(root: Path, gpus: Sequence[Gpu]) -> list[Tenant]:
    """Processes with memory or queues on `gpus`, by pid."""
    found = []
    folder = root / "sys" / "class" / "kfd" / "kfd" / "proc"
    try:
        pids = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
    except OSError:
        return []
    for pid in pids:
        vram: dict[str, int] = {}
        queues = _queue_gpus(folder / str(pid))
        for gpu in gpus:
            used = _number(folder / str(pid) / f"vram_{gpu.gpu_id}")
            if used or gpu.gpu_id in queues:
                vram[gpu.pci] = vram.get(gpu.pci, 0) + used
        if vram:
            name, user = _who(pid)
            found.append(Tenant(pid, name, user, sum(vram.values()), tuple(sorted(vram))))
    return found


def _queue_gpus(process: Path) -> set[int]:
    found = set()
    with contextlib.suppress(OSError):
        for queue in (process / "queues").iterdir():
            found.add(_number(queue / "gpuid"))
    return found


def _number(path: Path) -> int:
    try:
        text = path.read_text().strip()
    except OSError:  # the process ended between listing and reading
        return 0
    return int(text) if text.isdecimal() else 0


def _who(pid: int) -> tuple[str, str]:
    try:
        name = (_PROC / str(pid) / "comm").read_text().strip()
        uid = (_PROC / str(pid)).stat().st_uid
    except OSError:  # a process of another pid namespace
        return "", ""
    try:
        return name, pwd.getpwuid(uid).pw_name
    except KeyError:
        return name, str(uid)


def holders_of_kfd(root: Path, pids: Collection[int]) -> set[int]:
    """Those of `pids` that have the driver's device open."""
    device = str(root / "dev" / "kfd")
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            folder = _PROC / str(pid) / "fd"
            # The link's text, since in another mount namespace the path may mean another file.
            if any(_link(entry) == device for entry in folder.iterdir()):
                found.add(pid)
    return found


def _link(path: Path) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(path)  # noqa: PTH115  # a plain string: thousands of descriptors are looked at
    return ""


def foreign(
    tenants: Sequence[Tenant], *, ours: Collection[int], before: Collection[int], holding: int = 0
) -> tuple[list[Tenant], int]:
    """Tenants that are not ours, and how many more there are that cannot be told from ours.

    `ours` are the server's pids as we see them, `before` the tenants' pids before its launch, `holding` how many of
    `ours` have the driver open.
    """
    known = [tenant for tenant in tenants if tenant.pid in ours]
    strangers = [tenant for tenant in tenants if tenant.pid not in ours]
    if known or not holding:
        return strangers, 0
    # Another pid namespace: ours are on the GPUs, and none is listed under the pid that we know.
    old = [tenant for tenant in strangers if tenant.pid in before]
    return old, max(0, len(strangers) - len(old) - holding)
