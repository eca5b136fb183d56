"""Rank files to data: through their indexes, in this process, or in processes of their own.

The compiled scanner leaves the interpreter lock to others, so it is shared out by threads. Without it processes
must do: they are started anew (never forked: the caller may have threads and locks) and hand back their columns
as an index file, which is mapped; nothing is copied through a pipe.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pytest_atomtrace import errors
from pytest_atomtrace.errors import TraceFileError
from pytest_atomtrace.trace.build import build_rank
from pytest_atomtrace.trace.index import index_path, is_writable_place, read_index, trace_key, write_index
from pytest_atomtrace.trace.rankevents import merge_shares
from pytest_atomtrace.trace.reader import has_scanner, read_rank, read_share

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping
    from typing import IO

    from pytest_atomtrace.trace.data import RankData
    from pytest_atomtrace.trace.rankevents import RankEvents

__all__ = ["load_file", "load_files", "main"]

# Starting a process and importing numpy costs about as much as reading 2 MB of gzip; below this total the
# gain is not worth the second core.
_PARALLEL_BYTES = 64 << 20
# A single file of this size is shared out by blocks.
_SHARED_BYTES = 8 << 20
# A file of this size is inflated in a thread beside the scanner.
_AHEAD_BYTES = 1 << 20
_KEPT_BYTES = 16 << 20
# A text below this is read as fast as its index.
_INDEX_BYTES = 4 << 20
# Two minutes in all.
_LOCK_TRIES = 2400
_LOCK_PAUSE_S = 0.05


def load_files(
    files: Mapping[str, Path], *, jobs: int | None = None, compiled: bool = True
) -> dict[str, RankData | TraceFileError]:
    """Load every file, by rank; a file that cannot be read gives its error instead of data.

    `compiled=False` does without the compiled scanner, as where there is none.
    """
    out: dict[str, RankData | TraceFileError] = {}
    todo: dict[str, Path] = {}
    for name, path in files.items():
        found = _from_index(path, name)
        if found is None:
            todo[name] = path
        else:
            out[name] = found
    processes = min(jobs or _cpus(), len(todo))
    compiled = compiled and has_scanner()
    if processes > 1 and compiled:
        out.update(_in_threads(todo, processes))
    elif processes > 1 and (jobs or sum(map(_size, todo.values())) >= _PARALLEL_BYTES):
        out.update(_in_processes(todo, processes))
    else:
        share = (jobs or _cpus()) if len(todo) == 1 else 1
        out.update({name: _caught(path, name, processes=share, compiled=compiled) for name, path in todo.items()})
    return {name: out[name] for name in files}


def load_file(path: Path, *, rank: str, index: bool = True, processes: int = 1, compiled: bool = True) -> RankData:
    """Load one rank's trace, through its index if that is current, and write the index if it is not.

    Whoever comes first reads under a lock; the others wait for its index. A large file is read by up to
    `processes` processes. Raises TraceFileError.
    """
    if not index or not is_writable_place(path) or not path.is_file():
        return build_rank(rank, path, _events(path, rank, processes, compiled=compiled))
    found = _from_index(path, rank)
    if found is not None:
        return found
    with _lock(path):
        found = _from_index(path, rank)
        if found is not None:
            return found
        # The key is taken before reading: a file that changes meanwhile gets an index that fits nothing.
        key = trace_key(path)
        data = build_rank(rank, path, _events(path, rank, processes, compiled=compiled))
        if data.text_bytes >= _INDEX_BYTES:
            write_index(index_path(path), data, key)
        return data


def _from_index(path: Path, rank: str) -> RankData | None:
    index = index_path(path)
    if not index.exists():
        return None
    try:
        return read_index(index, key=trace_key(path), rank=rank, trace=path)
    except OSError:
        return None


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One reader per file and host. A lock that cannot be had only costs double work, so no error."""
    directory = Path(tempfile.gettempdir()) / f"atomtrace-index-{os.getuid()}"
    name = path.resolve().as_posix().encode().hex()[-160:]
    with contextlib.ExitStack() as stack:
        # By fcntl, as the file is only ever locked: filelock would bring logging, secrets and OpenSSL.
        with contextlib.suppress(OSError):
            directory.mkdir(mode=0o700, exist_ok=True)
            lock = stack.enter_context((directory / f"{name}.lock").open("ab"))
            pause = threading.Event()
            for _ in range(_LOCK_TRIES):
                if _locked(lock):
                    break
                pause.wait(_LOCK_PAUSE_S)
        yield


