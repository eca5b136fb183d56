"""What a run leaves on disk, by policy and budget: judged by the files after real runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace import load_trace
from pytest_atomtrace.capture.keeping import hold_run, tree_bytes

if TYPE_CHECKING:
    from tests.acceptance.site import Done, Site

# One launch. conc=2 passes, conc=3 fails, conc=4 has too few steps for its question, conc=5 was to fail and does.
SPEC = """
import pytest

@pytest.mark.atom_case(model="openai/gpt-oss-120b", tp=2, isl=16, osl=40, conc=[2, 3, 4, 5])
def test_case(atom_trace, request):
    conc = atom_trace.case.conc
    if conc == 5:
        request.applymarker(pytest.mark.xfail(reason="known"))
    atom_trace.assert_kernel_called("mfma_moe1_*", during="decode", per_step=3 if conc in (3, 5) else 2)
    if conc == 4:
        atom_trace.assert_step_time("decode", p99="1 s")
"""
OUTCOMES = ["error", "failure", "passed", "skipped"]
MODES = {"one process": (), "two workers": ("-n", "2")}


@pytest.fixture(params=list(MODES.values()), ids=list(MODES))
def mode(request: pytest.FixtureRequest) -> tuple[str, ...]:
    arguments: tuple[str, ...] = request.param
    return arguments


def run(site: Site, *arguments: str) -> Done:
    site.write(SPEC)
    done = site.run("-q", *arguments)
    assert sorted(done.outcomes.values()) == OUTCOMES, done.stdout
    return done


def kept(site: Site) -> set[str]:
    """Which cases (by their conc) of the latest run still have their traces."""
    traces = site.store.glob("latest/captures/*/1/rank_*/*.pt.trace.json.gz")
    return {path.parts[-4].rpartition("conc")[2] for path in traces}


def removed_line(done: Done) -> str:
    lines = [line for line in done.stdout.splitlines() if line.startswith("removed: ")]
    return lines[0] if lines else ""


def test_everything_stays_by_default_and_failures_have_a_slice(site: Site, mode: tuple[str, ...]) -> None:
    done = run(site, *mode)
    assert kept(site) == {"2", "3", "4", "5"}
    assert removed_line(done) == ""
    slices = {path.parts[-4].rpartition("conc")[2]: path for path in site.store.glob("latest/slices/*/1/*/*.json.gz")}
    assert set(slices) == {"3", "4", "5"}
    assert f"({len(slices)} files, " in done.stdout
    assert all(path.stat().st_size < 5_000_000 for path in slices.values())
    # The failure text names the step that is in the middle of its slice.
    (line,) = [line for line in done.stdout.splitlines() if "open      atomtrace open" in line]
    step = int(line.rpartition(" ")[2])
    assert slices["3"].name == f"steps-{step - 2}-{step + 2}.pt.trace.json.gz"
    rank = slices["3"].parent.name
    assert f"--rank {rank} " in line
    whole = load_trace(site.store / "latest" / "captures" / slices["3"].parts[-4] / "1").data.ranks[rank]
    part = load_trace(slices["3"].parent.parent).data.ranks[rank]
    assert [s.n_kernels for s in part.steps] == [s.n_kernels for s in whole.steps[step - 2 : step + 3]]


def test_only_what_did_not_simply_pass_stays_whole(site: Site, mode: tuple[str, ...]) -> None:
    done = run(site, *mode, "--atom-keep=failed")
    assert kept(site) == {"3", "4", "5"}
    assert removed_line(done).startswith("removed: traces of 1 case (")
    assert removed_line(done).endswith(" MB, --atom-keep=failed)")
    (dropped,) = site.store.glob("latest/captures/*conc2/1")
    assert {path.name for path in dropped.iterdir()} == {"bench.json", "dropped.json", "server.log"}
    # What stays can be judged again, what does not is skipped with words.
    replay = site.run("-q", "--atom-replay=.atomtrace/latest", "-rs", backend="")
    assert sorted(replay.outcomes.values()) == ["error", "failure", "skipped", "skipped"]
    assert "has no capture of gpt-oss-120b-tp2-isl16-osl40-conc2" in replay.stdout


def test_none_leaves_slices_of_failures_only(site: Site, mode: tuple[str, ...]) -> None:
    done = run(site, *mode, "--atom-keep=none")
    assert kept(site) == set()
    assert removed_line(done).startswith("removed: traces of 4 cases (")
    assert "--atom-replay" not in done.stdout
    assert len(list(site.store.glob("latest/slices/*/1/*/*.json.gz"))) == 3
    assert (site.store / "latest" / "report.json").is_file()


SEVERAL = """
import pytest

