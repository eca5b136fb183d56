"""The state of a rank's export, file by file, on a clock that does not run by itself."""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.capture.clock import Clock
from pytest_atomtrace.capture.rankstate import ExportWatch, RankState, files_now, writers_of
from pytest_atomtrace.capture.redact import Redactor
from pytest_atomtrace.capture.serverlog import ServerLog

if TYPE_CHECKING:
    from pathlib import Path

STEM = "M_ts_20260101_000000_000.pt.trace.json"
WHOLE = gzip.compress(b'{"traceEvents": []}')


@dataclass
class Scene:
    folder: Path
    now_s: float = 0.0
    writers: set[Path] = field(default_factory=set)
    death: bool = False

    def __post_init__(self) -> None:
        for rank in ("rank_0", "rank_1"):
            (self.folder / "trace" / rank).mkdir(parents=True)
        self.watch = self.fresh_watch()

    def fresh_watch(self) -> ExportWatch:
        trace_dir = self.folder / "trace"
        return ExportWatch(
            trace_dir,
            ("rank_0", "rank_1"),
            files_now(trace_dir),
            ServerLog(self.folder / "server.log", Redactor({})),
            0,
            Clock(monotonic_s=lambda: self.now_s),
            writers=lambda: frozenset(self.writers),
            death_seen=lambda: self.death,
        )

    def file(self, rank: str, name: str, data: bytes = b"x") -> Path:
        path = self.folder / "trace" / rank / name
        path.write_bytes(data)
        return path

    def look(self, *, after_s: float = 0.2) -> dict[str, RankState]:
        """Two looks, with a check between, as the wait does it."""
        self.watch.observe()
        self.now_s += after_s
        states = self.watch.observe()
        for state in self.watch.to_check(states):
            self.watch.check(state)
        return self.watch.observe()

    def states(self, *, after_s: float = 0.2) -> list[str]:
        return [state.state for state in self.look(after_s=after_s).values()]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_an_export_goes_from_missing_over_json_and_gzip_to_done(scene: Scene) -> None:
    assert scene.states() == ["missing", "missing"]
    plain = scene.file("rank_0", STEM)
    assert scene.states() == ["json-growing", "missing"]
    packed = scene.file("rank_0", STEM + ".gz", WHOLE[:5])
    assert scene.states() == ["compressing", "missing"]
    packed.write_bytes(WHOLE)
    assert scene.states() == ["compressing", "missing"], "a gz beside its json is not complete, however it looks"
    plain.unlink()
    assert scene.states() == ["done", "missing"]
    scene.file("rank_1", STEM + ".gz", WHOLE)
    assert scene.states() == ["done", "done"]


def test_a_file_is_not_read_before_its_size_stood_still(scene: Scene) -> None:
    scene.file("rank_0", STEM + ".gz", WHOLE)
    assert scene.watch.to_check(scene.watch.observe()) == []
    scene.now_s += 0.2
    assert [state.rank for state in scene.watch.to_check(scene.watch.observe())] == ["rank_0"]


def test_growth_of_any_file_restarts_the_deadline(scene: Scene) -> None:
    plain = scene.file("rank_0", STEM)
    scene.look()
    began = scene.watch.changed_s
    scene.look(after_s=20)
    assert scene.watch.changed_s == began
    plain.write_bytes(b"xx")
    scene.look()
    assert scene.watch.changed_s > began + 20


def test_files_of_an_earlier_window_are_stale_and_do_not_complete_a_rank(scene: Scene) -> None:
    scene.file("rank_0", STEM + ".gz", WHOLE)
    scene.watch = scene.fresh_watch()
    assert scene.states() == ["stale", "missing"]
    scene.file("rank_0", STEM.replace("000000", "000001") + ".gz", WHOLE)
    assert scene.states() == ["done", "missing"]


def test_a_graph_capture_trace_is_not_the_runs_trace(scene: Scene) -> None:
    scene.file("rank_0", f"capture_graph_{STEM}.gz", WHOLE)
    (scene.folder / "trace" / "rank_1" / "capture_traces").mkdir()
    scene.file("rank_1/capture_traces", "bs_4_q_1_rank1.json.gz", WHOLE)
    assert scene.states() == ["missing", "missing"]


