"""Rank files to data: through their indexes, in this process, or in processes of their own.

Reader processes are started anew (never forked: the caller may have threads and locks) and hand back their
columns as an index file, which is mapped; nothing is copied through a pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from pytest_atomtrace import errors
from pytest_atomtrace.errors import TraceFileError
from pytest_atomtrace.trace.build import build_rank
from pytest_atomtrace.trace.index import index_path, is_writable_place, read_index, trace_key, write_index
from pytest_atomtrace.trace.reader import read_rank

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_atomtrace.trace.data import RankData

__all__ = ["load_file", "load_files", "main"]

# Starting a process and importing numpy costs about as much as reading 2 MB of gzip; below this total the
# gain is not worth the second core.
_PARALLEL_BYTES = 64 << 20
# A text below this is read as fast as its index.
_INDEX_BYTES = 4 << 20
_LOCK_SECONDS = 120.0


def load_files(files: Mapping[str, Path], *, jobs: int | None = None) -> dict[str, RankData | TraceFileError]:
    """Load every file, by rank; a file that cannot be read gives its error instead of data."""
    out: dict[str, RankData | TraceFileError] = {}
    todo: dict[str, Path] = {}
    for name, path in files.items():
        found = _from_index(path, name)
        if found is None:
            todo[name] = path
        else:
            out[name] = found
    processes = min(jobs or _cpus(), len(todo))
    if processes > 1 and (jobs or sum(map(_size, todo.values())) >= _PARALLEL_BYTES):
        out.update(_in_processes(todo, processes))
    else:
        out.update({name: _caught(path, name) for name, path in todo.items()})
    return {name: out[name] for name in files}


def load_file(path: Path, *, rank: str, index: bool = True) -> RankData:
    """Load one rank's trace, through its index if that is current, and write the index if it is not.

    Whoever comes first reads under a lock; the others wait for its index. Raises TraceFileError.
    """
    if not index or not is_writable_place(path) or not path.is_file():
        return build_rank(rank, path, read_rank(path, rank=rank))
    found = _from_index(path, rank)
    if found is not None:
        return found
    with _lock(path):
        found = _from_index(path, rank)
        if found is not None:
            return found
        # The key is taken before reading: a file that changes meanwhile gets an index that fits nothing.
        key = trace_key(path)
        data = build_rank(rank, path, read_rank(path, rank=rank))
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
    lock = FileLock(directory / f"{name}.lock", timeout=_LOCK_SECONDS)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, Timeout):
            directory.mkdir(mode=0o700, exist_ok=True)
            stack.enter_context(lock)
        yield


def _caught(path: Path, rank: str) -> RankData | TraceFileError:
    try:
        return load_file(path, rank=rank)
    except TraceFileError as error:
        return error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_processes(files: Mapping[str, Path], processes: int) -> dict[str, RankData | TraceFileError]:
    # Largest first: the last file to start should be a small one.
    order = sorted(files, key=lambda name: -_size(files[name]))
    running: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="atomtrace-") as scratch, ThreadPoolExecutor(processes) as pool:
        try:
            jobs = {
                name: pool.submit(_one_process, files[name], name, Path(scratch) / f"{n}.index", running)
                for n, name in enumerate(order)
            }
            return {name: job.result() for name, job in jobs.items()}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.kill()
            raise


def _one_process(
    path: Path, rank: str, scratch: Path, running: list[subprocess.Popen[bytes]]
) -> RankData | TraceFileError:
    # From a source tree that is not installed the package is found through the working directory.
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "pytest_atomtrace.trace.parallel", str(path.resolve()), rank, str(scratch)]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    running.append(process)
    answer, complaint = process.communicate()
    if process.returncode:
        last = complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]
        problem = f"its reader process ended with status {process.returncode} ({last or 'out of memory?'})"
        return TraceFileError(str(path), problem, rank)
    facts = json.loads(answer)
    if "error" in facts:
        return _rebuilt(facts, str(path), rank)
    data = read_index(Path(facts["index"]), key=facts["key"], rank=rank, trace=path)
    return data if data is not None else _caught(path, rank)


def _rebuilt(facts: Mapping[str, str | int | bool], path: str, rank: str) -> TraceFileError:
    kinds = {"EmptyTraceError", "MalformedTraceError", "TruncatedTraceError", "TraceFileError"}
    kind = str(facts["error"])
    cls: type[TraceFileError] = getattr(errors, kind) if kind in kinds else TraceFileError
    compressed = bool(facts["compressed"])
    return cls(path, str(facts["problem"]), rank, int(facts["offset"]), compressed_offset=compressed)


def main(arguments: list[str]) -> int:
    """Body of a reader process: `TRACE RANK SCRATCH`; prints where the index lies, or the error's facts."""
    path, rank, scratch = Path(arguments[0]), arguments[1], Path(arguments[2])
    answer: dict[str, str | int | bool]
    try:
        key = trace_key(path)
        data = load_file(path, rank=rank)
        beside = index_path(path)
        if read_index(beside, key=key, rank=rank, trace=path) is not None:
            answer = {"index": str(beside), "key": key}
        else:
            write_index(scratch, data, key)
            answer = {"index": str(scratch), "key": key}
    except TraceFileError as error:
        answer = {
            "error": type(error).__name__,
            "problem": error.problem,
            "offset": error.offset,
            "compressed": error.compressed_offset,
        }
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
