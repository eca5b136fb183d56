"""The usual script, in its quickest form: `orjson_whole.py gc|nogc TRACE...`, every file decoded whole."""

from __future__ import annotations

import gc
import json
import sys
from collections import defaultdict
from pathlib import Path

import orjson
from isal import igzip


def _answer(path: Path) -> dict[str, object]:
    with igzip.open(path, "rb") as stream:  # type: ignore[no-untyped-call]
        document = orjson.loads(stream.read())
    kernels: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for event in document["traceEvents"]:
        if event.get("cat") == "kernel":
            entry = kernels[event["name"]]
            entry[0] += 1
            entry[1] += round(event["dur"] * 1000)
    return {"kernels": kernels}


if __name__ == "__main__":
    if sys.argv[1] == "nogc":
        gc.disable()
    print(json.dumps([_answer(Path(path)) for path in sys.argv[2:]]))
