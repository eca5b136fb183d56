"""`atomtrace open`: one file on loopback for one page, the link with the step's time, and an end."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from pytest_atomtrace.capture.keeping import drop_capture
from pytest_atomtrace.capture.slices import write_slice
from pytest_atomtrace.trace.load import load_rank
from tests.traces import NAME, Recipe, write_ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Result

ORIGIN = "https://ui.perfetto.dev"
SLUG = "model-tp2-isl64-osl64-conc4"


@pytest.fixture
def capture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A capture of two ranks in the latest run, seen from the rootdir."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / ".atomtrace" / "runs" / "one"
    place = add_case(run, SLUG)
    (tmp_path / ".atomtrace" / "latest").symlink_to("runs/one")
    return place


def add_case(run: Path, slug: str) -> Path:
    place = run / "captures" / slug / "1"
    write_ranks(place, Recipe(decode_steps=30), Recipe(decode_steps=30, slow={11: 2.0}))
    rows = {rank: {"file": f"{rank}/{NAME}"} for rank in ("rank_0", "rank_1")}
    facts = {"schema": 1, "slug": slug, "ranks": rows, "expected_ranks": list(rows)}
    (place / "manifest.json").write_text(json.dumps(facts))
    return place


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Opened:
    """A running `atomtrace open`, up to its link."""

    process: subprocess.Popen[str]
    said: list[str]
    link: str

    @property
    def url(self) -> str:
        return parse_qs(urlsplit(self.link.replace("/#!/", "/")).query)["url"][0]

    @property
    def view_us(self) -> tuple[float, float]:
        query = parse_qs(urlsplit(self.link.replace("/#!/", "/")).query)
        return int(query["visStart"][0]) / 1000, int(query["visEnd"][0]) / 1000

    def ask(self, method: str = "GET", *, path: str | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection("127.0.0.1", parts.port or 0, timeout=20)
        with contextlib.closing(connection):
            sent = {"Origin": ORIGIN, **{name.replace("_", "-"): value for name, value in headers.items()}}
            connection.request(method, path if path is not None else parts.path, headers=sent)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()

    def events(self) -> list[dict[str, Any]]:
        status, _, body = self.ask()
        assert status == 200
        events: list[dict[str, Any]] = json.loads(gzip.decompress(body))["traceEvents"]
        return events

    def end(self) -> tuple[int, str]:
        _, err = self.process.communicate(timeout=30)
        return self.process.returncode, err


@contextlib.contextmanager
def opened(*words: object, port: int | None = None) -> Iterator[Opened]:
    arguments = [str(word) for word in words]
    number = free_port() if port is None else port
    command = [sys.executable, "-m", "pytest_atomtrace.cli", "open", *arguments, "--port", str(number)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said = []
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line.rstrip("\n"))
            if line.startswith("serving"):
                break
        links = [line for line in said if line.startswith(ORIGIN) and "url=" in line]
        assert links, (said, process.stderr.read() if process.stderr else "")
        yield Opened(process, said, links[0])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)  # as a user ends it: its scratch directory goes too
        process.communicate()


def labels(events: list[dict[str, Any]]) -> int:
    return sum(event.get("cat") == "user_annotation" for event in events)


def test_a_step_is_served_as_a_slice_with_its_time_in_the_link(capture: Path) -> None:
    step = load_rank(capture / "rank_1" / NAME).steps[12]
    with opened(SLUG, "--rank", "rank_1", "--step", 12) as page:
        low_us, high_us = page.view_us
        # The step with a tenth of room on each side, on the clock of the events' ts.
        room_us = (step.last_ns - step.first_ns) / 10_000
        assert (low_us, high_us) == pytest.approx((step.first_ns / 1000 - room_us, step.last_ns / 1000 + room_us))
        assert page.said[0].startswith(f"rank_1 step 12 {step.label.text}, slice of steps 10 to 14")
        events = page.events()
        inside = [e for e in events if e["cat"] == "kernel" and low_us <= e["ts"] and e["ts"] + e["dur"] <= high_us]
        assert len(inside) == step.n_kernels
        assert labels(events) == 5
        assert page.end() == (0, "fetched; Perfetto has its own copy now\n")


def test_without_a_step_the_file_is_served_as_it_is(capture: Path) -> None:
    with opened(capture / "rank_0" / NAME) as page:
        assert "visStart" not in page.link
        assert page.ask()[2] == (capture / "rank_0" / NAME).read_bytes()
        assert page.end()[0] == 0


def test_the_whole_trace_can_be_opened_at_a_step(capture: Path) -> None:
    with opened(capture, "--step", 12, "--whole") as page:
        assert page.view_us[1] > page.view_us[0]
        assert labels(page.events()) == 31


def test_only_the_file_is_to_be_had_and_only_perfetto_may_read_it(capture: Path) -> None:
    with opened(capture) as page:
        path = urlsplit(page.url).path
        status, headers, body = page.ask("HEAD")
        size = (capture / "rank_0" / NAME).stat().st_size
        assert (status, headers["Access-Control-Allow-Origin"], body) == (200, ORIGIN, b"")
        assert int(headers["Content-Length"]) == size
        status, headers, _ = page.ask("OPTIONS", Access_Control_Request_Private_Network="true")
        assert (status, headers["Access-Control-Allow-Private-Network"]) == (204, "true")
        assert headers["Access-Control-Allow-Origin"] == ORIGIN
        folder = path.rpartition("/")[0]
        for other in ("/", folder, f"{folder}/", f"/{NAME}", f"{folder}/../{NAME}", f"{path}/", "/etc/passwd"):
            assert page.ask(path=other)[0] == 404, other
        assert page.ask("POST")[0] == 501
        # A page of another name that was made to point to loopback.
        assert page.ask(Host="evil.example")[0] == 403
        assert page.process.poll() is None, "nothing of that was a fetch"
        assert page.ask(Origin="https://evil.example")[1]["Access-Control-Allow-Origin"] == ORIGIN
        assert page.end()[0] == 0


def test_every_link_has_a_path_of_its_own(capture: Path) -> None:
    with opened(capture) as one, opened(capture) as two:
        assert urlsplit(one.url).path != urlsplit(two.url).path
        assert len(urlsplit(one.url).path.split("/")[1]) >= 16


def test_a_fetch_that_breaks_off_does_not_end_it(capture: Path) -> None:
    big = capture / "rank_0" / NAME
    with gzip.open(big, "wb", 0) as stream:  # larger than what the kernel takes without a reader
        stream.write(b'{"traceEvents": [], "pad": "' + b"x" * 30_000_000 + b'"}')
    with opened(big) as page:
        with socket.create_connection(("127.0.0.1", urlsplit(page.url).port or 0)) as browser:
            browser.sendall(f"GET {urlsplit(page.url).path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            browser.recv(1000)
        assert page.ask("HEAD")[0] == 200
        assert page.process.poll() is None
        assert len(page.ask()[2]) == big.stat().st_size
        assert page.end()[0] == 0


def test_a_port_that_is_taken_is_named(atomtrace: Callable[..., Result], capture: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = atomtrace("open", capture, "--port", port)
    assert (result.code, result.out) == (2, "")
    assert f"--port: port {port} of 127.0.0.1 is taken" in result.err
    assert result.err.count("\n") == 1


def test_nobody_comes(atomtrace: Callable[..., Result], capture: Path) -> None:
    result = atomtrace("open", capture, "--port", free_port(), "--timeout", "200 ms")
    assert result.code == 1
    assert result.err == "atomtrace open: nobody fetched it within 0.2 s\n"


def test_an_interrupt_ends_it_without_a_trace(capture: Path) -> None:
    with opened(capture, "--step", 3) as page:
        page.process.send_signal(signal.SIGINT)
        code, err = page.end()
        assert (code, err) == (130, "")


def test_another_port_than_perfettos_is_warned_about_and_json_has_everything(
    atomtrace: Callable[..., Result], capture: Path
) -> None:
    port = free_port()
    plain = atomtrace("open", capture, "--port", port, "--timeout", "50 ms")
    assert f"{ORIGIN} refuses to fetch from another port than 9001" in plain.out
    result = atomtrace("open", capture, "--step", 4, "--port", port, "--timeout", "50 ms", "--json")
    answer = result.json
    assert answer["link"].startswith(f"{ORIGIN}/#!/?url=http://127.0.0.1:{port}/")
    assert (answer["command"], answer["rank"], answer["step"], len(answer["view_ns"])) == ("open", "rank_0", 4, 2)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("modle-tp2-isl64-osl64-conc4", f"Did you mean {SLUG}?"),
        ("model", f"is a part of {SLUG}, {SLUG}-x2; name one"),
        ("nowhere/at/all", "is neither a path nor a case of .atomtrace/latest"),
        (f"{SLUG}/rank_9", "is neither a path nor a case"),
    ],
)
def test_a_target_that_means_nothing_or_much(
    atomtrace: Callable[..., Result], capture: Path, target: str, says: str
) -> None:
    add_case(capture.parents[2], f"{SLUG}-x2")
    result = atomtrace("open", target)
    assert result.code == 2
    assert says in result.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--step", "31"], "there is no step 31 in"),
        (["--rank", "rank_7"], "no rank 'rank_7' in"),
        (["--step", "x"], "'x' is no number of a step"),
        (["--timeout", "5"], "is not a duration"),
        (["--port", "70000"], "'70000' is no port"),
    ],
)
def test_wrong_usage_is_one_line(atomtrace: Callable[..., Result], capture: Path, words: list[str], says: str) -> None:
    result = atomtrace("open", capture, *words)
    assert (result.code, result.out) == (2, "")
    assert says in result.err
    assert result.err.count("\n") == 1


def test_without_any_run_that_is_said(
    atomtrace: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "there is no run in .atomtrace to look for a case in" in atomtrace("open", SLUG).err


def test_of_a_capture_that_was_not_kept_the_slice_opens_under_the_same_words(
    atomtrace: Callable[..., Result], capture: Path
) -> None:
    rank = load_rank(capture / "rank_1" / NAME, rank="rank_1")
    place = capture.parents[2] / "slices" / SLUG / "1"
    made = write_slice(rank, [12], place)
    assert made is not None
    view = (rank.steps[12].first_ns, rank.steps[12].last_ns)
    drop_capture(capture, why="--atom-keep=none")
    for target in (SLUG, capture, os.path.relpath(capture)):
        with opened(target, "--rank", "rank_1", "--step", 12) as page:
            assert page.view_us[0] < view[0] / 1000 < view[1] / 1000 < page.view_us[1]
            assert page.ask()[2] == made.path.read_bytes()
            assert page.end()[0] == 0
    result = atomtrace("open", SLUG, "--step", 20)
    assert "rank_1 has steps 10, 11, 12, 13, 14 (a slice)" in result.err
