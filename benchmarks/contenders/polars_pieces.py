"""Our pieces and cuts with polars' NDJSON reader as decoder: `polars_pieces.py TRACE...`.

NDJSON wants one event a line, so line breaks become blanks and the text between two events a line break.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import polars as pl

from pytest_atomtrace.trace.inflate import pieces
from pytest_atomtrace.trace.jsontext import find_events, last_boundary

_PIECE_BYTES = 8 << 20
_SCHEMA = {"cat": pl.String, "name": pl.String, "dur": pl.Float64}


def _blocks(path: Path) -> list[pl.DataFrame]:
    pending = b""
    inside = False
    tables = []
    for piece in pieces(path, piece_bytes=_PIECE_BYTES):
        pending += piece
        if not inside:
            place = find_events(pending)
            if place is None:
                continue
            pending, inside = pending[place:], True
        cut = last_boundary(pending, len(pending))
        if cut:
            tables.append(_table(pending[:cut]))
            pending = pending[pending.index(b",", cut) + 1 :]
    tables.append(_table(pending[: pending.rindex(b"],")]))
    return tables


def _table(block: bytes) -> pl.DataFrame:
    lines = block.replace(b"\n  },\n  {\n", b"}\x00{").replace(b"\n", b" ").replace(b"\x00", b"\n")
    table = pl.read_ndjson(io.BytesIO(lines), schema=_SCHEMA)
    kernels = table.filter(pl.col("cat") == "kernel")
    return kernels.group_by("name").agg(pl.len().alias("n"), (pl.col("dur") * 1000).round().sum().alias("ns"))


def _answer(path: Path) -> dict[str, object]:
    whole = pl.concat(_blocks(path)).group_by("name").agg(pl.col("n").sum(), pl.col("ns").sum())
    return {"kernels": {name: [int(count), int(ns)] for name, count, ns in whole.iter_rows()}}


if __name__ == "__main__":
    print(json.dumps([_answer(Path(path)) for path in sys.argv[1:]]))
