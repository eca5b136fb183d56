"""Starts the simulator as a user would: a process with arguments and an environment, driven over HTTP."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
DEEPSEEK = ("--model", "deepseek-ai/DeepSeek-V4-Pro")
GPT_OSS = ("--model", "openai/gpt-oss-120b")
TOKEN = "ATOMTRACE_TEST_TOKEN"


@dataclass
class Sim:
    """One started server and what a test asks it."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    token: str

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text()

    @property
    def traces(self) -> Path:
        return self.folder / "traces"

    def call(
        self, path: str, body: object = None, *, method: str | None = None, timeout: float = 20
    ) -> tuple[int, Any]:
        """Status and decoded JSON (text where it is none)."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        verb = method or ("POST" if "profile" in path or body is not None else "GET")
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data, method=verb)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                status, raw = reply.status, reply.read()
        except urllib.error.HTTPError as error:
            with error:
                status, raw = error.code, error.read()
        try:
            return status, json.loads(raw)
        except ValueError:
            return status, raw.decode()

    def load(self, requests: int, tokens: int, words: int = 32) -> list[tuple[int, Any]]:
        """``requests`` streamed completions at once."""
        body = {"prompt": "word " * words, "max_tokens": tokens, "stream": True, "ignore_eos": True}
        with ThreadPoolExecutor(requests) as pool:
            return list(pool.map(lambda _: self.call("/v1/completions", body), range(requests)))

    def window(self, requests: int = 4, tokens: int = 24, words: int = 32) -> Any:
        """Start, load, stop; the stop's answer."""
        assert self.call("/start_profile") == (200, {"status": "success", "message": "Profiling started"})
        self.load(requests, tokens, words)
        return self.call("/stop_profile")

    def wait_files(self, count: int, timeout: float = 15) -> list[Path]:
        """The gz files once there are ``count`` and no json is left."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            done = sorted(self.traces.rglob("*.pt.trace.json.gz"))
            if len(done) >= count and not list(self.traces.rglob("*.pt.trace.json")):
                return done
            time.sleep(0.02)
        raise AssertionError(f"no {count} trace files: {sorted(self.traces.rglob('*'))}\n{self.log[-3000:]}")

    def wait_log(self, text: str, timeout: float = 10) -> None:
        deadline = time.monotonic() + timeout
        while text not in self.log:
            assert time.monotonic() < deadline, f"{text!r} never came:\n{self.log[-3000:]}"
            time.sleep(0.02)

    def survivors(self) -> list[int]:
        """Processes that carry this server's token in their environment."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(TOKEN) == self.token and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(20)


def read_trace(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    return data


class Starter:
    """Starts servers below one folder and ends what tests leave."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sims: list[Sim] = []

    def __call__(self, *argv: str, ready: bool = True, profiler: bool = True, **controls: object) -> Sim:
        folder = self._folder / uuid.uuid4().hex[:8]
        folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        token = uuid.uuid4().hex
        settings = {"LAYERS": "4", **{name.upper(): str(value) for name, value in controls.items()}}
        env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("ATOMTRACE_SIM_")},
            **{f"ATOMTRACE_SIM_{key}": value for key, value in settings.items() if not key.startswith("ATOM_")},
            **{key: value for key, value in settings.items() if key.startswith("ATOM_")},
            "PYTHONPATH": str(ROOT),
            TOKEN: token,
        }
        command = [sys.executable, "-m", "pytest_atomtrace.simulator", "--server-port", str(port), *argv]
        if profiler:
            command += ["--torch-profiler-dir", str(folder / "traces")]
        with (folder / "server.log").open("wb") as log:
            process = subprocess.Popen(command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        sim = Sim(process, port, folder, token)
        self._sims.append(sim)
        if ready:
            self.wait_ready(sim)
        return sim

    @staticmethod
    def wait_ready(sim: Sim) -> None:
        deadline = time.monotonic() + 20
        while True:
            assert sim.process.poll() is None, sim.log
            assert time.monotonic() < deadline, sim.log
            try:
                sim.call("/v1/models", timeout=2)
            except OSError:
                time.sleep(0.02)
            else:
                return

    def end(self) -> None:
        for sim in self._sims:
            for pid in {sim.process.pid, *sim.survivors()}:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            sim.process.wait(10)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    starter = Starter(tmp_path)
    yield starter
    starter.end()


@dataclass
class Captured:
    """One window of DeepSeek-V4-Pro on two ranks with six layers: the server and its traces by rank."""

    sim: Sim
    stop: tuple[int, Any]
    traces: dict[str, dict[str, Any]]


@pytest.fixture(scope="session")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captured]:
    starter = Starter(tmp_path_factory.mktemp("simulator"))
    sim = starter(*DEEPSEEK, "-tp", "2", layers=6, seed=7)
    sim.load(2, 4)
    stop = sim.window(requests=8, tokens=40, words=64)
    files = sim.wait_files(2)
    yield Captured(sim, stop, {file.parent.name: read_trace(file) for file in files})
    starter.end()


@pytest.fixture(scope="session")
def run_main() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the simulator's command line to its end."""

    def run(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pytest_atomtrace.simulator", *argv],
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            capture_output=True,
            text=True,
            timeout=30,
        )

    return run
