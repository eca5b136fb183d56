"""Who owns a kernel: the attribution rules on built corner cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.trace.data import MEMCPY, PHASES
from pytest_atomtrace.trace.steady import steady_steps
from tests.trace.builder import Kineto

if TYPE_CHECKING:
    from pytest_atomtrace.trace.data import RankData


def _owned(rank: RankData) -> list[tuple[str, list[str]]]:
    return [(step.label.text, [rank.names[n] for n in rank.name_id[step.rows].tolist()]) for step in rank.steps]


def _phases(rank: RankData) -> dict[str, str]:
    return {
        rank.names[number]: PHASES[phase]
        for number, phase in zip(rank.name_id.tolist(), rank.phase.tolist(), strict=True)
    }


def test_a_kernel_belongs_to_the_label_that_launched_it_however_late_it_runs() -> None:
    trace = Kineto()
    for number in range(3):
        trace.label(f"decode[bs={number + 1}]", 1000.0 + 400 * number)
        trace.replay([f"k{number}"], 1020.0 + 400 * number)
    assert _owned(trace.rank()) == [("decode[bs=1]", ["k0"]), ("decode[bs=2]", ["k1"]), ("decode[bs=3]", ["k2"])]


def test_graph_and_eager_launches_share_a_step_and_graph_is_a_property_of_the_launch() -> None:
    trace = Kineto()
    trace.label("decode[bs=4 tok=4 d=4]", 1000.0)
    trace.replay(["k0", "k1"], 1020.0)
    trace.eager("logits", 1100.0)
    trace.replay(["k2"], 1150.0)
    rank = trace.rank()
    (step,) = rank.steps
    assert (step.n_kernels, step.n_graph_launches) == (4, 2)
    graph = {rank.names[n]: bool(g) for n, g in zip(rank.name_id.tolist(), rank.graph.tolist(), strict=True)}
    assert graph == {"k0": True, "k1": True, "logits": False, "k2": True}


def test_another_thread_without_labels_launches_for_the_label_of_its_process() -> None:
    trace = Kineto()
    trace.label("prefill[bs=1 tok=8 ctx=8]", 1000.0)
    trace.eager("here", 1010.0)
    trace.eager("helper", 1020.0, tid=501)
    trace.pid = 999
    trace.eager("stranger", 1030.0, tid=700)
    rank = trace.rank()
    assert _owned(rank) == [("prefill[bs=1 tok=8 ctx=8]", ["here", "helper"])]
    assert _phases(rank)["stranger"] == "other"


def test_a_worker_thread_with_labels_of_its_own_keeps_its_launches() -> None:
    trace = Kineto()
    trace.label("prefill[bs=2 tok=8 ctx=4 tbo=1]", 1000.0)
    trace.label("decode[bs=1 tok=1 d=1 tbo=1]", 1050.0, 100.0, tid=501)
    trace.eager("main", 1060.0)
    trace.eager("worker", 1061.0, tid=501)
    trace.eager("worker_outside", 1200.0, tid=501)
    owned = dict(_owned(trace.rank()))
    assert owned["prefill[bs=2 tok=8 ctx=4 tbo=1]"] == ["main"]
    assert owned["decode[bs=1 tok=1 d=1 tbo=1]"] == ["worker"]


def test_nested_labels_of_vllm_and_sglang_are_one_step_the_inner_one() -> None:
    trace = Kineto()
    trace.label("execute_4_context_0(sq0)_generation_4(sq4)", 1000.0, 500.0)
    trace.label("step[DECODE bs=4]", 1100.0, 200.0)
    trace.eager("before", 1050.0)
    trace.replay(["k"], 1150.0)
    trace.eager("after", 1400.0)
    rank = trace.rank()
    assert _owned(rank) == [("step[DECODE bs=4]", ["k"])]
    assert _phases(rank) == {"before": "other", "k": "decode", "after": "sample"}


def test_execute_labels_alone_are_the_steps() -> None:
    trace = Kineto()
    trace.label("execute_4_context_0(sq0)_generation_4(sq4)", 1000.0)
    trace.replay(["k"], 1150.0)
    assert [step.kind for step in trace.rank().steps] == ["decode"]


def test_missing_correlations_match_nothing() -> None:
    trace = Kineto()
    trace.label("decode[bs=4]", 1000.0)
    trace.x("hipGraphLaunch", "cuda_runtime", 1010.0, 5.0, 500, 500)
    trace.x("hipGraphLaunch", "cuda_runtime", 1020.0, 5.0, 500, 500, correlation=0)
    trace.kernel("unlinked", 21_000.0, 5.0, None)
    trace.kernel("zero", 21_010.0, 5.0, 0)
    trace.replay(["mine"], 1030.0)
    rank = trace.rank()
    assert _owned(rank) == [("decode[bs=4]", ["mine"])]
    assert _phases(rank) == {"unlinked": "unattributed", "zero": "unattributed", "mine": "decode"}


def test_what_was_in_flight_when_the_window_opened_belongs_to_no_step() -> None:
    trace = Kineto().decodes(5)
    trace.kernel("early", 900.0, 50.0, 3)
    rank = trace.rank()
    assert _phases(rank)["early"] == "unattributed"
    assert [step.n_kernels for step in rank.steps] == [3] * 5
    assert [step.edge for step in rank.steps] == [True, False, False, False, True]


def test_without_launch_records_gpu_annotations_decide() -> None:
    trace = Kineto()
    for number in range(3):
        external = trace.label(f"decode[bs={number + 1}]", 1000.0 + 400 * number)
        low = 30_000.0 + 100 * number
        trace.gpu_label(f"decode[bs={number + 1}]", low, 40.0, external)
        # A second projection, on a side stream, of the same label.
        trace.gpu_label(f"decode[bs={number + 1}]", low + 30, 30.0, external, stream=3)
        trace.kernel(f"k{number}", low, 35.0, None)
        trace.kernel(f"side{number}", low + 30, 30.0, None, stream=3)
    trace.kernel("between", 30_080.0, 5.0, None)
    rank = trace.rank()
    assert [kernels for _, kernels in _owned(rank)] == [["k0", "side0"], ["k1", "side1"], ["k2", "side2"]]
    assert {step.source for step in rank.steps} == {"annotation"}
    assert [step.note_end_ns - step.note_start_ns for step in rank.steps] == [60_000] * 3


def test_annotations_without_external_ids_pair_with_labels_by_order_not_with_each_other() -> None:
    trace = Kineto()
    for number in range(3):
        trace.label("decode[bs=4]", 1000.0 + 400 * number, linked=False)
        trace.gpu_label("decode[bs=4]", 30_000.0 + 100 * number, 50.0, None)
        trace.kernel(f"k{number}", 30_010.0 + 100 * number, 5.0, None)
    assert [kernels for _, kernels in _owned(trace.rank())] == [["k0"], ["k1"], ["k2"]]


def test_labels_known_from_the_gpu_only_become_steps_once_per_id() -> None:
    trace = Kineto()
    for number in range(2):
        for stream in (0, 3):
            trace.gpu_label("decode[bs=4]", 30_000.0 + 100 * number + stream, 50.0, number + 1, stream=stream)
        trace.kernel(f"k{number}", 30_010.0 + 100 * number, 5.0, None)
    rank = trace.rank()
    assert [(step.kind, step.n_kernels, step.source) for step in rank.steps] == [("decode", 1, "annotation")] * 2


def test_annotations_that_contradict_the_launches_are_counted_and_not_believed() -> None:
    trace = Kineto()
    for number in range(4):
        external = trace.label("decode[bs=4]", 1000.0 + 400 * number)
        trace.replay(["k0", "k1", "k2"], 1020.0 + 400 * number)
        if number:
            trace.gpu_label("decode[bs=4]", trace.gpu_us - 2, 1.0, external)
    rank = trace.rank()
    assert [step.n_kernels for step in rank.steps] == [3] * 4
    assert rank.annotation_mismatches == 3
    assert {step.source for step in rank.steps} == {"launch"}


def test_drafts_are_steps_of_their_own_under_their_decode_and_break_no_run() -> None:
    trace = Kineto()
    trace.label("prefill[bs=4 tok=64 ctx=16]", 100.0)
    trace.eager("p", 110.0)
    trace.label("draft[0/1 bs=4]", 450.0, 40.0)
    trace.eager("after_prefill", 455.0)
    for number in range(20):
        at = 1000.0 + 1000 * number
        trace.label("decode[bs=4 tok=8 d=4 spec=1]", at)
        trace.replay(["k"], at + 10)
        trace.eager("reject", at + 350)
        trace.label("draft[0/1 bs=4]", at + 400, 50.0)
        trace.replay(["draft_kernel"], at + 410)
        trace.eager("after_draft", at + 500)
    rank = trace.rank()
    drafts = [step for step in rank.steps if step.kind == "draft"]
    assert drafts[0].decode_index == -1
    assert all(rank.steps[d.decode_index].kind == "decode" for d in drafts[1:])
    assert len({d.decode_index for d in drafts[1:]}) == 20
    assert _phases(rank)["reject"] == "sample"
    assert _phases(rank)["after_draft"] == "other"
    assert len(steady_steps(rank, "decode")) == 20 - 5 - 2
    assert len(steady_steps(rank, "draft")) == 21 - 5 - 2


def test_copies_are_activities_of_a_step_but_not_kernels() -> None:
    trace = Kineto()
    trace.label("decode[bs=4]", 1000.0)
    trace.replay(["k"], 1010.0)
    link = trace.call(1020.0, name="hipMemcpyAsync")
    trace.kernel("Memcpy DtoH", 21_500.0, 100.0, link, cat="gpu_memcpy")
    rank = trace.rank()
    (step,) = rank.steps
    assert (len(step.rows), step.n_kernels, step.gpu_busy_ns) == (2, 1, 10_000)
    assert rank.kind.tolist().count(MEMCPY) == 1


def test_overlaps_on_one_stream_are_clipped_and_streams_are_united() -> None:
    trace = Kineto()
    trace.label("decode[bs=4]", 1000.0)
    link = trace.call(1010.0, name="hipGraphLaunch")
    trace.kernel("early_side", 90.0, 5.0, link, stream=3)
    trace.kernel("a", 100.0, 10.0, link)
    trace.kernel("b", 106.0, 10.0, link)
    trace.kernel("side", 110.0, 20.0, link, stream=3)
    (step,) = trace.rank().steps
    assert step.kernel_sum_ns == 45_000
    assert step.gpu_busy_ns == 5_000 + 30_000
    assert step.overlap_ns == 4_000
    # The side stream is the busier one here, so the span starts with its first kernel.
    assert step.gpu_span_ns == 40_000


def test_the_span_starts_on_the_busiest_stream() -> None:
    trace = Kineto()
    trace.label("decode[bs=4]", 1000.0)
    link = trace.call(1010.0, name="hipGraphLaunch")
    trace.kernel("prefetch", 50.0, 2.0, link, stream=3)
    trace.kernel("a", 100.0, 30.0, link)
    trace.kernel("b", 130.0, 10.0, link)
    (step,) = trace.rank().steps
    assert (step.gpu_span_ns, step.gpu_busy_ns) == (40_000, 42_000)


def test_ops_and_annotations_are_counted_per_phase() -> None:
    trace = Kineto()
    trace.label("prefill[bs=1 tok=8 ctx=8]", 1000.0)
    trace.op("aiter::moe_forward", 1010.0)
    trace.op("aiter::moe_forward", 1100.0)
    trace.eager("k", 1110.0)
    trace.label("decode[bs=1 tok=1 d=1]", 2000.0)
    trace.replay(["g"], 2010.0)
    trace.op("aten::copy_", 2400.0)
    rank = trace.rank()
    assert rank.op_counts == {"aiter::moe_forward": {"prefill": 2}, "aten::copy_": {"sample": 1}}
    assert rank.annotation_counts["decode[bs=1 tok=1 d=1]"] == {"decode": 1}


def test_eager_dummy_and_graph_decodes_are_kinds_apart() -> None:
    trace = Kineto()
    texts = ["eager_decode[bs=2 tok=2 ctx=[5, 6]]", "dummy_decode[bs=1/4 tok=1 d=1]", "decode[bs=3/4 tok=3 d=3]"]
    texts += ["dspark_ctx_kv[bs=4 tok=8]", "dspark[bs=4 T=7]", "decode_step_bs_4"]
    for number, text in enumerate(texts):
        trace.label(text, 1000.0 + 400 * number)
        trace.eager(f"k{number}", 1010.0 + 400 * number)
    rank = trace.rank()
    kinds = ["eager_decode", "dummy_decode", "decode", "dspark_ctx_kv", "dspark", "decode"]
    assert [step.kind for step in rank.steps] == kinds
    assert [_phases(rank)[f"k{n}"] for n in range(6)] == kinds


def test_steady_steps_leave_out_ends_breaks_and_small_batches() -> None:
    trace = Kineto()
    at = 1000.0
    sizes = [64] * 20 + [0] + [64] * 12 + [10] * 9 + [60] * 3
    for size in sizes:
        if size:
            trace.label(f"decode[bs={size}/64 tok={size} d={size}]", at)
        else:
            trace.label("prefill[bs=1 tok=8 ctx=8]", at)
        trace.replay(["k"], at + 10)
        at += 400
    rank = trace.rank()
    steady = steady_steps(rank, "decode")
    # 20 - 5 - 2 of the first run; the second loses its first 5 and, at its end, 2 of the three with bs 60.
    assert [step.index for step in steady] == [*range(5, 18), *range(26, 33), 42]
    assert steady_steps(rank, "decode", bs=10) == [s for s in rank.steps if s.bs == 10]
    assert steady_steps(rank, "decode", bs=9) == []
    assert steady_steps(rank, "draft") == []
    assert len(steady_steps(rank, "decode", skip_first=0, skip_last=0, near_peak=0.0)) == 44
    assert steady_steps(rank, "decode", skip_first=99) == []


def test_a_trace_without_gpu_events_or_calls_is_built_too() -> None:
    trace = Kineto()
    trace.label("decode[bs=1]", 1000.0)
    rank = trace.rank()
    assert (len(rank.name_id), len(rank.launches), rank.steps[0].n_kernels) == (0, 0, 0)
    trace = Kineto()
    trace.op("aten::mm", 1.0)
    assert trace.rank().steps == ()
