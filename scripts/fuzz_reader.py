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
from pytest_atomtrace.trace.reader import read_rank

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
    args = {"stream": rng.randrange(3), "correlation": rng.randrange(9), "External id": rng.randrange(9)}
    return {
        "ph": rng.choice("XXXXXXfMi"),
        "cat": rng.choice(CATEGORIES),
        "name": rng.choice(NAMES),
        "pid": rng.choice([1, 1, "Spans"]),
        "tid": rng.randrange(3),
        "ts": rng.randrange(10**13) / 1000,
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
    try:
        read = read_rank(path, rank="rank_0", piece_bytes=rng.choice([1, 17, 300, 1 << 18]))
        build_rank("rank_0", path, read)
        check_export(path)
    except TraceFileError:
        if harm not in {1, 2}:
            raise AssertionError("a sound document was refused") from None
        return
    if harm not in {1, 2} and read.event_count != len(events):
        raise AssertionError(f"{read.event_count} of {len(events)} events")


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
    print(f"seed {seed}: {count} documents, nothing found")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
