"""The lease of GPUs and their memory, on fake machines with real server processes (the simulator)."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.capture.locks import HostLock, is_locked
from pytest_atomtrace.capture.session import CaptureSession, RunInfo
from pytest_atomtrace.errors import InfraError, LaunchError, LeaseError
from tests.capture.conftest import Rig, small_case, wait_for
from tests.capture.machines import GIB, FakeMachine

if TYPE_CHECKING:
    from collections.abc import Iterator

IDLE = 300 << 20


@pytest.fixture
def machine(rig: Rig) -> Iterator[FakeMachine]:
    fake = FakeMachine(rig.tmp_path / "machine").build()
    rig.sim(VRAM_TREE=fake.root)
    rig.monkeypatch.delenv("ROCR_VISIBLE_DEVICES", raising=False)
    rig.monkeypatch.setenv("ATOMTRACE_MACHINE_ROOT", str(fake.root))
    yield fake
    fake.end()


def session_on(rig: Rig, machine: FakeMachine, **settings: object) -> CaptureSession:
    return rig.session_with({"machine_root": str(machine.root), "vram_timeout": 10.0, **settings})


def gpu_lock(rig: Rig, machine: FakeMachine, card: int) -> str:
    return str(rig.tmp_path / "locks" / f"gpu-{machine.pci(card).replace(':', '_')}.lock")


def test_a_capture_holds_every_visible_gpu_and_gives_them_back_with_their_memory(
    rig: Rig, machine: FakeMachine
) -> None:
    machine.drive()
    rig.sim(READY_DELAY_S=1)
    seen: list[tuple[bool, bool, bool]] = []
    case = small_case()
    session = session_on(rig, machine)

    def watch(line: str) -> None:
        if "window 1:" in line:
            names = [gpu_lock(rig, machine, card) for card in (0, 1)]
            locked = [is_locked(rig.tmp_path / "locks" / name) for name in names]
            seen.append((*locked, machine.used(0) > 200 * GIB))  # type: ignore[arg-type]
        rig.lines.append(line)

    session._emit = watch
    session.obtain(case, needed=[case], test_id="t")
    assert seen == [(True, True, True)]
    assert (machine.used(0), machine.used(1)) == (IDLE, IDLE)
    assert not is_locked(rig.tmp_path / "locks" / gpu_lock(rig, machine, 0))
    assert not rig.lock_file.exists(), "the host-wide lock is for machines without GPUs"
    rig.assert_nothing_left()


def test_only_the_visible_gpus_are_leased_and_the_server_gets_the_variable_as_it_was(
    rig: Rig, machine: FakeMachine
) -> None:
    machine.drive()
    rig.monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "1")
    other = HostLock(rig.tmp_path / gpu_lock(rig, machine, 0))
    (rig.tmp_path / "locks").mkdir()
    assert other.try_acquire({"user": "somebody else"}), "GPU 0 is somebody else's"
    case = small_case(tp=1)
    capture = session_on(rig, machine).obtain(case, needed=[case], test_id="t")
    server = capture.manifest["server"]
    assert isinstance(server, dict)
    assert server["env"]["ROCR_VISIBLE_DEVICES"] == "1"
    environment = capture.manifest["environment"]
    assert isinstance(environment, dict)
    assert environment["gpu"]["count"] == 1
    assert environment["volatile"]["pci"] == [machine.pci(1)]
    other.release()
    rig.assert_nothing_left()


def test_a_variable_of_the_case_counts_too(rig: Rig, machine: FakeMachine) -> None:
    case = small_case(tp=1, env={"HIP_VISIBLE_DEVICES": "7"})
    with pytest.raises(LeaseError, match=r"HIP_VISIBLE_DEVICES=7: there is no GPU '7' among the 2"):
        session_on(rig, machine).obtain(case, needed=[case], test_id="t")
    assert rig.launches() == 0


def test_the_holder_of_a_gpu_is_named(rig: Rig, machine: FakeMachine) -> None:
    (rig.tmp_path / "locks").mkdir()
    other = HostLock(rig.tmp_path / gpu_lock(rig, machine, 1))
    assert other.try_acquire({"user": "alice", "pid": 4711, "test": "test_long", "since": "08:15"})
    case = small_case()
    with pytest.raises(LeaseError, match=r"held by alice, pid 4711 \(test_long\), since 08:15"):
        session_on(rig, machine, lock_timeout=0.5).obtain(case, needed=[case], test_id="t")
    other.release()
    assert not list((rig.tmp_path / "locks" / "gpus.queue").iterdir())


def test_disjoint_gpu_sets_are_captured_at_the_same_time(rig: Rig, machine: FakeMachine) -> None:
    machine.drive()
    rig.sim(READY_DELAY_S=3)
    first, second = (small_case(tp=1, env={"HIP_VISIBLE_DEVICES": str(gpu)}) for gpu in (0, 1))
    owners = [
        rig.owner(case, run=name, machine_root=str(machine.root)) for case, name in ((first, "one"), (second, "two"))
    ]
    for owner in owners:
        owner.says("OBTAINED", seconds=30)
    events = [str(row["event"]) for row in rig.ledger() if row["event"] in ("start", "exit")]
    assert events == ["start", "start", "exit", "exit"]


def test_who_wants_both_gpus_is_served_before_a_later_one_who_wants_a_free_one(rig: Rig, machine: FakeMachine) -> None:
    machine.drive()
    rig.sim(READY_DELAY_S=3)
    root = str(machine.root)
    first = rig.owner(small_case(tp=1, env={"HIP_VISIBLE_DEVICES": "0"}), run="first", machine_root=root)
    first.says("] launching")
    rig.sim(READY_DELAY_S=0)
    both = rig.owner(small_case(), run="both", machine_root=root)
    both.says("waiting for the GPUs: held by")
    late = rig.owner(small_case(tp=1, env={"HIP_VISIBLE_DEVICES": "1"}), run="late", machine_root=root)
    late.says("waiting for the GPUs:")
    assert "1 before us in the queue" in late.text
    for owner in (first, both, late):
        owner.says("OBTAINED", seconds=30)
    starts = [row["argv"] for row in rig.ledger() if row["event"] == "start"]
    sizes = [argv[argv.index("--tensor-parallel-size") + 1] for argv in starts if isinstance(argv, list)]
    assert sizes == ["1", "2", "1"]


def test_memory_that_cannot_be_read_is_said_and_no_reason_to_refuse(rig: Rig, machine: FakeMachine) -> None:
    machine.drive()
    rig.monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for card in (0, 1):
        path = machine.root / machine.device(card) / "uevent"
        path.write_text("DRIVER=amdgpu\n")
    case = small_case(tp=1)
    session_on(rig, machine).obtain(case, needed=[case], test_id="t")
    (line,) = [line for line in rig.lines if "warning: GPU memory cannot be watched" in line]
    assert "no mem_info_vram_used of 0000:05:00.0" in line


def test_a_server_that_leaks_gpu_memory_errs_itself_and_not_the_next_one(rig: Rig, machine: FakeMachine) -> None:
    machine.drive()
    case, other = small_case(), small_case(server_args=("--level", "0"))
    rig.sim(FAULT="leak_vram:1")
    session = session_on(rig, machine, vram_timeout=1.5)
    with pytest.raises(InfraError, match=r"has not given its GPU memory back: after 1.5 s") as failed:
        session.obtain(case, needed=[case], test_id="t")
    assert f"{machine.pci(1)} holds 200.3 GiB, idle is 300.0 MiB + 1.0 GiB" in failed.value.problem
    assert machine.pci(0) not in failed.value.problem
    assert "no process holds memory there" in str(failed.value)
    rig.assert_nothing_left()

    rig.sim(FAULT="", VRAM_GIB=10)
    next_one = session_on(rig, machine, vram_timeout=1.5)
    assert next_one.obtain(other, needed=[other], test_id="t2").ranks
    assert machine.used(1) == IDLE + 200 * GIB


def test_memory_that_the_driver_frees_late_is_waited_for(rig: Rig, machine: FakeMachine) -> None:
    machine.drive(delay_s=1.5)
    case = small_case()
    session_on(rig, machine).obtain(case, needed=[case], test_id="t")
    assert (machine.used(0), machine.used(1)) == (IDLE, IDLE)
    assert any("waiting: GPU memory is in use" in line for line in rig.lines)
    rig.assert_nothing_left()


def test_a_tenant_that_came_between_two_launches_is_named_waited_for_and_left_alone(
    rig: Rig, machine: FakeMachine
) -> None:
    machine.drive()
    first, second = small_case(), small_case(server_args=("--level", "0"))
    session = session_on(rig, machine, vram_timeout=1.5)
    session.obtain(first, needed=[first], test_id="t")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as tenant:
        machine.tenant(tenant.pid, 0, 50 * GIB)
        wait_for(lambda: machine.used(0) > 50 * GIB, seconds=5, what="the driver counts the tenant")
        launches = rig.launches()
        with pytest.raises(LaunchError, match=r"no server was launched: after 1.5 s, GPU memory is in use") as failed:
            session.obtain(second, needed=[second], test_id="t2")
        assert rig.launches() == launches
        assert f"pid {tenant.pid} python" in str(failed.value)
        assert "50.0 GiB on 0000:05:00.0" in str(failed.value)
        assert tenant.poll() is None
        tenant.kill()
    rig.assert_nothing_left()


def test_a_level_from_before_a_reboot_is_not_believed(rig: Rig, machine: FakeMachine) -> None:
    machine.drive()
    (rig.tmp_path / "locks").mkdir()
    for card in (0, 1):
        name = gpu_lock(rig, machine, card).replace(".lock", ".level")
        (rig.tmp_path / "locks" / name).write_text(json.dumps({"used": 0, "boot": "an earlier one"}))
        machine.tenant(1, card, 40 * GIB)
    wait_for(lambda: machine.used(1) > 40 * GIB, seconds=5, what="the driver counts pid 1")
    case = small_case()
    assert session_on(rig, machine, vram_timeout=1.0).obtain(case, needed=[case], test_id="t").ranks


def test_after_kill_9_of_a_worker_the_lease_is_held_until_the_memory_is_back(rig: Rig, machine: FakeMachine) -> None:
    machine.drive(delay_s=2.0)
    rig.sim(READY_DELAY_S=60)
    owner = rig.owner(small_case(), machine_root=str(machine.root))
    wait_for(lambda: machine.used(1) > 200 * GIB, seconds=20, what="both workers hold memory")
    owner.process.kill()
    lock = rig.tmp_path / gpu_lock(rig, machine, 0)
    wait_for(lambda: not _live_workers(rig), seconds=15, what="the server is dead")
    assert machine.used(0) > 200 * GIB
    assert is_locked(lock), "the server is dead, and its memory is not back"
    wait_for(lambda: machine.used(0) == machine.used(1) == IDLE, seconds=10, what="the driver frees the memory")
    wait_for(lambda: not is_locked(lock), seconds=1, what="the lease is free within a second after that")
    rig.assert_nothing_left(seconds=2)


def _live_workers(rig: Rig) -> list[int]:
    """Processes of the run that are not its keeper."""
    found = []
    for pid in rig.survivors():
        with contextlib.suppress(OSError):
            if b"capture.keeper" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_a_closed_session_does_not_kill_a_keeper_that_waits_for_memory(rig: Rig, machine: FakeMachine) -> None:
    machine.drive(delay_s=3.0)
    rig.sim(READY_DELAY_S=60)
    owner = rig.owner(small_case(), machine_root=str(machine.root))
    wait_for(lambda: machine.used(1) > 200 * GIB, seconds=20, what="both workers hold memory")
    owner.process.send_signal(2)
    owner.says("CLOSED", seconds=30)
    wait_for(lambda: machine.used(0) == IDLE, seconds=10, what="the memory is back")
    rig.assert_nothing_left(seconds=3)


def test_a_private_lock_directory_is_an_error_in_ci_and_a_warning_elsewhere(rig: Rig, machine: FakeMachine) -> None:
    machine.drive()
    (machine.root / ".dockerenv").touch()
    case = small_case(tp=1)
    settings = session_on(rig, machine)._settings
    run = RunInfo(rig.token, rig.run_dir, "ci", (os.getpid(),), ci=True)
    private = CaptureSession(settings, run, progress=rig.lines.append)
    rig.sessions.append(private)
    with pytest.raises(LeaseError, match="is private to this container"):
        private.obtain(case, needed=[case], test_id="t")
    session_on(rig, machine).obtain(case, needed=[case], test_id="t")
    assert sum("warning: the lock directory" in line for line in rig.lines) == 1
