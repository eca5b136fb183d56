"""However a run ends in a window that it opened on somebody's server: the window is closed, once, and no other is."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from pytest_atomtrace.capture.clock import Clock
from pytest_atomtrace.capture.session import CaptureSession, RunInfo
from pytest_atomtrace.errors import WindowError
from tests.capture.conftest import Rig, small_case, wait_for
from tests.capture.test_attach import Foreign, foreign

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_atomtrace.cases.case import Case
    from tests.capture.conftest import Owner

__all__ = ["foreign"]  # a fixture


def windows(rig: Rig) -> list[object]:
    """What was asked of the server's profiler, in order."""
    return [row["action"] for row in rig.ledger() if row["event"] == "window"]


def run(rig: Rig, server: Foreign, case: Case) -> Owner:
    """A run in a process of its own, attached to `server`."""
    settings: dict[str, Any] = server.settings()
    return rig.owner(case, **settings)


def assert_the_next_run_works(rig: Rig, server: Foreign) -> None:
    rig.assert_nothing_left(seconds=20)
    rig.sim(STEP_MS=0)
    case = small_case(conc=3)
    capture = rig.session_with(server.settings()).obtain(case, needed=[case], test_id="t")
    assert list(capture.ranks) == ["rank_0", "rank_1"]
    assert server.process.poll() is None


@pytest.mark.parametrize("log", [True, False], ids=["log", "no-log"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_run_that_is_killed_in_its_window_closes_it(
    rig: Rig, foreign: Callable[..., Foreign], number: signal.Signals, log: bool
) -> None:
    rig.sim(STEP_MS=10)
    server = foreign("-tp", "2", log=log)
    before = windows(rig)
    owner = run(rig, server, small_case(osl=400))
    owner.says("window 1: 4 requests")
    start = time.monotonic()
    owner.process.send_signal(number)
    wait_for(lambda: len(server.files) == 2, seconds=20, what="the window's end")
    owner.process.wait(20)
    rig.assert_nothing_left(seconds=20)
    assert time.monotonic() - start < 20
    asked = windows(rig)[len(before) :]
    assert asked == ["start", "stop"] if log else asked[-2:] == ["start", "stop"]
    if number == signal.SIGINT:
        assert f"our profiler window is being closed; its files stay in {server.traces}" in owner.text
    assert_the_next_run_works(rig, server)


def test_a_run_that_is_killed_in_its_export_asks_for_no_second_end(rig: Rig, foreign: Callable[..., Foreign]) -> None:
    rig.sim(FAULT="slow_rank:1:3")
    server = foreign("-tp", "2")
    owner = run(rig, server, small_case())
    wait_for(lambda: "Rank 1: stopping profiler" in server.log.read_text(), seconds=20, what="the export")
    owner.process.kill()
    owner.process.wait(10)
    rig.assert_nothing_left(seconds=20)
    assert len(server.files) == 2, "the server is given back when its export is over"
    assert windows(rig) == ["start", "stop"]
    assert_the_next_run_works(rig, server)


def test_a_window_that_somebody_else_opened_after_ours_is_left_open(rig: Rig, foreign: Callable[..., Foreign]) -> None:
    rig.sim(STEP_MS=10)
    server = foreign("-tp", "2")
    owner = run(rig, server, small_case(osl=400))
    owner.says("window 1: 4 requests")
    server.post("/stop_profile")
    server.post("/start_profile")
    owner.process.kill()
    owner.process.wait(10)
    rig.assert_nothing_left(seconds=20)
    assert windows(rig) == ["start", "stop", "start"]


def test_a_window_that_somebody_opened_during_our_warm_up_is_left_open(
    rig: Rig, foreign: Callable[..., Foreign]
) -> None:
    rig.sim(STEP_MS=10)
    server = foreign("-tp", "2")
    owner = run(rig, server, small_case(osl=100))
    owner.says("warm-up: 4 requests")
    server.post("/start_profile")
    owner.says("CLOSED", seconds=30)
    assert "the profiler did not start" in owner.text
    assert windows(rig) == ["start", "start"]
    assert server.files == set()


def test_a_window_that_began_on_a_part_of_the_ranks_is_closed_before_the_error(
    rig: Rig, foreign: Callable[..., Foreign]
) -> None:
    rig.sim(FAULT="rank_not_started:1")
    server = foreign("-tp", "2")
    settings = rig.settings.replace(**server.settings(workload_timeout=200.0, start_timeout=400.0))
    session = CaptureSession(
        settings,
        RunInfo(rig.token, rig.run_dir, "main", (os.getpid(),), ci=False),
        progress=rig.lines.append,
        clock=Clock(monotonic_s=lambda: time.monotonic() * 20),
    )
    rig.sessions.append(session)
    case = small_case()
    with pytest.raises(WindowError, match="the profiler started on 1 of 2 ranks only"):
        session.obtain(case, needed=[case], test_id="t")
    assert windows(rig) == ["start", "stop"]
    assert server.files == set(), "what the one rank wrote is in our quarantine"
    (kept,) = rig.run_dir.glob("quarantine/*/rank_0/*.pt.trace.json.gz")
    assert kept.stat().st_size
    rig.assert_nothing_left(seconds=10)
