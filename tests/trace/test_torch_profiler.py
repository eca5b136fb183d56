"""A real kineto trace, written by torch.profiler on the CPU with ATOM-like labels, read back."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.trace.load import load

if TYPE_CHECKING:
    from pathlib import Path

torch = pytest.importorskip("torch", reason="torch is not installed: no real profiler to write a trace with")

PREFILL = "prefill[bs=2 tok=128 ctx=[64, 64]]"
DECODE = "decode[bs=2/4 tok=2 d=2]"


def record(directory: Path, *, more: bool) -> Path:
    """Profile a small model under ATOM's labels and export as ATOM's worker does: json, then gz, then unlink."""
    directory.mkdir()
    layer = torch.nn.Linear(16, 16)
    inputs = torch.randn(2, 16)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with (
        torch.profiler.profile(
            activities=activities, record_shapes=more, with_stack=more, profile_memory=more
        ) as profiler,
        torch.no_grad(),
    ):
        with torch.profiler.record_function(PREFILL):
            layer(inputs)
        for _ in range(12):
            with torch.profiler.record_function(DECODE):
                layer(inputs)
    text = directory / "m_ts_20260101_000000_000.pt.trace.json"
    profiler.export_chrome_trace(str(text))
    packed = text.with_name(text.name + ".gz")
    packed.write_bytes(gzip.compress(text.read_bytes()))
    text.unlink()
    return packed


@pytest.mark.parametrize("more", [False, True], ids=["plain", "shapes and stacks"])
def test_labels_and_ops_of_a_real_profiler_are_read(tmp_path: Path, more: bool) -> None:
    path = record(tmp_path / "rank_0", more=more)
    data = load(tmp_path)
    rank = data.ranks["rank_0"]
    assert [step.kind for step in rank.steps] == ["prefill"] + ["decode"] * 12
    assert rank.steps[1].label.bs == 2
    assert rank.steps[1].label.graph_bs == 4
    raw = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    ops = [event for event in raw if event.get("ph") == "X" and event.get("cat") == "cpu_op"]
    assert {op["name"] for op in ops} == set(rank.op_counts)
    assert sum(sum(by_phase.values()) for by_phase in rank.op_counts.values()) == len(ops)
    assert rank.op_counts["aten::linear"]["decode"] == 12
    assert rank.op_counts["aten::linear"]["prefill"] == 1


def test_a_trace_without_a_gpu_says_so(tmp_path: Path) -> None:
    record(tmp_path / "rank_0", more=False)
    codes = {finding.code for finding in load(tmp_path).findings if finding.fatal}
    assert "H03" in codes
