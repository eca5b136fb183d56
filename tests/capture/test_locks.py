"""The lease's lock and its queue."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.capture.clock import Clock
from pytest_atomtrace.capture.identity import Identity
from pytest_atomtrace.capture.locks import HostLock, read_holder, shared_directory
from pytest_atomtrace.capture.tickets import TicketQueue
from pytest_atomtrace.errors import LeaseError

if TYPE_CHECKING:
    from pathlib import Path


def test_one_holder_at_a_time_and_a_loser_does_not_wipe_the_holders_facts(tmp_path: Path) -> None:
    path = tmp_path / "gpus.lock"
    first, second = HostLock(path), HostLock(path)
    assert first.try_acquire({"user": "alice", "pid": 7})
    assert not second.try_acquire({"user": "bob", "pid": 8})
    assert read_holder(path) == {"user": "alice", "pid": 7}
    first.release()
    assert read_holder(path) == {}
    assert second.try_acquire({"user": "bob", "pid": 8})
    assert path.exists(), "an unlinked lock file would be two files for two contenders"
    second.release()


def test_every_user_may_open_the_lock_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        directory = shared_directory(tmp_path / "locks")
        lock = HostLock(directory / "gpus.lock")
        assert lock.try_acquire({})
        lock.release()
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o1777
    assert stat.S_IMODE((directory / "gpus.lock").stat().st_mode) == 0o666


def test_a_directory_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    shared_directory(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_an_unusable_lock_directory_says_which_option_names_another(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LeaseError, match=r"file cannot be used: (.|\n)*--atom-lock-dir"):
        shared_directory(tmp_path / "file")


def test_the_end_of_a_process_frees_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "gpus.lock"
    code = (
        "import sys, pathlib; from pytest_atomtrace.capture.locks import HostLock\n"
        "lock = HostLock(pathlib.Path(sys.argv[1])); print(lock.try_acquire({'pid': 1}), flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        lock = HostLock(path)
        assert not lock.try_acquire({})
        holder.kill()
        holder.wait()
        assert lock.try_acquire({})
        lock.release()


def test_tickets_are_served_in_the_order_of_their_times(tmp_path: Path) -> None:
    times = iter([300, 100, 200, 100])
    queue = TicketQueue(tmp_path / "queue", clock=Clock(wall_ns=lambda: next(times)))
    own = Identity.own()
    third, first, second = (queue.take(own, {"test": str(n)}) for n in range(3))
    assert queue.waiting() == [first, second, third]
    assert queue.ahead_of(first) == []
    assert queue.ahead_of(third) == [first, second]
    first.drop()
    first.drop()
    assert queue.ahead_of(third) == [second]


def test_a_releaser_goes_behind_those_who_waited(tmp_path: Path) -> None:
    queue = TicketQueue(tmp_path / "queue")
    own = Identity.own()
    mine = queue.take(own, {})
    waiting = queue.take(own, {})
    mine.drop()
    again = queue.take(own, {})
    assert queue.waiting() == [waiting, again]


@pytest.mark.parametrize("start", [0, 1])
def test_the_ticket_of_a_dead_process_is_removed_even_if_its_pid_lives_again(tmp_path: Path, start: int) -> None:
    queue = TicketQueue(tmp_path / "queue")
    dead = queue.take(Identity(os.getpid(), start), {})
    mine = queue.take(Identity.own(), {})
    assert queue.ahead_of(mine) == []
    assert not dead.path.exists()


def test_foreign_files_in_the_queue_are_left_alone(tmp_path: Path) -> None:
    queue = TicketQueue(tmp_path / "queue")
    (tmp_path / "queue" / ".12-34-56.part").touch()
    (tmp_path / "queue" / "README").touch()
    assert queue.waiting() == []
    assert len(list((tmp_path / "queue").iterdir())) == 2
