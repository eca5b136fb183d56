"""Kineto's JSON text: one template per event, filled by ``%`` with integers (exact, and quick in bulk).

Times are integer nanoseconds and are printed as microseconds with three decimals: the columns of a time are
``ns // 1000, ns % 1000``. A float would lose the last digit of a ten-digit microsecond count.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = [
    "annotation_row", "base_time", "flow_end_row", "footer", "gpu_annotation_row", "gpu_row", "header",
    "launch_row", "op_row", "stamp",
]  # fmt: skip

TIME = '"ts": %d.%03d, "dur": %d.%03d'
THREE_MONTHS_NS = 7889238 * 10**9
CALL_IDS = {
    "hipLaunchKernel": 107, "hipModuleLaunchKernel": 169, "hipExtModuleLaunchKernel": 152,
    "hipGraphLaunch": 215, "hipMemcpyAsync": 134, "hipMemcpyWithStream": 153,
}  # fmt: skip
GPUS: dict[str, dict[str, Any]] = {
    "MI355X": {"name": "AMD Instinct MI355X", "mem": 309220868096, "minor": 5, "lds": 163840, "sms": 256},
    "MI300X": {"name": "AMD Instinct MI300X", "mem": 206141652992, "minor": 4, "lds": 65536, "sms": 304},
}


def base_time(now_ns: int) -> int:
    """The trace epoch: the last multiple of three months, as kineto picks it to keep times short."""
    return now_ns // THREE_MONTHS_NS * THREE_MONTHS_NS


def stamp(ns: int) -> str:
    """A time as kineto prints it."""
    return f"{ns // 1000}.{ns % 1000:03d}"


def _quote(text: str) -> str:
    return json.dumps(text).replace("%", "%%")


def annotation_row(pid: int, tid: int) -> str:
    """A CPU annotation; columns: name (JSON text), ts2, dur2, external id, event index."""
    return (
        '  {\n    "ph": "X", "cat": "user_annotation", "name": %s, '
        f'"pid": {pid}, "tid": {tid},\n    {TIME},\n    "args": {{\n      "External id": %d,'
        '"Record function id": 0, "Ev Idx": %d\n    }\n  },\n'
    )


def op_row(name: str, pid: int, tid: int) -> str:
    """A CPU operator; columns: ts2, dur2, external id, event index."""
    return (
        f'  {{\n    "ph": "X", "cat": "cpu_op", "name": {_quote(name)}, "pid": {pid}, "tid": {tid},\n    {TIME},\n'
        '    "args": {\n      "External id": %d,"Record function id": 0, "Ev Idx": %d\n    }\n  },\n'
    )


def launch_row(api: str, kernel: str | None, pid: int, tid: int, *, external: bool, size: int = 0) -> str:
    """A launch record and its flow arrow; columns: ts2, dur2, [external id], correlation, correlation, ts2."""
    ext = '"External id": %d, ' if external else ""
    if kernel is None:
        args = f'{ext}"cid": {CALL_IDS[api]}, "correlation": %d'
    elif api.startswith("hipMemcpy"):
        args = (
            f'{ext}"cid": {CALL_IDS[api]}, "correlation": %d, "src": "0x7f1bac201800", "dst": "0x7ed75c2b9b70",'
            f' "bytes": "{size}", "kind": "{2 if "DtoH" in kernel else 1}"'
        )
    else:
        args = (
            f'{ext}"kernel": {_quote(kernel)}, "cid": {CALL_IDS[api]}, "correlation": %d,'
            ' "grid": [256, 1, 1], "block": [256, 1, 1], "shared memory": 0'
        )
    return (
        f'  {{\n    "ph": "X", "cat": "cuda_runtime", "name": "{api}", "pid": {pid}, "tid": {tid},\n    {TIME},\n'
        f'    "args": {{\n      {args}\n    }}\n  }},\n'
        f'  {{\n    "ph": "s", "id": %d, "pid": {pid}, "tid": {tid}, "ts": %d.%03d,\n'
        '    "cat": "ac2g", "name": "ac2g"\n  },\n'
    )


def gpu_row(
    name: str, device: int, stream: int, *, external: bool, graph: bool, memory: str = "", size: int = 0
) -> str:
    """A GPU activity and its flow arrow's end.

    Columns: ts2, dur2, [external id], correlation, correlation, ts2. Graph nodes carry neither External id nor
    grid and are of kind "Dispatch Task", as in traces of SGLang and vLLM on ROCm 7.
    """
    ext = '"External id": %d, ' if external else ""
    args = f'{ext}"device": {device}, "stream": {stream}, "correlation": %d, '
    if memory:
        args += f'"kind": "{memory}", "bytes": {size}, "memory bandwidth (GB/s)": 0.113'
    elif graph:
        args += '"kind": "Dispatch Task"'
    else:
        args += '"kind": "Dispatch Kernel", "grid": [256, 1, 1], "block": [256, 1, 1]'
    return (
        f'  {{\n    "ph": "X", "cat": "{"gpu_memcpy" if memory else "kernel"}", "name": {_quote(name)}, '
        f'"pid": {device}, "tid": {stream},\n    {TIME},\n    "args": {{\n      {args}\n    }}\n  }},\n'
    ) + flow_end_row(device, stream)


def flow_end_row(device: int, stream: int) -> str:
    """The GPU end of a flow arrow; columns: correlation, ts2."""
    return (
        f'  {{\n    "ph": "f", "id": %d, "pid": {device}, "tid": {stream}, "ts": %d.%03d,\n'
        '    "cat": "ac2g", "name": "ac2g", "bp": "e"\n  },\n'
    )


def gpu_annotation_row(device: int) -> str:
    """A GPU annotation; columns: name (JSON text), stream, ts2, dur2, external id."""
    return (
        '  {\n    "ph": "X", "cat": "gpu_user_annotation", "name": %s, '
        f'"pid": {device}, "tid": %d,\n    {TIME},\n    "args": {{\n      "External id": %d\n    }}\n  }},\n'
    )


def header(*, gpu: str, gpus: int, rank: int, world: int, detailed: bool, trace_id: str, base_ns: int) -> str:
    """Everything before the first event."""
    facts = GPUS[gpu]
    devices = ",\n".join(
        f'    {{\n      "id": {index}, "name": "{facts["name"]}", "totalGlobalMem": {facts["mem"]},\n'
        f'      "computeMajor": 9, "computeMinor": {facts["minor"]},\n'
        '      "maxThreadsPerBlock": 1024, "maxThreadsPerMultiprocessor": 2048,\n'
        '      "regsPerBlock": 65536, "warpSize": 64,\n'
        f'      "sharedMemPerBlock": {facts["lds"]}, "numSms": {facts["sms"]}\n'
        f'    , "maxSharedMemoryPerMultiProcessor": {facts["lds"]}\n    }}'
        for index in range(gpus)
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
    more = '  "record_shapes": 1,\n  "with_stack": 1,\n  "profile_memory": 1,\n' if detailed else ""
    return (
        f'{{\n  "schemaVersion": 1,\n  "deviceProperties": [\n{devices}\n  ],\n  "roctracer_version": 4.1,\n'
        f'  "hip_runtime_version": 70253211,\n  "distributedInfo": {json.dumps(info)},\n{more}'
        f'  "hip_driver_version": 70253211,\n  "trace_id": "{trace_id}",\n  "displayTimeUnit": "ms",\n'
        f'  "baseTimeNanoseconds": {base_ns},\n  "traceEvents": [\n'
    )


def footer(
    *, pid: int, device: int, gpus: int, streams: dict[int, str], start_ns: int, end_ns: int, name: str
) -> str:
    """Metadata events, the profiler's own span, and everything after the last event."""
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
    for index in range(gpus):
        meta("process_name", index, 0, {"name": "python3"})
        meta("process_labels", index, 0, {"labels": f"GPU {index}"})
        meta("process_sort_index", index, 0, {"sort_index": 5000000 + index})
    for stream, label in streams.items():
        meta("thread_name", device, stream, {"name": f"stream {stream} {label}"})
        meta("thread_sort_index", device, stream, {"sort_index": stream})
    meta("thread_name", pid, pid, {"name": f"thread {pid} (python3)"})
    meta("thread_sort_index", pid, pid, {"sort_index": pid})
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
