"""Ours: `ours.py [--plain] JOBS TRACE...` prints the common answer, one entry per rank; plain: without the scanner."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_atomtrace.trace.data import RankData


def _answer(rank: RankData) -> dict[str, object]:
    import numpy as np

    mask = rank.is_kernel
    ids, dur = rank.name_id, rank.dur_ns
    if not mask.all():
        ids, dur = ids[mask], dur[mask]
    counts = np.bincount(ids, minlength=len(rank.names))
    # Sums below 2**53 ns (104 days) are exact as floats.
    sums = np.bincount(ids, weights=dur, minlength=len(rank.names))
    kernels = {rank.names[n]: [int(counts[n]), int(sums[n])] for n in np.flatnonzero(counts).tolist()}
    return {"kernels": kernels, "decode_ns": [s.gpu_busy_ns for s in rank.steps if s.kind == "decode"]}


def main(arguments: list[str]) -> int:
    from pytest_atomtrace.trace.load import load

    plain = arguments[0] == "--plain"
    jobs, *paths = arguments[plain:]
    data = load({f"rank_{number}": Path(path) for number, path in enumerate(paths)}, jobs=int(jobs), compiled=not plain)
    print(json.dumps([_answer(rank) for rank in data.ranks.values()]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
