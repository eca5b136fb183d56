"""Run ids and the directory of a run, made when the first capture needs it and not before."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from pytest_atomtrace.errors import StoreError

__all__ = ["new_run_id", "point_latest", "prepare_run_directory"]


def new_run_id() -> str:
    """Sortable by time, unique on a shared file system."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{os.urandom(2).hex()}"


def prepare_run_directory(output: Path, run_id: str) -> Path:
    """Make ``<output>/runs/<run id>`` ; several workers may do it at once.

    Raises:
        StoreError: the place cannot be written, or its disk is full.

    """
    run = output / "runs" / run_id
    ignore = output / ".gitignore"
    try:
        run.mkdir(parents=True, exist_ok=True)
        if not ignore.exists():
            # Traces are tens of megabytes a rank; one "git add ." must not take them along.
            with contextlib.suppress(FileExistsError), ignore.open("x") as stream:
                stream.write("*\n")
    except OSError as error:
        raise StoreError(
            f"the output directory {output} cannot be written: {error.strerror or error}",
            "Name a place with room for traces (tens of MB a rank): --atom-output=DIR",
        ) from None
    return run


def point_latest(output: Path, run_id: str) -> None:
    """Point ``latest`` at a run that has a finished capture, and leave it where it is for any other.

    A run that took nothing (a replay, one that failed at its first launch) would take it away from captures.
    """
    from pytest_atomtrace.capture.hosts import host_places

    hosts = host_places(output / "runs" / run_id)
    if not any(any(host.glob("captures/*/*/manifest.json")) for host in hosts):
        return
    link = output / "latest"
    target = Path("runs") / run_id
    with contextlib.suppress(OSError):
        if link.readlink() == target:
            return
    staging = output / f".latest-{os.getpid()}"
    with contextlib.suppress(OSError):
        staging.symlink_to(target)
        staging.replace(link)
