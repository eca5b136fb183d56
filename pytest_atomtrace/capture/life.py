"""Whether a server lives, by what may be believed about it: our child, a script's child, or somebody else's."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pytest_atomtrace.capture.identity import Identity, descendants, process_table
from pytest_atomtrace.errors import InfraError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_atomtrace.capture.clock import Clock
    from pytest_atomtrace.capture.keeper_link import KeeperLink

__all__ = ["AttachedLife", "Life", "OwnLife", "ScriptedLife", "listener_of", "log_of"]

_ASK_EVERY_S = 0.5
_LISTEN = "0A"


class Life(Protocol):
    """A server's processes."""

    def ended(self) -> str | None:
        """How it ended, None while it lives."""

    def pids(self) -> list[int]:
        """Its live processes, as far as they can be known."""


@dataclass(frozen=True)
class OwnLife:
    """The server is the process that the keeper started."""

    identity: Identity
    link: KeeperLink

    def ended(self) -> str | None:
        """By the process itself, its exit status from the keeper that reaped it."""
        if self.identity.alive:
            return None
        try:
            code = self.link.request("status", timeout_s=5.0).get("returncode")
        except InfraError:
            code = None
        who = f"the server process (pid {self.identity.pid}) ended"
        if not isinstance(code, int):
            return f"{who} (exit status unknown)"
        return f"{who} by signal {-code}" if code < 0 else f"{who} with exit status {code}"

    def pids(self) -> list[int]:
        """The keeper's whole tree."""
        return _tree(self.link)


@dataclass
class ScriptedLife:
    """A script started the server and goes away: what it started lives on below the keeper."""

    link: KeeperLink
    clock: Clock
    _seen: list[int] = field(default_factory=list)
    _asked_s: float = -1e9

    def ended(self) -> str | None:
        """Nothing of the script's tree is left; its exit status is no evidence either way."""
        return None if self.pids() else "the start script and everything that it started are gone"

    def pids(self) -> list[int]:
        """The keeper's whole tree, looked up twice a second."""
        now_s = self.clock.monotonic_s()
        if now_s - self._asked_s >= _ASK_EVERY_S:
            self._seen, self._asked_s = _tree(self.link), now_s
        return self._seen


@dataclass(frozen=True)
class AttachedLife:
    """Somebody else's server; None where its process is not to be found (another host, another user)."""

    identity: Identity | None

    def ended(self) -> str | None:
        """By the process that listened when we came."""
        if self.identity is None or self.identity.alive:
            return None
        return f"the attached server (pid {self.identity.pid}) ended"

    def pids(self) -> list[int]:
        """The listener and its descendants."""
        if self.identity is None:
            return []
        return [self.identity.pid, *(row.pid for row in descendants(self.identity.pid, process_table()) if row.alive)]


def _tree(link: KeeperLink) -> list[int]:
    listed = link.request("status").get("pids")
    return [int(pid) for pid in listed] if isinstance(listed, list) else []


def log_of(pids: Sequence[int], *, but: Path | None = None) -> Path | None:
    """The regular file that one of `pids` writes its standard error to, other than `but`.

    ATOM logs there (standard output has uvicorn's access lines only, unless a script sends both to one file).
    """
    for pid in pids:
        try:
            target = Path(os.readlink(f"/proc/{pid}/fd/2"))  # noqa: PTH115  # a link of /proc, which may name no path
            regular = stat.S_ISREG(target.stat().st_mode)
        except OSError:
            continue
        if regular and target != but:
            return target
    return None


def listener_of(port: int) -> Identity | None:
    """The process of ours that listens on a local TCP port; None where it is not to be found."""
    sockets = {f"socket:[{inode}]" for table in ("tcp", "tcp6") for inode in _inodes(Path("/proc/net") / table, port)}
    if not sockets:
        return None
    for pid in process_table():
        try:
            names = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208  # names only
            found = any(os.readlink(f"/proc/{pid}/fd/{name}") in sockets for name in names)  # noqa: PTH115
        except OSError:  # gone, or another user's
            continue
        if found:
            return Identity.of(pid)
    return None


def _inodes(table: Path, port: int) -> list[str]:
    try:
        rows = table.read_text().splitlines()[1:]
    except OSError:
        return []
    found = []
    for row in rows:
        fields = row.split()
        if len(fields) > 9 and fields[3] == _LISTEN and re.fullmatch(rf"[0-9A-F]+:{port:04X}", fields[1]):
            found.append(fields[9])
    return found
