"""TraceLens: `tracelens_table.py TRACE...`, the events that its own loader and classifier call kernels."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections import defaultdict


def _answer(path: str) -> dict[str, object]:
    # Imported by name: neither is installed where this project is checked.
    analyzer = importlib.import_module("TraceLens").TreePerfAnalyzer.from_file(path)
    kernels: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for event in analyzer.tree.events:
        if event.get("cat") == "kernel":
            entry = kernels[event["name"]]
            entry[0] += 1
            entry[1] += round(event["dur"] * 1000)
    return {"kernels": kernels}


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        answers = [_answer(path) for path in sys.argv[1:]]
    print(json.dumps(answers))
