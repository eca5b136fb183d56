"""Loading: ranks, processes, indexes; whichever way, the same numbers."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING

import numpy as np
import pytest

from pytest_atomtrace.errors import TraceFileError, TruncatedTraceError
from pytest_atomtrace.trace import parallel
from pytest_atomtrace.trace.index import index_path, read_index, trace_key, write_index
from pytest_atomtrace.trace.load import load, load_rank
from tests.trace.builder import Kineto

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from pytest_atomtrace.trace.data import RankData


def _write(directory: Path, ranks: int = 3) -> Path:
    for rank in range(ranks):
        trace = Kineto()
        trace.meta["distributedInfo"] = {"rank": rank}
        trace.op("aten::mm", 500.0)
        trace.decodes(10 + rank).write(directory / f"rank_{rank}")
    return directory


def _same(a: RankData, b: RankData) -> None:
    for name in (
        "name_id",
        "start_ns",
        "dur_ns",
        "stream",
        "correlation",
        "kind",
        "step",
        "phase",
        "launch_ns",
        "graph",
    ):
        left, right = getattr(a, name), getattr(b, name)
        assert left.dtype == right.dtype, name
        assert np.array_equal(left, right), name
    for name in ("name_id", "start_ns", "dur_ns", "correlation", "n_gpu", "n_kernels", "step"):
        assert np.array_equal(getattr(a.launches, name), getattr(b.launches, name)), name
    for name in ("names", "op_counts", "annotation_counts", "meta", "event_count", "text_bytes", "name", "path"):
        assert getattr(a, name) == getattr(b, name), name
    assert len(a.steps) == len(b.steps)
    for one, two in zip(a.steps, b.steps, strict=True):
        assert np.array_equal(one.rows, two.rows)
        assert all(getattr(one, name) == getattr(two, name) for name in one.__dataclass_fields__ if name != "rows")


def test_ranks_come_in_order_and_can_be_picked(tmp_path: Path) -> None:
    data = load(_write(tmp_path))
    assert list(data.ranks) == ["rank_0", "rank_1", "rank_2"]
    assert [len(rank.steps) for rank in data.ranks.values()] == [10, 11, 12]
    assert list(load(tmp_path, ranks=["rank_2"]).ranks) == ["rank_2"]
    with pytest.raises(KeyError, match="rank_9"):
        load(tmp_path, ranks=["rank_9"])


def test_files_may_be_given_by_rank(tmp_path: Path) -> None:
    _write(tmp_path)
    files = {"b": next((tmp_path / "rank_1").glob("*.gz")), "rank_0": next((tmp_path / "rank_0").glob("*.gz"))}
    assert list(load(files).ranks) == ["rank_0", "b"]


@pytest.mark.parametrize("compiled", [True, False], ids=["threads", "processes"])
def test_many_readers_give_what_one_gives(tmp_path: Path, compiled: bool) -> None:
    _write(tmp_path)
    one = load(tmp_path, jobs=1)
    many = load(tmp_path, jobs=2, compiled=compiled)
    for name, rank in one.ranks.items():
        _same(rank, many.ranks[name])
    assert one.findings == many.findings


@pytest.mark.parametrize("compiled", [True, False], ids=["thread", "process"])
def test_a_bad_rank_read_by_a_thread_or_process_keeps_its_error_and_place(tmp_path: Path, compiled: bool) -> None:
    _write(tmp_path)
    bad = next((tmp_path / "rank_1").glob("*.gz"))
    bad.write_bytes(bad.read_bytes()[:-10])
    findings = load(tmp_path, jobs=2, compiled=compiled).findings
    assert findings == load(tmp_path, jobs=1).findings
    assert [f.code for f in findings] == ["H02"]


def test_when_nothing_can_be_loaded_the_error_is_raised(tmp_path: Path) -> None:
    path = Kineto().decodes(3).write(tmp_path / "rank_4")
    path.write_bytes(path.read_bytes()[:-10])
    for source in (path, tmp_path, tmp_path / "rank_4"):
        with pytest.raises(TruncatedTraceError) as caught:
            load(source)
        assert caught.value.rank == "rank_4"
    with pytest.raises(TraceFileError, match="no such file"):
        load(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TraceFileError, match="holds no trace"):
        load(tmp_path / "empty")


@pytest.fixture
def _index_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_INDEX_BYTES", 0)


@pytest.mark.usefixtures("_index_everything")
def test_a_second_load_maps_the_index_and_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path)
    first = load(tmp_path)
    assert len(list(tmp_path.rglob("*.index"))) == 3
    monkeypatch.setattr(parallel, "read_rank", None)
    second = load(tmp_path)
    for name, rank in first.ranks.items():
        _same(rank, second.ranks[name])
    assert first.findings == second.findings


@pytest.mark.usefixtures("_index_everything")
def test_a_changed_trace_is_read_again_even_with_equal_size_and_time(tmp_path: Path) -> None:
    path = Kineto().decodes(10).write(tmp_path)
    stat = path.stat()
    assert len(load(path).ranks["rank_0"].steps) == 10
    other = Kineto().decodes(11).write(tmp_path / "other")
    data = other.read_bytes()
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert len(load(path).ranks["rank_0"].steps) == 11


@pytest.mark.usefixtures("_index_everything")
def test_a_moved_capture_keeps_its_index_under_its_new_rank(tmp_path: Path) -> None:
    path = Kineto().decodes(10).write(tmp_path / "a" / "rank_0")
    load(path)
    (tmp_path / "a" / "rank_0").rename(tmp_path / "a" / "rank_1")
    rank = load(tmp_path / "a").ranks["rank_1"]
    assert {step.rank for step in rank.steps} == {"rank_1"}
    assert rank.path.parent.name == "rank_1"


@pytest.mark.usefixtures("_index_everything")
@pytest.mark.parametrize("damage", [b"", b"ATIDX", b"ATIDX" + b"\0" * 3 + b"\xff" * 8, b"x" * 4000])
def test_a_damaged_index_counts_as_absent(tmp_path: Path, damage: bytes) -> None:
    path = Kineto().decodes(10).write(tmp_path)
    expected = load(path).ranks["rank_0"]
    index_path(path).write_bytes(damage)
    _same(load(path).ranks["rank_0"], expected)


def test_an_index_cut_short_counts_as_absent(tmp_path: Path) -> None:
    path = Kineto().decodes(10).write(tmp_path)
    key = trace_key(path)
    target = tmp_path / "x.index"
    assert write_index(target, load_rank(path), key)
    whole = target.read_bytes()
    assert read_index(target, key=key, rank="rank_0", trace=path) is not None
    assert read_index(target, key="other", rank="rank_0", trace=path) is None
    for length in range(0, len(whole), 97):
        target.write_bytes(whole[:length])
        assert read_index(target, key=key, rank="rank_0", trace=path) is None


@pytest.mark.usefixtures("_index_everything")
def test_a_directory_that_is_read_only_gets_no_index_and_no_error(tmp_path: Path) -> None:
    path = Kineto().decodes(10).write(tmp_path / "rank_0")
    path.parent.chmod(0o555)
    try:
        assert len(load(path).ranks["rank_0"].steps) == 10
        assert not list(tmp_path.rglob("*.index"))
    finally:
        path.parent.chmod(0o755)


def test_a_small_trace_gets_no_index(tmp_path: Path) -> None:
    load(Kineto().decodes(10).write(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == [p.name for p in tmp_path.glob("*.gz")]


def test_one_large_file_is_shared_out_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Kineto().decodes(600).write(tmp_path)
    alone = load(path, jobs=1).ranks["rank_0"]
    monkeypatch.setattr(parallel, "_AHEAD_BYTES", 0)
    _same(load(path, jobs=2).ranks["rank_0"], alone)
    monkeypatch.setattr(parallel, "_SHARED_BYTES", 0)
    monkeypatch.setattr(parallel, "read_rank", None)
    _same(load(path, jobs=2, compiled=False).ranks["rank_0"], alone)


def test_a_large_file_that_ends_early_is_told_as_from_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Kineto().decodes(600).write(tmp_path / "rank_0")
    path.write_bytes(path.read_bytes()[:-9])
    monkeypatch.setattr(parallel, "_AHEAD_BYTES", 0)
    monkeypatch.setattr(parallel, "_SHARED_BYTES", 0)
    for compiled in (True, False):
        with pytest.raises(TruncatedTraceError, match="ends early"):
            load(path, jobs=2, compiled=compiled)


def test_a_reader_process_that_dies_costs_its_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path)
    start = parallel._reader_process
    started: list[int] = []

    def first_one_dies(arguments: list[str], complaints: IO[bytes] | None) -> subprocess.Popen[bytes]:
        process = start(arguments, complaints)
        started.append(process.pid)
        if len(started) == 1:
            process.kill()
        return process

    monkeypatch.setattr(parallel, "_reader_process", first_one_dies)
    data = load(tmp_path, jobs=2, compiled=False)
    assert len(data.ranks) == 2
    assert [finding.code for finding in data.findings] == ["H02"]
    assert "ended with status -9 (out of memory?)" in data.findings[0].text
    # Two at a time, and one more in the place of the dead one at most: they read one file after the other.
    assert len(started) in {2, 3}


def test_a_reader_process_inherits_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A module that only PYTHONPATH leads to shows that the variable arrived; its text is what stopped the reader.
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "sitecustomize.py").write_text("import sys\nsys.exit('seen by the reader process')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    data = load(_write(tmp_path / "ranks"), jobs=1)
    with pytest.raises(TraceFileError, match="seen by the reader process"):
        load({name: rank.path for name, rank in data.ranks.items()}, jobs=2, compiled=False)