def test_two_traces_of_one_window_are_a_failure(scene: Scene) -> None:
    scene.file("rank_0", STEM + ".gz", WHOLE)
    scene.file("rank_0", STEM.replace("000000", "000001") + ".gz", WHOLE)
    assert scene.states() == ["failed", "missing"]


def test_an_exception_in_the_log_fails_its_rank_by_path_whatever_number_the_worker_logs(scene: Scene) -> None:
    trace = scene.folder / "trace"
    (scene.folder / "server.log").write_text(f"Rank 0: failed to export trace to {trace}/rank_1/{STEM}\nTraceback\n")
    assert scene.states() == ["missing", "failed"]


def test_a_stop_that_failed_in_the_profiler_fails_its_rank(scene: Scene) -> None:
    (scene.folder / "server.log").write_text("Rank 1: profiler stop failed\n")
    assert scene.states() == ["missing", "failed"]


@pytest.mark.parametrize(("death", "after_s"), [(True, 1.5), (False, 31.0)])
def test_a_json_without_a_live_writer_is_orphaned_soon_after_a_death_else_late(
    scene: Scene, after_s: float, *, death: bool
) -> None:
    scene.file("rank_0", STEM)
    scene.death = death
    assert scene.states(after_s=after_s * 0.5) == ["json-growing", "missing"]
    state = scene.look(after_s=after_s * 0.6)["rank_0"]
    assert state.state == "orphaned"
    assert "no live process writes it" in state.text


def test_a_json_that_somebody_still_has_open_is_not_orphaned_however_long_it_stands(scene: Scene) -> None:
    scene.writers.add(scene.file("rank_0", STEM))
    scene.death = True
    assert scene.states(after_s=500) == ["json-growing", "missing"]


def test_a_truncated_gz_is_failed_once_it_is_closed(scene: Scene) -> None:
    path = scene.file("rank_0", STEM + ".gz", WHOLE[:-6])
    scene.writers.add(path)
    assert scene.states(after_s=5) == ["compressing", "missing"]
    scene.writers.clear()
    states = scene.look()
    assert states["rank_0"].state == "failed"
    assert "rank_0 failed (" in states["rank_0"].text


def test_an_exporter_without_a_json_stage_is_read_again_when_it_grew(scene: Scene) -> None:
    path = scene.file("rank_0", STEM + ".gz", WHOLE[:-6])
    scene.writers.add(path)
    scene.look()
    path.write_bytes(WHOLE)
    scene.writers.clear()
    assert scene.states() == ["done", "missing"]


def test_ranks_that_the_case_does_not_have_are_named_with_their_age(scene: Scene) -> None:
    (scene.folder / "trace" / "rank_7").mkdir()
    assert scene.watch.surplus() == [], "an empty directory of an unused rank proves nothing"
    scene.file("rank_7", STEM + ".gz", WHOLE)
    assert [state.state for state in scene.watch.surplus()] == ["surplus"]
    scene.watch = scene.fresh_watch()
    assert [state.text for state in scene.watch.surplus()] == ["rank_7 stale (it was there before the window ended)"]


def test_a_rank_directory_that_vanished_is_missing(scene: Scene) -> None:
    (scene.folder / "trace" / "rank_1").rmdir()
    assert scene.states() == ["missing", "missing"]


def test_open_files_of_a_process_are_seen(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w"):
        assert tmp_path / "open" in writers_of([os.getpid()])
    assert tmp_path / "open" not in writers_of([os.getpid()])
    assert writers_of([2**22 + 1]) == frozenset()


@pytest.mark.parametrize("where", ["/container/traces", "tr", "../elsewhere/tr"])
@pytest.mark.parametrize("rank", ["rank_1", "dp0_tp1", "decode/rank_0"])
def test_a_failed_export_is_recognised_by_whatever_path_the_server_knows_its_directory(
    scene: Scene, where: str, rank: str
) -> None:
    scene.watch.ranks = ("rank_0", rank)
    (scene.folder / "server.log").write_text(f"Rank 0: failed to export trace to {where}/{rank}/{STEM}.gz\n")
    states = scene.look()
    assert states[rank].text == f"{rank} failed (the log says: failed to export trace)"
    assert states["rank_0"].state == "missing"
