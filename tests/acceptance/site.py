"""A folder with a spec, a lock directory and a ledger of its own, and pytest runs in it as real processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.acceptance.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["HELD", "Done", "Running", "Site", "holders", "wait_until"]

# The machine may be busy; a test that hangs must end all the same.
PATIENCE_S = 90.0
HELD = "waiting for the GPUs: held by somebody, pid 4242 (their test), since 00:00"
NOISE = ("INTERNALERROR", "Exception ignored", "PytestUnraisable", "PytestUnhandled")
_FOREIGN_INTERRUPT = re.compile(r"Exception ignored .*?^KeyboardInterrupt", re.DOTALL | re.MULTILINE)


def wait_until(true: Callable[[], object], *, what: str, timeout_s: float = PATIENCE_S) -> float:
    """Seconds until `true` held; AssertionError when it did not."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < timeout_s, f"{what}: not within {timeout_s:g} s"
        time.sleep(0.02)
    return time.monotonic() - start


def holders(text: str) -> set[int]:
    """Live processes (not this one) whose environment was started with the line `text`."""
    found = set()
    for place in Path("/proc").iterdir():
        if not place.name.isdecimal() or int(place.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            state = (place / "stat").read_text().rpartition(")")[2].split()[0]
            if state not in "ZX" and text.encode() in (place / "environ").read_bytes().split(b"\0"):
                found.add(int(place.name))
    return found


@dataclass
class Done:
    """A finished run of pytest."""

    code: int
    stdout: str
    stderr: str
    outcomes: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def noise(self) -> list[str]:
        """What no end of a run may show. (A second Ctrl-C does give pytest's own traceback on stderr.)"""
        said = self.stdout + self.stderr
        if self.code == -signal.SIGINT:
            # One that comes while the interpreter shuts down hits whoever is in turn; ours is only what our code did.
            said = _FOREIGN_INTERRUPT.sub(lambda found: found[0] if "pytest_atomtrace" in found[0] else "", said)
        found = [mark for mark in NOISE if mark in said]
        return found + ["Traceback"] * ("Traceback (most recent" in self.stderr and self.code != -signal.SIGINT)


@dataclass
class Running:
    """A run of pytest in a session (so a process group) of its own, its two streams in files."""

    process: subprocess.Popen[bytes]
    stdout_path: Path
    stderr_path: Path
    junit_path: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stderr(self) -> str:
        return self.stderr_path.read_text(errors="replace")

    def wait_for_line(self, text: str) -> None:
        """Wait until standard error holds `text`."""
        wait_until(lambda: text in self.stderr or self.process.poll() is not None, what=f"{text!r} on stderr")
        assert text in self.stderr, (self.stdout_path.read_text(), self.stderr)

    def wait(self, *, timeout_s: float = PATIENCE_S) -> Done:
        """The end of the run."""
        code = self.process.wait(timeout_s)
        done = Done(code, self.stdout_path.read_text(errors="replace"), self.stderr)
        if self.junit_path.exists():
            for case in ET.parse(self.junit_path).iter("testcase"):
                name, tags = str(case.get("name")), [child.tag for child in case if child.tag != "properties"]
                done.outcomes[name] = ",".join(tags) or "passed"
                done.seconds[name] = float(case.get("time") or 0)
        return done


class Site:
    """`run` and `start` give a child pytest this site's lock directory and ledger and nothing inherited."""

    def __init__(self, folder: Path, *, locks: Path | None = None, ledger: Path | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
        self.locks = locks or folder / "locks"
        self.ledger = Ledger(ledger or folder / "ledger.jsonl")
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def token(self) -> str:
        """The line that every process of this site's runs has in its environment."""
        return f"ATOMTRACE_SIM_LEDGER={self.ledger.path}"

    @property
    def run_token(self) -> str:
        """The line that everything started for the latest run's captures has in its environment."""
        runs = [run for run in (self.store / "runs").iterdir() if run.name[0] != "."]
        return f"ATOMTRACE_RUN_TOKEN={max(runs, key=lambda run: run.stat().st_ctime_ns).name}"

    @property
    def store(self) -> Path:
        return self.folder / ".atomtrace"

    def write(self, text: str, name: str = "test_spec.py") -> None:
        (self.folder / name).write_text(text)

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        dropped = ("ATOMTRACE_", "PYTEST_", "COV_")
        env = {key: value for key, value in os.environ.items() if not key.startswith(dropped) and key != "CI"}
        env |= {"ATOMTRACE_SIM_LAYERS": "2", "ATOMTRACE_LOCK_DIR": str(self.locks), "PY_COLORS": "0"}
        env["ATOMTRACE_SIM_LEDGER"] = str(self.ledger.path)
        return env | dict(more)

    def start(
        self, *arguments: str, backend: str = "sim", env: Mapping[str, str] | None = None, python: str = ""
    ) -> Running:
        """Start ``python -m pytest`` here."""
        number = len(self._started) + 1
        junit = self.folder / f"junit-{number}.xml"
        out, err = (self.folder / f"{stream}-{number}.txt" for stream in ("stdout", "stderr"))
        argv = [python or sys.executable, "-m", "pytest", f"--junitxml={junit}", *arguments]
        argv += [f"--atom-backend={backend}"] * bool(backend)
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                argv,
                cwd=self.folder,
                env=self.environment(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self._started.append(process)
        return Running(process, out, err, junit)

    def run(self, *arguments: str, backend: str = "sim", env: Mapping[str, str] | None = None) -> Done:
        """Run pytest here to its end; it must leave no process and no noise."""
        done = self.start(*arguments, backend=backend, env=env).wait()
        assert not done.noise, (done.noise, done.stdout, done.stderr)
        wait_until(lambda: not self.survivors(), what=f"survivors of a finished run: {self.survivors()}")
        return done

    @contextlib.contextmanager
    def held_by_somebody(self) -> Iterator[None]:
        """Hold the lease as another user's run would."""
        self.locks.mkdir(exist_ok=True)
        with (self.locks / "gpus.lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.write('{"user": "somebody", "pid": 4242, "test": "their test", "since": "00:00"}')
            stream.flush()
            yield

    def survivors(self) -> set[int]:
        return holders(self.token)

    def close(self) -> None:
        """Kill what a failed test left; only processes with this site's token."""
        for pid in self.survivors():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._started:
            process.wait(PATIENCE_S)
