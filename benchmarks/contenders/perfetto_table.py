"""Perfetto: `perfetto_table.py SHELL TRACE...`, a query to its trace processor (the path of its shell, or -)."""

from __future__ import annotations

import importlib
import json
import sys

_QUERY = "select name, count(*) as n, sum(dur) as ns from slice where category = 'kernel' group by name"


def _answer(shell: str, path: str) -> dict[str, object]:
    # Imported by name: it is not installed where this project is checked.
    module = importlib.import_module("perfetto.trace_processor")
    config = module.TraceProcessorConfig(bin_path=None if shell == "-" else shell)
    with module.TraceProcessor(trace=path, config=config) as processor:
        return {"kernels": {row.name: [row.n, row.ns] for row in processor.query(_QUERY)}}


if __name__ == "__main__":
    print(json.dumps([_answer(sys.argv[1], path) for path in sys.argv[2:]]))
