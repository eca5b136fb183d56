"""Run ids and the directory of a run, made when the first capture needs it and not before."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

__all__ = ["new_run_id", "prepare_run_directory"]


def new_run_id() -> str:
    """Sortable by time, unique on a shared file system."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{secrets.token_hex(2)}"


def prepare_run_directory(output: Path, run_id: str) -> Path:
    """Make ``<output>/runs/<run id>`` and point ``latest`` at it; several workers may do it at once."""
    run = output / "runs" / run_id
    run.mkdir(parents=True, exist_ok=True)
    ignore = output / ".gitignore"
    if not ignore.exists():
        # Traces are tens of megabytes a rank; one "git add ." must not take them along.
        with contextlib.suppress(FileExistsError), ignore.open("x") as stream:
            stream.write("*\n")
    link = output / "latest"
    staging = output / f".latest-{os.getpid()}"
    with contextlib.suppress(OSError):
        staging.symlink_to(Path("runs") / run_id)
        staging.replace(link)
    return run
