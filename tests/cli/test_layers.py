"""`atomtrace layers`: a captured graph of two layers, replayed once."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Result

NAME = "m_ts_20260101_000000_000.pt.trace.json.gz"
MODULES = ("model.layers.{}.input_layernorm", "model.layers.{}.mlp.experts")
KERNELS = ("norm_kernel", "moe_kernel")
TIMES = (10.0, 20.0)


def event(name: str, cat: str, ts: float, dur: float, tid: int = 1, **args: object) -> dict[str, Any]:
    return {"ph": "X", "name": name, "cat": cat, "ts": ts, "dur": dur, "pid": 1, "tid": tid, "args": args}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": rows}).encode()))
    return path


def run_trace(directory: Path) -> Path:
    """Two decodes; the second one's kernels are twice as long. The logits run eagerly behind the graph."""
    rows = []
    for step, factor in enumerate((1.0, 2.0)):
        at = 1000.0 + 500 * step
        graph, eager = 10 + step, 20 + step
        rows.append(event("decode[bs=3/4 tok=3 d=3]", "user_annotation", at, 100))
        rows.append(event("hipGraphLaunch", "cuda_runtime", at + 5, 10, correlation=graph))
        rows.append(event("aten::mm", "cpu_op", at + 30, 20))
        rows.append(event("hipLaunchKernel", "cuda_runtime", at + 35, 5, correlation=eager, kernel="logits_kernel"))
        gpu = 9000.0 + 1000 * step
        for name, dur in [*zip(KERNELS, TIMES, strict=True)] * 2:
            rows.append(event(name, "kernel", gpu, dur * factor, 7, stream=7, correlation=graph))
            gpu += dur * factor
        rows.append(event("logits_kernel", "kernel", gpu + 5, 4.0 * factor, 7, stream=7, correlation=eager))
    return write(directory / "rank_0" / NAME, rows)


def capture_rows() -> list[dict[str, Any]]:
    rows = [event("capture_graph_bs_4", "user_annotation", 100, 1000)]
    at = 110.0
    for layer in range(2):
        for module, kernel in zip(MODULES, KERNELS, strict=True):
            rows.append(event(module.format(layer), "user_annotation", at, 50))
            rows.append(event(f"aiter::{kernel}_op", "cpu_op", at + 5, 40))
            rows.append(event("hipLaunchKernel", "cuda_runtime", at + 10, 5, correlation=1 + len(rows), kernel=kernel))
            at += 60
    return rows


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    run_trace(tmp_path)
    write(tmp_path / "rank_0" / "capture_traces" / "bs_4_q_1_rank0.json.gz", capture_rows())
    return tmp_path


def test_equal_layers_are_one_block_with_shares(atomtrace: Callable[..., Result], traces: Path) -> None:
    document = atomtrace("layers", traces, "--json").json
    (block,) = document["blocks"]
    assert (block["label"], block["layers"], block["time_ns"]) == ("layers 0-1", [0, 1], 30_000)
    rows = [(row["module"], row["kernel"], row["time_ns"]) for row in block["rows"]]
    assert rows == [
        ("model.layers.*.input_layernorm", "norm_kernel", 10_000),
        ("model.layers.*.mlp.experts", "moe_kernel", 20_000),
    ]
    assert [row["share_of_layer"] for row in block["rows"]] == [pytest.approx(1 / 3), pytest.approx(2 / 3)]
    assert (document["window"], document["window_ns"]) == ("GPU span", 69_000)
    assert block["share_of_step"] == pytest.approx(60 / 69)
    assert [row["kernel"] for row in document["outside"]] == ["logits_kernel"]
    assert document["how"] == {"position": 4, "eager": 1}


