"""HolisticTraceAnalysis: `hta_table.py TRACE...`, its trace table summed by kernel name."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys


def _answer(path: str) -> dict[str, object]:
    # Imported by name: it is not installed where this project is checked.
    trace = importlib.import_module("hta.common.trace").Trace({0: path}, "")
    trace.parse_traces(use_multiprocessing=False)
    table = trace.get_trace(0)
    numbers = trace.symbol_table.get_sym_id_map()
    names = trace.symbol_table.get_sym_table()
    sums = table[table["cat"] == numbers["kernel"]].groupby("name")["dur"].agg(["count", "sum"])
    kernels = {names[name]: [int(count), round(float(us) * 1000)] for name, count, us in sums.itertuples()}
    return {"kernels": kernels}


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        answers = [_answer(path) for path in sys.argv[1:]]
    print(json.dumps(answers))
