"""However a run is killed, and whenever: within 20 seconds nothing of it is left and the next run works."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.site import HELD, holders, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.acceptance.site import Running, Site

LIMIT_S = 20.0

SPEC = """
import pytest

pytestmark = pytest.mark.atom_case(model="openai/gpt-oss-120b", isl=16, osl=36, conc=2)

def test_gemms(atom_trace): atom_trace.assert_kernel_called("mfma_moe1_*", during="decode", per_step=2)
def test_router(atom_trace): atom_trace.assert_kernel_called("topkGatingSoftmax", during="decode", per_step=2)
"""

STAGES = {
    "waiting": {},
    "loading": {"ATOMTRACE_SIM_READY_DELAY_S": "120"},
    "window": {"ATOMTRACE_SIM_STEP_MS": "100"},
    "export": {"ATOMTRACE_SIM_FAULT": "slow_rank:0:120"},
}
WHO = ("alone", "controller", "worker")


@dataclass(frozen=True)
class Process:
    """A pid and its start time, so that a reused pid is not taken for a survivor."""

    pid: int
    start: str

    @property
    def alive(self) -> bool:
        fields = _stat(self.pid)
        return bool(fields) and fields[0] not in "ZX" and fields[19] == self.start


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; empty for a process that is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _children(pid: int) -> list[int]:
    return [
        int(place.name)
        for place in Path("/proc").iterdir()
        if place.name.isdecimal() and (_stat(int(place.name)) or ["", "-1"])[1] == str(pid)
    ]


def _tree(pid: int) -> list[Process]:
    found, queue = [], [pid]
    while queue:
        now = queue.pop()
        fields = _stat(now)
        if fields:
            found.append(Process(now, fields[19]))
            queue += _children(now)
    return found


def kill_nine(pid: int, *, group: bool) -> None:  # noqa: ARG001  # same shape as a Ctrl-C
    os.kill(pid, signal.SIGKILL)


def terminate(pid: int, *, group: bool) -> None:  # noqa: ARG001  # same shape as a Ctrl-C
    os.kill(pid, signal.SIGTERM)


def interrupt_twice(pid: int, *, group: bool) -> None:
    """As a terminal does it: to the foreground process group."""
    send = os.killpg if group else os.kill
    send(pid, signal.SIGINT)
    time.sleep(0.5)
    with contextlib.suppress(ProcessLookupError):
        send(pid, signal.SIGINT)


KILLS: dict[str, Callable[..., None]] = {
    "kill -9": kill_nine,
    "SIGTERM": terminate,
    "double Ctrl-C": interrupt_twice,
}


def matrix() -> Iterator[object]:
    """All of it; a third, in which each pair of two things occurs, runs by default."""
    for (i, kill), (j, who), (k, stage) in itertools.product(enumerate(KILLS), enumerate(WHO), enumerate(STAGES)):
        marks = () if (i + j + k) % len(WHO) == 0 else (pytest.mark.slow,)
        yield pytest.param(kill, who, stage, id=f"{kill}, {who}, {stage}".replace(" ", "_"), marks=marks)


def reach(site: Site, run: Running, stage: str) -> None:
    """Wait until `run` is in `stage`, by what it says and by the ledger."""
    said = {
        "waiting": HELD,
        "loading": "launching the server",
        "window": "window 1:",
        "export": "export: waiting for 1 rank",
    }
    run.wait_for_line(said[stage])
    if stage == "loading":
        wait_until(lambda: site.ledger.launches, what="a simulator process")
    if stage == "export":
        wait_until(lambda: any(server.stops for server in site.ledger.servers), what="the end of the window")
    time.sleep(0.3)


def victim_of(site: Site, run: Running, who: str, stage: str) -> int:
    """The pid to kill: of workers the one whose keeper has the server, or is first in the queue."""
    if who != "worker":
        return run.pid
    if stage == "waiting":
        wait_until(lambda: any(map(_children, _children(run.pid))), what="a keeper")
        return next(pid for pid in _children(run.pid) if _children(pid))
    (server,) = site.ledger.servers
    worker = _parent(_parent(server.pid))
    assert _parent(worker) == run.pid
    return worker


@pytest.mark.parametrize(("kill", "who", "stage"), list(matrix()))
def test_nothing_is_left_and_the_next_run_works(
    site: Site, kill: str, who: str, stage: str, request: pytest.FixtureRequest
) -> None:
    site.write(SPEC)
    with site.held_by_somebody() if stage == "waiting" else contextlib.nullcontext():
        run = site.start("-v", *(() if who == "alone" else ("-n", "2")), env=STAGES[stage])
        reach(site, run, stage)
        victim = victim_of(site, run, who, stage)
        # A distributed run survives its worker and goes on with the others (after an interrupt the worker's own
        # process idles until that run ends); what the worker had started must go at once.
        ours = _tree(victim)[1:]
        left = (lambda: any(process.alive for process in ours)) if who == "worker" else site.survivors
        marked = holders(site.run_token)
        assert marked
        assert run.pid not in marked
        start = time.monotonic()
        KILLS[kill](victim, group=who != "worker")
        wait_until(lambda: not left(), what="survivors", timeout_s=LIMIT_S + 30)
        seconds = time.monotonic() - start
    done = run.wait()
    request.node.user_properties += [("seconds", f"{seconds:.1f}"), ("exit code", done.code)]
    assert seconds < LIMIT_S
    if who == "worker" and stage != "waiting":
        # The dead worker's item and the one that waited for the same capture: nothing was judged.
        assert set(done.outcomes.values()) == {"error"}, (done.outcomes, done.stdout)
    assert not done.noise, (done.noise, done.stdout, done.stderr)
    wait_until(lambda: not site.survivors(), what=f"survivors after the end: {site.survivors()}", timeout_s=LIMIT_S)
    assert not holders(site.run_token)
    following = site.run("-q")
    assert following.code == pytest.ExitCode.OK, (following.stdout, following.stderr)
    assert "waiting for the GPUs" not in following.stderr


def test_a_stubborn_server_and_its_stray_child_go_too(site: Site) -> None:
    """The server ignores signals and has started a process in a session of its own."""
    site.write(SPEC)
    faults = {"ATOMTRACE_SIM_FAULT": "ignore_sigterm,leak_process", **STAGES["window"]}
    run = site.start("-q", env=faults)
    reach(site, run, "window")
    kill_nine(run.pid, group=True)
    assert wait_until(lambda: not site.survivors(), what="survivors") < LIMIT_S
    assert run.wait().code == -signal.SIGKILL
    assert site.run("-q").code == pytest.ExitCode.OK
