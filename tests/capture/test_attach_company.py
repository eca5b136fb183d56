"""An attached server has other clients and other neighbours: what they do to a window is seen and said."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.capture.attach import attached_site, lock_name_of
from pytest_atomtrace.capture.clock import Clock
from pytest_atomtrace.capture.http import Client as Api
from pytest_atomtrace.capture.traffic import Traffic
from pytest_atomtrace.errors import UnhealthyTraceError, WindowError
from pytest_atomtrace.verdicts.capture_findings import capture_findings
from pytest_atomtrace.verdicts.trace import load_trace
from tests.capture.conftest import Rig, small_case, wait_for
from tests.capture.machines import GIB, FakeMachine
from tests.capture.test_attach import Foreign, foreign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_atomtrace.capture.record import Capture

__all__ = ["foreign"]  # a fixture


def contention(capture: Capture) -> dict[str, object]:
    value = capture.manifest["contention"]
    assert isinstance(value, dict)
    return value


class Client:
    """Somebody else's requests, one after the other, until `close`."""

    def __init__(self, server: Foreign, *, tokens: int) -> None:
        self._url = f"{server.url}/v1/completions"
        self._body = json.dumps({"prompt": "other words", "max_tokens": tokens, "ignore_eos": True}).encode()
        self._over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        request = urllib.request.Request(self._url, self._body, {"Content-Type": "application/json"})
        while not self._over:
            try:
                urllib.request.urlopen(request, timeout=20).read()
            except OSError:
                return

    def close(self) -> None:
        self._over = True
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture
def client() -> Iterator[Callable[..., Client]]:
    started: list[Client] = []

    def start(server: Foreign, *, tokens: int) -> Client:
        started.append(Client(server, tokens=tokens))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.mark.parametrize("metrics_s", [0, 1.2], ids=["fresh", "renewed every 1.2 s"])
def test_alone_at_the_server_all_finished_requests_are_ours(
    rig: Rig, foreign: Callable[..., Foreign], metrics_s: float
) -> None:
    rig.sim(METRICS_S=metrics_s)
    server = foreign("-tp", "2")
    case = small_case(osl=64)
    capture = rig.session_with(server.settings()).obtain(case, needed=[case], test_id="t")
    assert contention(capture)["traffic"] == {
        "finished": 4,
        "ours": 4,
        "in_flight_before": 0,
        "in_flight_after": 0,
    }
    load_trace(capture.directory).assert_step_time("decode", p50="1 s")


def test_another_clients_short_requests_are_counted_and_forbid_times(
    rig: Rig, foreign: Callable[..., Foreign], client: Callable[..., Client]
) -> None:
    server = foreign("-tp", "2")
    client(server, tokens=1)
    case = small_case(osl=250)
    capture = rig.session_with(server.settings()).obtain(case, needed=[case], test_id="t")
    trace = load_trace(capture.directory)
    trace.assert_kernel_called("*moe*", during="decode")
    with pytest.raises(UnhealthyTraceError, match=r"H11 contended: the server answered \d+ requests .*, ours were 4"):
        trace.assert_step_time("decode", p50="1 s")


def test_a_request_that_runs_before_and_after_the_window_is_seen_in_flight_and_in_the_batch(
    rig: Rig, foreign: Callable[..., Foreign], client: Callable[..., Client]
) -> None:
    rig.sim(STEP_MS=3)
    server = foreign("-tp", "2")
    client(server, tokens=4000)
    wait_for(lambda: "requests_running 1" in metrics(server), seconds=10, what="the other request runs")
    case = small_case(osl=64)
    capture = rig.session_with(server.settings()).obtain(case, needed=[case], test_id="t")
    traffic = contention(capture)["traffic"]
    assert isinstance(traffic, dict)
    assert (traffic["finished"], traffic["in_flight_before"]) == (4, 1)
    with pytest.raises(UnhealthyTraceError) as caught:
        load_trace(capture.directory).assert_step_time("decode", p50="1 s")
    assert "the server worked on 1 request beside ours" in str(caught.value)
    assert "decode steps of up to 5 sequences on rank_0, where the case has 4 in flight" in str(caught.value)


def metrics(server: Foreign) -> str:
    data: bytes = urllib.request.urlopen(f"{server.url}/metrics", timeout=5).read()
    return data.decode()


@pytest.mark.parametrize("log", [True, False], ids=["log", "no-log"])
def test_a_window_that_somebody_else_closes_is_told_at_once(
    rig: Rig, foreign: Callable[..., Foreign], log: bool
) -> None:
    rig.sim(STEP_MS=15)
    server = foreign("-tp", "2", log=log)
    seen = len(rig.ledger())

    def close_it() -> None:
        wait_for(
            lambda: any(row.get("action") == "start" for row in rig.ledger()[seen:]), seconds=30, what="our window"
        )
        time.sleep(0.3)
        server.post("/stop_profile")

    thread = threading.Thread(target=close_it)
    thread.start()
    case = small_case(osl=128)
    start = time.monotonic()
    with pytest.raises(WindowError, match="somebody else closed our profiler window before its end"):
        rig.session_with(server.settings(export_timeout=60.0)).obtain(case, needed=[case], test_id="t")
    thread.join(10)
    assert time.monotonic() - start < 30, "not the export's deadline"
    assert len(server.files) == 2, "they stay where the other one looks for them"
    assert server.process.poll() is None


