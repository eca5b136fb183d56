"""The keeper with stand-ins for a server: what it starts dies with its owner, however it tries to escape."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.capture.identity import Identity, descendants, environ_holders, process_table
from pytest_atomtrace.capture.keeper_link import KeeperLink
from pytest_atomtrace.capture.ladder import _signal
from pytest_atomtrace.capture.locks import HostLock
from pytest_atomtrace.errors import InfraError, LeaseError
from tests.capture.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "ATOMTRACE_TEST_KEEPER"

#: A server whose child forks twice, takes a session of its own and ignores signals.
ESCAPER = """
import os, signal, subprocess, sys, time
deaf = "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (1, 2, 15)]; time.sleep(120)"
middle = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {deaf!r}], start_new_session=True)"
subprocess.run([sys.executable, "-c", middle], start_new_session=True)
print("escaped", flush=True)
time.sleep(120)
"""


@dataclass
class Kept:
    link: KeeperLink
    folder: Path
    env: dict[str, str]

    def acquire(self) -> bool:
        reply = self.link.request("acquire", paths=[str(self.folder / "gpus.lock")], holder={"user": "me"})
        return reply["acquired"] is True

    def launch(self, code: str) -> Identity:
        log = self.folder / "server.log"
        argv = [sys.executable, "-c", code]
        reply = self.link.request("launch", argv=argv, env=self.env, cwd=str(self.folder), log=str(log))
        pid, start = reply["pid"], reply["start"]
        assert isinstance(pid, int)
        assert isinstance(start, int)
        return Identity(pid, start)

    def said(self, word: str) -> None:
        log = self.folder / "server.log"
        wait_for(lambda: word in log.read_text(), seconds=10, what=word)

    @property
    def survivors(self) -> list[int]:
        return environ_holders(TOKEN, self.env[TOKEN])

    def gone(self, *, seconds: float = 10) -> None:
        wait_for(lambda: not self.survivors, seconds=seconds, what="nothing of the keeper's tree lives")
        lock = HostLock(self.folder / "gpus.lock")
        assert lock.try_acquire({})
        lock.release()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    env = {**os.environ, TOKEN: tmp_path.name + str(os.getpid())}
    link = KeeperLink.start([Identity.own()], env=env, log=tmp_path / "keeper.log")
    kept = Kept(link, tmp_path, env)
    yield kept
    link.close()
    assert not kept.survivors


def test_it_is_up_in_a_moment_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, pytest_atomtrace.capture.keeper\n"
        "heavy = {'numpy', 'aiohttp', 'psutil', 'asyncio', 'msgspec', 'yaml', 'multiprocessing', 'filelock'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_server_without_the_lease(kept: Kept) -> None:
    with pytest.raises(InfraError, match="no server is started without the lease"):
        kept.launch("pass")


def test_a_second_keeper_is_told_who_holds_the_lease(kept: Kept, tmp_path: Path) -> None:
    assert kept.acquire()
    assert kept.acquire(), "asking again is harmless"
    other = KeeperLink.start([Identity.own()], env=kept.env, log=tmp_path / "other.log")
    try:
        reply = other.request("acquire", paths=[str(tmp_path / "gpus.lock")], holder={})
        assert reply["acquired"] is False
        holder = reply["holder"]
        assert isinstance(holder, dict)
        assert (holder["user"], holder["keeper"]) == ("me", kept.link.pid)
    finally:
        other.close()


def test_an_exit_status_is_told(kept: Kept) -> None:
    kept.acquire()
    kept.launch("raise SystemExit(3)")
    wait_for(lambda: not kept.link.request("status")["alive"], seconds=10, what="the server ended")
    assert kept.link.request("status")["returncode"] == 3


def test_an_orderly_stop_lets_the_server_finish_what_it_does_at_sigint(kept: Kept) -> None:
    kept.acquire()
    kept.launch(
        "import time\nprint('up', flush=True)\n"
        "try: time.sleep(60)\nexcept KeyboardInterrupt: time.sleep(1); print('done', flush=True)"
    )
    kept.said("up")
    assert kept.link.request("stop", patience_s=20.0)["leftover"] == []
    kept.said("done")
    assert kept.link.request("stop", patience_s=20.0)["leftover"] == [], "nothing to stop is no error"
    assert kept.acquire(), "the lease outlives the server"
    kept.launch("pass")


def test_a_server_hears_sigint_though_the_worker_that_started_the_keeper_ignores_it(tmp_path: Path) -> None:
    env = {**os.environ, TOKEN: tmp_path.name}
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        link = KeeperLink.start([Identity.own()], env=env, log=tmp_path / "keeper.log")
    finally:
        signal.signal(signal.SIGINT, before)
    kept = Kept(link, tmp_path, env)
    try:
        kept.acquire()
        kept.launch("import time; print('up', flush=True); time.sleep(60)")
        kept.said("up")
        assert link.request("stop", patience_s=20.0)["leftover"] == []
        kept.said("KeyboardInterrupt")
    finally:
        link.close()


def test_what_forks_twice_changes_session_and_ignores_signals_is_stopped_too(kept: Kept) -> None:
    kept.acquire()
    kept.launch(ESCAPER)
    kept.said("escaped")
    pids = kept.link.request("status")["pids"]
    assert isinstance(pids, list)
    assert len(pids) == 2
    assert kept.link.request("stop", patience_s=0.2)["leftover"] == []
    assert set(kept.survivors) == {kept.link.pid}


def test_the_end_of_the_pipe_stops_everything_and_frees_the_lease(kept: Kept) -> None:
    kept.acquire()
    kept.launch(ESCAPER)
    kept.said("escaped")
    kept.link.close()
    kept.gone(seconds=0.5)


def test_sigterm_to_the_keeper_stops_everything_and_sigint_does_not_reach_it(kept: Kept) -> None:
    kept.acquire()
    kept.launch("import time; print('up', flush=True); time.sleep(60)")
    kept.said("up")
    os.kill(kept.link.pid, signal.SIGINT)
    assert kept.link.request("status")["alive"] is True
    os.kill(kept.link.pid, signal.SIGTERM)
    kept.gone()
    with pytest.raises(LeaseError, match="is gone, asked to status"):
        kept.link.request("status")


def test_kill_9_of_the_keeper_kills_the_server_by_the_kernel(kept: Kept) -> None:
    kept.acquire()
    server = kept.launch("import time; print('up', flush=True); time.sleep(60)")
    kept.said("up")
    os.kill(kept.link.pid, signal.SIGKILL)
    wait_for(lambda: not server.alive, seconds=5, what="the server died with its keeper")
    kept.gone()


def test_the_death_of_a_watched_process_during_a_patient_stop_makes_it_hurry(tmp_path: Path) -> None:
    watched = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    identity = Identity.of(watched.pid)
    assert identity is not None
    env = {**os.environ, TOKEN: tmp_path.name}
    link = KeeperLink.start([identity], env=env, log=tmp_path / "keeper.log")
    kept = Kept(link, tmp_path, env)
    kept.acquire()
    kept.launch("import signal, time; signal.signal(2, signal.SIG_IGN); print('up', flush=True); time.sleep(60)")
    kept.said("up")
    try:
        with pytest.raises(InfraError, match="did not answer to 'stop'"):
            link.request("stop", patience_s=100.0, timeout_s=0.3)
        watched.kill()
        watched.wait()
        kept.gone(seconds=8)
    finally:
        link.close()


def test_a_damaged_request_ends_the_keeper_and_not_before_the_server(kept: Kept) -> None:
    kept.acquire()
    server = kept.launch("import time; print('up', flush=True); time.sleep(60)")
    kept.said("up")
    stdin = kept.link._process.stdin
    assert stdin is not None
    stdin.write(b"this is no JSON\n")
    kept.gone()
    assert not server.alive


def test_an_identity_tells_a_process_from_its_successor() -> None:
    own = Identity.own()
    assert own.alive
    assert Identity.parse(own.text) == own
    assert not Identity(own.pid, own.start + 1).alive
    assert Identity.of(2**22 + 1) is None


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    wait_for(lambda: Identity.of(child.pid) is None, seconds=10, what="the child ended")
    assert process_table()[child.pid].state == "Z"
    child.wait()


def test_descendants_are_found_over_generations() -> None:
    code = "import subprocess, sys, time; subprocess.Popen(['sleep', '30']); print('x', flush=True); time.sleep(30)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        wait_for(
            lambda: [row.ppid for row in descendants(os.getpid(), process_table())].count(child.pid) == 1,
            seconds=5,
            what="the grandchild is listed",
        )
        os.killpg(child.pid, signal.SIGKILL)


def test_where_pidfd_is_refused_signals_still_reach_the_right_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise OSError(38, f"no pidfd for {pid}")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"]) as child:
        identity = Identity.of(child.pid)
        assert identity is not None
        _signal([Identity(identity.pid, identity.start + 1)], signal.SIGKILL)
        time.sleep(0.1)
        assert child.poll() is None, "another process with that pid would have been meant"
        _signal([identity], signal.SIGKILL)
        assert child.wait(5) == -9
