"""The one door to file locks: flock on files that several users share.

fcntl and not filelock: filelock truncates or creates the file by its own rules, while the lease's file must
be opened without O_CREAT first (``fs.protected_regular`` refuses O_CREAT on another user's file in a sticky
directory), must keep mode 0666 against the umask, and carries the holder's facts.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import LeaseError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["HostLock", "LockSet", "SharedHold", "SharedNote", "is_locked", "read_holder", "shared_directory"]


def shared_directory(path: Path) -> Path:
    """Make `path` as a directory in which every user may create files and remove only their own.

    Raises:
        LeaseError: it cannot be made, or is no directory.

    """
    try:
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not path.is_dir():
                raise
        else:  # against the umask; a directory that was there keeps the mode its owner gave it
            path.chmod(0o1777)
    except OSError as error:
        raise LeaseError(
            f"the lock directory {path} cannot be used: {error.strerror or error}",
            "Name one on local disk that all users of the machine can write: --atom-lock-dir=DIR",
        ) from error
    return path


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            pass
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:  # another user was faster: open theirs
            continue
        os.fchmod(descriptor, 0o666)
        return descriptor


class HostLock:
    """One exclusive flock; it ends with `release` or with the process that took it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    @property
    def held(self) -> bool:
        """True between a successful `try_acquire` and `release`."""
        return self._descriptor >= 0

    def try_acquire(self, holder: Mapping[str, object]) -> bool:
        """Take the lock if it is free and write `holder` into it.

        Raises:
            LeaseError: the file cannot be opened, or its file system has no locks.

        """
        if self.held:
            return True
        try:
            descriptor = _open(self.path)
        except OSError as error:
            raise LeaseError(f"the lock file {self.path} cannot be opened: {error.strerror or error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            raise LeaseError(
                f"the lock file {self.path} cannot be locked: {error.strerror or error}",
                "Put the lock directory on local disk: --atom-lock-dir=DIR",
            ) from error
        # Only the holder may truncate: a contender that fails to lock must not wipe the holder's facts.
        text = json.dumps(dict(holder)).encode()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text, 0)
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give the lock back; the file stays, since unlinking it would let two processes lock two files."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1


class SharedHold:
    """A shared flock: any number may hold it, and while one does nobody gets a `HostLock` on the same file.

    It ends with `release` or with the process. Where the place has no locks or cannot be written nothing is held: a
    hold protects from tidying up, and no reader may fail for want of it. A reader makes no file (`create`).
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        self._descriptor = -1
        try:
            descriptor = _open(path) if create else os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return
        self._descriptor = descriptor

    @property
    def held(self) -> bool:
        """Whether it protects anything."""
        return self._descriptor >= 0

    def release(self) -> None:
        """Give it back; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class LockSet:
    """Several locks, all or none: taken in sorted order, so that two who want overlapping sets cannot deadlock."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._locks = [HostLock(path) for path in sorted(set(paths))]

    @property
    def held(self) -> bool:
        """True when all are."""
        return all(lock.held for lock in self._locks)

    def try_acquire(self, holder: Mapping[str, object]) -> Path | None:
        """Take all of them, or none and say which one is busy.

        Raises:
            LeaseError: as `HostLock.try_acquire`; none is held then.

        """
        try:
            for lock in self._locks:
                if not lock.try_acquire(holder):
                    self.release()
                    return lock.path
        except LeaseError:
            self.release()
            raise
        return None

    def release(self) -> None:
        """Give all back."""
        for lock in reversed(self._locks):
            lock.release()


class SharedNote:
    """A small text that the holders of a lock leave for each other, whichever user they are."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> str:
        """The text, "" if there is none."""
        try:
            return self.path.read_text(errors="replace")
        except OSError:
            return ""

    def write(self, text: str) -> None:
        """Replace the text; a place that cannot be written is left alone, since a note is a help and no proof."""
        with contextlib.suppress(OSError):
            descriptor = _open(self.path)
            try:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, text.encode(), 0)
            finally:
                os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether somebody holds a flock on `path`, over the borders of pid namespaces; a file we may not read counts."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def read_holder(path: Path) -> dict[str, object]:
    """Facts that the holder wrote; empty if nobody holds the lock or they are being written."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
