"""Run a command and take its time, or the memory of all its processes; never both in one run.

Time: the wall clock from before the start to after the end, so imports, start and exit count. Memory: the sum of
the resident sizes of the process and its descendants, sampled every few ms from /proc; for a command that stays
one process, its own high-water mark. Shared pages count once per process, so sums are on the high side. `wait4`
is not used for memory: its maximum starts at the size of the process that forked, and it takes the largest child
where the sum is asked.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["FailedRunError", "Run", "as_installed", "peak_bytes", "timed"]

_SAMPLE_S = 0.004
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class FailedRunError(Exception):
    """A command that did not answer; `last` is the end of what it wrote to standard error."""

    command: Sequence[str]
    status: int
    last: str

    def __str__(self) -> str:
        return f"{' '.join(self.command[:3])} ... ended with status {self.status}: {self.last}"


def as_installed(cache: Path) -> dict[str, str]:
    """An environment in which modules are compiled once, as they are when installed.

    Where bytecode may not be written (containers often forbid it) every start would compile the whole package anew.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(cache)}


@dataclass(frozen=True)
class Run:
    """One run of a command: wall seconds, processor seconds of all its processes, standard output."""

    seconds: float
    cpu_seconds: float
    output: bytes


def timed(command: Sequence[str], environment: Mapping[str, str]) -> Run:
    """Run the command to its end. Raises FailedRunError."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        status = subprocess.run(command, stdout=out, stderr=err, env=environment, check=False).returncode
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Run(seconds, cpu, _read(command, status, out, err))


def peak_bytes(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Peak of the resident memory of the command and its descendants."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        peak = high_water = 0
        alone = True
        while process.poll() is None:
            tree = _tree(process.pid)
            alone = alone and len(tree) <= 1
            peak = max(peak, sum(map(_resident, tree)))
            high_water = max(high_water, _high_water(process.pid))
            time.sleep(_SAMPLE_S)
        _read(command, process.returncode, out, err)
        return max(peak, high_water) if alone else peak


def _read(command: Sequence[str], status: int, out: object, err: object) -> bytes:
    def whole(stream: object) -> bytes:
        stream.seek(0)  # type: ignore[attr-defined]
        text: bytes = stream.read()  # type: ignore[attr-defined]
        return text

    if status:
        last = whole(err).decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise FailedRunError(command, status, last[:300])
    return whole(out)


def _tree(root: int) -> list[int]:
    found = []
    todo = [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    todo.extend(map(int, (task / "children").read_text().split()))
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def _high_water(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
