"""The index of a rank: its finished columns in one flat file, mapped instead of parsed on a second load.

Layout: 8 bytes of magic, 8 bytes with the header's length, a JSON header, then raw columns at offsets of 64.
The header names the trace that it was made from by size and a digest of both ends of the file (a gzip's end
holds the checksum of everything), so a changed file never meets an old index. A file that cannot be used
for any reason counts as absent.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pytest_atomtrace.trace.data import Launches, RankData, Step
from pytest_atomtrace.trace.labels import parse_label

try:
    # hashlib brings OpenSSL: 4 MB and as many ms, for a digest that Python has by itself.
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["index_path", "is_writable_place", "read_index", "trace_key", "write_index"]

_MAGIC = b"ATIDX"
# Raise with every change of what columns or steps mean, not only of the layout.
_VERSION = 1
_ALIGN = 64
_END_BYTES = 1 << 16

_COLUMNS = (
    "name_id",
    "start_ns",
    "dur_ns",
    "stream",
    "correlation",
    "kind",
    "step",
    "phase",
    "launch_ns",
    "graph",
)
_LAUNCH_COLUMNS = ("name_id", "start_ns", "dur_ns", "correlation", "n_gpu", "n_kernels", "step")
_STEP_NUMBERS = (
    "cpu_start_ns",
    "cpu_end_ns",
    "first_ns",
    "last_ns",
    "gpu_busy_ns",
    "gpu_span_ns",
    "kernel_sum_ns",
    "n_kernels",
    "n_graph_launches",
    "decode_index",
    "overlap_ns",
    "note_start_ns",
    "note_end_ns",
)


@dataclass(frozen=True)
class _Header:
    version: int
    key: str
    arrays: dict[str, tuple[str, int, int]]
    body_bytes: int
    names: list[str]
    labels: list[str]
    sources: list[str]
    op_counts: dict[str, dict[str, int]]
    annotation_counts: dict[str, dict[str, int]]
    meta: str
    event_count: int
    odd_times: int
    annotation_mismatches: int
    text_bytes: int


def index_path(trace: Path) -> Path:
    """Where the index of `trace` lies: beside it, as a name that no trace pattern matches."""
    return trace.with_name(trace.name + ".index")


def is_writable_place(trace: Path) -> bool:
    """May an index be written beside `trace`? A directory without any write bit says no, to root as well."""
    directory = trace.parent
    try:
        return bool(directory.stat().st_mode & 0o222) and os.access(directory, os.W_OK)
    except OSError:
        return False


def trace_key(trace: Path) -> str:
    """Identity of a trace file's content: format version, size, digest of both ends (and mtime if plain)."""
    with trace.open("rb") as stream:
        stat = os.fstat(stream.fileno())
        head = stream.read(_END_BYTES)
        stream.seek(max(0, stat.st_size - _END_BYTES))
        digest = blake2b(head + stream.read(_END_BYTES), digest_size=16).hexdigest()
    # A plain .json has no checksum at its end; its middle may change with both ends equal.
    stamp = "" if head.startswith(b"\x1f\x8b") else f":{stat.st_mtime_ns}"
    return f"{_VERSION}:{stat.st_size}:{digest}{stamp}"


