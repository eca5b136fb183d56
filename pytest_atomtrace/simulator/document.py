"""What stands around the events of a kineto document: header, metadata events, closing keys."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from pytest_atomtrace.simulator.kineto import stamp
from pytest_atomtrace.simulator.sheets import STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Facts", "base_time", "write_document"]

THREE_MONTHS_NS = 7889238 * 10**9
GPUS: dict[str, dict[str, Any]] = {
    "MI355X": {"name": "AMD Instinct MI355X", "mem": 309220868096, "minor": 5, "lds": 163840, "sms": 256},
    "MI300X": {"name": "AMD Instinct MI300X", "mem": 206141652992, "minor": 4, "lds": 65536, "sms": 304},
}


def base_time(now_ns: int) -> int:
    """The trace epoch: the last multiple of three months, as kineto picks it to keep times short.

    A second before the multiple still counts to the period before: no time is ever shorter than four digits.
    """
    return (now_ns - 10**9) // THREE_MONTHS_NS * THREE_MONTHS_NS


@dataclass(frozen=True)
class Facts:
    """What a rank's documents say about themselves; ``rank`` is the device too."""

    gpu: str
    gpus: int
    rank: int
    world: int
    detailed: bool
    seed: int
    base_ns: int
    pid: int
    threads: tuple[int, ...]


def write_document(
    file: IO[bytes],
    facts: Facts,
    *,
    start_ns: int,
    name: str,
    play: Callable[[Callable[[str], object], Callable[[str], object]], int],
) -> None:
    """A whole document. ``play`` gets writers of host and GPU rows and returns the end of the window in ns.

    Kineto writes the GPU's rows after the host's; they are made at the same time, so they wait in a file.
    """
    with tempfile.TemporaryFile() as spool:
        file.write(_header(facts).encode())
        end_ns = play(lambda text: file.write(text.encode()), lambda text: spool.write(text.encode()))
        spool.seek(0)
        shutil.copyfileobj(spool, file, 1 << 20)
        file.write(_footer(facts, start_ns=start_ns, end_ns=end_ns, name=name).encode())


def _header(facts: Facts) -> str:
    device, world, rank = GPUS[facts.gpu], facts.world, facts.rank
    devices = ",\n".join(
        f'    {{\n      "id": {index}, "name": "{device["name"]}", "totalGlobalMem": {device["mem"]},\n'
        f'      "computeMajor": 9, "computeMinor": {device["minor"]},\n'
        '      "maxThreadsPerBlock": 1024, "maxThreadsPerMultiprocessor": 2048,\n'
        '      "regsPerBlock": 65536, "warpSize": 64,\n'
        f'      "sharedMemPerBlock": {device["lds"]}, "numSms": {device["sms"]}\n'
        f'    , "maxSharedMemoryPerMultiProcessor": {device["lds"]}\n    }}'
        for index in range(facts.gpus)
    )
    ranks = list(range(world))
    group = {
        "pg_name": "0",
        "pg_desc": "default_pg",
        "backend_config": "cuda:nccl",
        "pg_size": world,
        "ranks": ranks,
    }
    info = {
        "backend": "nccl",
        "rank": rank,
        "world_size": world,
        "pg_count": 1,
        "pg_config": [group],
        "nccl_version": "2.27.7",
    }
    more = '  "record_shapes": 1,\n  "with_stack": 1,\n  "profile_memory": 1,\n' if facts.detailed else ""
    return (
        # Wherever the file goes: nobody may take its times for a GPU's.
        f'{{\n  "schemaVersion": 1,\n  "simulatedBy": "pytest-atomtrace",\n'
        f'  "deviceProperties": [\n{devices}\n  ],\n  "roctracer_version": 4.1,\n'
        f'  "hip_runtime_version": 70253211,\n  "distributedInfo": {json.dumps(info)},\n{more}'
        f'  "hip_driver_version": 70253211,\n  "trace_id": "{facts.seed & 0xFFFFFFFF:08X}{rank:024X}",\n'
        '  "displayTimeUnit": "ms",\n'
        f'  "baseTimeNanoseconds": {facts.base_ns},\n  "traceEvents": [\n'
    )


def _footer(facts: Facts, *, start_ns: int, end_ns: int, name: str) -> str:
    pid, device = facts.pid, facts.rank
    at = stamp(start_ns)
    rows = []

    def meta(kind: str, pid_text: object, tid: object, args: dict[str, object]) -> None:
        rows.append(
            f'  {{\n    "name": "{kind}", "ph": "M", "ts": {at}, '
            f'"pid": {json.dumps(pid_text)}, "tid": {json.dumps(tid)},\n'
            f'    "args": {{\n      {json.dumps(args)[1:-1]}\n    }}\n  }},\n'
        )

    meta("process_name", pid, 0, {"name": "python3"})
    meta("process_labels", pid, 0, {"labels": "CPU"})
    meta("process_sort_index", pid, 0, {"sort_index": pid})
    for index in range(facts.gpus):
        meta("process_name", index, 0, {"name": "python3"})
        meta("process_labels", index, 0, {"labels": f"GPU {index}"})
        meta("process_sort_index", index, 0, {"sort_index": 5000000 + index})
    for stream in STREAMS:
        meta("thread_name", device, stream, {"name": f"stream {stream} "})
        meta("thread_sort_index", device, stream, {"sort_index": stream})
    for thread in facts.threads:
        meta("thread_name", pid, thread, {"name": f"thread {thread} (python3)"})
        meta("thread_sort_index", pid, thread, {"sort_index": thread})
    rows.append(
        f'  {{\n    "ph": "X", "cat": "Trace", "ts": {at}, "dur": {stamp(end_ns - start_ns)},\n'
        '    "pid": "Spans", '
        '"tid": "PyTorch Profiler",\n    "name": "PyTorch Profiler (0)",\n'
        '    "args": {\n      "Op count": 0\n    }\n  },\n'
    )
    meta("process_sort_index", "Spans", 0, {"sort_index": 536870912})
    rows.append(
        '  {\n    "name": "Iteration Start: PyTorch Profiler", "ph": "i", "s": "g",\n    "pid": "Traces", '
        f'"tid": "Trace PyTorch Profiler", "ts": {at}\n  }},\n'
        '  {\n    "name": "Record Window End", "ph": "i", "s": "g",\n'
        f'    "pid": "", "tid": "", "ts": {stamp(end_ns)}\n  }}\n  ],\n  "traceName": {json.dumps(name)}\n}}\n'
    )
    return "".join(rows)
