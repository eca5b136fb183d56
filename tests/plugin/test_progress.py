"""Live progress: one line that is kept up to date on a terminal, lines that stay elsewhere."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.capture.clock import Clock
from pytest_atomtrace.capture.progress import Progress
from pytest_atomtrace.settings import environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CLEAR = "\r\x1b[2K"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
SPEC = """
import pytest

@pytest.mark.atom_case(model="openai/gpt-oss-120b", osl=40, conc=[4, 2])
def test_it(atom_trace): pass
"""
STAGES = (
    "launching the server",
    "ready in",
    "warm-up:",
    "window 1:",
    "export: waiting for 1 rank",
    "captured 1 rank in",
)


class Hand:
    """The hand of a clock that stands where it is put."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.clock = Clock(monotonic_s=lambda: self.now_s)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_spec.py").write_text(SPEC)
    return tmp_path


def argv(folder: Path, *arguments: str) -> list[str]:
    options = ["--atom-backend=sim", f"--atom-lock-dir={folder / 'locks'}", "--atom-html=none"]
    return [sys.executable, "-m", "pytest", *options, *arguments]


def child_environment(**more: str) -> dict[str, str]:
    # PYTEST_ADDOPTS too: "-n 2" for the tests is none for their child, which then has no updating line.
    ours = ("NO_COLOR", "PY_COLORS", "CI", "COLUMNS", "PYTEST_ADDOPTS")
    env = {k: v for k, v in environment().items() if k not in ours}
    return {**env, "TERM": "xterm", "ATOMTRACE_SIM_LAYERS": "2", **more}


