"""One rank's export: json, then gz beside it, then the json goes; what ATOM's worker does at a stop."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_atomtrace.simulator.faults import Faults

__all__ = ["Exporter", "open_gzip", "trace_name"]

COPY_BYTES = 4 << 20


def trace_name(model: str) -> str:
    """``<prefix>_ts_<date>_<time>_<ms>.pt.trace.json`` in local time of this moment."""
    prefix = re.sub(r"[^\w\-.]", "_", model.rstrip("/").rsplit("/", 1)[-1], flags=re.ASCII) or "trace"
    now = time.time()
    clock = time.strftime("%Y%m%d_%H%M%S", time.localtime(now))
    return f"{prefix}_ts_{clock}_{int(now * 1000) % 1000:03d}.pt.trace.json"


def open_gzip(path: Path) -> Any:  # noqa: ANN401 - isal's and gzip's file objects share no type
    """A gzip file to write bytes to, by the fast library where it is there."""
    try:
        from isal import igzip
    except ImportError:
        import gzip

        return gzip.open(path, "wb", compresslevel=1)
    return igzip.open(path, "wb", compresslevel=1)  # type: ignore[no-untyped-call] # isal has no types


class Exporter:
    """Writes the trace of one window in the order and with the log lines of ATOM's worker."""

    def __init__(
        self, folder: Path, *, model: str, rank: int, local_rank: int, faults: Faults, log: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._model = model
        self._rank = rank
        self._local = local_rank
        self._faults = faults
        self._log = log

    def run(self, write: Callable[[IO[bytes], Path], None]) -> None:
        """``write`` fills the json file. An OSError deletes both files, as ATOM does, and is only logged."""
        path = self._folder / trace_name(self._model)
        while path.with_name(path.name + ".gz").exists():  # two windows within a millisecond
            time.sleep(0.002)
            path = self._folder / trace_name(self._model)
        began = time.monotonic()
        packed = path.with_name(path.name + ".gz")
        try:
            self._export(path, packed, write)
        except OSError as error:
            for leftover in (path, packed):
                with contextlib.suppress(OSError):
                    leftover.unlink()
            self._log(
                f"Rank {self._local}: failed to export trace to {packed}\nTraceback (most recent call last):\n"
                f'  File "atom/model_engine/model_runner.py", line 1071, in _on_trace_ready\n'
                f"{type(error).__name__}: {error}"
            )
            return
        size = packed.stat().st_size / 1e6
        self._log(f"Rank {self._local}: trace exported to {packed} ({size:.1f} MB, {time.monotonic() - began:.1f}s)")
        if self._faults.on_rank("two_traces", self._rank):
            packed.with_name(packed.name.replace("_ts_", "_ts_20000101_000000_000_")).write_bytes(packed.read_bytes())

    def _export(self, path: Path, packed: Path, write: Callable[[IO[bytes], Path], None]) -> None:
        with path.open("wb") as file:
            write(file, path)
        if self._faults.on_rank("enospc", self._rank):
            # the real error of a full device
            with Path("/dev/full").open("wb", buffering=0) as full:
                full.write(b"x")
        if self._faults.on_rank("export_error", self._rank):
            raise OSError(5, "Input/output error", str(path))
        slow = self._faults.on_rank("slow_rank", self._rank)
        if slow:
            time.sleep(slow.number(1, 2.0))
        kill = bool(self._faults.on_rank("kill_in_gzip", self._rank))
        half = path.stat().st_size // 2
        with path.open("rb") as source, open_gzip(packed) as target:
            copied = 0
            while block := source.read(min(COPY_BYTES, half) if kill else COPY_BYTES):
                target.write(block)
                copied += len(block)
                if kill and copied >= half:
                    target.flush()
                    os.kill(os.getpid(), signal.SIGKILL)
        if self._faults.on_rank("truncated_gz", self._rank):
            os.truncate(packed, int(packed.stat().st_size * 0.6))
        path.unlink()
