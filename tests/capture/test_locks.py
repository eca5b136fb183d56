"""The lease's lock and its queue."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.capture.clock import Clock
from pytest_atomtrace.capture.identity import Identity
from pytest_atomtrace.capture.locks import HostLock, LockSet, SharedNote, is_locked, read_holder, shared_directory
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


def test_tickets_are_served_in_the_order_of_arrival_whatever_the_clock_does(tmp_path: Path) -> None:
    """Set back, it would serve whoever releases the GPUs before those who wait, until it has caught up."""
    times = iter([300, 100, 300])
    queue = TicketQueue(tmp_path / "queue", clock=Clock(wall_ns=lambda: next(times)))
    own = Identity.own()
    first, second, third = (queue.take(own, {"test": str(n)}) for n in range(3))
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


def test_the_ticket_of_a_dead_process_is_removed(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from pytest_atomtrace.capture.tickets import TicketQueue\n"
        "from pytest_atomtrace.capture.identity import Identity\n"
        "ticket = TicketQueue(pathlib.Path(sys.argv[1])).take(Identity.own(), {}); print(ticket.path, flush=True)\n"
        "sys.stdin.read()"
    )
    queue = TicketQueue(tmp_path / "queue")
    argv = [sys.executable, "-c", code, str(tmp_path / "queue")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        path = tmp_path / "queue" / other.stdout.readline().strip()
        mine = queue.take(Identity.own(), {})
        assert [ticket.path for ticket in queue.ahead_of(mine)] == [path]
        other.kill()
        other.wait()
    assert queue.ahead_of(mine) == []
    assert not path.exists()


def test_a_waiter_whose_pid_means_nothing_here_keeps_its_turn(tmp_path: Path) -> None:
    # As seen from another container: no process of ours has that pid, and yet its waiter lives.
    queue = TicketQueue(tmp_path / "queue")
    elsewhere = queue.take(Identity(2**22 + 7, 1), {})
    mine = queue.take(Identity.own(), {})
    assert queue.ahead_of(mine) == [elsewhere]
    elsewhere.drop()
    assert queue.ahead_of(mine) == []


def test_who_wants_many_gpus_is_not_overtaken_by_those_who_want_one_of_them(tmp_path: Path) -> None:
    queue = TicketQueue(tmp_path / "queue")
    own = Identity.own()
    holder = queue.take(own, {}, wants=["gpu-a"])
    many = queue.take(own, {}, wants=["gpu-a", "gpu-b"])
    one = queue.take(own, {}, wants=["gpu-b"])
    apart = queue.take(own, {}, wants=["gpu-c"])
    assert queue.ahead_of(many) == [holder]
    assert queue.ahead_of(one) == [many], "gpu-b is free, and yet it is the turn of who waits for both"
    assert queue.ahead_of(apart) == [], "disjoint sets do not wait for each other"
    anything = queue.take(own, {})
    assert queue.ahead_of(anything) == [holder, many, one, apart]


def test_a_ticket_that_a_killed_process_did_not_finish_is_removed_when_it_is_old(tmp_path: Path) -> None:
    queue = TicketQueue(tmp_path / "queue")
    old, fresh, foreign = (tmp_path / "queue" / name for name in (".1-2-3.new", "..4-5-6.new.7.ab.part", ".other"))
    for path in (old, fresh, foreign):
        path.touch()
    for path in (old, foreign):
        os.utime(path, (1, 1))
    ticket = queue.take(Identity.own(), {})
    assert (old.exists(), fresh.exists(), foreign.exists()) == (False, True, True)
    ticket.drop()


def test_a_lock_directory_on_a_full_disk_says_what_it_needs(tmp_path: Path) -> None:
    queue = TicketQueue(tmp_path / "queue")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # What a full disk does to a write, without one.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(LeaseError, match=r"no place in the queue for the GPUs: .*(.|\n)*--atom-lock-dir=DIR"):
            queue.take(Identity.own(), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "queue").iterdir())


def test_several_locks_are_taken_all_or_none(tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in ("gpu-a.lock", "gpu-b.lock", "gpu-c.lock"))
    first, second, third = LockSet([b, c]), LockSet([c, a]), LockSet([a])
    assert first.try_acquire({"user": "alice"}) is None
    assert second.try_acquire({"user": "bob"}) == c
    assert not is_locked(a)
    assert third.try_acquire({"user": "carol"}) is None, "what bob took on the way he gave back"
    first.release()
    assert second.try_acquire({"user": "bob"}) == a
    third.release()
    assert second.try_acquire({"user": "bob"}) is None
    assert second.held
    assert [read_holder(path).get("user") for path in (a, b, c)] == ["bob", None, "bob"]
    second.release()


def test_a_lock_that_cannot_be_opened_leaves_none_held(tmp_path: Path) -> None:
    (tmp_path / "gpu-b.lock").mkdir()
    locks = LockSet([tmp_path / "gpu-b.lock", tmp_path / "gpu-a.lock"])
    with pytest.raises(LeaseError, match=r"gpu-b.lock cannot be opened"):
        locks.try_acquire({})
    assert not is_locked(tmp_path / "gpu-a.lock")


def test_a_note_is_kept_for_the_next_holder_whatever_the_umask(tmp_path: Path) -> None:
    note = SharedNote(tmp_path / "gpu-a.level")
    assert note.read() == ""
    before = os.umask(0o077)
    try:
        note.write("a longer text")
        note.write("short")
    finally:
        os.umask(before)
    assert note.read() == "short"
    assert stat.S_IMODE(note.path.stat().st_mode) == 0o666


def test_foreign_files_in_the_queue_are_left_alone(tmp_path: Path) -> None:
    queue = TicketQueue(tmp_path / "queue")
    (tmp_path / "queue" / ".12-34-56.part").touch()
    (tmp_path / "queue" / "README").touch()
    assert queue.waiting() == []
    assert len(list((tmp_path / "queue").iterdir())) == 2
