"""`atomtrace traits`: on real files the figures known of them."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.traces import NAME, Recipe, events, write_ranks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Result


def values(result: Result, place: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = result.json["traces"][place]["values"]
    return found


def test_a_built_trace_shows_what_was_built(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    found = values(atomtrace("traits", write_ranks(tmp_path, Recipe()), "--json"))
    assert (found["kernels"], found["steps"], found["kernel_names"]) == (492, 41, 3)
    assert found["graph_kernels"] == pytest.approx(480 / 492)
    assert found["graph_kernels_without_id"] == 1
    assert found["eager_kernels_with_id"] == 1
    assert found["launches_naming_kernel"] == 1
    assert found["decodes_of_one_graph"] == 1
    assert found["kernels_per_graph_p50"] == 12
    assert found["graph_abutting"] == 1
    assert found["graph_launch_host_mean_ns"] == 20_000
    assert (found["in_flight_kernels"], found["decodes_with_eager_tail"], found["steps_annotated"]) == (0, 0, 0)


def test_ids_on_graph_kernels_and_lost_launches_show(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    rows = events(Recipe(decode_steps=10))
    graph = {row["args"]["correlation"] for row in rows if row["name"] == "hipGraphLaunch"}
    for row in rows:
        if row["cat"] == "kernel" and row["args"]["correlation"] in graph:
            row["args"]["External id"] = 7
    launches = [row for row in rows if row["name"] == "hipLaunchKernel"]
    for row in launches[:6]:
        rows.remove(row)
    for row in launches[6:]:
        del row["args"]["kernel"]
    path = tmp_path / NAME
    # Compact, on one line, with a key behind the events: the second reader must find its way too.
    document = {"a": [{"b": "},{"}], "traceEvents": rows, "z": [{"ph": "X", "cat": "kernel"}, {"c": 1}]}
    path.write_bytes(gzip.compress(json.dumps(document, separators=(",", ":")).encode()))
    found = values(atomtrace("traits", path, "--json"))
    assert found["graph_kernels_without_id"] == 0
    assert found["in_flight_kernels"] == pytest.approx(6 / 132)
    assert found["launches_naming_kernel"] == 0


def test_odd_types_and_bytes_do_not_stop_the_second_reader(tmp_path: Path) -> None:
    from pytest_atomtrace.verdicts.external_ids import read_external_ids

    rows = events(Recipe(decode_steps=2))
    kernels = sum(row["cat"] == "kernel" for row in rows)
    rows[3]["args"] = 5
    text = json.dumps({"traceEvents": rows}).replace("attention_kernel", "attention}, {kernel").encode()
    path = tmp_path / NAME.removesuffix(".gz")
    path.write_bytes(text.replace(b"mfma_moe2_a_t32", b"mfma_moe2_\xff\xfe"))
    found = read_external_ids(path)
    assert len(found.kernel_correlation) == kernels - (rows[3]["cat"] == "kernel")
    assert len(found.graph_launch_has_id) == 2


def test_traces_stand_side_by_side_under_short_different_names(
    atomtrace: Callable[..., Result], tmp_path: Path
) -> None:
    for name in ("real", "simulated"):
        write_ranks(tmp_path / name, Recipe(decode_steps=3))
    single = tmp_path / "real" / "rank_0" / NAME
    result = atomtrace("traits", tmp_path / "real", tmp_path / "simulated", single, width=80)
    header = next(line for line in result.out.splitlines() if line.startswith("trait "))
    assert header.split() == ["trait", "real", "simulated", "real~2"]
    assert result.row("labelled")[-3:] == ["4", "4", "4"]


def test_many_traces_go_into_blocks_that_fit(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    paths = [write_ranks(tmp_path / f"trace-number-{n}", Recipe(decode_steps=2)) for n in range(6)]
    result = atomtrace("traits", *paths, width=80)
    assert sum(line.startswith("trait ") for line in result.out.splitlines()) == 2
    assert max(map(len, result.out.splitlines())) <= 80


def test_a_long_path_takes_a_line_and_no_more(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    paths = [
        write_ranks(
            tmp_path / "runs" / ("r" * 90) / "captures" / f"gpt-oss-tp{tp}-conc16" / "1", Recipe(decode_steps=2)
        )
        for tp in (1, 8)
    ]
    result = atomtrace("traits", *paths, width=80)
    assert max(map(len, result.out.splitlines())) <= 80
    # Not "1" and "1": a saved capture is known by its case.
    header = next(line for line in result.out.splitlines() if line.startswith("trait "))
    assert ["tp1" in header, "tp8" in header] == [True, True]


def test_every_trait_is_explained(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    explained = atomtrace("traits", "--explain", width=80)
    document = atomtrace("traits", write_ranks(tmp_path, Recipe(decode_steps=2)), "--json").json
    for trait in document["traits"]:
        assert trait["title"] in explained.out
        assert len(trait["meaning"]) > len("a word")
    none = atomtrace("traits")
    assert (none.code, none.out) == (2, "")
    assert "--explain" in none.err


def test_known_traits_of_real_traces(atomtrace: Callable[..., Result], real: Path) -> None:
    files = ["sglang_qwen3-8b_decode_graph", "vllm_gpt-oss_decode_graph", "hf_qwen1.5-0.5b_eager"]
    result = atomtrace("traits", *(real / f"{name}.json.gz" for name in files), "--json")
    sglang, vllm, qwen = (values(result, place) for place in range(3))
    assert (sglang["kernels_per_graph_p50"], vllm["kernels_per_graph_p50"]) == (544, 421)
    for decode in (sglang, vllm):
        assert decode["graph_kernels_without_id"] == decode["graph_launches_without_id"] == 1
        assert decode["decodes_of_one_graph"] == decode["launches_naming_kernel"] == 1
        assert decode["graph_abutting"] > 0.93
        assert 5_000_000 < decode["launch_lag_p50_ns"] < 229_000_000
    # 463 of 1,516 kernels were in flight when the window opened, with 30.9 % of the kernel time.
    assert qwen["in_flight_kernels"] == pytest.approx(463 / 1516)
    assert qwen["in_flight_time"] == pytest.approx(0.309, abs=0.001)
    assert qwen["graph_kernels_without_id"] is None