def _locked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _events(path: Path, rank: str, processes: int, *, compiled: bool) -> RankEvents:
    """Read one file, in several processes if it is large enough to pay for their start."""
    # More than four gain little: every process inflates and cuts the whole text.
    processes = min(processes, 4)
    if _size(path) >= _AHEAD_BYTES:
        _prepare_allocator()
    if compiled and has_scanner():
        # Two threads do what processes would, for neither holds the interpreter lock.
        return read_rank(path, rank=rank, threads=processes > 1 and _size(path) >= _AHEAD_BYTES)
    if processes < 2 or _size(path) < _SHARED_BYTES:
        return read_rank(path, rank=rank, compiled=compiled)
    import pickle

    helpers: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="atomtrace-") as scratch:
        try:
            for share in range(1, processes):
                arguments = [str(path.resolve()), rank, str(share), str(processes), f"{scratch}/{share}"]
                helpers.append(_reader_process(arguments, None))
            shares = [read_share(path, rank=rank, share=0, of=processes)]
            if any(helper.wait() for helper in helpers):
                return read_rank(path, rank=rank, compiled=compiled)
            for share in range(1, processes):
                # Written a moment ago by our own child into our own 0700 directory.
                shares.append(pickle.loads(Path(scratch, str(share)).read_bytes()))  # noqa: S301, PERF401
        finally:
            for helper in helpers:
                helper.kill()
                helper.communicate()
    merged = merge_shares(shares)
    # Shares that did not cut alike met a text on which cheap cuts fail; one process proves all of its own.
    return merged if merged is not None and merged.event_count else read_rank(path, rank=rank, compiled=compiled)


def _prepare_allocator() -> None:
    """Free a large block, so that glibc keeps smaller ones for the next use.

    It gives every block beyond a limit back to the system, which must then clear its pages anew: half the time
    of attributing a large trace. The limit follows the largest block that was ever freed.
    """
    np.empty(_KEPT_BYTES, np.uint8)


def _caught(path: Path, rank: str, *, processes: int = 1, compiled: bool = True) -> RankData | TraceFileError:
    try:
        return load_file(path, rank=rank, processes=processes, compiled=compiled)
    except TraceFileError as error:
        return error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_threads(files: Mapping[str, Path], threads: int) -> dict[str, RankData | TraceFileError]:
    """Load by the scanner, which leaves the interpreter lock to others; no process has to start."""
    from concurrent.futures import ThreadPoolExecutor

    order = sorted(files, key=lambda name: -_size(files[name]))
    with ThreadPoolExecutor(threads) as pool:
        jobs = {name: pool.submit(_caught, files[name], name) for name in order}
        return {name: job.result() for name, job in jobs.items()}


def _in_processes(files: Mapping[str, Path], processes: int) -> dict[str, RankData | TraceFileError]:
    from concurrent.futures import ThreadPoolExecutor

    # Largest first: the last file to start should be a small one.
    order = sorted(files, key=lambda name: -_size(files[name]))
    with tempfile.TemporaryDirectory(prefix="atomtrace-") as scratch:
        readers = _Readers(Path(scratch))
        try:
            with ThreadPoolExecutor(processes) as pool:
                try:
                    jobs = {name: pool.submit(readers.load, files[name], name) for name in order}
                    return {name: job.result() for name, job in jobs.items()}
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    # Leaving the pool waits for its threads, which wait for these.
                    readers.kill()
                    raise
        finally:
            readers.close()


def _reader_process(arguments: list[str], complaints: IO[bytes] | None) -> subprocess.Popen[bytes]:
    import subprocess

    # From a source tree that is not installed the package is found through the working directory.
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "pytest_atomtrace.trace.parallel", *arguments]
    # Our environment is inherited, with one thing added: numpy's BLAS starts a thread for every CPU, which spin for
    # a while and take from the other readers what they have.
    return subprocess.Popen(
        ["/usr/bin/env", "OPENBLAS_NUM_THREADS=1", *command],
        cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints or subprocess.DEVNULL,
    )  # fmt: skip


