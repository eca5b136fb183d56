"""``python -m atom.entrypoints.openai_server``: the simulator under the real server's name."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    if "STANDIN_NOTES" in os.environ:
        kineto = os.environ.get("KINETO_CONFIG", "")
        text = Path(kineto).read_text() if Path(kineto).is_file() else ""
        Path(os.environ["STANDIN_NOTES"]).write_text("\n".join([kineto, text.strip(), *sys.argv[1:]]))
    runpy.run_module("pytest_atomtrace.simulator", run_name="__main__")