def test_a_foreign_process_on_the_attached_servers_gpus_is_named_and_its_own_are_not(
    rig: Rig, foreign: Callable[..., Foreign]
) -> None:
    machine = FakeMachine(rig.tmp_path / "machine", cards=4).build()
    rig.sim(VRAM_TREE=machine.root)
    machine.drive()
    server = foreign("-tp", "2")
    case = small_case(osl=64)
    settings = server.settings(machine_root=str(machine.root))
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as elsewhere:
        machine.tenant(elsewhere.pid, 3, GIB)
        capture = rig.session_with(settings).obtain(case, needed=[case], test_id="t")
        assert contention(capture)["foreign"] == [], "GPU 3 is not the server's"
        environment = capture.manifest["environment"]
        assert isinstance(environment, dict)
        assert environment["gpu"]["count"] == 2
        machine.tenant(elsewhere.pid, 1, GIB)
        again = small_case(osl=64, conc=3)
        capture = rig.session_with(settings).obtain(again, needed=[again], test_id="t")
        elsewhere.kill()
    machine.end()
    with pytest.raises(UnhealthyTraceError, match=rf"H11 contended: .* pid {elsewhere.pid} .* with 1.0 GiB"):
        load_trace(capture.directory).assert_step_time("decode", p50="1 s")


def test_the_gpus_of_a_server_whose_pids_are_not_listed_follow_from_its_environment(rig: Rig) -> None:
    """A container: KFD lists host pids."""
    machine = FakeMachine(rig.tmp_path / "machine", cards=4).build()
    code = f"open({str(machine.root / 'dev' / 'kfd')!r}); import sys, time; f = open(sys.argv[1]); time.sleep(60)"
    env = {"HIP_VISIBLE_DEVICES": "1,3"}
    argv = [sys.executable, "-c", code, str(machine.root / "dev" / "kfd")]
    with subprocess.Popen(argv, env=env) as server:
        wait_for(lambda: attached_site(machine.root, [server.pid]) is not None, seconds=10, what="it holds /dev/kfd")
        site = attached_site(machine.root, [server.pid])
        server.kill()
    assert site is not None
    assert site.cards == (machine.pci(1), machine.pci(3))
    assert attached_site(machine.root, []) is None
    assert attached_site(rig.tmp_path / "no machine", [1]) is None


@pytest.mark.parametrize("url", ["http://[::1]:8000", "http://LOCALHOST:8000/", "http://0.0.0.0:8000"])
def test_every_name_of_this_machine_is_one_lock(url: str) -> None:
    assert lock_name_of(url) == "attach-127.0.0.1-8000"


def test_an_address_of_another_machine_makes_a_file_name() -> None:
    assert lock_name_of("http://[fe80::1%25eth0]:8000") == "attach-fe80__1_25eth0-8000"
    assert lock_name_of("http://Node7.cluster:80") == lock_name_of("http://node7.cluster")


class Leaping(Clock):
    """Three seconds pass between two looks."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def monotonic_s(self) -> float:
        self._now_s += 3.0
        return self._now_s


@pytest.mark.parametrize(
    ("status", "text", "why"),
    [
        (404, "", "/metrics does not tell finished requests (HTTP 404"),
        (200, "atom:requests_running 1.0\n", "does not tell finished requests"),
        (200, "atom:requests_finished nonsense\n", "does not tell finished requests"),
        (
            200,
            'atom:requests_finished_total{model="m"} 7\natom:metrics_last_refresh_timestamp_seconds 5.0\n',
            "the server's counters were not renewed within 8 s",
        ),
        (200, "atom:requests_finished 7.0\n", "the server counted 0 finished requests, and ours alone were 4"),
    ],
    ids=["no route", "no counter", "no number", "never renewed", "counts nothing"],
)
def test_a_server_that_does_not_tell_leaves_the_question_open(status: int, text: str, why: str) -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    async def look(port: int) -> dict[str, object]:
        clock = Leaping()
        async with Api(f"http://127.0.0.1:{port}", clock=clock) as api:
            traffic = Traffic(api, clock)
            await traffic.begin()
            return await traffic.end(ours=4)

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        said = asyncio.run(look(server.server_port))
        server.shutdown()
        thread.join()
    assert why in str(said["unknown"])
    assert capture_findings({"contention": {"traffic": said}}, {}) == ()
