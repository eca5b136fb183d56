"""Builds kineto documents event by event, for corner cases that no recorded trace has."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_atomtrace.trace.build import build_rank
from pytest_atomtrace.trace.reader import read_text

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_atomtrace.trace.data import RankData

LAG_US = 20_000.0
FILE = "m_ts_20260822_101010_123.pt.trace.json.gz"


@dataclass
class Kineto:
    """A trace under construction; times are us, `pid`/`tid` the main thread's."""

    events: list[dict[str, Any]] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=lambda: {"schemaVersion": 1, "roctracer_version": 4.1})
    pid: int = 500
    tid: int = 500
    correlation: int = 100
    external: int = 0
    gpu_us: float = 0.0

    def x(self, name: str, cat: str, ts: float, dur: float, pid: int, tid: int, **args: Any) -> None:
        event = {"ph": "X", "cat": cat, "name": name, "pid": pid, "tid": tid, "ts": ts, "dur": dur, "args": args}
        self.events.append(event)

    def label(self, text: str, ts: float, dur: float = 300.0, *, tid: int | None = None, linked: bool = True) -> int:
        """A host label; returns its External id."""
        self.external += 1
        args = {"External id": self.external} if linked else {}
        self.x(text, "user_annotation", ts, dur, self.pid, self.tid if tid is None else tid, **args)
        return self.external

    def gpu_label(self, text: str, ts: float, dur: float, external: int | None, stream: int = 0) -> None:
        args = {} if external is None else {"External id": external}
        self.x(text, "gpu_user_annotation", ts, dur, 2, stream, **args)

    def op(self, name: str, ts: float, dur: float = 50.0, *, tid: int | None = None) -> None:
        self.external += 1
        tid = self.tid if tid is None else tid
        self.x(name, "cpu_op", ts, dur, self.pid, tid, **{"External id": self.external})

    def call(self, ts: float, *, name: str = "hipLaunchKernel", tid: int | None = None, kernel: str = "") -> int:
        """A launch record; returns its correlation."""
        self.correlation += 1
        args: dict[str, Any] = {"correlation": self.correlation}
        if kernel:
            args["kernel"] = kernel
        self.x(name, "cuda_runtime", ts, 6.0, self.pid, self.tid if tid is None else tid, **args)
        return self.correlation

    def kernel(
        self, name: str, ts: float, dur: float, correlation: int | None, *, stream: int = 0, cat: str = "kernel"
    ) -> None:
        args: dict[str, Any] = {"device": 2, "stream": stream}
        if correlation is not None:
            args["correlation"] = correlation
        self.x(name, cat, ts, dur, 2, stream, **args)

    def eager(self, name: str, ts: float, dur: float = 10.0, *, tid: int | None = None, stream: int = 0) -> None:
        """One launch and its kernel, after the launch lag and after the kernels before it."""
        link = self.call(ts, tid=tid, kernel=name)
        self.gpu_us = max(self.gpu_us, ts + LAG_US)
        self.kernel(name, self.gpu_us, dur, link, stream=stream)
        self.gpu_us += dur

    def replay(self, names: list[str], ts: float, dur: float = 10.0, *, tid: int | None = None) -> int:
        """One graph launch whose kernels share its correlation."""
        link = self.call(ts, name="hipGraphLaunch", tid=tid)
        self.gpu_us = max(self.gpu_us, ts + LAG_US)
        for name in names:
            self.kernel(name, self.gpu_us, dur, link)
            self.gpu_us += dur
        return link

    def decode(self, ts: float, *, bs: int = 4, kernels: int = 3, text: str = "") -> None:
        """A whole graph-replayed decode step."""
        self.label(text or f"decode[bs={bs} tok={bs} d={bs}]", ts)
        self.replay([f"k{n}" for n in range(kernels)], ts + 20)

    def decodes(self, count: int, *, start: float = 1000.0, every: float = 400.0, kernels: int = 3) -> Kineto:
        """A run of decode steps."""
        for number in range(count):
            self.decode(start + number * every, kernels=kernels)
        return self

    def document(self) -> dict[str, Any]:
        return {**self.meta, "traceEvents": self.events, "traceName": "t.json"}

    def text(self) -> str:
        return json.dumps(self.document())

    def rank(self, name: str = "rank_0") -> RankData:
        from pathlib import Path

        return build_rank(name, Path("built.json"), read_text([self.text().encode()]))

    def write(self, directory: Path, name: str = FILE) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / name
        path.write_bytes(gzip.compress(self.text().encode(), 1))
        return path