def on_a_terminal(folder: Path, *arguments: str, columns: int = 100, **env: str) -> str:
    """All that a terminal of this width is sent."""
    ours, theirs = os.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen(
            argv(folder, *arguments),
            cwd=folder, env=child_environment(**env), stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        seen = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux says so when the last writer is gone
                break
            if not piece:
                break
            seen += piece
        assert process.wait(60) == 0, seen
    finally:
        os.close(ours)
    return seen.decode()


def screen(text: str) -> list[str]:
    """The lines that stay: what follows the last return to a line's start."""
    return [COLOURS.sub("", line).rpartition(CLEAR)[2] for line in text.replace("\r\n", "\n").split("\n")]


def shown(text: str) -> list[str]:
    """Each state of the line that is kept up to date."""
    return [piece for line in text.replace("\r\n", "\n").split("\n") for piece in line.split(CLEAR)]


def test_a_terminal_has_one_line_that_says_what_for_how_long_and_until_when(folder: Path) -> None:
    text = on_a_terminal(folder, ATOMTRACE_SIM_FAULT="late_ready:1.5")
    ours = [line for line in screen(text) if line.startswith("atomtrace [")]
    assert [re.sub(r".*\] |\d.*", "", line) for line in ours] == ["captured ", "captured "]
    states = shown(text)
    waiting = [one for one in states if "launching the server, " in one]
    assert len(waiting) > 2
    assert all(re.search(r"launching the server, \d+\.\d s of 45 min: ", one) for one in waiting)
    assert any("export: waiting for 1 rank" in one for one in states)
    assert any("stopping the server" in one for one in states)
    assert not any("atomtrace [" in line for line in screen(text)[-6:])


def test_the_line_never_wraps(folder: Path) -> None:
    text = on_a_terminal(folder, "--color=no", columns=60)
    assert not COLOURS.search(text)
    states = shown(text)
    ours = [one for one in states if one.startswith("atomtrace [") and "captured" not in one]
    assert ours
    assert max(map(len, ours)) == 59


@pytest.mark.parametrize("terminal", [True, False])
def test_several_workers_write_lines_that_stay(folder: Path, terminal: bool) -> None:
    text = on_a_terminal(folder, "-n", "2") if terminal else piped(folder, "-n", "2")
    check_lines(text)


def piped(folder: Path, *arguments: str, **env: str) -> str:
    done = subprocess.run(
        argv(folder, *arguments), cwd=folder, env=child_environment(**env), capture_output=True, text=True, check=True
    )
    return done.stdout + done.stderr


def check_lines(text: str) -> None:
    assert CLEAR not in text
    lines = text.replace("\r\n", "\n").split("\n")
    for stage in STAGES:
        assert sum(stage in line for line in lines if line.startswith("atomtrace [")) in (1, 2), (stage, text)


@pytest.mark.parametrize("arguments", [(), ("-q",), ("-s",), ("-v",)])
def test_a_log_has_a_line_for_each_stage(folder: Path, arguments: Sequence[str]) -> None:
    check_lines(piped(folder, *arguments))


def test_a_dumb_terminal_is_a_log(folder: Path) -> None:
    text = on_a_terminal(folder, TERM="dumb", NO_COLOR="1")
    check_lines(text)
    assert not COLOURS.search(text)


def test_a_long_stage_is_told_every_half_minute_with_its_limit() -> None:
    hand, lines = Hand(), list[str]()
    progress = Progress(lines.append, "case", clock=hand.clock)
    progress.stage("launching the server (deadline 45 min)", name="launching the server", limit_s=2700.0)
    for second in range(1, 100):
        hand.now_s = 100.0 + second
        progress.update(f"line {second}")
    assert lines == [
        "atomtrace [case] launching the server (deadline 45 min)",
        "atomtrace [case] launching the server, 30.0 s of 45 min: line 30",
        "atomtrace [case] launching the server, 1 min of 45 min: line 60",
        "atomtrace [case] launching the server, 1 min 30 s of 45 min: line 90",
    ]


def test_a_stage_without_limit_is_named_up_to_its_colon() -> None:
    hand, lines = Hand(), list[str]()
    progress = Progress(lines.append, "case", clock=hand.clock)
    progress.stage("export: waiting for 8 ranks")
    hand.now_s += 31.0
    progress.update("3/8 ranks")
    progress.passing("nothing to log")
    assert lines[1:] == ["atomtrace [case] export, 31.0 s: 3/8 ranks"]


def test_a_live_line_ticks_and_only_results_stay() -> None:
    hand, stay, live = Hand(), list[str](), list[str]()
    progress = Progress(stay.append, "case", clock=hand.clock, show=live.append)
    progress.stage("warm-up: 4 requests", limit_s=1800.0)
    for _ in range(10):
        hand.now_s += 0.1
        progress.update("1/4 requests done")
    progress.about("other").done("captured 1 rank in 2.0 s")
    assert stay == ["atomtrace [other] captured 1 rank in 2.0 s"]
    assert live[0] == "atomtrace [case] warm-up: 4 requests"
    assert 3 < len(live) < 8
    assert live[-1] == "atomtrace [case] warm-up, 0.9 s of 30 min: 1/4 requests done"


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("", r"waiting for this capture: worker gw\d of this run, pid \d+, takes it \(for test_two\.py::test_\w+\["),
        (
            ", server_args=['--level', '0']",
            r"waiting for the GPUs: held by worker gw\d of this run, pid \d+, which captures gpt-oss-120b-\S+, ",
        ),
    ],
    ids=["the same capture", "another server"],
)
def test_a_worker_that_waits_for_another_says_what_for_and_how_long(folder: Path, second: str, words: str) -> None:
    (folder / "test_spec.py").unlink()
    mark = "@pytest.mark.atom_case(model='openai/gpt-oss-120b', osl=40, conc=2{})\ndef {}(atom_trace): pass\n"
    (folder / "test_two.py").write_text("import pytest\n" + mark.format("", "test_a") + mark.format(second, "test_b"))
    env = {**environment(), "ATOMTRACE_SIM_READY_DELAY_S": "2"}
    done = subprocess.run(argv(folder, "-n", "2"), cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    lines = [line for line in done.stderr.splitlines() if "waiting for" in line and "export" not in line]
    assert len(lines) == 1, done.stderr
    assert re.search(
        words + r".*since \d\d:\d\d \(\d+\.\d s ago\)(; 1 before us in the queue)?; at most 3 h$", lines[0]
    ), lines