def test_every_kernel_has_its_op(atomtrace: Callable[..., Result], traces: Path) -> None:
    kernels = atomtrace("layers", traces, "--json").json["kernels"]
    assert [(one["op"], one["layer"], one["start_ns"]) for one in kernels] == [
        ("aiter::norm_kernel_op", 0, 0),
        ("aiter::moe_kernel_op", 0, 10_000),
        ("aiter::norm_kernel_op", 1, 30_000),
        ("aiter::moe_kernel_op", 1, 40_000),
        ("aten::mm", None, 65_000),
    ]
    text = atomtrace("layers", traces, "--kernels", width=80).out
    assert "aiter::moe_kernel_op" in text
    assert max(map(len, text.partition("\n\n")[2].splitlines())) <= 80


def test_another_step_can_be_named(atomtrace: Callable[..., Result], traces: Path) -> None:
    document = atomtrace("layers", traces, "--step", "1", "--json").json
    assert (document["step"], document["blocks"][0]["time_ns"]) == (1, 60_000)
    assert atomtrace("layers", traces, "--step", "median", "--json").json["step"] == 0


def test_capture_traces_can_lie_elsewhere(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    path = run_trace(tmp_path)
    capture = write(tmp_path / "elsewhere" / "my_capture.json.gz", capture_rows())
    for place in (capture, capture.parent):
        document = atomtrace("layers", path, "--capture-traces", place, "--json").json
        assert document["how"] == {"position": 4, "eager": 1}


def test_the_wrong_graphs_capture_is_refused(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    run_trace(tmp_path)
    for bs in (8, 16):
        write(tmp_path / "rank_0" / "capture_traces" / f"bs_{bs}_q_1_rank0.json.gz", capture_rows())
    result = atomtrace("layers", tmp_path)
    assert result.code == 2
    assert "no capture trace of graph batch 4, q 1; there are: bs_16_q_1_rank0.json.gz" in result.err


def test_a_real_decode_graph_is_resolved_whole(atomtrace: Callable[..., Result], real: Path) -> None:
    run, capture = real / "vllm_gpt-oss_decode_graph.json.gz", real / "vllm_gpt-oss_graph_capture.json.gz"
    document = atomtrace("layers", run, "--capture-traces", capture, "--json").json
    assert document["how"] == {"position": 421, "eager": 4}
    assert sum(one["op"] == "vllm::moe_forward" for one in document["kernels"]) > 0


def test_it_agrees_with_parse_trace_on_the_golden_case(
    atomtrace: Callable[..., Result], real: Path, tmp_path: Path
) -> None:
    golden = real.parents[1] / "golden"
    if not golden.is_dir():
        pytest.skip("the golden case (../shared/golden) is not here")
    subprocess.run([sys.executable, str(golden / "gen.py")], cwd=tmp_path, check=True, timeout=60)
    document = atomtrace("layers", tmp_path, "--json").json
    with (golden / "d.csv").open(newline="") as stream:
        expected = list(csv.DictReader(stream))
    (block,) = document["blocks"]
    assert (document["window_ns"], block["label"]) == (100_000, expected[0]["layer_group"])
    layer_rows, total = expected[:4], expected[4]
    for row, wanted in zip(block["rows"], layer_rows, strict=True):
        assert (row["module"], row["kernel"], str(row["stream"])) == (
            wanted["module/tag"],
            wanted["kernel"],
            wanted["stream_id"],
        )
        assert f"{row['time_ns'] / 1000:.3f}" == wanted["time_us_per_layer"]
        assert f"{row['share_of_layer']:.3%}" == wanted["percent_of_current_layer"]
        assert f"{row['share_of_step']:.3%}" == wanted["percent_of_decode_step"]
    assert f"{block['time_ns'] / 1000:.3f}" == total["time_us_per_layer"]
    assert f"{block['share_of_step']:.3%}" == total["percent_of_decode_step"]
    assert [row["kernel"] for row in document["outside"]] == [expected[5]["kernel"]]
    assert [row["kernel"] for row in document["unmatched"]] == [expected[6]["kernel"]]
