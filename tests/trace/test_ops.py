"""Ops and layers behind kernels: capture traces by position, by sequence, by warm-up."""

from __future__ import annotations

import csv
import gzip
import runpy
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.trace.layers import LayerGroup, LayerRow, layer_table
from pytest_atomtrace.trace.layout import find_ranks
from pytest_atomtrace.trace.load import load_rank
from pytest_atomtrace.trace.ops import (
    CaptureLaunch,
    capture_references,
    find_capture,
    layer_of,
    match_kernels,
    read_capture,
    resolve_step,
)
from tests.trace.builder import Kineto

if TYPE_CHECKING:
    import pytest


def _recorded(*names: str) -> list[CaptureLaunch]:
    return [CaptureLaunch(name, f"op{number}", "") for number, name in enumerate(names)]


def test_equal_sequences_match_by_position() -> None:
    matches = match_kernels(["a", "a", "b"], _recorded("a", "a", "b"))
    assert [(launch.op if launch else None, how) for launch, how in matches] == [
        ("op0", "position"),
        ("op1", "position"),
        ("op2", "position"),
    ]


def test_a_missing_kernel_leaves_the_rest_matched_by_sequence() -> None:
    matches = match_kernels(["a", "b", "d"], _recorded("a", "b", "c", "d"))
    assert [(launch.op if launch else None, how) for launch, how in matches] == [
        ("op0", "sequence"),
        ("op1", "sequence"),
        ("op3", "sequence"),
    ]


def test_an_all_reduce_may_be_stood_for_by_a_fill_and_nothing_else_may() -> None:
    reduce = "void aiter::cross_device_reduce_1stage<bf16>"
    fill = "void at::native::vectorized_elementwise_kernel<FillFunctor<bf16>>"
    matches = match_kernels(["a", reduce, "x", "b"], _recorded("a", fill, "y", "b"))
    assert [how for _, how in matches] == ["sequence", "stand-in", "unmatched", "sequence"]


def _capture(tmp_path: Path) -> Path:
    trace = Kineto()
    trace.label("capture_graph_bs_4", 1000.0, 1000.0)
    for layer in range(2):
        for name, at in (("norm", 0.0), ("gemm", 100.0)):
            start = 1010.0 + 300 * layer + at
            trace.label(f"model.layers.{layer}.{name}", start, 50.0)
            trace.op(f"aiter::{name}", start + 5, 30.0)
            trace.call(start + 10, kernel=f"k_{name}", name="hipModuleLaunchKernel")
    # Executed launches in the span are not part of the graph.
    trace.eager("not_in_graph", 1900.0)
    return trace.write(tmp_path / "capture_traces", "bs_4_q_1_rank0.json.gz")


def test_replayed_kernels_get_op_and_layer_across_streams(tmp_path: Path) -> None:
    trace = Kineto()
    trace.label("decode[bs=3/4 tok=3 d=3]", 1000.0)
    link = trace.call(1010.0, name="hipGraphLaunch")
    # The side stream's gemm overtakes: its order in time is not the order of capture.
    for number, (name, stream) in enumerate([("k_norm", 0), ("k_norm", 0), ("k_gemm", 3), ("k_gemm", 3)]):
        trace.kernel(name, 21_000.0 + 10 * number, 10.0, link, stream=stream)
    rank = trace.rank()
    (step,) = rank.steps
    path = _capture(tmp_path)
    assert find_capture([path], graph_bs=step.graph_bs, query_len=step.label.query_len) == path
    capture = read_capture(path, graph_bs=4)
    assert [launch.kernel for launch in capture.recorded] == ["k_norm", "k_gemm", "k_norm", "k_gemm"]
    origins = resolve_step(rank, step, capture)
    assert [(o.op, o.layer) for o in origins] == [
        ("aiter::norm", 0),
        ("aiter::norm", 1),
        ("aiter::gemm", 0),
        ("aiter::gemm", 1),
    ]


