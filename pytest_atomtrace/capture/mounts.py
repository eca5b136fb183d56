"""Where the lock directory lies: a lock that two machines share, or two containers do not, excludes nobody."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import LeaseError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Mount", "container_sign", "judge_lock_directory", "mount_of"]

_NETWORK = re.compile(
    r"nfs\d*|cifs|smb\d*|smbfs|ncpfs|lustre|ceph|gfs2?|ocfs2|gpfs|beegfs.*|wekafs|afs|9p|pvfs2|orangefs|glusterfs|davfs.*|"
    r"fuse\.(?:sshfs|s3fs|gcsfuse|glusterfs|ceph|ceph-fuse|cvmfs.*|rclone|goofys|juicefs|davfs.*|curlftpfs|mount-s3)"
)
# File systems that each container gets for itself.
_OWN = re.compile(r"overlay|aufs|fuse\.fuse-overlayfs|tmpfs|ramfs|rootfs")
_ESCAPE = re.compile(r"\\([0-7]{3})")
_CGROUP = re.compile(r"docker|kubepods|containerd|libpod|lxc|buildkit|crio", re.I)


@dataclass(frozen=True)
class Mount:
    """The mount that a directory is on: `inner` is the part of the file system that is mounted at `point`."""

    point: str
    inner: str
    kind: str
    source: str

    @property
    def network(self) -> bool:
        """True where other machines see the same files."""
        return _NETWORK.fullmatch(self.kind) is not None

    @property
    def private(self) -> bool:
        """True where, in a container, other containers do not see the same files.

        What a container was given from outside is mounted somewhere below its root; a fresh tmpfs is mounted there
        too, but whole.
        """
        return self.point == "/" or (self.inner == "/" and _OWN.fullmatch(self.kind) is not None)

    def __str__(self) -> str:
        return f"{self.kind} at {self.point} (from {self.source})"


def mount_of(path: Path, table: str) -> Mount | None:
    """The mount that holds `path`, by the text of ``/proc/self/mountinfo`` (proc(5)); the last at a place counts."""
    place = path.resolve()
    best: Mount | None = None
    for line in table.splitlines():
        left, dash, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if not dash or len(fields) < 5 or len(tail) < 2:
            continue
        inner, point = _plain(fields[3]), _plain(fields[4])
        if place.is_relative_to(point) and (best is None or len(point) >= len(best.point)):
            best = Mount(point, inner, tail[0], _plain(tail[1]))
    return best


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def container_sign(root: Path, env: Mapping[str, str]) -> str:
    """What shows that this is a container, "" if nothing does."""
    for name in (".dockerenv", "run/.containerenv"):
        if (root / name).exists():
            return f"/{name}"
    if "KUBERNETES_SERVICE_HOST" in env:
        return "KUBERNETES_SERVICE_HOST"
    if env.get("container"):
        return f"container={env['container']}"
    try:
        text = (root / "proc" / "1" / "cgroup").read_text()
    except OSError:
        return ""
    match = _CGROUP.search(text)
    return f"{match[0]} in /proc/1/cgroup" if match else ""


def judge_lock_directory(directory: Path, *, table: str, container: str, shared: bool, ci: bool) -> str:
    """A warning about the place of the lock directory, "" if it is good.

    `container` is the sign of one; `shared` says that the lease is of GPUs, which other containers may use too.

    Raises:
        LeaseError: it is on a network file system, or private to a container in a run that nobody watches (`ci`).

    """
    mount = mount_of(directory, table)
    if mount is None:
        return ""
    if mount.network:
        raise LeaseError(
            f"the lock directory {directory} is on a network file system: {mount}",
            "Other machines would wait for GPUs that are not theirs, and not every such file system keeps locks. Name "
            "a directory on local disk: --atom-lock-dir=DIR",
        )
    if not container or not shared or not mount.private:
        return ""
    problem = f"the lock directory {directory} is private to this container ({mount}; {container})"
    remedy = (
        "Other containers would use the same GPUs at once. Mount one from the host: "
        f"docker run -v {directory}:{directory}"
    )
    if ci:
        raise LeaseError(problem, remedy)
    return f"{problem}. {remedy}"
