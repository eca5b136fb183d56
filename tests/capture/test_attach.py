"""Captures from a server that is not ours: verified first, left as it was, old files set aside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from typing import IO, TYPE_CHECKING

import pytest

from pytest_atomtrace.capture.attach import lock_name_of
from pytest_atomtrace.capture.http import free_port
from pytest_atomtrace.capture.life import listener_of, log_of
from pytest_atomtrace.errors import ConfigError, ExportError, LaunchError, LeaseError, WindowError
from pytest_atomtrace.settings import Settings
from tests.capture.conftest import Rig, small_case, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MODEL = "deepseek-ai/DeepSeek-V4-Pro"


class Foreign:
    """A server that somebody started by hand."""

    def __init__(self, rig: Rig, directory: Path, *arguments: str, log: bool = True, history: str = "") -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.traces = directory / "traces"
        self.log = directory / "server.log"
        argv = [sys.executable, "-m", "pytest_atomtrace.simulator", "--model", MODEL, "--server-port", str(self.port)]
        argv += ["--torch-profiler-dir", str(self.traces), *arguments]
        self.log_seen = log
        self.log.write_text(history)
        self._stream = self.log.open("ab")
        # A pipe hides the log, as a container's log driver does; the writer at its end goes with the server.
        out: IO[bytes] = self._stream
        self._writer: subprocess.Popen[bytes] | None = None
        if not log:
            self._writer = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=self._stream, start_new_session=True)
            assert self._writer.stdin is not None
            out = self._writer.stdin
        self.process = subprocess.Popen(argv, stdout=out, stderr=out, start_new_session=True)
        if self._writer is not None:
            out.close()
        del rig
        wait_for(self._ready, seconds=20, what="the foreign server is up")

    def _ready(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/v1/models", timeout=2).read()
        except OSError:
            return False
        return True

    def post(self, path: str) -> None:
        urllib.request.urlopen(f"{self.url}{path}", data=b"", timeout=20).read()

    @property
    def files(self) -> set[Path]:
        return set(self.traces.rglob("*.pt.trace.json.gz"))

    def settings(self, **more: object) -> dict[str, object]:
        hidden = {} if self.log_seen else {"attach_log": "none"}
        return {"backend": "attach", "attach": self.url, "attach_trace_dir": str(self.traces), **hidden, **more}

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self._writer is not None:
            self._writer.wait(10)
        self._stream.close()


@pytest.fixture
def foreign(rig: Rig, tmp_path: Path) -> Iterator[Callable[..., Foreign]]:
    started: list[Foreign] = []

    def start(*arguments: str, log: bool = True, history: str = "") -> Foreign:
        directory = tmp_path / f"foreign-{len(started)}"
        directory.mkdir()
        started.append(Foreign(rig, directory, *arguments, log=log, history=history))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.mark.parametrize("log", [True, False], ids=["log", "no-log"])
def test_a_running_server_is_captured_and_left_running_with_its_old_files(
    rig: Rig, foreign: Callable[..., Foreign], log: bool
) -> None:
    server = foreign("-tp", "2", log=log)
    server.post("/start_profile")
    server.post("/stop_profile")
    wait_for(lambda: len(server.files) == 2, seconds=10, what="the earlier window's files")
    old = server.files
    stale = server.traces / "rank_7"
    stale.mkdir()
    (stale / "x_ts_20260101_000000_000.pt.trace.json.gz").write_bytes(b"of an earlier, larger run")

    case = small_case()
    capture = rig.session_with(server.settings()).obtain(case, needed=[case], test_id="t")
    assert capture.engine == "attach"
    assert list(capture.ranks) == ["rank_0", "rank_1"]
    assert server.process.poll() is None
    assert server.files == old | set(stale.iterdir()), "old files stay, ours were taken"
    assert (server.traces / "rank_0").is_dir()
    stages = capture.manifest["stages"]
    assert isinstance(stages, list)
    assert stages[0]["stage"] == "attach"
    assert rig.launches() == 1, "the one that was started by hand"

    again = small_case(conc=2)
    assert rig.session_with(server.settings()).obtain(again, needed=[again], test_id="t").ranks
    assert server.process.poll() is None


def test_another_model_or_parallelism_is_refused_before_anything_is_sent(
    rig: Rig, foreign: Callable[..., Foreign]
) -> None:
    server = foreign("-tp", "2")
    for case, message in (
        (small_case(model="Qwen/Qwen3-0.6B"), r"serves deepseek-ai/DeepSeek-V4-Pro, not Qwen/Qwen3-0.6B"),
        (small_case(tp=1), r"tp_size=2, dp_size=1, the case needs tp_size=1"),
    ):
        with pytest.raises(LaunchError, match=message):
            rig.session_with(server.settings()).obtain(case, needed=[case], test_id="t")
    text = server.log.read_text()
    assert "profile" not in text.replace("torch_profiler_dir", "").replace("--torch-profiler-dir", "")
    assert server.process.poll() is None


def test_a_window_that_somebody_left_open_is_found_in_the_log_and_left_open(
    rig: Rig, foreign: Callable[..., Foreign]
) -> None:
    server = foreign("-tp", "2")
    server.post("/start_profile")
    case = small_case()
    with pytest.raises(WindowError, match=r"has a profiler window open on the server: 2 starts and 0 stops"):
        rig.session_with(server.settings()).obtain(case, needed=[case], test_id="t")
    assert server.files == set()
    server.post("/stop_profile")
    wait_for(lambda: len(server.files) == 2, seconds=10, what="the window of somebody else, whole")


EARLIER_LIFE = """[atom 09:00:00] Initializing engine with model deepseek-ai/DeepSeek-V4-Pro...
[atom 09:08:00] Starting server on 0.0.0.0:8000 (loop=uvloop)...
[atom 09:20:00] Rank 0: profiler started (detailed=False, dir=/tr/rank_0)
[atom 09:20:00] Rank 1: profiler started (detailed=False, dir=/tr/rank_1)
[atom 09:20:04] Rank 0: profiler stop completed in 2.10s
"""


def test_a_window_that_an_earlier_server_took_along_is_none_of_the_one_that_runs(
    rig: Rig, foreign: Callable[..., Foreign]
) -> None:
    """One log for all lives of the server, as ``>> server.log`` makes it."""
    server = foreign("-tp", "2", history=EARLIER_LIFE)
    case = small_case()
    assert rig.session_with(server.settings()).obtain(case, needed=[case], test_id="t").ranks
    server.post("/start_profile")
    again = small_case(conc=2)
    with pytest.raises(WindowError, match=r"has a profiler window open on the server: 4 starts and 2 stops"):
        rig.session_with(server.settings()).obtain(again, needed=[again], test_id="t")


def test_without_a_log_nothing_is_sent_unless_asked_for_and_a_log_can_be_named(
    rig: Rig, foreign: Callable[..., Foreign]
) -> None:
    server = foreign("-tp", "2", log=False)
    server.post("/start_profile")
    asked = len(rig.ledger())
    case = small_case()
    with pytest.raises(LaunchError, match=r"log cannot be seen from here(.|\n)*--atom-attach-log=none"):
        rig.session_with(server.settings(attach_log="")).obtain(case, needed=[case], test_id="t")
    other = small_case(tp=1)
    with pytest.raises(LaunchError, match=r"--atom-attach-log: /nowhere/x.log is no file"):
        rig.session_with(server.settings(attach_log="/nowhere/x.log")).obtain(other, needed=[other], test_id="t")
    assert len(rig.ledger()) == asked, "the window of somebody else goes on"


def test_a_log_that_is_named_tells_of_an_open_window(rig: Rig, foreign: Callable[..., Foreign]) -> None:
    server = foreign("-tp", "2", log=False)
    server.post("/start_profile")
    case = small_case()
    with pytest.raises(WindowError, match=r"has a profiler window open on the server: 2 starts and 0 stops"):
        rig.session_with(server.settings(attach_log=str(server.log))).obtain(case, needed=[case], test_id="t")
    assert server.files == set()


def test_without_a_log_an_open_window_is_found_by_closing_it(rig: Rig, foreign: Callable[..., Foreign]) -> None:
    server = foreign("-tp", "2", log=False)
    server.post("/start_profile")
    urllib.request.urlopen(
        urllib.request.Request(
            f"{server.url}/v1/completions",
            data=json.dumps({"prompt": "a b c", "max_tokens": 400}).encode(),
            headers={"Content-Type": "application/json"},
        ),
        timeout=20,
    ).read()
    case = small_case()
    with pytest.raises(
        WindowError, match=r"(somebody had a profiler window open)|(traces where one window leaves one)"
    ):
        rig.session_with(server.settings()).obtain(case, needed=[case], test_id="t")
    assert server.process.poll() is None


@pytest.mark.parametrize("form", ["relative", "symlink"])
def test_a_failed_export_is_told_at_once_however_the_trace_directory_is_named(
    rig: Rig, foreign: Callable[..., Foreign], form: str
) -> None:
    rig.sim(FAULT="export_error:1")
    server = foreign("-tp", "2")
    rig.monkeypatch.chdir(server.traces.parent)
    link = server.traces.with_name("link")
    link.symlink_to("traces")
    settings = server.settings(attach_trace_dir="traces" if form == "relative" else str(link), export_timeout=300.0)
    case = small_case()
    start = time.monotonic()
    with pytest.raises(ExportError, match=r"1 of 2 ranks did not export, the export failed: rank_1 failed"):
        rig.session_with(settings).obtain(case, needed=[case], test_id="t")
    assert time.monotonic() - start < 30


def test_a_server_that_is_not_there_and_a_directory_that_is_not_are_named(rig: Rig, tmp_path: Path) -> None:
    case = small_case()
    settings = {"backend": "attach", "attach": f"http://127.0.0.1:{free_port()}", "attach_trace_dir": str(tmp_path)}
    with pytest.raises(LaunchError, match="no server answers at http://127"):
        rig.session_with(settings).obtain(case, needed=[case], test_id="t")
    other = small_case(tp=1)
    with pytest.raises(LaunchError, match="is no directory"):
        rig.session_with({**settings, "attach_trace_dir": "/nowhere"}).obtain(other, needed=[other], test_id="t")
    rig.assert_nothing_left()


def test_another_launch_of_an_attached_server_cannot_be_had(rig: Rig, foreign: Callable[..., Foreign]) -> None:
    server = foreign("-tp", "2")
    case = small_case()
    with pytest.raises(LaunchError, match="cannot be launched again"):
        rig.session_with(server.settings()).obtain(case, needed=[case], test_id="t", launch=2)


def test_two_runs_at_one_server_take_turns_by_its_address(rig: Rig, foreign: Callable[..., Foreign]) -> None:
    server = foreign("-tp", "2")
    assert lock_name_of("http://localhost:8000/") == lock_name_of("http://127.0.0.1:8000") == "attach-127.0.0.1-8000"
    assert lock_name_of("https://node7") == "attach-node7-443"
    from pytest_atomtrace.capture.locks import HostLock

    (rig.tmp_path / "locks").mkdir(exist_ok=True)
    lock = HostLock(rig.tmp_path / "locks" / f"{lock_name_of(server.url)}.lock")
    assert lock.try_acquire({"user": "somebody", "pid": 7, "test": "theirs"})
    case = small_case()
    with pytest.raises(LeaseError, match=r"the attached server was not free within 0.3 s: held by somebody, pid 7"):
        rig.session_with(server.settings(lock_timeout=0.3)).obtain(case, needed=[case], test_id="t")
    assert any("waiting for the attached server: held by somebody, pid 7" in line for line in rig.lines)
    assert not any("the GPUs" in line for line in rig.lines)
    lock.release()


def test_the_process_and_the_log_of_a_local_server_are_found(foreign: Callable[..., Foreign]) -> None:
    server = foreign("-tp", "1")
    identity = listener_of(server.port)
    assert identity is not None
    assert identity.pid == server.process.pid
    assert log_of([identity.pid]) == server.log
    assert listener_of(free_port()) is None


@pytest.mark.parametrize(
    ("cli", "problem"),
    [
        ({"atom_attach": "http://x:1"}, "needs the server's URL and the directory"),
        ({"atom_backend": "attach"}, "needs the server's URL and the directory"),
        ({"atom_attach": "localhost:8000", "atom_attach_trace_dir": "/t"}, "is no URL like http://"),
        ({"atom_attach": "http://x:1", "atom_attach_trace_dir": "/t", "atom_backend": "sim"}, "exclude each other"),
    ],
)
def test_half_an_attach_is_refused_with_what_is_missing(cli: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Settings.resolve(cli=cli, env={}, ini={})
    whole = {"atom_attach": "http://x:1", "atom_attach_trace_dir": "/t"}
    assert Settings.resolve(cli=whole, env={}, ini={}).backend == "attach"
