"""Fuzz the trace reader for a bounded time: `python scripts/fuzz_reader.py [SECONDS] [SEED]`.

Whole documents are damaged at random (bytes changed, cut out, doubled, inserted; gzip and plain; any piece
size). Every attempt must end in columns or in a typed TraceFileError; anything else is printed with the
document and ends the run with status 1. Undamaged documents must always give all their events.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from pytest_atomtrace.errors import TraceFileError
from pytest_atomtrace.trace.build import build_rank
from pytest_atomtrace.trace.integrity import check_export
from pytest_atomtrace.trace.reader import has_scanner, read_rank

NAMES = ("k", "}, {", '"', "\\", "decode[bs=1 tok=1 d=1]", "draft[0/1 bs=1]", "é", "a" * 3000, "hipGraphLaunch")
CATEGORIES = (
    "kernel",
    "gpu_memcpy",
    "cuda_runtime",
    "cpu_op",
    "user_annotation",
    "gpu_user_annotation",
    "ac2g",
    "odd",
)
VALUES: tuple[object, ...] = (None, True, "3", -1, 2**31, 2**63, 10**30, 1.5, [1, [2, {}]], {"stream": [{}]}, "}")
SCRAPS = (
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b'"',
    b"\\",
    b":",
    b"\xff",
    b"\0",
    b"NaN",
    b"null",
    b"1e999",
    b"-",
    b"\\ud800",
)


def _event(rng: random.Random) -> dict[str, object]:
    args: dict[str, object] = {"stream": rng.randrange(3), "correlation": rng.randrange(9)}
    args["External id"] = rng.randrange(9)
    if rng.random() < 0.3:
        args["kernel"] = rng.choice(NAMES)
    if rng.random() < 0.1:
        args[rng.choice(["grid", "stream", "correlation", "External id"])] = rng.choice(VALUES)
    return {
        "ph": rng.choice("XXXXXXfMi"),
        "cat": rng.choice(CATEGORIES),
        "name": rng.choice(NAMES),
        "pid": rng.choice([1, 1, "Spans"]),
        "tid": rng.choice([0, 1, 2, "t", "\u00e9"]),
        "ts": rng.choice([rng.randrange(10**13) / 1000, rng.randrange(10**6), 1.7e15 + rng.randrange(9)]),
        "dur": rng.randrange(10**6) / 1000,
        "args": args,
    }


def _damaged(rng: random.Random, text: bytes) -> bytes:
    data = bytearray(text)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.randrange(1, 40))
        choice = rng.randrange(4)
        if choice == 0:
            data[at:end] = b""
        elif choice == 1:
            data[at:at] = rng.choice(SCRAPS)
        elif choice == 2:
            data[at:at] = data[at:end]
        elif at < len(data):
            data[at] = rng.randrange(256)
    return bytes(data)


def _attempt(rng: random.Random, path: Path) -> None:
    events = [_event(rng) for _ in range(rng.randrange(1, 40))]
    document = {"a": rng.choice(NAMES), "traceEvents": events, "z": {"traceEvents": rng.choice(NAMES)}}
    text = json.dumps(document, indent=rng.choice([None, 1]), ensure_ascii=rng.random() < 0.5).encode()
    harm = rng.randrange(4)
    text = _damaged(rng, text) if harm == 1 else text
    data = gzip.compress(text, 1) if rng.random() < 0.4 else text
    data = _damaged(rng, data) if harm == 2 else data
    path.write_bytes(data)
    piece_bytes, detail = rng.choice([1, 17, 300, 1 << 18]), rng.random() < 0.5
    _compare(path, piece_bytes, detail=detail)
    try:
        read = read_rank(path, rank="rank_0", piece_bytes=piece_bytes, detail=detail)
        build_rank("rank_0", path, read)
        check_export(path)
    except TraceFileError:
        if harm not in {1, 2}:
            raise AssertionError("a sound document was refused") from None
        return
    if harm not in {1, 2} and read.event_count != len(events):
        raise AssertionError(f"{read.event_count} of {len(events)} events")


def _facts(path: Path, piece_bytes: int, *, detail: bool, compiled: bool) -> str:
    try:
        read = read_rank(path, rank="rank_0", piece_bytes=piece_bytes, detail=detail, compiled=compiled)
    except TraceFileError as error:
        return f"{type(error).__name__} {error}"
    tables = (read.gpu, read.calls, read.ops, read.notes, read.gpu_notes)
    columns = [[column.tolist() for column in vars(table).values()] for table in tables]
    return repr((read.names, read.threads, columns, read.meta, read.event_count, read.odd_times, read.text_bytes))


def _compare(path: Path, piece_bytes: int, *, detail: bool) -> None:
    one, other = (_facts(path, piece_bytes, detail=detail, compiled=compiled) for compiled in (True, False))
    if one != other:
        raise AssertionError(f"with the scanner:\n{one}\nwithout:\n{other}\n")


def main() -> int:
    """Run until the time is over or something is found."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 1_000_000
    rng = random.Random(seed)
    deadline = time.monotonic() + seconds
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.json"
        while time.monotonic() < deadline:
            try:
                _attempt(rng, path)
            except Exception:  # noqa: BLE001  (whatever escapes is what the run is for)
                traceback.print_exc()
                print(f"seed {seed}, attempt {count}: {path.read_bytes()[:4000]!r}")
                return 1
            count += 1
    readers = "with and without the scanner" if has_scanner() else "no scanner is built"
    print(f"seed {seed}: {count} documents ({readers}), nothing found")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
