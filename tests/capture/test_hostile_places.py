"""Captures on full disks, with lock files that are none, and at the addresses of IPv6."""

from __future__ import annotations

import re
import shutil
import socket
import socketserver
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.capture.session import CaptureSession, RunInfo
from pytest_atomtrace.errors import ExportError, LaunchError, LeaseError
from tests.capture.conftest import small_case
from tests.capture.test_attach import Foreign, foreign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.capture.conftest import Rig

__all__ = ["foreign"]  # a fixture


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB of which all but 600 kB are taken."""
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    argv = [str(mount), "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if mount is None or subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    (place / "fill").write_bytes(b"\0" * 2_400_000)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_an_export_to_a_full_disk_says_so_and_leaves_nothing_running(rig: Rig, small_disk: Path) -> None:
    rig.sim(LAYERS=20)
    case = small_case()
    run = RunInfo(rig.token, small_disk / "runs" / "one", "main", (), ci=False)
    session = CaptureSession(rig.settings, run, progress=rig.lines.append)
    rig.sessions.append(session)
    with pytest.raises(ExportError, match=r"2 ranks did not export, the export failed: ") as failed:
        session.obtain(case, needed=[case], test_id="t")
    assert re.search(rf"The disk of {small_disk}/\S+ has .+ left\.", failed.value.hint)
    assert any("No space left on device" in line for line in failed.value.evidence)
    rig.assert_nothing_left()
    assert not [path for path in small_disk.rglob(".*") if path.is_file()], "half-written files"


@pytest.mark.parametrize("kind", ["directory", "link to nowhere"])
def test_a_lock_that_is_no_file_is_a_lease_error_that_names_it(rig: Rig, kind: str) -> None:
    rig.lock_file.parent.mkdir()
    if kind == "directory":
        rig.lock_file.mkdir()
    else:
        rig.lock_file.symlink_to("/nowhere/at/all")
    case = small_case()
    with pytest.raises(LeaseError, match=rf"^the lock file {rig.lock_file} cannot be opened: "):
        rig.session().obtain(case, needed=[case], test_id="t")
    assert rig.launches() == 0
    assert not rig.survivors()


def test_garbage_in_locks_and_tickets_of_earlier_versions_is_no_obstacle(rig: Rig) -> None:
    queue = rig.lock_file.parent / "gpus.queue"
    queue.mkdir(parents=True)
    rig.lock_file.write_bytes(b"\x00\xff{]" * 50)
    (queue / "1-999999-1").write_text('{"wants": 5}')
    (queue / "2-1-1").write_bytes(b"\xff\xfe")
    (queue / "a directory").mkdir()
    case = small_case()
    assert rig.session().obtain(case, needed=[case], test_id="t").ranks
    (queue / "a directory").rmdir()
    rig.assert_nothing_left()


class _Forward(socketserver.BaseRequestHandler):
    """Passes bytes on to a port of 127.0.0.1."""

    def handle(self) -> None:
        port: int = self.server.target  # type: ignore[attr-defined]
        with socket.create_connection(("127.0.0.1", port)) as there:
            back = threading.Thread(target=self._pump, args=(there, self.request))
            back.start()
            self._pump(self.request, there)
            back.join()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return


class _Server6(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
    target = 0


@pytest.fixture
def door(foreign: Callable[..., Foreign]) -> Iterator[tuple[Foreign, str]]:
    """A server, and the URL of something else that listens for it."""
    server = foreign("-tp", "2")
    try:
        door = _Server6(("::1", 0), _Forward)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    door.target = server.port
    thread = threading.Thread(target=door.serve_forever, daemon=True)
    thread.start()
    yield server, f"http://[::1]:{door.server_address[1]}"
    door.shutdown()
    thread.join()
    door.server_close()


def test_a_server_at_an_address_of_ipv6_is_captured(rig: Rig, door: tuple[Foreign, str]) -> None:
    server, url = door
    case = small_case()
    settings = server.settings(attach=url, attach_log=str(server.log))
    capture = rig.session_with(settings).obtain(case, needed=[case], test_id="t")
    assert list(capture.ranks) == ["rank_0", "rank_1"]
    assert (rig.tmp_path / "locks" / f"attach-127.0.0.1-{url.rpartition(':')[2]}.lock").exists()
    assert server.process.poll() is None


def test_the_log_of_a_server_that_a_proxy_started_is_not_taken_for_the_one_behind_it(
    rig: Rig, door: tuple[Foreign, str]
) -> None:
    server, url = door
    case = small_case()
    with pytest.raises(LaunchError, match=r"is of one at port \d+: (.|\n)*--atom-attach-log=FILE"):
        rig.session_with(server.settings(attach=url)).obtain(case, needed=[case], test_id="t")
    assert server.files == set()
