"""Who may die, and what is left then: nothing, and a free lease."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.capture.conftest import Owner, Rig, small_case, wait_for

GONE_S = 20.0
STAGES: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "launching": ({"READY_DELAY_S": 60}, {}),
    "window": ({"STEP_MS": 80}, {"osl": 24}),
    "export": ({"FAULT": "slow_rank:0:60"}, {}),
}


def start_and_reach(rig: Rig, stage: str, *, watch: tuple[int, ...] = ()) -> Owner:
    controls, fields = STAGES[stage]
    rig.sim(**controls)
    owner = rig.owner(small_case(tp=1, **fields), watch=watch)
    owner.says(f"] {stage}")
    wait_for(lambda: len(rig.survivors()) >= 3, seconds=10, what="keeper and server live")
    assert not rig.lease_is_free()
    return owner


@pytest.mark.parametrize("stage", STAGES)
def test_kill_9_of_the_owner_leaves_nothing_and_frees_the_lease(rig: Rig, stage: str) -> None:
    owner = start_and_reach(rig, stage)
    owner.process.kill()
    rig.assert_nothing_left(seconds=GONE_S)


def test_the_next_run_works_after_a_kill_9_and_the_dead_run_remembers(rig: Rig) -> None:
    owner = start_and_reach(rig, "launching")
    owner.process.kill()
    owner.process.wait()
    rig.sim(READY_DELAY_S=0)
    same_run = rig.owner(small_case(tp=1, osl=8))
    next_run = rig.owner(small_case(tp=1), run="two")
    next_run.says("OBTAINED")
    same_run.says("FAILED RememberedFailureError")  # another case of the key whose launch it was
    assert "died during the capture" in same_run.text


def test_the_death_of_the_controller_ends_the_server_while_the_worker_lives(rig: Rig) -> None:
    controller = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        owner = start_and_reach(rig, "launching", watch=(controller.pid,))
    finally:
        controller.kill()
        controller.wait()
    rig.assert_nothing_left(seconds=GONE_S)
    owner.says("FAILED")
    assert owner.process.wait(10) == 0


def test_kill_9_of_the_keeper_takes_the_server_with_it(rig: Rig) -> None:
    owner = start_and_reach(rig, "launching")
    keepers = [pid for pid in rig.survivors() if b"capture.keeper" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(keepers) == 1
    os.kill(keepers[0], signal.SIGKILL)
    rig.assert_nothing_left(seconds=GONE_S)
    owner.says("FAILED LaunchError")


@pytest.mark.parametrize("stage", ["launching", "window"])
def test_ctrl_c_stops_the_server_and_frees_the_lease_before_the_owner_ends(rig: Rig, stage: str) -> None:
    owner = start_and_reach(rig, stage)
    owner.process.send_signal(signal.SIGINT)
    owner.process.wait(GONE_S)
    rig.assert_nothing_left()
    assert "INTERRUPTED" in owner.text
    assert "CLOSED" in owner.text


def test_a_second_ctrl_c_and_sigterm_leave_nothing_either(rig: Rig) -> None:
    rig.sim(FAULT="ignore_sigterm")
    owner = start_and_reach(rig, "launching")
    owner.process.send_signal(signal.SIGINT)
    owner.process.send_signal(signal.SIGTERM)
    owner.process.wait(GONE_S)
    rig.assert_nothing_left(seconds=GONE_S)


def test_ctrl_c_of_a_whole_process_group_does_not_reach_keeper_or_server(rig: Rig) -> None:
    rig.sim(READY_DELAY_S=60)
    owner = rig.owner(small_case(tp=1), new_group=True)
    owner.says("] launching")
    wait_for(lambda: len(rig.survivors()) >= 3, seconds=10, what="keeper and server live")
    groups = {os.getpgid(pid) for pid in rig.survivors()}
    assert os.getpgid(owner.process.pid) not in groups
    os.killpg(owner.process.pid, signal.SIGINT)
    owner.process.wait(GONE_S)
    rig.assert_nothing_left()


def test_ctrl_c_while_waiting_for_the_lease_leaves_the_queue(rig: Rig) -> None:
    holder = start_and_reach(rig, "launching")
    waiter = rig.owner(small_case(tp=1), run="two")
    waiter.says("waiting for the GPUs: held by")
    waiter.process.send_signal(signal.SIGINT)
    waiter.process.wait(10)
    assert "INTERRUPTED" in waiter.text
    assert not list((rig.tmp_path / "locks" / "gpus.queue").iterdir())
    assert not rig.lease_is_free(), "the holder is not disturbed"
    holder.process.kill()
    rig.assert_nothing_left(seconds=GONE_S)


def test_an_unrelated_process_with_the_servers_command_line_survives(rig: Rig) -> None:
    bystander = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", "-m", "pytest_atomtrace.simulator", "--model", "x"]
    )
    try:
        rig.sim(FAULT="ignore_sigterm")
        case = small_case(tp=1)
        rig.session(stop_timeout=0.5).obtain(case, needed=[case], test_id="t")
        rig.assert_nothing_left()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