class _Readers:
    """Reader processes that load file after file: start and imports cost as much as 50 MB of text."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.numbers = itertools.count()
        self.complaints: dict[subprocess.Popen[bytes], Path] = {}
        self.idle: list[subprocess.Popen[bytes]] = []

    def kill(self) -> None:
        """End them all, whatever they are doing."""
        for process in list(self.complaints):
            process.kill()

    def close(self) -> None:
        """End them all and close what leads to them."""
        self.kill()
        for process in self.complaints:
            process.communicate()

    def load(self, path: Path, rank: str) -> RankData | TraceFileError:
        """Load one file in an idle process, or in a new one; several threads may call."""
        try:
            process = self.idle.pop()
        except IndexError:
            process = self._start()
        answer = self._ask(process, [str(path.resolve()), rank, str(self.scratch / f"{next(self.numbers)}.index")])
        if not answer:
            return TraceFileError(str(path), self._last_words(process), rank)
        self.idle.append(process)
        facts = json.loads(answer)
        if "error" in facts:
            return _rebuilt(facts, str(path), rank)
        data = read_index(Path(facts["index"]), key=facts["key"], rank=rank, trace=path)
        return data if data is not None else _caught(path, rank)

    def _start(self) -> subprocess.Popen[bytes]:
        path = self.scratch / f"{next(self.numbers)}.complaints"
        # A file, not a pipe that nobody would read while the process works.
        with path.open("wb") as complaints:
            process = _reader_process([], complaints)
        self.complaints[process] = path
        return process

    def _ask(self, process: subprocess.Popen[bytes], question: list[str]) -> bytes:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            return process.stdout.readline()
        return b""

    def _last_words(self, process: subprocess.Popen[bytes]) -> str:
        status = process.wait()
        last = self.complaints[process].read_bytes().decode("utf-8", "replace").strip().rpartition("\n")[2]
        return f"its reader process ended with status {status} ({last or 'out of memory?'})"


def _rebuilt(facts: Mapping[str, str | int | bool], path: str, rank: str) -> TraceFileError:
    kinds = {"EmptyTraceError", "MalformedTraceError", "TruncatedTraceError", "TraceFileError"}
    kind = str(facts["error"])
    cls: type[TraceFileError] = getattr(errors, kind) if kind in kinds else TraceFileError
    compressed = bool(facts["compressed"])
    return cls(path, str(facts["problem"]), rank, int(facts["offset"]), compressed_offset=compressed)


def main(arguments: list[str]) -> int:
    """Body of a reader process.

    `TRACE RANK SHARE OF TARGET` writes one share of a file to TARGET. Without arguments every line of standard
    input, `[TRACE, RANK, SCRATCH]`, is answered with where the file's index lies, or the error's facts.
    """
    if arguments:
        import pickle

        path, rank, scratch = Path(arguments[0]), arguments[1], Path(arguments[-1])
        try:
            events = read_share(path, rank=rank, share=int(arguments[2]), of=int(arguments[3]))
        except TraceFileError:
            return 1  # the parent reads alone and meets the same fault
        scratch.write_bytes(pickle.dumps(events, protocol=5))
        return 0
    for line in sys.stdin:
        trace, rank, target = json.loads(line)
        sys.stdout.write(json.dumps(_loaded(Path(trace), rank, Path(target))) + "\n")
        sys.stdout.flush()
    return 0


def _loaded(path: Path, rank: str, scratch: Path) -> dict[str, str | int | bool]:
    try:
        key = trace_key(path)
        # Processes are for installations without the scanner, and for who asks to do without it.
        data = load_file(path, rank=rank, compiled=False)
        beside = index_path(path)
        if read_index(beside, key=key, rank=rank, trace=path) is not None:
            return {"index": str(beside), "key": key}
        write_index(scratch, data, key)
        return {"index": str(scratch), "key": key}
    except TraceFileError as error:
        return {
            "error": type(error).__name__,
            "problem": error.problem,
            "offset": error.offset,
            "compressed": error.compressed_offset,
        }


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
