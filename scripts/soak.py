"""Take many captures in one process and count what they leave: `python scripts/soak.py [CAPTURES] [-n WORKERS]`.

Each capture is a launch of its own on the simulator. A row is printed after every tenth of them. After the first
tenth (at least 3) the process is warm; from there to the end file descriptors, children and threads must not grow,
the resident set by less than 10 %, and no lock, ticket, temporary file, port or process may be left. With `-n` the
captures are items of one pytest run under pytest-xdist. Exit status 1 if anything is left.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

from pytest_atomtrace.capture.http import port_is_taken
from pytest_atomtrace.capture.identity import descendants, environ_holders, process_table
from pytest_atomtrace.capture.locks import HostLock
from pytest_atomtrace.capture.session import CaptureSession, RunInfo
from pytest_atomtrace.cases.case import Case
from pytest_atomtrace.settings import Settings

LIMIT = 1000
# A run that takes longer than this a capture hangs; a launch and a window of the simulator take one second.
SECONDS_A_CAPTURE = 30
GROWTH = 1.10
PARTIAL = re.compile(r"\.(part|tmp|lock~)$|^\.")
MODEL = "deepseek-ai/DeepSeek-V4-Pro"
SPEC = """
import pytest

@pytest.mark.atom_case(model={model!r}, tp=2, isl=64, osl=16, conc=4, server_args={arguments!r})
def test_{number}(atom_trace):
    atom_trace.assert_kernel_called("*", during="decode")
"""


def case_of(number: int) -> Case:
    """A case with a server key of its own."""
    return Case(MODEL, tp=2, isl=64, osl=16, conc=4, server_args=("--max-num-seqs", str(300 + number)))


def figures() -> dict[str, int]:
    """What this process holds."""
    status = Path("/proc/self/status").read_text()
    resident = re.search(r"VmRSS:\s+(\d+) kB", status)
    return {
        "rss_kb": int(resident[1]) if resident else 0,
        "fds": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "children": len([row for row in descendants(os.getpid(), process_table()) if row.alive]),
        "threads": threading.active_count(),
    }


def print_row(number: int, seconds: float, now: dict[str, int]) -> None:
    """One row of the table."""
    print(f"{number:>8} {seconds:>8.0f} {now['rss_kb']:>8,}", end="")
    print(f" {now['fds']:>5} {now['children']:>9} {now['threads']:>8}", flush=True)


def temporary_files() -> set[str]:
    """What lies directly in the directories that programs leave things in."""
    return {str(path) for place in {tempfile.gettempdir(), "/dev/shm"} for path in Path(place).glob("*")}


def ports_of(ledger: Path) -> set[int]:
    """The ports that the servers of this soak were given."""
    return {int(json.loads(line)["port"]) for line in ledger.read_text().splitlines()} if ledger.exists() else set()


def sequential(count: int, folder: Path, token: str) -> list[str]:
    """`count` captures in this process; returns what is wrong."""
    settings = Settings(backend="sim", lock_dir=str(folder / "locks"), stop_timeout=5.0)
    run = RunInfo(token, folder / "runs" / "one", "main", (os.getpid(),), ci=False)
    session = CaptureSession(settings, run, progress=lambda _: None)
    warm_at = max(3, count // 10)
    warm: dict[str, int] = {}
    start = time.monotonic()
    print("captures  seconds   RSS kB   fds  children  threads", flush=True)
    for number in range(1, count + 1):
        case = case_of(number)
        session.obtain(case, needed=[case], test_id=f"soak::{number}")
        if number == warm_at:
            warm = figures()
        if number % max(1, count // 10) == 0 or number == count:
            print_row(number, time.monotonic() - start, figures())
    session.close()
    end = figures()
    print_row(count, time.monotonic() - start, end)
    problems = [
        f"{name} grew from {warm[name]} to {end[name]}"
        for name in ("fds", "children", "threads")
        if end[name] > warm[name]
    ]
    if end["rss_kb"] > warm["rss_kb"] * GROWTH:
        problems.append(f"the resident set grew from {warm['rss_kb']:,} to {end['rss_kb']:,} kB")
    return problems


def distributed(count: int, workers: int, folder: Path, token: str) -> list[str]:
    """`count` captures as items of one run of pytest; returns what is wrong."""
    specs = folder / "specs"
    specs.mkdir()
    for number in range(count):
        arguments = list(case_of(number).server_args)
        (specs / f"test_soak_{number}.py").write_text(SPEC.format(model=MODEL, number=number, arguments=arguments))
    (specs / "pytest.ini").write_text("[pytest]\n")
    argv = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "-p", "no:cacheprovider", "--rootdir", str(specs)]
    argv += ["--atom-backend=sim", f"--atom-lock-dir={folder / 'locks'}", f"--atom-output={folder / 'out'}", str(specs)]
    # PYTEST_ADDOPTS and the like of whoever runs this must not change it.
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    start = time.monotonic()
    done = subprocess.run(
        argv,
        env={**env, "SOAK_TOKEN": token},
        capture_output=True,
        text=True,
        timeout=count * SECONDS_A_CAPTURE,
        check=False,
    )
    last = (done.stdout.strip().splitlines() or ["nothing"])[-1]
    print(f"-n {workers}: {last} ({time.monotonic() - start:.0f} s)", flush=True)
    return [] if done.returncode == 0 else [f"pytest ended with {done.returncode}: {done.stdout[-2000:]}"]


def left_behind(folder: Path, name: str, token: str, ports: set[int]) -> list[str]:
    """Processes, locks, tickets, temporary files and ports that are still there."""
    problems = [f"process {pid} lives" for pid in environ_holders(name, token)]
    for path in (folder / "locks").rglob("*.lock"):
        lock = HostLock(path)
        if not lock.try_acquire({"test": "soak"}):
            problems.append(f"{path.name} is held")
        lock.release()
    problems += [f"ticket {path.name}" for path in (folder / "locks").glob("*.queue/*")]
    problems += [
        f"temporary file {path}"
        for path in folder.rglob("*")
        if path.is_file() and PARTIAL.search(path.name) and path.name != ".gitignore"
    ]
    problems += [f"trace directory {path}" for path in folder.glob("**/servers/*/launch-*/trace")]
    return problems + [f"port {port} is listened on" for port in sorted(ports) if port_is_taken(port)]


def main() -> int:
    """Run, and say what is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captures", nargs="?", type=int, default=200)
    parser.add_argument("-n", "--workers", type=int, default=0)
    options = parser.parse_args()
    if not 3 <= options.captures <= LIMIT:
        parser.error(f"captures: 3 to {LIMIT}")
    os.environ |= {"ATOMTRACE_SIM_LAYERS": "2", "ATOMTRACE_SIM_SEED": "1"}
    token = f"soak-{uuid.uuid4().hex}"
    before = temporary_files()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ledger = folder / "ledger.jsonl"
        os.environ["ATOMTRACE_SIM_LEDGER"] = str(ledger)
        if options.workers:
            problems = distributed(options.captures, options.workers, folder, token)
            problems += left_behind(folder, "SOAK_TOKEN", token, ports_of(ledger))
        else:
            problems = sequential(options.captures, folder, token)
            problems += left_behind(folder, "ATOMTRACE_RUN_TOKEN", token, ports_of(ledger))
    fresh = [Path(path) for path in sorted(temporary_files() - before)]
    # Others use these directories too: ours is what this user made and what names this project.
    problems += [f"temporary file {path}" for path in fresh if "atomtrace" in path.name]
    print("\n".join(problems) or f"{options.captures} captures, nothing left")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