def write_index(target: Path, data: RankData, key: str) -> bool:
    """Write `data` to `target`, whole or not at all; False if the place does not allow it."""
    arrays = dict(_arrays(data))
    places: dict[str, tuple[str, int, int]] = {}
    offset = 0
    for name, column in arrays.items():
        places[name] = (column.dtype.str, offset, len(column))
        offset += -(-column.nbytes // _ALIGN) * _ALIGN
    header = json.dumps(
        asdict(
            _Header(
                version=_VERSION,
                key=key,
                arrays=places,
                body_bytes=offset,
                names=list(data.names),
                labels=[step.label.text for step in data.steps],
                sources=[step.source for step in data.steps],
                op_counts=data.op_counts,
                annotation_counts=data.annotation_counts,
                meta=_encode_meta(data.meta),
                event_count=data.event_count,
                odd_times=data.odd_times,
                annotation_mismatches=data.annotation_mismatches,
                text_bytes=data.text_bytes,
            )
        )
    ).encode()
    start = -(-(16 + len(header)) // _ALIGN) * _ALIGN
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".index-", dir=target.parent)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(_MAGIC.ljust(8, b"\0") + len(header).to_bytes(8, "little") + header)
            for name, column in arrays.items():
                stream.seek(start + places[name][1])
                stream.write(np.ascontiguousarray(column).data)
            stream.truncate(start + offset)
        # Others read captures too; mkstemp's 0600 would shut them out.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except OSError:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        return False
    return True


def _encode_meta(meta: dict[str, object]) -> str:
    return json.dumps(meta, default=str)


def _arrays(data: RankData) -> Iterator[tuple[str, NDArray[np.generic]]]:
    for name in _COLUMNS:
        yield name, getattr(data, name)
    for name in _LAUNCH_COLUMNS:
        yield f"launch.{name}", getattr(data.launches, name)
    for name in _STEP_NUMBERS:
        yield f"step.{name}", np.array([getattr(step, name) for step in data.steps], np.int64)
    rows = [step.rows for step in data.steps]
    yield "step.rows", np.concatenate(rows) if rows else np.empty(0, np.int32)
    yield "step.bounds", np.cumsum([0, *(len(part) for part in rows)], dtype=np.int64)


def read_index(index: Path, *, key: str, rank: str, trace: Path) -> RankData | None:
    """The data of `trace` from its index, columns mapped read-only; None if there is no sound index of `key`."""
    try:
        with index.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    try:
        if mapped[: len(_MAGIC)] != _MAGIC:
            return None
        length = int.from_bytes(mapped[8:16], "little")
        header = _Header(**json.loads(mapped[16 : 16 + length]))
        if header.version != _VERSION or header.key != key:
            return None
        start = -(-(16 + length) // _ALIGN) * _ALIGN
        if len(mapped) != start + header.body_bytes:
            return None
        return _rebuild(header, mapped, start, rank, trace)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _rebuild(header: _Header, mapped: mmap.mmap, start: int, rank: str, trace: Path) -> RankData:
    def column(name: str) -> NDArray[np.generic]:
        kind, offset, count = header.arrays[name]
        if not count:
            return np.empty(0, kind)
        return np.frombuffer(mapped, kind, count, start + offset)

    columns = {name: column(name) for name in _COLUMNS}
    launches = Launches(**{name: column(f"launch.{name}") for name in _LAUNCH_COLUMNS})  # type: ignore[arg-type]
    data = RankData(
        name=rank,
        path=trace,
        names=tuple(header.names),
        steps=(),
        launches=launches,
        op_counts=header.op_counts,
        annotation_counts=header.annotation_counts,
        meta=json.loads(header.meta),
        event_count=header.event_count,
        odd_times=header.odd_times,
        annotation_mismatches=header.annotation_mismatches,
        text_bytes=header.text_bytes,
        **columns,  # type: ignore[arg-type]
    )
    numbers = [column(f"step.{name}").tolist() for name in _STEP_NUMBERS]
    rows: NDArray[np.int32] = column("step.rows")  # type: ignore[assignment]
    bounds = column("step.bounds").tolist()
    steps = []
    for number, (text, source, *values) in enumerate(zip(header.labels, header.sources, *numbers, strict=True)):
        label = parse_label(text)
        if label is None:
            raise ValueError(text)
        steps.append(
            Step(
                index=number,
                rank=rank,
                label=label,
                kind=label.kind,
                rows=rows[bounds[number] : bounds[number + 1]],
                source=source,
                edge=number in {0, len(header.labels) - 1},
                **dict(zip(_STEP_NUMBERS, values, strict=True)),
            )
        )
    data.steps = tuple(steps)
    return data
