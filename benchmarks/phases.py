"""Where one process's time goes: `python -m benchmarks.phases TRACE` runs the stages of a load one by one.

Prints JSON: seconds by stage. Inflating is measured by itself and taken off the reading; decoding is measured on
the blocks of a part of the text and scaled to the whole, for inside a load it cannot be told from its caller.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["main"]

_SAMPLE_BYTES = 96 << 20


def main(arguments: list[str]) -> int:
    """Entry point."""
    clock = time.perf_counter
    start = clock()
    import pytest_atomtrace.trace.load  # noqa: F401  (its import is part of what is measured)
    from pytest_atomtrace.trace import build, data, health, index, inflate, reader

    path = Path(arguments[0])
    marks = {"imports": clock() - start}

    start = clock()
    text_bytes = sum(map(len, inflate.pieces(path)))
    marks["inflate"] = clock() - start
    start = clock()
    events = reader.read_rank(path)
    whole = clock() - start
    decoding = _decode_seconds(path, text_bytes)
    marks["decode (msgspec)"] = decoding
    marks["cut, copy, columns"] = whole - marks["inflate"] - decoding
    start = clock()
    rank = build.build_rank("rank_0", path, events)
    marks["steps, sorting, figures"] = clock() - start
    start = clock()
    with tempfile.TemporaryDirectory() as folder:
        index.write_index(Path(folder) / "index", rank, index.trace_key(path))
        marks["writing the index"] = clock() - start
    start = clock()
    health.check(data.TraceData({"rank_0": rank}, (), path), graph_references={})
    marks["health"] = clock() - start
    print(json.dumps({name: round(seconds, 4) for name, seconds in marks.items()}))
    return 0


def _decode_seconds(path: Path, text_bytes: int) -> float:
    import msgspec

    from pytest_atomtrace.trace.events import decoder
    from pytest_atomtrace.trace.inflate import pieces
    from pytest_atomtrace.trace.jsontext import find_events, last_boundary

    decode = decoder().decode
    pending = b""
    inside = False
    seconds = 0.0
    decoded = 0
    # Host events fill the first part of a trace; what is decoded there says little about the rest.
    skipped = 0
    skip = min(text_bytes // 3, 2 * _SAMPLE_BYTES)
    gc.disable()
    for piece in pieces(path):
        pending += piece
        if not inside:
            place = find_events(pending)
            if place is None:
                continue
            pending, inside = pending[place:], True
        cut = last_boundary(pending, len(pending))
        if not cut:
            continue
        block = b"[" + pending[:cut] + b"]"
        pending = pending[pending.index(b",", cut) + 1 :]
        skipped += len(block)
        if skipped < skip:
            continue
        start = time.perf_counter()
        try:
            decode(block)
        except msgspec.MsgspecError:
            continue  # odd events, such as metadata at the end, go another way in a load
        seconds += time.perf_counter() - start
        decoded += len(block)
        if decoded > _SAMPLE_BYTES:
            break
    gc.enable()
    return seconds * text_bytes / decoded if decoded else 0.0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
