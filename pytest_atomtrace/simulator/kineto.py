"""Kineto's JSON text, event by event, with slots for what changes from step to step.

Times are integer nanoseconds and are printed as microseconds with three decimals. A float would lose the last
digit of a ten-digit microsecond count.
"""

from __future__ import annotations

import json

__all__ = [
    "SLOT", "Sheet", "Stamps", "annotation", "call", "flow_end_row", "frame_row", "gpu_annotation", "gpu_row",
    "launch_row", "memory_row", "op_row", "span_row", "stamp", "stamps",
]  # fmt: skip

#: Stands for a value in the text of a row; JSON escapes the character, so no name can hold it.
SLOT = "\0"
TIME = f'"ts": {SLOT}, "dur": {SLOT}'
CALL_IDS = {
    "hipLaunchKernel": 107, "hipModuleLaunchKernel": 169, "hipExtModuleLaunchKernel": 152,
    "hipGraphLaunch": 215, "hipMemcpyAsync": 134, "hipMemcpyWithStream": 153, "hipStreamBeginCapture": 219,
    "hipStreamEndCapture": 220, "hipGraphInstantiateWithFlags": 279,
}  # fmt: skip


class Sheet:
    """The text of many rows; filled at once, since formatting them one by one costs three times as much."""

    def __init__(self, text: str) -> None:
        constants = text.split(SLOT)
        self._parts = [""] * (2 * len(constants) - 1)
        self._parts[0::2] = constants

    def fill(self, values: list[str]) -> str:
        """The text with ``values`` in its slots, in order; raises ValueError where their numbers differ."""
        parts = self._parts.copy()
        parts[1::2] = values
        return "".join(parts)


class Stamps(dict[int, str]):
    """Printed times by nanoseconds; kernel durations repeat."""

    def __missing__(self, ns: int) -> str:
        if len(self) > 100_000:
            self.clear()
        text = self[ns] = stamp(ns)
        return text


def stamp(ns: int) -> str:
    """A time as kineto prints it."""
    return f"{ns // 1000}.{ns % 1000:03d}"


def stamps(times: list[int]) -> list[str]:
    """Printed times of at least a microsecond each, in bulk."""
    return [(text := str(ns))[:-3] + "." + text[-3:] for ns in times]


def span_row(name: str, pid: int, tid: int) -> str:
    """A CPU annotation of a fixed name; slots: ts, dur, external id, event index."""
    return (
        f'  {{\n    "ph": "X", "cat": "user_annotation", "name": {json.dumps(name)}, '
        f'"pid": {pid}, "tid": {tid},\n    {TIME},\n    "args": {{\n      "External id": {SLOT},'
        f'"Record function id": 0, "Ev Idx": {SLOT}\n    }}\n  }},\n'
    )


def annotation(name: str, pid: int, tid: int, *, begin: int, took: int, external: int, event: int) -> str:
    """One CPU annotation."""
    return Sheet(span_row(name, pid, tid)).fill([stamp(begin), stamp(took), str(external), str(event)])


def op_row(name: str, pid: int, tid: int, *, inputs: str = "") -> str:
    """A CPU operator; slots: ts, dur, external id, those of ``inputs``, event index."""
    return (
        f'  {{\n    "ph": "X", "cat": "cpu_op", "name": {json.dumps(name)}, "pid": {pid}, "tid": {tid},\n'
        f'    {TIME},\n    "args": {{\n      "External id": {SLOT},"Record function id": 0, {inputs}'
        f'"Ev Idx": {SLOT}\n    }}\n  }},\n'
    )


def frame_row(name: str, pid: int, tid: int) -> str:
    """A Python frame; slots: ts, dur, parent's id or null, id, event index."""
    return (
        f'  {{\n    "ph": "X", "cat": "python_function", "name": {json.dumps(name)}, "pid": {pid}, "tid": {tid},\n'
        f'    {TIME},\n    "args": {{\n      "Python parent id": {SLOT}, "Python id": {SLOT}, "Ev Idx": {SLOT}\n'
        "    }\n  },\n"
    )


def memory_row(size: int, device: int, pid: int, tid: int) -> str:
    """An allocation of the caching allocator; slots: ts, event index."""
    return (
        f'  {{\n    "ph": "i", "cat": "cpu_instant_event", "s": "t", "name": "[memory]", "pid": {pid}, '
        f'"tid": {tid},\n    "ts": {SLOT},\n    "args": {{\n      "Total Reserved": 193621655552, '
        f'"Total Allocated": 191611481088, "Bytes": {size}, "Device Id": {device}, "Device Type": 6, '
        f'"Addr": 139725679624192, "Ev Idx": {SLOT}\n    }}\n  }},\n'
    )


