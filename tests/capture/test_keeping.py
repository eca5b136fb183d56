"""Runs under a size budget: traces of the oldest go first, and nothing that is in use is ever touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.capture.keeping import DROPPED, captures_of_case, drop_capture, hold_run, keep_under, tree_bytes
from pytest_atomtrace.capture.replay import list_captures

if TYPE_CHECKING:
    from pathlib import Path

TRACE_BYTES = 100_000
# Everything of a run that is no trace.
LIGHT_BYTES = 4_000
DEAD_PID = 4_194_304  # above the kernel's limit


def make_run(runs: Path, number: int, *, pid: int = DEAD_PID) -> Path:
    """A run with one capture of two ranks, a second launch, a slice, remains in quarantine, and reports."""
    run = runs / f"20260101-00000{number}-{pid}-ab{number:02d}"
    for base in (run, run / "launches" / "2"):
        capture = base / "captures" / "model-tp2" / "1"
        rows = {}
        for rank in ("rank_0", "rank_1"):
            (capture / rank).mkdir(parents=True)
            (capture / rank / "t.pt.trace.json.gz").write_bytes(b"t" * TRACE_BYTES)
            rows[rank] = {"file": f"{rank}/t.pt.trace.json.gz"}
        facts = {"schema": 1, "slug": "model-tp2", "ranks": rows, "expected_ranks": list(rows)}
        (capture / "manifest.json").write_text(json.dumps(facts))
        (capture / "server.log").write_text("ready\n")
        (capture / "bench.json").write_text("{}")
    (run / "slices" / "model-tp2" / "1" / "rank_0").mkdir(parents=True)
    (run / "slices" / "model-tp2" / "1" / "rank_0" / "steps-4-8.pt.trace.json.gz").write_bytes(b"s" * 900)
    (run / "quarantine" / "other-1" / "rank_0").mkdir(parents=True)
    (run / "quarantine" / "other-1" / "rank_0" / "t.pt.trace.json").write_bytes(b"q" * TRACE_BYTES)
    (run / "quarantine" / "other-1" / "reason.txt").write_text("ExportError: rank_0 orphaned\n")
    (run / "report.json").write_text("{}")
    (run / "in-use.lock").touch()
    return run


def files(run: Path) -> set[str]:
    return {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}


def test_a_dropped_capture_keeps_what_explains_it_and_is_no_capture_any_more(tmp_path: Path) -> None:
    run = make_run(tmp_path, 1)
    (first, second) = captures_of_case(run, "model-tp2")
    assert drop_capture(first, why="--atom-keep=failed") > 2 * TRACE_BYTES - 1000
    assert {path.name for path in first.iterdir()} == {DROPPED, "server.log", "bench.json"}
    facts = json.loads((first / DROPPED).read_text())
    assert (facts["dropped"], facts["slug"]) == ("--atom-keep=failed", "model-tp2")
    assert captures_of_case(run, "model-tp2") == [second]
    assert list_captures(run / "captures") == []


def test_within_the_budget_nothing_is_touched(tmp_path: Path) -> None:
    run = make_run(tmp_path, 1)
    before = files(run)
    freed = keep_under(tmp_path, tree_bytes(tmp_path), current="")
    assert (freed.stripped, freed.removed, freed.size_bytes) == ((), (), 0)
    assert files(run) == before


def test_traces_of_the_oldest_runs_go_first_and_their_reports_and_slices_stay(tmp_path: Path) -> None:
    oldest, middle, newest = (make_run(tmp_path, number) for number in (1, 2, 3))
    each = tree_bytes(oldest)
    freed = keep_under(tmp_path, 2 * each + LIGHT_BYTES, current=newest.name)
    assert (freed.stripped, freed.removed) == ((oldest.name,), ())
    assert freed.size_bytes > 5 * TRACE_BYTES - LIGHT_BYTES
    assert files(middle) == files(newest)
    assert {"report.json", "quarantine/other-1/reason.txt", f"captures/model-tp2/1/{DROPPED}"} <= files(oldest)
    assert "slices/model-tp2/1/rank_0/steps-4-8.pt.trace.json.gz" in files(oldest)
    assert not any(name.endswith(("/t.pt.trace.json.gz", "/t.pt.trace.json")) for name in files(oldest))


def test_what_is_left_of_the_oldest_goes_last_and_the_current_run_never(tmp_path: Path) -> None:
    oldest, middle, current = (make_run(tmp_path, number) for number in (1, 2, 3))
    before = files(current)
    freed = keep_under(tmp_path, 1000, current=current.name)
    assert (freed.stripped, freed.removed) == ((), (oldest.name, middle.name))
    assert {path.name for path in tmp_path.iterdir()} == {current.name}
    assert files(current) == before


def test_a_run_that_somebody_holds_is_left_alone_even_over_the_budget(tmp_path: Path) -> None:
    held, free = make_run(tmp_path, 1), make_run(tmp_path, 2)
    hold, second = hold_run(held), hold_run(held, reading=True)
    assert hold.held
    assert second.held
    before = files(held)
    hold.release()  # the second reader still reads
    freed = keep_under(tmp_path, 0, current="")
    assert freed.removed == (free.name,)
    assert files(held) == before
    second.release()
    assert keep_under(tmp_path, 0, current="").removed == (held.name,)


def test_a_hold_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    run = make_run(tmp_path, 1)
    program = "import sys, time; from pathlib import Path; from pytest_atomtrace.capture.keeping import hold_run\n"
    program += "hold = hold_run(Path(sys.argv[1])); print(hold.held, flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", program, str(run)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert keep_under(tmp_path, 0, current="").removed == ()
    finally:
        holder.kill()
        holder.communicate()
    assert keep_under(tmp_path, 0, current="").removed == (run.name,)


def test_a_run_whose_server_or_keeper_still_lives_is_left_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path, 1)
    env = {**os.environ, "ATOMTRACE_RUN_TOKEN": run.name}
    keeper = subprocess.Popen([sys.executable, "-c", "input()"], env=env, stdin=subprocess.PIPE)
    try:
        assert keep_under(tmp_path, 0, current="").removed == ()
    finally:
        keeper.communicate(b"\n")
    assert keep_under(tmp_path, 0, current="").removed == (run.name,)


@pytest.mark.parametrize(("pid", "gone"), [(os.getpid(), False), (DEAD_PID, True)], ids=["a live process", "none"])
def test_a_run_without_a_lock_file_is_judged_by_its_process(tmp_path: Path, pid: int, gone: bool) -> None:
    run = make_run(tmp_path, 1, pid=pid)
    (run / "in-use.lock").unlink()
    keep_under(tmp_path, 0, current="")
    assert run.exists() is not gone


def test_a_reader_leaves_no_lock_file_behind(tmp_path: Path) -> None:
    run = make_run(tmp_path, 1)
    (run / "in-use.lock").unlink()
    hold = hold_run(run, reading=True)
    assert not hold.held
    assert not (run / "in-use.lock").exists()


def test_two_that_tidy_up_at_once_do_not_fail(tmp_path: Path) -> None:
    for number in range(1, 8):
        make_run(tmp_path, number)
    program = "import sys; from pathlib import Path; from pytest_atomtrace.capture.keeping import keep_under\n"
    program += "keep_under(Path(sys.argv[1]), 0, current='')"
    running = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert list(tmp_path.iterdir()) == []
