from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from pytest_atomtrace.simulator.labels import guide_era
from tests.simulator.conftest import DEEPSEEK, GPT_OSS, Starter, read_trace
from tests.simulator.reading import events, inside, kernels_by_launch, kernels_of, labels, launches
from tests.simulator.test_sim_rules import make_scheduler

if TYPE_CHECKING:
    from tests.simulator.conftest import Sim


def _trace(sim: Sim, requests: int = 2, tokens: int = 8) -> dict[str, Any]:
    sim.window(requests=requests, tokens=tokens)
    return read_trace(sim.wait_files(1)[0])


def _spans(trace: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [event for event in events(trace, "user_annotation") if event["name"].startswith(f"{kind}[")]


def test_piecewise_decodes_replay_a_graph_between_eager_attention(start: Starter) -> None:
    trace = _trace(start(*DEEPSEEK, "-tp", "2", "--cudagraph-mode", "PIECEWISE"))
    kernels = kernels_by_launch(trace)
    for span in _spans(trace, "decode"):
        own = [launch for launch in launches(trace) if inside(launch, span)]
        graphs = [n for n, launch in enumerate(own) if launch["name"] == "hipGraphLaunch"]
        assert len(graphs) == 4 + 1
        assert graphs[0] == 0
        sizes = [len(kernels[own[n]["args"]["correlation"]]) for n in graphs]
        assert len(set(sizes)) > 1  # different graphs of one step
        ops = Counter(op["name"] for op in events(trace, "cpu_op") if inside(op, span))
        assert ops["aiter::v4_attention_with_output"] == 4
        assert ops["aiter::moe_forward"] == 0


def test_piecewise_runs_the_kernels_of_the_full_graph(start: Starter) -> None:
    full, pieces = (
        kernels_of(_trace(start(*DEEPSEEK, "-tp", "2", "--cudagraph-mode", mode)), "decode")
        for mode in ("FULL", "PIECEWISE")
    )
    assert full[3] == pieces[3]
    assert sum(full[3].values()) > 100


def test_piecewise_captures_have_no_span_and_run_their_attention(start: Starter) -> None:
    sim = start(*GPT_OSS, "--mark-trace", "--cudagraph-mode", "PIECEWISE", "--cudagraph-capture-sizes", "[2]")
    capture = read_trace(sim.traces / "rank_0" / "capture_traces" / "bs_2_q_1_rank0.json.gz")
    assert not any(event["name"].startswith("capture_graph") for event in events(capture, "user_annotation"))
    ran = kernels_by_launch(capture)
    states = Counter(
        (launch["args"]["kernel"].split("<")[0], launch["args"]["correlation"] in ran) for launch in launches(capture)
    )
    assert states["mfma_moe1_silu_mul_abf16_wfp4_bf16_t16x128x256_pm1_async_swiglu_v33", True] == 4
    assert states["mfma_moe1_silu_mul_abf16_wfp4_bf16_t16x128x256_pm1_async_swiglu_v33", False] == 4
    assert states["kernel_unified_attention_3d", True] == 2 * 2
    assert states["kernel_unified_attention_3d", False] == 0


@pytest.mark.parametrize(
    ("now", "then"),
    [
        ("decode[bs=117/128 tok=117 d=117]", "decode[bs=117 tok=117 d=117]"),
        ("decode[bs=4 tok=16 d=4 spec=3]", "decode[bs=4 tok=16 d=4 spec=3]"),
        ("dummy_decode[bs=1/4 tok=1 d=1]", "decode[bs=1 tok=1 d=1]"),
        ("eager_decode[bs=3 tok=3 ctx=[1, 2, 3]]", "prefill[bs=3 tok=3 ctx=[1, 2, 3]]"),
        ("prefill[bs=2 tok=128 ctx=[64, 64] tbo=1]", "prefill[bs=2 tok=128 ctx=[64, 64]]"),
    ],
)
def test_labels_of_the_guides_time(now: str, then: str) -> None:
    assert guide_era(now) == then


def test_a_server_of_the_guides_time_labels_its_steps_so(start: Starter) -> None:
    padded = labels(_trace(start(*GPT_OSS, "--cudagraph-capture-sizes", "[4]", era="guide"), 1, 4))
    assert padded == ["prefill[bs=1 tok=32 ctx=32]"] + ["decode[bs=1 tok=1 d=1]"] * 3
    eager = labels(_trace(start(*GPT_OSS, "--enforce-eager", era="guide"), 1, 3))
    assert eager == ["prefill[bs=1 tok=32 ctx=32]", "prefill[bs=1 tok=1 ctx=33]", "prefill[bs=1 tok=1 ctx=34]"]


def test_a_second_thread_launches_inside_the_label(start: Starter) -> None:
    trace = _trace(start(*DEEPSEEK, "-tp", "2", second_thread=1))
    for kind, word in (("decode", "ncclDevKernel"), ("prefill", "48x128")):
        for span in _spans(trace, kind):
            own = [launch for launch in launches(trace) if inside(launch, span)]
            threads = {launch["tid"] for launch in own}
            assert len(threads) == 2
            assert span["tid"] in threads
            second = [launch for launch in own if launch["tid"] != span["tid"]]
            assert any(word in launch["args"]["kernel"] for launch in second)
    ops = {op["args"]["External id"]: op for op in events(trace, "cpu_op")}
    for launch in launches(trace):
        if "External id" in launch["args"]:
            assert ops[launch["args"]["External id"]]["tid"] == launch["tid"]
    assert len({label["tid"] for label in events(trace, "user_annotation")}) == 1


def test_two_batch_prefills_launch_from_two_workers_without_labels(start: Starter) -> None:
    sim = start(*DEEPSEEK, "-tp", "2", "--enable-tbo", step_ms=50)
    trace = _trace(sim, 4, 4)
    every = labels(trace)
    assert any(label.endswith(" tbo=1]") for label in every if label.startswith("prefill["))
    assert not any("tbo" in label for label in every if label.startswith("decode["))
    (span, *_) = [span for span in _spans(trace, "prefill") if "tbo=1" in span["name"]]
    by_thread = Counter(launch["tid"] for launch in launches(trace) if inside(launch, span))
    workers = [number for thread, number in by_thread.items() if thread != span["tid"]]
    assert len(workers) == 2
    assert workers[0] == workers[1] > 100
    (names, *_) = [n for s, n in zip(_spans(trace, "prefill"), kernels_of(trace, "prefill"), strict=True) if s is span]
    assert names["mfma_moe1_silu_mul_afp8_wfp4_fp8_t32x128x256_pm1_fp8q_sort_async_gui_v33"] == 2 * 4
    own = {launch["args"]["correlation"] for launch in launches(trace) if inside(launch, span)}
    assert {k["tid"] for k in events(trace, "kernel") if k["args"]["correlation"] in own} == {3, 7, 9, 11}


def test_two_batch_graphs_hold_both_halves(start: Starter) -> None:
    sim = start(*GPT_OSS, "--enable-tbo", "all", "--mark-trace", "--cudagraph-capture-sizes", "[4]", step_ms=20)
    trace = _trace(sim, 4, 8)
    assert "decode[bs=4 tok=4 d=4 tbo=1]" in labels(trace)
    by_label = dict(zip((s["name"] for s in _spans(trace, "decode")), kernels_of(trace, "decode"), strict=True))
    assert by_label["decode[bs=4 tok=4 d=4 tbo=1]"]["kernel_unified_attention_2d"] == 2 * 2
    assert (sim.traces / "rank_0" / "capture_traces" / "bs_4_q_1_rank0.json.gz").exists()


def test_a_lone_sequence_has_no_second_batch() -> None:
    scheduler = make_scheduler(tbo="all")
    assert "tbo" not in scheduler.dummy_step().record["label"]


def test_details_add_shapes_frames_and_allocations(start: Starter) -> None:
    plain = _trace(start(*GPT_OSS, seed=1), 1, 6)
    trace = _trace(start(*GPT_OSS, seed=1, atom_profiler_more="1"), 1, 6)
    assert (trace["record_shapes"], trace["with_stack"], trace["profile_memory"]) == (1, 1, 1)
    assert "record_shapes" not in plain
    assert not events(plain, "python_function")
    for op in events(trace, "cpu_op"):
        assert op["args"]["Input Dims"][0][1] == 2880
        assert op["args"]["Input type"] == ["c10::BFloat16", "c10::BFloat16"]
    frames = events(trace, "python_function")
    by_id = {frame["args"]["Python id"]: frame for frame in frames}
    assert len(by_id) == len(frames)
    assert len(frames) < 4 * len(events(trace, "cpu_op"))
    for frame in frames:
        parent = frame["args"]["Python parent id"]
        if parent is not None:
            outer = by_id[parent]
            assert outer["ts"] <= frame["ts"]
            assert frame["ts"] + frame["dur"] <= outer["ts"] + outer["dur"] + 1e-3
    assert any("moe_forward" in frame["name"] for frame in frames)
    assert [event["name"] for event in events(trace, "cpu_instant_event")][:1] == ["[memory]"]
    assert sum(map(len, kernels_by_launch(trace).values())) == len(events(trace, "kernel"))


def test_the_time_of_kernels_does_not_depend_on_the_details(start: Starter) -> None:
    clock = 1_790_000_000_123_456_789
    first, second = (
        _trace(start(*GPT_OSS, seed=2, clock_ns=clock, atom_profiler_more=more), 1, 5) for more in ("0", "1")
    )
    durations = [[kernel["dur"] for kernel in events(trace, "kernel")] for trace in (first, second)]
    assert durations[0] == durations[1]
