"""`atomtrace check-layout`."""

from __future__ import annotations

import gzip
import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.traces import NAME, Recipe, write_rank, write_ranks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Result


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    return write_ranks(tmp_path, Recipe(decode_steps=2), Recipe(decode_steps=2))


def states(result: Result) -> dict[str, str]:
    return {row["rank"]: row["state"] for row in result.json["ranks"]}


def test_the_exact_set_is_right(atomtrace: Callable[..., Result], traces: Path) -> None:
    result = atomtrace("check-layout", traces, "--tp", "2")
    assert result.code == 0
    assert "all 2 ranks left one whole trace" in result.out


def test_missing_and_extra_ranks_are_both_wrong(atomtrace: Callable[..., Result], traces: Path) -> None:
    more = atomtrace("check-layout", traces, "--tp", "3", "--json")
    assert (more.code, states(more)) == (1, {"rank_0": "done", "rank_1": "done", "rank_2": "missing"})
    fewer = atomtrace("check-layout", traces, "--tp", "1", "--json")
    assert (fewer.code, states(fewer)) == (1, {"rank_0": "done", "rank_1": "extra"})
    assert "rank_1: this server has no such rank; done" in atomtrace("check-layout", traces, "--tp", "1").out


def _half_done(rank: Path) -> None:
    (rank / NAME.removesuffix(".gz")).write_text("{")


def _json_only(rank: Path) -> None:
    (rank / NAME.removesuffix(".gz")).write_bytes(gzip.decompress((rank / NAME).read_bytes()))
    (rank / NAME).unlink()


def _twice(rank: Path) -> None:
    shutil.copy(rank / NAME, rank / NAME.replace("000000_000", "000001_000"))


def _cut(rank: Path) -> None:
    (rank / NAME).write_bytes((rank / NAME).read_bytes()[:-40])


def _emptied(rank: Path) -> None:
    (rank / NAME).unlink()


@pytest.mark.parametrize(
    ("harm", "state", "says"),
    [
        (_half_done, "compressing", "lies beside the .gz"),
        (_json_only, "json", "no .gz yet"),
        (_twice, "doubled", "2 traces: m_ts_20260101_000000_000"),
        (_cut, "damaged", "the gzip stream ends early"),
        (_emptied, "empty", "nothing was exported"),
    ],
)
def test_each_fault_has_its_state(
    atomtrace: Callable[..., Result], traces: Path, harm: Callable[[Path], None], state: str, says: str
) -> None:
    harm(traces / "rank_1")
    result = atomtrace("check-layout", traces, "--tp", "2", "--json")
    assert (result.code, states(result)) == (1, {"rank_0": "done", "rank_1": state})
    text = atomtrace("check-layout", traces, "--tp", "2")
    assert text.code == 1
    assert says in " ".join(text.out.split())


@pytest.mark.parametrize("name", ["capture_traces/bs_4_q_1_rank0.json.gz", f"capture_graph_{NAME}"])
def test_capture_traces_are_counted_apart(atomtrace: Callable[..., Result], traces: Path, name: str) -> None:
    path = traces / "rank_0" / name
    path.parent.mkdir(exist_ok=True)
    shutil.copy(traces / "rank_1" / NAME, path)
    result = atomtrace("check-layout", traces, "--tp", "2", "--json")
    assert result.code == 0
    assert [row["capture_traces"] for row in result.json["ranks"]] == [1, 0]


def test_parallel_layouts_have_their_own_names(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    for name in ("dp0_tp0", "dp1_tp0"):
        write_rank(tmp_path / name, Recipe(decode_steps=1))
    assert atomtrace("check-layout", tmp_path, "--tp", "2", "--dp-attention").code == 0
    assert atomtrace("check-layout", tmp_path, "--tp", "1", "--dp", "2").code == 0
    assert atomtrace("check-layout", tmp_path, "--tp", "2").code == 1


def test_a_saved_capture_says_itself_which_ranks_it_must_have(atomtrace: Callable[..., Result], traces: Path) -> None:
    unsaid = atomtrace("check-layout", traces)
    assert (unsaid.code, unsaid.out) == (2, "")
    assert "has no manifest.json that says so; give --tp N" in unsaid.err
    (traces / "manifest.json").write_text(json.dumps({"schema": 1, "expected_ranks": ["rank_0", "rank_1", "rank_2"]}))
    missing = atomtrace("check-layout", traces, "--json")
    assert (missing.code, states(missing)) == (1, {"rank_0": "done", "rank_1": "done", "rank_2": "missing"})
    assert atomtrace("check-layout", traces, "--tp", "2").code == 0


def test_a_run_stands_for_its_only_capture(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    place = tmp_path / "captures" / "model-tp1" / "1"
    write_ranks(place, Recipe(decode_steps=2))
    (place / "manifest.json").write_text(json.dumps({"schema": 1, "slug": "model-tp1", "expected_ranks": ["rank_0"]}))
    result = atomtrace("check-layout", tmp_path)
    assert result.code == 0
    assert "the one rank left one whole trace" in result.out


def test_a_directory_in_which_nothing_was_exported_is_wrong_and_no_error(
    atomtrace: Callable[..., Result], tmp_path: Path
) -> None:
    result = atomtrace("check-layout", tmp_path, "--tp", "1", "--json")
    assert (result.code, states(result)) == (1, {"rank_0": "missing"})
