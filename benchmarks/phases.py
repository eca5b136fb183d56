"""Where one process's time goes: `python -m benchmarks.phases TRACE` runs the stages of a load one by one.

Prints JSON: seconds by stage. Inflating is measured by itself and taken off the reading.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Entry point."""
    clock = time.perf_counter
    start = clock()
    import pytest_atomtrace.trace.load  # noqa: F401  (its import is part of what is measured)
    from pytest_atomtrace.trace import build, data, health, index, inflate, reader

    path = Path(arguments[0])
    marks = {"imports": clock() - start}

    start = clock()
    for _ in inflate.pieces(path):
        pass
    marks["inflate"] = clock() - start
    start = clock()
    events = reader.read_rank(path)
    whole = clock() - start
    what = "scan (compiled)" if reader.has_scanner() else "decode (msgspec), columns"
    marks[what] = whole - marks["inflate"]
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


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