@pytest.mark.atom_case(model="openai/gpt-oss-120b", tp=2, isl=16, osl=40, conc=3, captures=3)
def test_every_window(atom_trace):
    # Three windows of one server: the first of them fails.
    atom_trace.assert_kernel_called("mfma_moe1_*", during="decode", per_step=3)
"""


def test_the_slice_is_of_the_window_that_failed(site: Site) -> None:
    site.write(SEVERAL)
    done = site.run("-q")
    assert set(done.outcomes.values()) == {"failure"}
    assert "Capture 1 of 3: " in done.stdout
    (path,) = site.store.glob("latest/slices/*/*/*/*.json.gz")
    (line,) = [line for line in done.stdout.splitlines() if "open      atomtrace open" in line]
    assert path.parts[-3] == "1"
    assert f"/{path.parts[-4]}/1 --rank {path.parts[-2]} " in line
    step = int(line.rpartition(" ")[2])
    assert path.name == f"steps-{step - 2}-{step + 2}.pt.trace.json.gz"


def test_what_a_failed_capture_left_stays_whole(site: Site) -> None:
    site.write(SPEC)
    done = site.run("-q", "--atom-keep=none", "-k", "conc2", env={"ATOMTRACE_SIM_FAULT": "export_error:1"})
    assert set(done.outcomes.values()) == {"error"}
    (reason,) = site.store.glob("runs/*/quarantine/*/reason.txt")
    assert "rank_1" in reason.read_text()
    assert list(reason.parent.glob("rank_0/*.json.gz"))
    assert removed_line(done) == ""


def test_older_runs_make_room_and_a_run_in_use_does_not(site: Site) -> None:
    site.write(SPEC)
    one_case = ("-q", "-k", "conc3")
    site.run(*one_case)
    first = (site.store / "latest").resolve()
    size = tree_bytes(first)
    site.run(*one_case)
    second = (site.store / "latest").resolve()
    hold = hold_run(first, reading=True)
    assert hold.held
    done = site.run(*one_case, f"--atom-keep-size={round(size * 1.5)} B")
    # The first is being read, so only the second could go, and it went as far as it must.
    assert removed_line(done).startswith("removed: ")
    assert "--atom-keep-size=" in removed_line(done)
    assert list(first.glob("captures/*/1/rank_0/*.json.gz"))
    assert not list(second.glob("captures/*/1/rank_0/*.json.gz"))
    assert kept(site) == {"3"}
    hold.release()
    last = site.run(*one_case, f"--atom-keep-size={round(size * 1.2)} B")
    assert removed_line(last)
    assert not list(first.glob("captures/*/1/rank_0/*.json.gz"))
    assert kept(site) == {"3"}, "never the run's own"


def test_a_run_that_was_broken_off_drops_nothing(site: Site) -> None:
    site.write(SPEC + "\n\ndef test_stop():\n    raise KeyboardInterrupt\n")
    done = site.run("-q", "--atom-keep=none", "--atom-keep-size=1 B")
    assert done.code == 2
    assert kept(site) == {"2", "3", "4", "5"}
    assert removed_line(done) == ""


def test_a_replay_writes_and_removes_nothing(site: Site) -> None:
    run(site)
    saved = site.folder / "saved"
    shutil.copytree((site.store / "latest").resolve(), saved)
    shutil.rmtree(site.store)
    before = {path: path.stat().st_size for path in saved.rglob("*") if not path.name.endswith(".index")}
    site.run("-q", "--atom-keep=none", "--atom-keep-size=1 B", f"--atom-replay={saved}", backend="")
    after = {path: path.stat().st_size for path in saved.rglob("*") if not path.name.endswith(".index")}
    assert after == before
    assert not site.store.exists()


def test_a_budget_needs_a_unit(site: Site) -> None:
    site.write(SPEC)
    done = site.run("--atom-keep-size=20")
    assert done.code == 4
    assert '\'20\' is not a size like "20 GB" or "512 MiB"; a bare number has no unit' in done.stderr
    assert not Path(site.store).exists()