def test_captures_give_the_number_of_kernels_a_graph_must_replay(tmp_path: Path) -> None:
    path = _capture(tmp_path)
    assert capture_references([path], [(4, 1), (4, 1), (8, 1)]) == {(4, 1): 4}
    legacy = path.rename(tmp_path / "capture_graph_m_ts_20260101_101010_123.pt.trace.json.gz")
    assert capture_references([legacy], [(4, 1), (8, 1)]) == {(4, 1): 4}


def test_a_capture_is_found_by_batch_and_query_length_of_either_era() -> None:
    q1, q4, other = (Path(f"bs_{n}_rank0.json.gz") for n in ("8_q_1", "8_q_4", "16_q_1"))
    legacy = Path("capture_graph_m_ts_20260101_101010_123.pt.trace.json.gz")
    plain = Path("bs_8_rank0.json.gz")
    assert find_capture([q1, q4, other], graph_bs=8, query_len=4) == q4
    assert find_capture([q1, q4, other], graph_bs=8, query_len=2) is None
    assert find_capture([q1, q4, other], graph_bs=16, query_len=None) == other
    assert find_capture([plain], graph_bs=8, query_len=4) == plain
    assert find_capture([legacy], graph_bs=8, query_len=1) == legacy
    assert find_capture([], graph_bs=8, query_len=1) is None


def test_layers_are_read_from_module_paths() -> None:
    assert layer_of("model.layers.12.mlp.experts") == 12
    assert layer_of("layers.3") == 3
    assert layer_of("mylayers.3.x") is None
    assert layer_of("lm_head") is None


def test_groups_of_layers_are_named_as_atom_names_them() -> None:
    def label(*layers: int) -> str:
        return LayerGroup(layers, (), 0.0).label

    assert label(3) == "layer 3"
    assert label(0, 1, 2) == "layers 0-2"
    assert label(0, 2, 4) == "layers 0,2,4"
    assert label(*range(0, 40, 2)) == "layers 0,2,...,38 (20 layers)"


def test_the_golden_case_agrees_with_atoms_own_parse_trace(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _run_without_resource_warnings(golden / "gen.py")
    files = find_ranks(tmp_path)["rank_0"]
    assert files.trace is not None
    rank = load_rank(files.trace)
    step = next(step for step in rank.steps if step.kind == "decode")
    found = find_capture(files.capture_traces, graph_bs=step.graph_bs, query_len=step.label.query_len)
    assert found is not None
    origins = resolve_step(rank, step, read_capture(found, graph_bs=step.graph_bs))
    table = layer_table(rank, step, origins)
    (group,) = table.groups

    def cells(row: LayerRow) -> list[str]:
        step_share = row.time_ns * len(group.layers) / table.window_ns
        time = f"{row.time_ns / 1000:.3f}"
        return [
            row.module,
            row.kernel,
            str(row.stream),
            time,
            f"{row.time_ns / group.time_ns:.3%}",
            f"{step_share:.3%}",
        ]

    rows = [cells(row) for row in group.rows]
    total_share = f"{group.time_ns * 2 / table.window_ns:.3%}"
    rows.append(["__layer_total__", "LAYER TOTAL", "", f"{group.time_ns / 1000:.3f}", "100.000%", total_share])
    (head,) = table.outside
    rows.append([head.module, head.kernel, "1", "4.000", "", f"{head.time_ns / table.window_ns:.3%}"])
    (lost,) = table.unmatched
    rows.append(["<unmatched>", lost.kernel, "", "", "", ""])
    with (golden / "d.csv").open() as stream:
        expected = list(csv.reader(stream))[1:]
    assert rows == [row[2:] for row in expected]
    assert (group.label, len(group.layers)) == (expected[0][0], int(expected[0][1]))
    assert table.window_ns == 100_000


def _run_without_resource_warnings(script: Path) -> None:
    # The generator leaves its gzip streams to the collector; written out here for their end to be certain.
    opened: list[gzip.GzipFile] = []
    original = gzip.open

    def remembered(*args: object, **kwargs: object) -> object:
        stream = original(*args, **kwargs)  # type: ignore[call-overload]
        opened.append(stream)
        return stream

    gzip.open = remembered  # type: ignore[assignment]
    try:
        runpy.run_path(str(script))
    finally:
        gzip.open = original
        for stream in opened:
            stream.close()
