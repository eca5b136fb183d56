"""Kineto's JSON text: one template per event, filled by `%` with integers, which is exact and quick in bulk.

Apart from the simulator's templates on purpose: a benchmark's input must not change when the simulator learns
something. Columns of a time are `ns // 1000, ns % 1000`; `time2` below stands for such a pair.
"""

from __future__ import annotations

import json

__all__ = [
    "annotation_row", "call_row", "footer", "frame_row", "gpu_note_row", "gpu_row", "header", "launch_row", "op_row",
]  # fmt: skip

_TIME = '"ts": %d.%03d, "dur": %d.%03d'
_EVENT = (
    '  {{\n    "ph": "X", "cat": "{}", "name": {}, "pid": {}, "tid": {},\n    {},\n'
    '    "args": {{\n      {}\n    }}\n  }},\n'
)


def _event(category: str, name: str, pid: int, tid: int | str, args: str) -> str:
    return _EVENT.format(category, name, pid, tid, _TIME, args)


def _quote(text: str) -> str:
    return json.dumps(text).replace("%", "%%")


def _arrow(phase: str, pid: int, tid: int) -> str:
    ends = ', "bp": "e"' if phase == "f" else ""
    return (
        f'  {{\n    "ph": "{phase}", "id": %d, "pid": {pid}, "tid": {tid}, "ts": %d.%03d,\n'
        f'    "cat": "ac2g", "name": "ac2g"{ends}\n  }},\n'
    )


def annotation_row(pid: int, tid: int) -> str:
    """A host annotation; columns: name (JSON text), time2, time2, External id, event index."""
    return _event("user_annotation", "%s", pid, tid, '"External id": %d,"Record function id": 0, "Ev Idx": %d')


def op_row(name: str, pid: int, tid: int) -> str:
    """A host op; columns: time2, time2, External id, event index."""
    return _event("cpu_op", _quote(name), pid, tid, '"External id": %d,"Record function id": 0, "Ev Idx": %d')


def frame_row(pid: int, tid: int) -> str:
    """A Python frame; columns: name (JSON text), time2, time2, parent's id, own id, event index."""
    return _event("python_function", "%s", pid, tid, '"Python parent id": %d, "Python id": %d, "Ev Idx": %d')


def call_row(name: str, pid: int, tid: int) -> str:
    """A runtime call that starts nothing; columns: time2, time2, correlation."""
    return _event("cuda_runtime", _quote(name), pid, tid, '"cid": 141, "correlation": %d')


def launch_row(name: str, kernel: str | None, pid: int, tid: int) -> str:
    """A launch record and its flow arrow; `kernel` None is a graph's, which has neither kernel nor External id.

    Columns: time2, time2, [External id], correlation, correlation, time2.
    """
    args = '"cid": 215, "correlation": %d'
    if kernel is not None:
        args = (
            f'"External id": %d, "kernel": {_quote(kernel)}, "cid": 107, "correlation": %d,'
            ' "grid": [256, 1, 1], "block": [256, 1, 1], "shared memory": 0'
        )
    return _event("cuda_runtime", _quote(name), pid, tid, args) + _arrow("s", pid, tid)


def gpu_row(name: str, device: int, stream: int, *, graph: bool) -> str:
    """A kernel and the end of its flow arrow; columns: time2, time2, [External id], correlation x 2, time2."""
    args = f'"device": {device}, "stream": {stream}, "correlation": %d, "kind": "Dispatch Task"'
    if not graph:
        args = (
            f'"External id": %d, "device": {device}, "stream": {stream}, "correlation": %d, '
            '"kind": "Dispatch Kernel", "grid": [256, 1, 1], "block": [256, 1, 1]'
        )
    return _event("kernel", _quote(name), device, stream, args) + _arrow("f", device, stream)


def gpu_note_row(device: int, stream: int) -> str:
    """A host annotation's projection; columns: name (JSON text), time2, time2, External id."""
    return _event("gpu_user_annotation", "%s", device, stream, '"External id": %d')


def header(*, rank: int, world: int, stacks: bool, trace_id: str) -> str:
    """Everything before the first event."""
    devices = ",\n".join(
        f'    {{\n      "id": {number}, "name": "AMD Instinct MI355X", "totalGlobalMem": 309220868096,\n'
        '      "computeMajor": 9, "computeMinor": 5,\n'
        '      "maxThreadsPerBlock": 1024, "maxThreadsPerMultiprocessor": 2048,\n'
        '      "regsPerBlock": 65536, "warpSize": 64,\n      "sharedMemPerBlock": 163840, "numSms": 256\n    }'
        for number in range(world)
    )
    info = json.dumps({"backend": "nccl", "rank": rank, "world_size": world, "nccl_version": "2.27.7"})
    more = '  "with_stack": 1,\n' if stacks else ""
    return (
        f'{{\n  "schemaVersion": 1,\n  "deviceProperties": [\n{devices}\n  ],\n  "roctracer_version": 4.1,\n'
        f'  "hip_runtime_version": 70253211,\n  "distributedInfo": {info},\n{more}'
        f'  "hip_driver_version": 70253211,\n  "trace_id": "{trace_id}",\n  "displayTimeUnit": "ms",\n'
        '  "baseTimeNanoseconds": 1775078550000000000,\n  "traceEvents": [\n'
    )


def footer(*, pid: int, ranks: int, start_ns: int, end_ns: int, name: str) -> str:
    """Metadata events, the profiler's own span, and everything after the last event."""
    at = f"{start_ns // 1000}.{start_ns % 1000:03d}"
    end = f"{end_ns // 1000}.{end_ns % 1000:03d}"
    whole = f"{(end_ns - start_ns) // 1000}.{(end_ns - start_ns) % 1000:03d}"
    rows = [
        f'  {{\n    "name": "{kind}", "ph": "M", "ts": {at}, "pid": {process}, "tid": 0,\n'
        f'    "args": {{\n      {args}\n    }}\n  }},\n'
        for process, label in [(pid, "CPU"), *((number, f"GPU {number}") for number in range(ranks))]
        for kind, args in (("process_name", '"name": "python3"'), ("process_labels", f'"labels": "{label}"'))
    ]
    rows.append(
        f'  {{\n    "ph": "X", "cat": "Trace", "ts": {at}, "dur": {whole},\n    "pid": "Spans", '
        '"tid": "PyTorch Profiler",\n    "name": "PyTorch Profiler (0)",\n'
        '    "args": {\n      "Op count": 0\n    }\n  },\n'
        '  {\n    "name": "Iteration Start: PyTorch Profiler", "ph": "i", "s": "g",\n    "pid": "Traces", '
        f'"tid": "Trace PyTorch Profiler", "ts": {at}\n  }},\n'
        '  {\n    "name": "Record Window End", "ph": "i", "s": "g",\n'
        f'    "pid": "", "tid": "", "ts": {end}\n  }}\n  ],\n  "traceName": {json.dumps(name)}\n}}\n'
    )
    return "".join(rows)
