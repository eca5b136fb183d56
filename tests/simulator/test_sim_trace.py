from __future__ import annotations

import re
from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.simulator.conftest import Captured

NAME = re.compile(r"DeepSeek-V4-Pro_ts_\d{8}_\d{6}_\d{3}\.pt\.trace\.json\.gz")
# six layers: 0, 1, 3, 5 are HCA and 2, 4 CSA; 0 to 2 are routed by hash
CSA, HCA, LEARNED = 2, 4, 3


def _events(trace: dict[str, Any], category: str) -> list[dict[str, Any]]:
    return [event for event in trace["traceEvents"] if event.get("cat") == category and event["ph"] == "X"]


def _ns(value: float) -> int:
    return round(value * 1000)


def _graphs(trace: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    launches = {
        event["args"]["correlation"] for event in _events(trace, "cuda_runtime") if event["name"] == "hipGraphLaunch"
    }
    graphs = defaultdict(list)
    for kernel in _events(trace, "kernel"):
        if kernel["args"]["correlation"] in launches:
            graphs[kernel["args"]["correlation"]].append(kernel)
    assert set(graphs) == launches
    return graphs


@pytest.fixture(params=["rank_0", "rank_1"])
def trace(captured: Captured, request: pytest.FixtureRequest) -> dict[str, Any]:
    return captured.traces[request.param]


def test_each_rank_leaves_one_trace_of_atoms_name_and_no_json(captured: Captured) -> None:
    root = captured.sim.traces
    assert sorted(path.name for path in root.iterdir()) == ["rank_0", "rank_1"]
    for folder in root.iterdir():
        names = [path.name for path in folder.iterdir()]
        assert len(names) == 1
        assert NAME.fullmatch(names[0])


def test_top_level_keys_are_kinetos(captured: Captured) -> None:
    for index, trace in enumerate(captured.traces.values()):
        # One key is not kineto's: it tells made-up times from a GPU's wherever the file goes.
        assert list(trace)[:3] == ["schemaVersion", "simulatedBy", "deviceProperties"]
        assert trace["deviceProperties"][0]["name"] == "AMD Instinct MI355X"
        assert (trace["distributedInfo"]["rank"], trace["distributedInfo"]["world_size"]) == (index, 2)
        assert {"displayTimeUnit", "baseTimeNanoseconds", "traceName"} <= set(trace)


def test_a_decode_replays_one_graph_with_the_kernels_of_its_layers(trace: dict[str, Any]) -> None:
    for kernels in _graphs(trace).values():
        names = Counter(kernel["name"] for kernel in kernels)
        assert names["mfma_moe1_silu_mul_afp8_wfp4_fp8_t32x128x256_pm1_fp8q_sort_async_gui_v33"] == CSA + HCA
        assert names["_hash_topk_kernel"] == 3
        assert sum(count for name, count in names.items() if "topk_gating_kernel_opt<" in name) == LEARNED
        assert names["_paged_decode_fused_kernel"] == HCA
        assert names["_paged_decode_split_kernel"] == CSA
        assert sum(count for name, count in names.items() if "cross_device_reduce_2stage<" in name) == 2 * (CSA + HCA)
        assert len(kernels) == 29 * HCA + 35 * CSA + 7


def test_graph_kernels_share_the_launchs_correlation_and_have_no_external_id(trace: dict[str, Any]) -> None:
    graphs = _graphs(trace)
    assert len(graphs) >= 39
    assert not any("External id" in kernel["args"] for kernels in graphs.values() for kernel in kernels)
    for launch in _events(trace, "cuda_runtime"):
        if launch["name"] == "hipGraphLaunch":
            assert "External id" not in launch["args"]
            assert "kernel" not in launch["args"]


def test_ops_of_the_graph_do_not_reappear_in_decode_but_in_prefill(trace: dict[str, Any]) -> None:
    labels: dict[str, list[tuple[float, float]]] = {"decode[": [], "prefill[": []}
    for event in _events(trace, "user_annotation"):
        labels[event["name"].split("[")[0] + "["].append((event["ts"], event["ts"] + event["dur"]))
    moe = [event["ts"] for event in _events(trace, "cpu_op") if event["name"] == "aiter::moe_forward"]
    assert len(moe) == (CSA + HCA) * len(labels["prefill["])
    assert not any(begin <= ts <= end for ts in moe for begin, end in labels["decode["])
    assert all(any(begin <= ts <= end for begin, end in labels["prefill["]) for ts in moe)


def test_eager_launches_name_their_kernel_and_share_its_external_id(trace: dict[str, Any]) -> None:
    launches = {event["args"]["correlation"]: event for event in _events(trace, "cuda_runtime")}
    ops = {event["args"]["External id"]: event for event in _events(trace, "cpu_op")}
    seen = set()
    for kernel in _events(trace, "kernel"):
        external = kernel["args"].get("External id")
        if external is None:
            continue
        launch = launches[kernel["args"]["correlation"]]
        assert launch["args"]["kernel"] == kernel["name"]
        assert launch["args"]["External id"] == external
        op = ops[external]
        assert op["ts"] <= launch["ts"]
        assert launch["ts"] + launch["dur"] <= op["ts"] + op["dur"]
        seen.add(launch["name"])
    assert seen == {"hipLaunchKernel", "hipModuleLaunchKernel", "hipExtModuleLaunchKernel"}


def test_the_logits_tail_is_launched_eagerly_inside_the_decode_label(trace: dict[str, Any]) -> None:
    labels = [event for event in _events(trace, "user_annotation") if event["name"].startswith("decode[")]
    gathers = [event for event in _events(trace, "cuda_runtime") if "ncclDevKernel" in str(event["args"].get("kernel"))]
    inside = [sum(label["ts"] <= event["ts"] <= label["ts"] + label["dur"] for event in gathers) for label in labels]
    assert inside == [1] * len(labels)


def test_kernels_start_milliseconds_after_their_launch_and_never_overlap_on_a_stream(
    trace: dict[str, Any],
) -> None:
    launches = {event["args"]["correlation"]: event for event in _events(trace, "cuda_runtime")}
    activities = _events(trace, "kernel") + _events(trace, "gpu_memcpy")
    lags = [
        activity["ts"] - launches[activity["args"]["correlation"]]["ts"]
        for activity in activities
        if activity["args"]["correlation"] in launches
    ]
    assert min(lags) >= 5_000
    streams = defaultdict(list)
    for activity in activities:
        streams[activity["tid"]].append((_ns(activity["ts"]), _ns(activity["dur"])))
    assert set(streams) == {3, 7}
    for spans in streams.values():
        spans.sort()
        assert all(start + took <= after + 1 for (start, took), (after, _) in pairwise(spans))


def test_neighbours_in_a_graph_abut(trace: dict[str, Any]) -> None:
    gaps = []
    for kernels in _graphs(trace).values():
        main = sorted((_ns(k["ts"]), _ns(k["dur"])) for k in kernels if k["tid"] == 3)
        gaps += [after - start - took for (start, took), (after, _) in pairwise(main)]
    assert sum(gap <= 2 for gap in gaps) / len(gaps) > 0.9


def test_kernels_in_flight_at_the_start_have_no_launch_record(trace: dict[str, Any]) -> None:
    launches = {event["args"]["correlation"] for event in _events(trace, "cuda_runtime")}
    kernels = sorted(_events(trace, "kernel"), key=lambda kernel: float(kernel["ts"]))
    orphans = [index for index, kernel in enumerate(kernels) if kernel["args"]["correlation"] not in launches]
    assert orphans
    assert orphans == list(range(len(orphans)))


def test_every_flow_arrow_has_both_ends(trace: dict[str, Any]) -> None:
    starts = {event["id"] for event in trace["traceEvents"] if event["ph"] == "s"}
    launched = {event["args"]["correlation"] for event in _events(trace, "cuda_runtime")}
    ends = {event["id"] for event in trace["traceEvents"] if event["ph"] == "f"}
    assert starts == launched
    assert starts <= ends


def test_labels_are_the_schedule_and_agree_over_ranks(captured: Captured) -> None:
    labels = [[event["name"] for event in _events(trace, "user_annotation")] for trace in captured.traces.values()]
    assert labels[0] == labels[1]
    grammar = re.compile(
        r"prefill\[bs=\d+ tok=\d+ ctx=(\d+|\[[\d, ]+\](\.\.\.\+\d+)?)\]|decode\[bs=\d+(/\d+)? tok=\d+ d=\d+\]"
    )
    assert all(grammar.fullmatch(label) for label in labels[0])
    assert "decode[bs=8 tok=8 d=8]" in labels[0]
    prefilled = sum(int(re.findall(r"tok=(\d+)", label)[0]) for label in labels[0] if label.startswith("prefill["))
    assert prefilled == 8 * 64


def test_a_late_rank_makes_the_collective_longer_on_the_other(captured: Captured) -> None:
    first, second = (
        [k["dur"] for ks in _graphs(trace).values() for k in ks if "cross_device_reduce_2stage" in k["name"]]
        for trace in captured.traces.values()
    )
    assert len(first) == len(second)
    waits = [(a - min(a, b), b - min(a, b)) for a, b in zip(first, second, strict=True)]
    assert any(a > 0.05 for a, _ in waits)
    assert any(b > 0.05 for _, b in waits)
