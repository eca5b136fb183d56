"""Each host's own place in a run that several hosts share by a file system.

A capture is shared as far as the lease is: workers behind different leases launch at the same time, and one would
remove what it takes for remains of a killed collect while the other still writes or reads it. The host that comes
first has the run's own directory, as in a run on one host; each further one has ``hosts/<name>`` below it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.files import read_json, write_json
from pytest_atomtrace.capture.locks import shared_directory
from pytest_atomtrace.errors import InfraError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HOSTS", "host_directory", "host_places", "launch_places"]

HOSTS = "hosts"
_CLAIM = "host.json"
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def host_directory(run_dir: Path, lock_directory: Path) -> Path:
    """Where the captures of the workers behind this lock directory go: `run_dir`, or a place below it.

    Raises:
        StoreError: the run's directory cannot be written, or its claim is damaged.

    """
    ours = _identity(lock_directory)
    first = _claim(run_dir, ours)
    if first == ours:
        return run_dir
    node = re.sub(r"[^A-Za-z0-9.-]", "_", platform.node()) or "host"
    return run_dir / HOSTS / f"{node}-{sha256(ours.encode()).hexdigest()[:6]}"


def host_places(run_dir: Path) -> Iterator[Path]:
    """The run's own directory and those of its further hosts, in order of their names."""
    yield run_dir
    yield from sorted(one for one in (run_dir / HOSTS).glob("*") if one.is_dir())


def launch_places(run_dir: Path) -> Iterator[Path]:
    """Where captures and servers of the run's hosts lie: of each its first launches, then its further ones."""
    for host in host_places(run_dir):
        yield host
        yield from sorted(host.glob("launches/*"))


def _identity(lock_directory: Path) -> str:
    """The boot of the machine and the directory's inode: containers that share it may know it by different paths."""
    boot = platform.node()
    with contextlib.suppress(OSError):
        boot = _BOOT.read_text().strip()
    try:
        stat = shared_directory(lock_directory).stat()
    except (InfraError, OSError):  # the lease will be refused, and tells it better
        return f"{boot} {lock_directory}"
    return f"{boot} {stat.st_dev}:{stat.st_ino}"


def _claim(run_dir: Path, ours: str) -> str:
    """Identity of the host that came first; a link appears whole or not at all, on network file systems too."""
    claim = run_dir / _CLAIM
    known = read_json(claim)
    if known is None:
        # Containers share host names and process numbers, threads share both: one took another's draft away.
        draft = run_dir / f".{_CLAIM}-{os.urandom(8).hex()}"
        write_json(draft, {"host": ours, "node": platform.node()})
        try:
            claim.hardlink_to(draft)
        except FileExistsError:
            pass
        except OSError:  # a file system without links: whoever replaces the other's claim, both then read the same
            draft.replace(claim)
        finally:
            draft.unlink(missing_ok=True)
        known = read_json(claim) or {}
    return str(known.get("host", ""))
