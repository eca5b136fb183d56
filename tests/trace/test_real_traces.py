"""Recorded traces of MI210, MI250 and MI300X: every figure against Python's own json module."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from pytest_atomtrace.trace.families import family
from pytest_atomtrace.trace.load import load, load_rank
from pytest_atomtrace.trace.ops import read_capture, resolve_eager, resolve_step
from pytest_atomtrace.trace.reader import read_rank

if TYPE_CHECKING:
    from pathlib import Path

# events, kernels, sum of kernel durations in us, distinct kernel names
FIGURES = {
    "mi300x/sglang_qwen3-8b_decode_graph.json.gz": (2058, 555, "9765.437", 27),
    "mi300x/sglang_qwen3-8b_prefill_eager.json.gz": (60315, 527, "492773.592", 27),
    "mi300x/vllm_gpt-oss_decode_graph.json.gz": (1993, 425, "10674.517", 24),
    "mi300x/vllm_gpt-oss_graph_capture.json.gz": (131243, 7, "19.633", 3),
    "mi300x/hf_qwen1.5-0.5b_eager.json.gz": (18090, 1516, "43062.042", 28),
    "mi300x/hf_bert-small_eager.json.gz": (2653, 60, "388.344", 11),
    "mi300x/torch_compile_triton.json.gz": (246, 12, "12549.021", 8),
    "mi210/gpu_only.json.gz": (2443, 562, "5343.422", 45),
    "mi250/minitoy_train_rocm6.2.json.gz": (220, 14, "110.881", 12),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_real_trace_gives_its_published_figures(shared_data: Path, name: str) -> None:
    rank = load_rank(shared_data / name)
    kernels = rank.is_kernel
    names = {rank.names[number] for number in rank.name_id[kernels].tolist()}
    total = Decimal(int(rank.dur_ns[kernels].sum())) / 1000
    assert (rank.event_count, int(kernels.sum()), f"{total:.3f}", len(names)) == FIGURES[name]


def _json_rows(document: dict[str, Any], categories: tuple[str, ...]) -> list[tuple[Any, ...]]:
    return sorted(
        (e["name"], round(Decimal(repr(e["ts"])) * 1000), round(Decimal(repr(e["dur"])) * 1000))
        for e in document["traceEvents"]
        if e.get("ph") == "X" and e.get("cat") in categories
    )


# Tiny pieces cost the exact walk at every cut, so the two largest files are read in usual pieces only.
LARGE = ("mi300x/vllm_gpt-oss_graph_capture.json.gz", "mi300x/sglang_qwen3-8b_prefill_eager.json.gz")
PIECES = [(name, 1 << 18) for name in FIGURES] + [(name, 997) for name in FIGURES if name not in LARGE]


@pytest.mark.parametrize(("name", "piece"), PIECES)
def test_columns_equal_what_json_reads_in_exact_nanoseconds(shared_data: Path, name: str, piece: int) -> None:
    path = shared_data / name
    events = read_rank(path, piece_bytes=piece)
    document = json.loads(gzip.decompress(path.read_bytes()))
    groups = {
        ("kernel", "gpu_memcpy", "gpu_memset"): events.gpu,
        ("cuda_runtime", "cuda_driver"): events.calls,
        ("cpu_op",): events.ops,
        ("user_annotation",): events.notes,
        ("gpu_user_annotation",): events.gpu_notes,
    }
    for categories, table in groups.items():
        names = [events.names[number] for number in table.name_id.tolist()]
        rows = sorted(zip(names, table.start_ns.tolist(), table.dur_ns.tolist(), strict=True))
        assert rows == _json_rows(document, categories)
    assert events.event_count == len(document["traceEvents"])
    assert events.meta == {key: value for key, value in document.items() if key != "traceEvents"}


def test_the_sglang_decode_step_owns_its_whole_graph_and_the_inner_label_wins(shared_data: Path) -> None:
    rank = load_rank(shared_data / "mi300x/sglang_qwen3-8b_decode_graph.json.gz")
    (step,) = rank.steps
    assert (step.label.text, step.kind, step.bs, step.n_graph_launches) == ("step[DECODE bs=32]", "decode", 32, 1)
    assert int(rank.graph.sum()) == int(rank.graph[step.rows].sum()) == 544
    assert step.n_kernels == 550
    assert rank.phase_names() == ("other", "sample", "decode")


def test_the_vllm_decode_step_owns_every_kernel_of_its_trace(shared_data: Path) -> None:
    rank = load_rank(shared_data / "mi300x/vllm_gpt-oss_decode_graph.json.gz")
    (step,) = rank.steps
    assert (step.kind, step.bs, step.label.query_len) == ("decode", 32, 1)
    assert step.n_kernels == 425
    assert int(rank.graph[step.rows].sum()) == 421
    assert step.gpu_busy_ns == 10_674_517


def test_an_eager_prefill_owns_what_its_label_launched(shared_data: Path) -> None:
    rank = load_rank(shared_data / "mi300x/sglang_qwen3-8b_prefill_eager.json.gz")
    (step,) = rank.steps
    assert (step.kind, step.bs, step.label.tok, step.n_graph_launches) == ("prefill", 15, 15360, 0)
    assert step.n_kernels == 521


def test_kernels_in_flight_when_the_window_opened_are_unattributed(shared_data: Path) -> None:
    rank = load_rank(shared_data / "mi300x/hf_qwen1.5-0.5b_eager.json.gz")
    without = rank.is_kernel & (rank.launch_ns < 0)
    assert int(without.sum()) == 463
    share = rank.dur_ns[without].sum() / rank.dur_ns[rank.is_kernel].sum()
    assert f"{share:.3f}" == "0.309"


def test_every_replayed_kernel_is_found_in_the_capture_by_position(shared_data: Path) -> None:
    rank = load_rank(shared_data / "mi300x/vllm_gpt-oss_decode_graph.json.gz")
    capture = read_capture(shared_data / "mi300x/vllm_gpt-oss_graph_capture.json.gz", graph_bs=32)
    assert len(capture.recorded) == 421
    origins = resolve_step(rank, rank.steps[0], capture)
    assert [origin.how for origin in origins] == ["position"] * 421
    attention = [origin for origin in origins if origin.kernel == "kernel_unified_attention_2d"]
    assert {origin.op for origin in attention} == {"vllm::unified_attention_with_output"}


def test_an_eager_kernel_is_found_under_the_op_that_launched_it(shared_data: Path) -> None:
    path = shared_data / "mi300x/sglang_qwen3-8b_prefill_eager.json.gz"
    rank = load_rank(path)
    origins = resolve_eager(rank, rank.steps[0], read_rank(path, detail=True))
    ops = {origin.kernel.partition("_MT")[0]: origin.op for origin in origins}
    assert ops["Cijk_Alik_Bljk_BBS_BH_Bias_HA_S_SAV_UserArgs"] == "aten::mm"
    assert not [origin for origin in origins if origin.how == "unmatched"]


def test_most_kernel_time_of_inference_traces_has_a_family(shared_data: Path) -> None:
    for name in FIGURES:
        if "decode" not in name and "prefill" not in name:
            continue
        rank = load_rank(shared_data / name)
        rows = [row for row, kernel in enumerate(rank.is_kernel.tolist()) if kernel]
        unknown = sum(int(rank.dur_ns[r]) for r in rows if family(rank.names[rank.name_id[r]]) == "unclassified")
        assert unknown < 0.01 * rank.dur_ns[rows].sum(), name


def test_loading_one_real_file_finds_it_healthy_but_says_what_was_not_verified(shared_data: Path) -> None:
    data = load(shared_data / "mi300x/vllm_gpt-oss_decode_graph.json.gz")
    assert [(f.code, f.fatal) for f in data.findings] == [("H05", False)]
    assert "count not verified" in data.findings[0].text
    data = load(shared_data / "mi210/gpu_only.json.gz")
    assert [(f.code, f.fatal, f.scope) for f in data.findings] == [("H07", True, "steps")]
    assert not list(shared_data.rglob("*.index"))
