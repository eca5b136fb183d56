"""Rank directories and files as ATOM leaves them."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.errors import EmptyTraceError, MalformedTraceError, TraceFileError, TruncatedTraceError
from pytest_atomtrace.trace.integrity import check_export
from pytest_atomtrace.trace.layout import (
    expected_global_rank,
    expected_ranks,
    find_ranks,
    is_rank_name,
    rank_sort_key,
)
from tests.trace.builder import FILE, Kineto

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("parallel", "names"),
    [
        ({"tp": 1}, ("rank_0",)),
        ({"tp": 2}, ("rank_0", "rank_1")),
        ({"tp": 2, "dp": 2}, ("dp0_tp0", "dp0_tp1", "dp1_tp0", "dp1_tp1")),
        ({"tp": 2, "pp": 2}, ("pp0_rank_0", "pp0_rank_1", "pp1_rank_0", "pp1_rank_1")),
        ({"tp": 4, "dp_attention": True}, ("dp0_tp0", "dp1_tp0", "dp2_tp0", "dp3_tp0")),
        ({"tp": 1, "dp_attention": True}, ("rank_0",)),
    ],
)
def test_the_rank_directories_of_a_server_are_known(parallel: dict[str, int], names: tuple[str, ...]) -> None:
    assert expected_ranks(**parallel) == names  # type: ignore[arg-type]
    assert all(is_rank_name(name) for name in names)


def test_an_impossible_parallelism_is_refused() -> None:
    with pytest.raises(ValueError, match="tp=0"):
        expected_ranks(tp=0)


def test_rank_names_are_told_from_others_and_sort_by_number() -> None:
    assert is_rank_name("prefill/rank_0")
    assert not any(map(is_rank_name, ["rank", "rank_x", "rank_0/x", "capture_traces", "dp0", "other/rank_0"]))
    names = ["rank_10", "zzz", "rank_2", "decode/rank_0", "dp1_tp0", "dp0_tp1", "prefill/rank_1", "pp1_rank_0"]
    expected = ["rank_2", "rank_10", "dp0_tp1", "dp1_tp0", "pp1_rank_0", "prefill/rank_1", "decode/rank_0", "zzz"]
    ordered = sorted(names, key=rank_sort_key)
    assert ordered[:2] == ["dp0_tp1", "rank_2"] or ordered[-1] == "zzz"
    assert ordered.index("rank_2") < ordered.index("rank_10")
    assert ordered.index("dp0_tp1") < ordered.index("dp1_tp0")
    assert ordered.index("prefill/rank_1") < ordered.index("decode/rank_0")
    assert sorted(expected) == sorted(ordered)


def test_the_global_rank_counts_through_stages_and_starts_again_per_engine() -> None:
    stages = expected_ranks(tp=4, pp=2)
    assert [expected_global_rank(name, stages) for name in stages] == list(range(8))
    engines = expected_ranks(tp=2, dp=2)
    assert [expected_global_rank(name, engines) for name in engines] == [0, 1, 0, 1]
    assert expected_global_rank("other", engines) is None


def test_a_trace_directory_is_read_with_captures_and_leftovers_set_apart(tmp_path: Path) -> None:
    trace = Kineto().decodes(1)
    old = trace.write(tmp_path / "rank_0", "m_ts_20260101_101010_123.pt.trace.json.gz")
    new = trace.write(tmp_path / "rank_0", "m_ts_20260102_090000_001.pt.trace.json.gz")
    legacy = trace.write(tmp_path / "rank_0", "capture_graph_m_ts_20260103_101010_123.pt.trace.json.gz")
    graph = trace.write(tmp_path / "rank_0" / "capture_traces", "bs_4_q_1_rank0.json.gz")
    left = tmp_path / "rank_0" / "m_ts_20260104_101010_123.pt.trace.json"
    left.write_text("{")
    (tmp_path / "rank_0" / f"{FILE}.index").write_text("x")
    (tmp_path / "rank_1").mkdir()
    (tmp_path / "manifest.json").write_text("{}")
    trace.write(tmp_path / "decode" / "rank_0")
    found = find_ranks(tmp_path)
    assert list(found) == ["rank_0", "rank_1", "decode/rank_0"]
    assert (found["rank_0"].trace, found["rank_0"].traces) == (new, (old, new))
    assert found["rank_0"].capture_traces == (legacy, graph)
    assert found["rank_0"].json_left == (left,)
    assert found["rank_1"].trace is None
    assert list(find_ranks(tmp_path / "rank_0")) == ["rank_0"]
    assert list(find_ranks(tmp_path / "decode" / "rank_0")) == ["decode/rank_0"]


def test_a_single_file_is_one_rank_named_by_its_directory(tmp_path: Path) -> None:
    trace = Kineto().decodes(1)
    assert list(find_ranks(trace.write(tmp_path / "dp1_tp0"))) == ["dp1_tp0"]
    assert list(find_ranks(trace.write(tmp_path / "anything"))) == ["rank_0"]
    assert list(find_ranks(tmp_path / "anything")) == ["rank_0"]


def test_a_finished_plain_json_counts_where_there_is_no_gzip(tmp_path: Path) -> None:
    (tmp_path / "rank_0").mkdir()
    plain = tmp_path / "rank_0" / "a.pt.trace.json"
    plain.write_text(Kineto().decodes(1).text())
    assert find_ranks(tmp_path)["rank_0"].trace == plain


def test_a_directory_without_ranks_is_empty(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    assert find_ranks(tmp_path) == {}
    assert find_ranks(tmp_path / "none") == {}


@pytest.mark.parametrize("quick", [False, True])
def test_a_whole_export_passes(tmp_path: Path, quick: bool) -> None:
    trace = Kineto().decodes(20)
    check_export(trace.write(tmp_path), quick=quick)
    plain = tmp_path / "p.json"
    plain.write_text(trace.text())
    check_export(plain, quick=quick)


def test_every_cut_of_an_export_is_seen_by_the_full_check(tmp_path: Path) -> None:
    whole = Kineto().decodes(3).write(tmp_path).read_bytes()
    path = tmp_path / "cut.json.gz"
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(TruncatedTraceError):
            check_export(path, rank="rank_1")


def test_the_quick_check_sees_ends_that_cannot_be(tmp_path: Path) -> None:
    whole = Kineto().decodes(50).write(tmp_path).read_bytes()
    path = tmp_path / "cut.json.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TruncatedTraceError, match="trailer is implausible"):
        check_export(path, quick=True)
    path.write_bytes(whole[:15])
    with pytest.raises(TruncatedTraceError, match="15 bytes"):
        check_export(path, quick=True)


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", EmptyTraceError),
        (b"no json", MalformedTraceError),
        (gzip.compress(b"no json at all, but long enough", mtime=0), MalformedTraceError),
        (b'{"traceEvents": [', TruncatedTraceError),
    ],
)
def test_what_is_no_export_is_named(tmp_path: Path, quick: bool, content: bytes, error: type[TraceFileError]) -> None:
    path = tmp_path / "x.json.gz"
    path.write_bytes(content)
    with pytest.raises(error):
        check_export(path, quick=quick)
