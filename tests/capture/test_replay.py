"""Replays: every layout that may be named, and what is said about those that do not fit."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.capture.record import MANIFEST_SCHEMA
from pytest_atomtrace.capture.replay import explain_missing, find_capture, list_captures
from pytest_atomtrace.errors import StoreError
from tests.capture.conftest import small_case

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_atomtrace.cases.case import Case

WHOLE = gzip.compress(b'{"traceEvents": []}')
FILE = "DeepSeek-V4-Pro_ts_20260101_000000_000.pt.trace.json.gz"
CASE = small_case()


def trace_dir(folder: Path, *ranks: str, file: str = FILE) -> Path:
    for rank in ranks:
        (folder / rank).mkdir(parents=True)
        (folder / rank / file).write_bytes(WHOLE)
    return folder


def stored(run: Path, case: Case = CASE, number: int = 1) -> Path:
    directory = trace_dir(run / "captures" / case.slug / str(number), "rank_0", "rank_1")
    manifest = {
        "schema": MANIFEST_SCHEMA,
        "slug": case.slug,
        "engine": "sim",
        "capture_s": 2.5,
        "expected_ranks": ["rank_0", "rank_1"],
        "ranks": {rank: {"file": f"{rank}/{FILE}", "size_bytes": 1} for rank in ("rank_0", "rank_1")},
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


def test_every_level_of_the_store_may_be_named(tmp_path: Path) -> None:
    run = tmp_path / "out" / "runs" / "b"
    directory = stored(run)
    (tmp_path / "out" / "latest").symlink_to("runs/b")
    for level in (tmp_path / "out", run, run / "captures", run / "captures" / CASE.slug, directory):
        capture = find_capture(level, CASE)
        assert capture is not None, level
        assert capture.directory.samefile(directory)
        assert (capture.engine, capture.capture_s) == ("replay", 2.5)
        assert capture.expected_ranks == tuple(capture.ranks) == ("rank_0", "rank_1")
        assert [slug for slug, _ in list_captures(level)] == [CASE.slug]


def test_an_output_directory_without_latest_gives_its_newest_run(tmp_path: Path) -> None:
    stored(tmp_path / "runs" / "a", small_case(conc=2))
    stored(tmp_path / "runs" / "b")
    os.utime(tmp_path / "runs" / "a", ns=(1, 1))
    assert find_capture(tmp_path, CASE) is not None
    assert find_capture(tmp_path, small_case(conc=2)) is None


def test_the_last_window_is_given_and_an_unfinished_one_is_not_a_window(tmp_path: Path) -> None:
    stored(tmp_path, number=1)
    last = stored(tmp_path, number=10)
    trace_dir(tmp_path / "captures" / CASE.slug / "11", "rank_0")
    capture = find_capture(tmp_path, CASE)
    assert capture is not None
    assert capture.directory == last


def test_a_case_that_is_not_there_is_answered_with_the_path_and_what_is(tmp_path: Path) -> None:
    stored(tmp_path)
    other = small_case(conc=64)
    assert find_capture(tmp_path, other) is None
    assert explain_missing(tmp_path, other) == f"{tmp_path} has no capture of {other.slug}; it has {CASE.slug}"


def test_a_plain_trace_directory_serves_the_case_whose_ranks_it_has(tmp_path: Path) -> None:
    trace_dir(tmp_path, "rank_0", "rank_1")
    capture = find_capture(tmp_path, CASE)
    assert capture is not None
    assert list(capture.ranks) == ["rank_0", "rank_1"]
    assert (capture.expected_ranks, dict(capture.manifest), capture.engine) == ((), {}, "replay")
    assert list_captures(tmp_path) == [("DeepSeek-V4-Pro", tmp_path)]
    assert find_capture(tmp_path, small_case(tp=1)) is None
    assert explain_missing(tmp_path, small_case(tp=1)).endswith("its ranks are rank_0, rank_1, the case has rank_0")


@pytest.mark.parametrize("file", ["0123456789abcdef_ts_20260101_000000_000.pt.trace.json.gz", "trace.json.gz"])
def test_files_that_name_no_model_serve_by_their_ranks_alone(tmp_path: Path, file: str) -> None:
    trace_dir(tmp_path, "rank_0", "rank_1", file=file)
    assert find_capture(tmp_path, CASE) is not None
    assert find_capture(tmp_path, small_case(tp=4)) is None


def test_files_of_another_model_are_not_judged_as_this_one(tmp_path: Path) -> None:
    trace_dir(tmp_path, "rank_0", "rank_1", file=FILE.replace("DeepSeek-V4-Pro", "gpt-oss-120b"))
    assert find_capture(tmp_path, CASE) is None
    assert explain_missing(tmp_path, CASE).endswith("the files are of the model gpt-oss-120b")


def test_a_lost_rank_is_served_with_the_set_it_should_have(tmp_path: Path) -> None:
    trace_dir(tmp_path, "rank_0")
    capture = find_capture(tmp_path, CASE)
    assert capture is not None
    assert list(capture.ranks) == ["rank_0"]
    assert capture.expected_ranks == ("rank_0", "rank_1")


def test_an_empty_directory_and_no_directory_are_told_apart(tmp_path: Path) -> None:
    assert find_capture(tmp_path, CASE) is None
    assert "holds neither captures" in explain_missing(tmp_path, CASE)
    assert list_captures(tmp_path) == []
    with pytest.raises(StoreError, match="is no directory"):
        find_capture(tmp_path / "nowhere", CASE)


def test_a_manifest_whose_file_is_gone_is_an_error_and_not_a_missing_case(tmp_path: Path) -> None:
    directory = stored(tmp_path)
    (directory / "rank_1" / FILE).unlink()
    with pytest.raises(StoreError, match="of rank_1, which is not there"):
        find_capture(tmp_path, CASE)


def test_a_manifest_of_another_version_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path) / "manifest.json"
    path.write_text(path.read_text().replace(f'"schema": {MANIFEST_SCHEMA}', '"schema": 99'))
    with pytest.raises(StoreError, match="has schema 99, this version reads"):
        find_capture(tmp_path, CASE)


def test_a_moved_store_still_replays(tmp_path: Path) -> None:
    stored(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert find_capture(tmp_path / "there", CASE) is not None