def call(api: str, pid: int, tid: int, *, begin: int, took: int, correlation: int) -> str:
    """One runtime call that launches nothing."""
    return (
        f'  {{\n    "ph": "X", "cat": "cuda_runtime", "name": "{api}", "pid": {pid}, "tid": {tid},\n'
        f'    "ts": {stamp(begin)}, "dur": {stamp(took)},\n    "args": {{\n      '
        f'"cid": {CALL_IDS[api]}, "correlation": {correlation}\n    }}\n  }},\n'
    )


def launch_row(api: str, kernel: str | None, pid: int, tid: int, *, external: bool, size: int = 0) -> str:
    """A launch record and its flow arrow; slots: ts, dur, [external id], correlation, correlation, ts."""
    ext = f'"External id": {SLOT}, ' if external else ""
    if kernel is None:
        args = f'{ext}"cid": {CALL_IDS[api]}, "correlation": {SLOT}'
    elif api.startswith("hipMemcpy"):
        args = (
            f'{ext}"cid": {CALL_IDS[api]}, "correlation": {SLOT}, "src": "0x7f1bac201800", '
            f'"dst": "0x7ed75c2b9b70", "bytes": "{size}", "kind": "{2 if "DtoH" in kernel else 1}"'
        )
    else:
        args = (
            f'{ext}"kernel": {json.dumps(kernel)}, "cid": {CALL_IDS[api]}, "correlation": {SLOT},'
            ' "grid": [256, 1, 1], "block": [256, 1, 1], "shared memory": 0'
        )
    return (
        f'  {{\n    "ph": "X", "cat": "cuda_runtime", "name": "{api}", "pid": {pid}, "tid": {tid},\n    {TIME},\n'
        f'    "args": {{\n      {args}\n    }}\n  }},\n'
        f'  {{\n    "ph": "s", "id": {SLOT}, "pid": {pid}, "tid": {tid}, "ts": {SLOT},\n'
        '    "cat": "ac2g", "name": "ac2g"\n  },\n'
    )


def gpu_row(
    name: str, device: int, stream: int, *, external: bool, graph: bool, memory: str = "", size: int = 0
) -> str:
    """A GPU activity and its flow arrow's end; slots: ts, dur, [external id], correlation, correlation, ts.

    Graph nodes carry neither External id nor grid and are of kind "Dispatch Task", as in traces of SGLang and
    vLLM on ROCm 7.
    """
    ext = f'"External id": {SLOT}, ' if external else ""
    args = f'{ext}"device": {device}, "stream": {stream}, "correlation": {SLOT}, '
    if memory:
        args += f'"kind": "{memory}", "bytes": {size}, "memory bandwidth (GB/s)": 0.113'
    elif graph:
        args += '"kind": "Dispatch Task"'
    else:
        args += '"kind": "Dispatch Kernel", "grid": [256, 1, 1], "block": [256, 1, 1]'
    return (
        f'  {{\n    "ph": "X", "cat": "{"gpu_memcpy" if memory else "kernel"}", "name": {json.dumps(name)}, '
        f'"pid": {device}, "tid": {stream},\n    {TIME},\n    "args": {{\n      {args}\n    }}\n  }},\n'
    ) + flow_end_row(device, stream)


def flow_end_row(device: int, stream: int) -> str:
    """The GPU end of a flow arrow; slots: correlation, ts."""
    return (
        f'  {{\n    "ph": "f", "id": {SLOT}, "pid": {device}, "tid": {stream}, "ts": {SLOT},\n'
        '    "cat": "ac2g", "name": "ac2g", "bp": "e"\n  },\n'
    )


def gpu_annotation(name: str, device: int, stream: int, *, begin: int, took: int, external: int) -> str:
    """One GPU annotation."""
    return (
        f'  {{\n    "ph": "X", "cat": "gpu_user_annotation", "name": {json.dumps(name)}, '
        f'"pid": {device}, "tid": {stream},\n    "ts": {stamp(begin)}, "dur": {stamp(took)},\n'
        f'    "args": {{\n      "External id": {external}\n    }}\n  }},\n'
    )
