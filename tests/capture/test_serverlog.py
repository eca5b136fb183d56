"""Reading a server's log while it grows."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_atomtrace.capture.logfaults import FAULTS, Fault, fault_in
from pytest_atomtrace.capture.ready import StallRule
from pytest_atomtrace.capture.redact import Redactor
from pytest_atomtrace.capture.serverlog import ServerLog

if TYPE_CHECKING:
    from pathlib import Path

LOG = (
    b"[atom 10:00:00] Loading tokenizer from M...\n"
    b"Capturing:  10%\rCapturing:  20%\r\xff\xfe\n"
    b"[atom 10:00:01] Rank 0: profiler started (detailed=False, dir=/t/rank_0)\n"
    b"[atom 10:00:02] AsyncIOProcManager(ModelRunner): [ModelRunner3/8] proc died unexpectedly (exitcode=-9)\n"
    b"[atom 10:00:03] Rank 1: failed to export trace to /t/rank_1/x.pt.trace.json\n"
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_row_matches_its_own_example_first(fault: Fault) -> None:
    assert fault_in(fault.example) is fault


@pytest.mark.parametrize(
    "line",
    [
        "[atom 10:00:00] Engine Core: output send EngineCoreRequestType.SHUTDOWN",
        "[atom 10:00:00] Server shutting down, releasing resources...",
        "[atom 10:00:00] Failed to stop profiling: Timed out waiting for UTILITY_RESPONSE",
        "[atom 10:00:00] AsyncIOProc(ModelRunner0/8): received signal 15 (SIGTERM), exiting...",
        "[aiter] start build [module_moe]",
    ],
)
def test_lines_of_an_ordinary_life_are_no_fault(line: str) -> None:
    assert fault_in(line) is None


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, len(LOG)), max_size=8))
def test_the_same_is_read_wherever_the_writes_are_cut(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("log") / "server.log"
    log = ServerLog(path, Redactor({}))
    assert log.poll() == 0
    places = [0, *sorted(cuts), len(LOG)]
    for start, end in pairwise(places):
        with path.open("ab") as stream:
            stream.write(LOG[start:end])
        assert log.poll() == end - start
    [fault] = log.faults()
    assert LOG[fault.offset :].startswith(b"[atom 10:00:02]")
    assert [e.path for e in log.events("export_failed")] == ["/t/rank_1/x.pt.trace.json"]
    [started] = log.events("profiler_started")
    assert log.events("profiler_started", since=started.offset) == [started]
    assert log.events("profiler_started", since=started.offset + 1) == []
    assert log.size == len(LOG)
    assert len(log.tail()) == 7


def test_the_last_line_of_a_dead_process_needs_no_line_end(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_bytes(b"first\nHIP out of memory")
    log = ServerLog(path, Redactor({}))
    log.poll()
    assert not log.faults()
    log.poll(last=True)
    assert len(log.faults()) == 1
    assert log.size == path.stat().st_size


def test_the_tail_is_short_cut_to_width_and_redacted(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_text("".join(f"line {n} hf_secret123 {'x' * 500}\n" for n in range(100)))
    log = ServerLog(path, Redactor({"HF_TOKEN": "hf_secret123"}))
    log.poll()
    tail = log.tail()
    assert len(tail) == 15
    assert tail[-1].startswith("line 99 <redacted> xxx")
    assert max(map(len, tail)) == 300


def stalled(tmp_path: Path, text: str, *, at_s: float) -> str:
    path = tmp_path / "server.log"
    path.write_text(text)
    log = ServerLog(path, Redactor({}))
    rule = StallRule(log, limit_s=600.0)
    log.poll()
    assert rule.problem(0.0) == ""
    return rule.problem(at_s)


def test_a_silent_log_is_a_stall_after_its_limit_and_not_before(tmp_path: Path) -> None:
    assert stalled(tmp_path, "loading\n", at_s=599.0) == ""
    assert "has not grown for 10 min" in stalled(tmp_path, "loading\n", at_s=601.0)


def test_a_running_build_is_no_stall_and_a_finished_one_is(tmp_path: Path) -> None:
    running = "start build [module_moe]\n"
    assert stalled(tmp_path, running, at_s=3000.0) == ""
    assert stalled(tmp_path, running + "finish build [module_moe]\n", at_s=3000.0)


def test_a_baton_that_nobody_will_release_names_its_lock_file(tmp_path: Path) -> None:
    waiting = "waiting for baton release at /opt/aiter/build/lock_module_moe\n"
    assert stalled(tmp_path, waiting, at_s=200.0) == ""
    assert "/opt/aiter/build/lock_module_moe" in stalled(tmp_path, waiting, at_s=301.0)
    assert stalled(tmp_path, "start build [module_moe]\n" + waiting, at_s=301.0) == ""
