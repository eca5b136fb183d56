from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.simulator.conftest import DEEPSEEK, GPT_OSS, Starter, read_trace
from tests.simulator.reading import events, inside, kernels_by_launch, launches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulator.conftest import Sim
    from tests.simulator.reading import Event

SIZES = ("--cudagraph-capture-sizes", "[1,4,8]")


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sim]:
    """A server with --mark-trace on two ranks after a window of four requests."""
    starter = Starter(tmp_path_factory.mktemp("marked"))
    sim = starter(*DEEPSEEK, "-tp", "2", "--mark-trace", *SIZES, layers=4, seed=3)
    sim.window(requests=4, tokens=12)
    sim.wait_files(2)
    yield sim
    starter.end()


def _capture(sim: Sim, size: int, rank: int = 0) -> dict[str, Any]:
    return read_trace(sim.traces / f"rank_{rank}" / "capture_traces" / f"bs_{size}_q_1_rank{rank}.json.gz")


def _run(sim: Sim, rank: int = 0) -> dict[str, Any]:
    return read_trace(next((sim.traces / f"rank_{rank}").glob("*.pt.trace.json.gz")))


def _span(trace: dict[str, Any], name: str) -> Event:
    (found,) = [event for event in events(trace, "user_annotation") if event["name"] == name]
    return found


def _is_subsequence(part: list[str], whole: list[str]) -> bool:
    rest = iter(whole)
    return all(name in rest for name in part)


def test_every_rank_writes_one_capture_trace_a_size_before_it_is_ready(marked: Sim) -> None:
    for rank in (0, 1):
        folder = marked.traces / f"rank_{rank}" / "capture_traces"
        assert {path.name for path in folder.iterdir()} == {f"bs_{n}_q_1_rank{rank}.json.gz" for n in (1, 4, 8)}
        assert len(list(folder.parent.glob("*.pt.trace.json.gz"))) == 1
    log = marked.log
    start = log.index("Model Runner0/2: Starting CUDA graph capture profiler (detailed=False)...")
    saved = log.index(f"Saved capture trace for bs_8_q_1 to {marked.traces}/rank_0/capture_traces/bs_8_q_1_rank0")
    assert start < saved < log.index("Engine Core: cudagraph capture[[1, 4, 8]]")


def test_launches_of_the_span_are_the_kernels_of_the_replayed_graph_in_order(marked: Sim) -> None:
    for rank in (0, 1):
        capture = _capture(marked, 4, rank)
        span = _span(capture, "capture_graph_bs_4")
        recorded = [launch["args"]["kernel"] for launch in launches(capture) if inside(launch, span)]
        run = _run(marked, rank)
        kernels = kernels_by_launch(run)
        graphs = [call["args"]["correlation"] for call in launches(run) if call["name"] == "hipGraphLaunch"]
        assert len(graphs) >= 11
        for correlation in graphs:
            streams: dict[int, list[str]] = {}
            for kernel in kernels[correlation]:
                streams.setdefault(kernel["tid"], []).append(kernel["name"])
            assert set(streams) == {3, 7}
            assert sum(map(Counter, streams.values()), Counter()) == Counter(recorded)
            assert all(_is_subsequence(names, recorded) for names in streams.values())


def test_nothing_runs_in_the_span_and_everything_in_the_warm_up(marked: Sim) -> None:
    capture = _capture(marked, 8)
    span = _span(capture, "capture_graph_bs_8")
    ran = kernels_by_launch(capture)
    for launch in launches(capture):
        assert (launch["args"]["correlation"] in ran) == (not inside(launch, span))
        if not inside(launch, span):
            assert launch["ts"] < span["ts"]
            assert ran[launch["args"]["correlation"]][0]["name"] == launch["args"]["kernel"]
    calls = [event["name"] for event in events(capture, "cuda_runtime") if inside(event, span)]
    assert "hipGraphLaunch" not in calls
    assert {"hipStreamBeginCapture", "hipStreamEndCapture", "hipGraphInstantiateWithFlags"} <= set(calls)


def test_a_fill_stands_for_the_all_reduce_in_the_warm_up(marked: Sim) -> None:
    capture = _capture(marked, 4)
    span = _span(capture, "capture_graph_bs_4")
    reduces: Counter[tuple[str, bool]] = Counter()
    for launch in launches(capture):
        for word in ("cross_device_reduce", "FillFunctor"):
            reduces[word, inside(launch, span)] += word in launch["args"]["kernel"]
    assert reduces["cross_device_reduce", True] == reduces["FillFunctor", False] == 2 * 4 + 1
    assert reduces["cross_device_reduce", False] == reduces["FillFunctor", True] == 0


def test_spans_name_the_module_of_every_layers_launches(marked: Sim) -> None:
    capture = _capture(marked, 1)
    graph = _span(capture, "capture_graph_bs_1")
    spans = [event for event in events(capture, "user_annotation") if event["name"].startswith("model.layers.")]
    seen: dict[str, Counter[bool]] = {}
    for launch in launches(capture):
        around = [span for span in spans if inside(launch, span)]
        if not around:
            continue
        module = min(around, key=lambda span: float(span["dur"]))["name"]
        if "mfma_moe1_" in launch["args"]["kernel"]:
            seen.setdefault(module, Counter())[inside(launch, graph)] += 1
    assert seen == {f"model.layers.{n}.ffn.experts": Counter({True: 1, False: 1}) for n in range(4)}


