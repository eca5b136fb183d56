"""A run in a process of its own: ``python -m tests.capture.owner JSON`` obtains cases and tells how it went."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from pytest_atomtrace.capture.session import CaptureSession, RunInfo
from pytest_atomtrace.cases.case import Case
from pytest_atomtrace.errors import InfraError
from pytest_atomtrace.settings import Settings


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(order: dict[str, object]) -> None:
    settings, cases, watch = order["settings"], order["cases"], order["watch"]
    assert isinstance(settings, dict)
    assert isinstance(cases, list)
    assert isinstance(watch, list)
    run = RunInfo(str(order["run"]), Path(str(order["run_dir"])), "main", (os.getpid(), *watch), ci=False)
    session = CaptureSession(Settings.from_dict(settings), run, progress=say)
    try:
        for index, fields in enumerate(cases):
            case = Case.from_dict(fields)
            try:
                session.obtain(case, needed=[case], test_id=f"test_owner.py::test_{index}")
                say(f"OBTAINED {case.slug}")
            except InfraError as error:
                say(f"FAILED {type(error).__name__}: {error}")
    except KeyboardInterrupt:
        say("INTERRUPTED")
        raise
    finally:
        session.close()
        say("CLOSED")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
