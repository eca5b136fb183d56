"""A rig for captures on the simulator: short deadlines, own lock directory, a look for what was left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.capture.identity import environ_holders
from pytest_atomtrace.capture.locks import HostLock
from pytest_atomtrace.capture.session import CaptureSession, RunInfo
from pytest_atomtrace.cases.case import Case
from pytest_atomtrace.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).parents[2]
RUN_TOKEN = "ATOMTRACE_RUN_TOKEN"


def small_case(**fields: object) -> Case:
    """A case that the simulator captures in a second."""
    return Case(
        **{"model": "deepseek-ai/DeepSeek-V4-Pro", "tp": 2, "isl": 64, "osl": 16, "conc": 4, **fields}  # type: ignore[arg-type]
    )


def wait_for(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Poll until `condition` holds; fail naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


@dataclass
class Owner:
    """A process with a capture session of its own (see owner.py)."""

    process: subprocess.Popen[str]
    output: Path

    @property
    def text(self) -> str:
        return self.output.read_text()

    def says(self, word: str, *, seconds: float = 15) -> None:
        wait_for(lambda: word in self.text, seconds=seconds, what=f"{word!r} in {self.text!r}")


@dataclass
class Rig:
    """Everything of one test: a directory, a run token, sessions in this process and owners in others."""

    tmp_path: Path
    monkeypatch: pytest.MonkeyPatch
    token: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex}")
    lines: list[str] = field(default_factory=list)
    sessions: list[CaptureSession] = field(default_factory=list)
    owners: list[Owner] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return Settings(
            backend="sim",
            lock_dir=str(self.tmp_path / "locks"),
            lock_timeout=20.0,
            start_timeout=20.0,
            stall_timeout=20.0,
            workload_timeout=10.0,
            export_timeout=5.0,
            stop_timeout=1.0,
        )

    @property
    def run_dir(self) -> Path:
        return self.tmp_path / "output" / "runs" / "one"

    @property
    def lock_file(self) -> Path:
        return self.tmp_path / "locks" / "gpus.lock"

    def sim(self, **controls: object) -> None:
        """Set control variables of the simulator."""
        for name, value in controls.items():
            self.monkeypatch.setenv(f"ATOMTRACE_SIM_{name}", str(value))

    def session(self, worker: str = "main", watch: tuple[int, ...] = (), **settings: object) -> CaptureSession:
        return self.session_with(settings, worker=worker, watch=watch)

    def session_with(
        self, settings: Mapping[str, object], *, worker: str = "main", watch: tuple[int, ...] = ()
    ) -> CaptureSession:
        run = RunInfo(self.token, self.run_dir, worker, (os.getpid(), *watch), ci=False)
        chosen = self.settings.replace(**settings)
        session = CaptureSession(chosen, run, progress=self.lines.append)
        self.sessions.append(session)
        return session

    def owner(
        self,
        *cases: Case,
        run: str = "one",
        watch: tuple[int, ...] = (),
        new_group: bool = False,
        **settings: object,
    ) -> Owner:
        """Start another process that obtains `cases` one after the other, each as if it were a run's only need."""
        order = {
            "settings": {**self.settings.as_dict(), **settings},
            "cases": [case.as_dict() for case in cases],
            "run": self.token,
            "run_dir": str(self.tmp_path / "output" / "runs" / run),
            "watch": list(watch),
        }
        output = self.tmp_path / f"owner-{len(self.owners)}.txt"
        with output.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.capture.owner", json.dumps(order)],
                cwd=ROOT,
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=new_group,
            )
        owner = Owner(process, output)
        self.owners.append(owner)
        return owner

    def ledger(self) -> list[dict[str, object]]:
        path = self.tmp_path / "ledger.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def launches(self) -> int:
        return sum(row["event"] == "start" for row in self.ledger())

    def survivors(self) -> list[int]:
        owners = {owner.process.pid for owner in self.owners}
        return [pid for pid in environ_holders(RUN_TOKEN, self.token) if pid not in owners]

    def lease_is_free(self) -> bool:
        if not self.lock_file.exists():
            return True
        lock = HostLock(self.lock_file)
        free = lock.try_acquire({"test": "is it free"})
        lock.release()
        return free

    def assert_nothing_left(self, *, seconds: float = 0.0) -> None:
        wait_for(lambda: not self.survivors(), seconds=seconds, what="no process with our run token lives")
        wait_for(self.lease_is_free, seconds=seconds, what="the lease is free")
        queue = self.tmp_path / "locks" / "gpus.queue"
        assert not queue.exists() or not list(queue.iterdir())


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    rig = Rig(tmp_path, monkeypatch)
    rig.sim(LAYERS=2, SEED=1, LEDGER=tmp_path / "ledger.jsonl")
    yield rig
    for session in rig.sessions:
        session.close()
    for owner in rig.owners:
        if owner.process.poll() is None:
            owner.process.kill()
        owner.process.wait()
    wait_for(lambda: not rig.survivors(), seconds=15, what=f"processes {rig.survivors()} are gone")
