"""Every fault of the simulator, met by a real capture: ``python -m tests.faults [NAME ...]`` prints a table.

Per row: the switch, the outcome, the first line of what a user reads, the seconds from the first request for the
capture to the answer (a launch takes about half a second here, and a fresh launch after a transient failure as much
again), processes left, locks left.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.errors import InfraError
from pytest_atomtrace.trace.load import load
from pytest_atomtrace.verdicts.trace import Trace
from tests.capture.conftest import Rig, small_case
from tests.capture.test_capture_faults import CONTENT, HARMLESS, ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_atomtrace.capture.record import Capture

_WIDTH = 150
# Long enough that health has interior steps to look at.
_CONTENT_CASE = {"osl": 60}
# A cap that this short window reaches.
_STRONGER = {"row_cap": "row_cap:0:1500"}


def main(names: list[str]) -> int:
    """Run the chosen faults (all if none is named); 1 if any left something behind."""
    rows: list[tuple[str, Mapping[str, object], Mapping[str, object]]] = [
        *((row.fault, row.settings, row.case) for row in ROWS),
        *((fault, {}, {}) for fault in HARMLESS),
        *((_STRONGER.get(fault, fault), {}, _CONTENT_CASE) for fault in sorted(CONTENT)),
    ]
    chosen = [row for row in rows if not names or row[0].partition(":")[0] in names]
    _say("| switch | outcome | first line | seconds | processes left | locks left |")
    _say("|---|---|---|---|---|---|")
    left = 0
    for fault, settings, case in chosen:
        cells, dirty = _run(fault, settings, case)
        left += dirty
        _say(f"| {' | '.join(cells)} |")
    _say(f"\n{len(chosen)} faults, {left} left something behind")
    return 1 if left else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _run(fault: str, settings: Mapping[str, object], fields: Mapping[str, object]) -> tuple[tuple[str, ...], bool]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        rig = Rig(Path(folder), patch)
        rig.sim(LAYERS=2, SEED=1, FAULT=fault, LEDGER=rig.tmp_path / "ledger.jsonl")
        case = small_case(**fields)
        start = time.monotonic()
        try:
            capture = rig.session_with(settings).obtain(case, needed=[case], test_id="tests/faults.py")
            outcome, line = _judge(capture)
        except InfraError as error:
            outcome, line = type(error).__name__, str(error).splitlines()[0]
        seconds = time.monotonic() - start
        processes, locks = len(rig.survivors()), 0 if rig.lease_is_free() else 1
        for session in rig.sessions:
            session.close()
    line = line.replace(folder, "...").replace("|", "/")
    shown = line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"
    return (f"`{fault}`", outcome, shown, f"{seconds:.1f}", str(processes), str(locks)), bool(processes or locks)


def _judge(capture: Capture) -> tuple[str, str]:
    """Captured: is the trace believed?"""
    data = load(capture.ranks, expected=capture.expected_ranks or None)
    trace = Trace(data, manifest=capture.manifest)
    fatal = [str(finding) for finding in trace.health if finding.fatal]
    if fatal:
        return "inconclusive", fatal[0]
    return "captured", f"{len(capture.ranks)} ranks, sound"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