def test_warm_up_spans_are_projected_on_each_stream_they_used(marked: Sim) -> None:
    capture = _capture(marked, 4)
    notes = events(capture, "gpu_user_annotation")
    by_name: dict[str, set[int]] = {}
    for note in notes:
        by_name.setdefault(note["name"], set()).add(note["tid"])
    assert by_name["model.layers.2.ffn.shared_experts"] == {7}
    assert by_name["model.layers.2.ffn"] == {3, 7}
    assert by_name["ProfilerStep#0"] == {3}
    (experts,) = [note for note in notes if note["name"] == "model.layers.2.ffn.experts"]
    around = [kernel["name"] for kernel in events(capture, "kernel") if inside(kernel, experts) and kernel["tid"] == 3]
    assert any("mfma_moe2_" in name for name in around)
    assert len(around) == 5
    cpu = [event for event in events(capture, "user_annotation") if event["name"] == experts["name"]]
    assert experts["args"]["External id"] == cpu[0]["args"]["External id"]


def test_marked_runs_have_spans_in_eager_passes_only(marked: Sim) -> None:
    run = _run(marked)
    labels = [event for event in events(run, "user_annotation") if "[" in event["name"]]
    spans = [event for event in events(run, "user_annotation") if event["name"].startswith("model.layers.")]
    prefills = [label for label in labels if label["name"].startswith("prefill[")]
    decodes = [label for label in labels if label["name"].startswith("decode[")]
    assert sum(span["name"] == "model.layers.3.attn" for span in spans) == len(prefills)
    assert all(any(inside(span, label) for label in prefills) for span in spans)
    assert decodes
    assert any(note["name"] == "model.layers.3.attn" for note in events(run, "gpu_user_annotation"))


def test_without_mark_trace_there_is_none_of_it(start: Starter) -> None:
    sim = start(*GPT_OSS, *SIZES)
    sim.window(requests=1, tokens=4)
    sim.wait_files(1)
    assert [path.name for path in sim.traces.iterdir()] == ["rank_0"]
    assert not (sim.traces / "rank_0" / "capture_traces").exists()
    assert not any("model.layers" in event["name"] for event in events(_run(sim), "user_annotation"))
    assert "capture profiler" not in sim.log


def test_an_eager_server_and_one_without_a_profiler_directory_capture_nothing(start: Starter) -> None:
    eager = start(*GPT_OSS, "--mark-trace", "--enforce-eager")
    assert not (eager.traces / "rank_0" / "capture_traces").exists()
    plain = start(*GPT_OSS, "--mark-trace", profiler=False)
    assert "Saved capture trace" not in plain.log


def test_captures_are_bounded_and_count_drafts(start: Starter) -> None:
    sim = start("--model", "deepseek-ai/DeepSeek-R1-0528", "--mark-trace", "--method", "mtp",
                "--num-speculative-tokens", "3", captures=2)  # fmt: skip
    folder = sim.traces / "rank_0" / "capture_traces"
    assert {path.name for path in folder.iterdir()} == {"bs_1_q_4_rank0.json.gz", "bs_2_q_4_rank0.json.gz"}
    names = [launch["args"].get("kernel", "") for launch in launches(read_trace(folder / "bs_1_q_4_rank0.json.gz"))]
    assert sum("qseqlen4" in name for name in names) == 2 * 4
    assert sum("Cijk_Alik" in name for name in names) == 2  # the logits belong to the graph of a single GPU


def test_a_regression_of_the_kernels_is_captured_too(start: Starter) -> None:
    sim = start(*GPT_OSS, "--mark-trace", *SIZES, mutate="rename:mfma_moe1_*=moe_fallback;extra:my_new_kernel")
    capture = _capture(sim, 4)
    span = _span(capture, "capture_graph_bs_4")
    recorded = Counter(launch["args"]["kernel"] for launch in launches(capture) if inside(launch, span))
    assert (recorded["moe_fallback"], recorded["my_new_kernel"]) == (4, 1)


def test_the_older_form_is_one_file_beside_the_runs_traces(start: Starter) -> None:
    sim = start(*GPT_OSS, "--mark-trace", *SIZES, era="guide")
    (path,) = (sim.traces / "rank_0").iterdir()
    assert path.match("capture_graph_gpt-oss-120b_ts_*.pt.trace.json.gz")
    trace = read_trace(path)
    spans = [_span(trace, f"capture_graph_bs_{size}") for size in (1, 4, 8)]
    ran = kernels_by_launch(trace)
    for earlier, later in pairwise(spans):
        between = [launch for launch in launches(trace) if earlier["ts"] < launch["ts"] < later["ts"]]
        executed = [launch for launch in between if launch["args"]["correlation"] in ran]
        assert len(between) == 2 * len(executed)
    correlations = [launch["args"]["correlation"] for launch in launches(trace)]
    assert len(set(correlations)) == len(correlations)
