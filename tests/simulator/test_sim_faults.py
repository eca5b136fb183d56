from __future__ import annotations

import gzip
import json
import signal
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.simulator.conftest import DEEPSEEK, GPT_OSS, Starter, read_trace

if TYPE_CHECKING:
    from pathlib import Path

TP2 = (*DEEPSEEK, "-tp", "2")


def _kernels(trace: dict[str, Any]) -> list[dict[str, Any]]:
    return [event for event in trace["traceEvents"] if event.get("cat") == "kernel"]


def _files(folder: Path) -> list[str]:
    return sorted(path.name.split("_ts_")[0] + path.name[path.name.index(".pt.") :] for path in folder.iterdir())


def _gone(pids: list[int], timeout: float = 8) -> bool:
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=timeout)
    return not alive


def test_sigterm_kills_after_a_graceful_close_and_leaves_nothing(start: Starter, tmp_path: Path) -> None:
    sim = start(*TP2, ledger=tmp_path / "ledger")
    titles = {title[0] for title in (psutil.Process(pid).cmdline() for pid in sim.survivors()) if title}
    assert len(sim.survivors()) == 4
    assert {"ATOM::EngineCore", "ATOM::TP0", "ATOM::TP1"} <= titles or not any("ATOM" in title for title in titles)
    sim.window()
    assert sim.stop(signal.SIGTERM) == -15
    assert sim.survivors() == []
    assert "Engine Core Mgr: All EngineCores shut down" in sim.log
    lines = [json.loads(line) for line in (tmp_path / "ledger").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "window", "window", "exit"]
    assert {line["pid"] for line in lines} == {sim.process.pid}
    assert lines[0]["model"] == "deepseek-ai/DeepSeek-V4-Pro"


def test_sigint_exits_0_with_atoms_lines(start: Starter) -> None:
    sim = start(*GPT_OSS)
    assert sim.stop(signal.SIGINT) == 0
    assert "Received SIGINT, shutting down engine..." in sim.log
    assert sim.survivors() == []


def test_sigkill_of_the_server_takes_its_tree_along(start: Starter) -> None:
    sim = start(*TP2)
    pids = sim.survivors()
    sim.process.kill()
    sim.process.wait(5)
    assert _gone([pid for pid in pids if pid != sim.process.pid])


def test_no_profiler_directory_answers_200_without_a_worker_line(start: Starter) -> None:
    sim = start(*GPT_OSS, profiler=False)
    assert sim.call("/start_profile")[0] == 200
    assert sim.call("/stop_profile")[1]["traces"] == [{"trace_dir": None, "elapsed": 0.0}]
    assert "profiler started (detailed" not in sim.log


def test_the_same_seed_and_schedule_give_the_same_bytes(start: Starter) -> None:
    texts = []
    for _ in range(2):
        sim = start(*GPT_OSS, seed=3, clock_ns=1_790_000_000_123_456_789)
        sim.window(requests=1, tokens=12)
        data = gzip.decompress(sim.wait_files(1)[0].read_bytes())
        texts.append(data[: data.rindex(b'"traceName"')])
    assert texts[0] == texts[1]


def test_dp_attention_runs_dummies_and_names_ranks_by_dp(start: Starter) -> None:
    sim = start(*DEEPSEEK, "-tp", "2", "--enable-dp-attention")
    assert sim.call("/server_info")[1]["dp_size"] == 2
    status, body = sim.window(requests=1, tokens=30)
    assert status == 200
    assert len(body["traces"]) == 2
    files = sim.wait_files(2)
    assert [file.parent.name for file in files] == ["dp0_tp0", "dp1_tp0"]
    kinds = [
        Counter(e["name"].split("[")[0] for e in read_trace(file)["traceEvents"] if e.get("cat") == "user_annotation")
        for file in files
    ]
    assert any(kind["decode"] == 29 for kind in kinds)
    assert any(kind["dummy_decode"] > 5 for kind in kinds)


def test_mtp_drafts_follow_their_decode(start: Starter) -> None:
    sim = start(*DEEPSEEK, "-tp", "1", "--method", "mtp", "--num-speculative-tokens", "3")
    sim.window(requests=2, tokens=30)
    trace = read_trace(sim.wait_files(1)[0])
    labels = [e["name"] for e in trace["traceEvents"] if e.get("cat") == "user_annotation"]
    at = next(i for i, label in enumerate(labels) if label.startswith("decode["))
    assert " spec=3]" in labels[at]
    assert [label.split(" ")[0] for label in labels[at + 1 : at + 4]] == ["draft[0/3", "draft[1/3", "draft[2/3"]
    assert sim.call("/debug/mtp_stats")[1]["acceptance_rate"] > 0


def test_an_eager_server_labels_its_decodes_so(start: Starter) -> None:
    sim = start(*GPT_OSS, "--enforce-eager")
    sim.window(requests=1, tokens=4)
    trace = read_trace(sim.wait_files(1)[0])
    labels = [e["name"].split("[")[0] for e in trace["traceEvents"] if e.get("cat") == "user_annotation"]
    assert labels == ["prefill", "eager_decode", "eager_decode", "eager_decode"]
    ops = Counter(e["name"] for e in trace["traceEvents"] if e.get("cat") == "cpu_op")
    assert ops["aiter::moe_forward"] == 4 * 4


@pytest.mark.parametrize("fault", ["export_error:1", "enospc:1"])
def test_a_failed_export_deletes_both_files_and_still_answers_200(start: Starter, fault: str) -> None:
    sim = start(*TP2, fault=fault)
    assert sim.window()[0] == 200
    sim.wait_log("Rank 1: failed to export trace to ")
    sim.wait_files(1)
    assert _files(sim.traces / "rank_1") == []


@pytest.mark.parametrize(
    ("fault", "left"),
    [
        ("kill_in_json:1", ["DeepSeek-V4-Pro.pt.trace.json"]),
        ("kill_in_gzip:1", ["DeepSeek-V4-Pro.pt.trace.json", "DeepSeek-V4-Pro.pt.trace.json.gz"]),
    ],
)
def test_a_worker_killed_in_its_export_leaves_its_files(start: Starter, fault: str, left: list[str]) -> None:
    sim = start(*TP2, fault=fault, atom_profiler_timeout="0.5")
    assert sim.window()[0] in (200, 500)  # 200 where rank 0 was done before rank 1 died
    sim.wait_log("[ModelRunner1/2] proc died unexpectedly (exitcode=-9), shutting down.")
    sim.wait_log("All runners are shutdown.")
    assert _files(sim.traces / "rank_1") == left
    assert sim.call("/health") == (200, {"status": "ok"})


def test_a_worker_killed_in_the_window_hangs_requests_but_not_the_api(start: Starter) -> None:
    sim = start(*TP2, fault="worker_killed:1:5", atom_profiler_timeout="0.3")
    assert sim.call("/start_profile")[0] == 200
    with pytest.raises(TimeoutError):
        sim.call("/v1/completions", {"prompt": "a", "max_tokens": 500}, timeout=1.5)
    sim.wait_log("proc died unexpectedly (exitcode=-9)")
    assert sim.call("/health")[0] == 200
    status, body = sim.call("/stop_profile")
    assert status == 500
    assert "Timed out waiting for UTILITY_RESPONSE for command 'stop_profile' (timeout=0.3s)" in body["detail"]


def test_a_stop_that_times_out_is_followed_by_late_files(start: Starter) -> None:
    sim = start(*GPT_OSS, fault="stop_timeout:0.2:0.6")
    status, body = sim.window()
    assert status == 500
    assert body["detail"].startswith("Failed to stop profiling: Engine Core Mgr: Timed out")
    assert list(sim.traces.rglob("*.gz")) == []
    assert len(sim.wait_files(1)) == 1


def test_an_asynchronous_stop_has_no_traces_key(start: Starter) -> None:
    sim = start(*GPT_OSS, fault="async_stop")
    assert sim.window() == (200, {"status": "success", "message": "Profiling stopped. Trace files generated."})
    sim.wait_files(1)
    sim.wait_log("Profiler stopped in ")


def test_the_event_loop_is_blocked_during_a_stop(start: Starter) -> None:
    sim = start(*GPT_OSS, fault="slow_rank:0:1.2")
    sim.call("/start_profile")
    sim.load(1, 4)
    stopper = threading.Thread(target=sim.call, args=("/stop_profile",))
    stopper.start()
    sim.wait_log("Rank 0: stopping profiler...")
    with pytest.raises(TimeoutError):
        sim.call("/health", timeout=0.3)
    stopper.join()
    assert sim.call("/health")[0] == 200


def test_faults_of_content_change_what_a_reader_sees(start: Starter) -> None:
    sim = start(*DEEPSEEK, "-tp", "4", fault="lossy_graph:0,no_kernels:1,missing_label:2,truncated_gz:3,extra_rank")
    sim.window(requests=2, tokens=30)
    files = {file.parent.name: file for file in sim.wait_files(5)}
    sizes = Counter(Counter(k["args"]["correlation"] for k in _kernels(read_trace(files["rank_0"]))).values())
    full = 29 * 3 + 35 + 7
    assert sizes[full] >= 20
    assert sizes[int(full * 0.6)] == 1
    assert _kernels(read_trace(files["rank_1"])) == []
    assert not any(e.get("cat") == "user_annotation" for e in read_trace(files["rank_2"])["traceEvents"])
    with pytest.raises(EOFError):
        gzip.decompress(files["rank_3"].read_bytes())
    assert "rank_4" in files


def test_empty_steps_two_traces_and_a_row_cap(start: Starter) -> None:
    sim = start(*TP2, fault="empty_steps:0,two_traces:0,row_cap:1:2000")
    sim.window(requests=1, tokens=30)
    files = sim.wait_files(3)
    assert [file.parent.name for file in files] == ["rank_0", "rank_0", "rank_1"]
    trace = read_trace(files[0])
    launches = {e["args"]["correlation"] for e in trace["traceEvents"] if e.get("name") == "hipGraphLaunch"}
    assert len(launches - {k["args"]["correlation"] for k in _kernels(trace)}) == 3
    assert len(read_trace(files[2])["traceEvents"]) < 2600


def test_a_missing_rank_has_no_directory(start: Starter) -> None:
    sim = start(*TP2, fault="missing_rank")
    assert sim.window()[0] == 200
    sim.wait_log("failed to export trace to")
    sim.wait_files(1)
    assert [path.name for path in sim.traces.iterdir()] == ["rank_0"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("die_loading", "run_engine: exception: torch.OutOfMemoryError"),
        ("shutdown_line", "Received unexpected SHUTDOWN signal from DP rank 0 during initialization"),
    ],
)
def test_a_failed_start_exits_non_zero_and_names_it(start: Starter, fault: str, words: str) -> None:
    sim = start(*TP2, ready=False, fault=fault)
    assert sim.process.wait(15) == 1
    assert words in sim.log
    assert "Failed to start all EngineCore processes" in sim.log
    assert _gone(sim.survivors())


def test_never_ready_lives_without_listening(start: Starter) -> None:
    sim = start(*GPT_OSS, ready=False, fault="never_ready")
    sim.wait_log("Model warmup done")
    with pytest.raises(OSError, match="refused"):
        sim.call("/v1/models")
    assert sim.process.poll() is None


def test_requests_fail_and_streams_stall_when_told(start: Starter) -> None:
    sim = start(*GPT_OSS, fault="fail_requests:2,stall_stream:3,port_other_model:Qwen/Other,start_already_running")
    assert "profiler started (detailed=False" in sim.log
    assert sim.call("/v1/models")[1]["data"][0]["id"] == "Qwen/Other"
    with pytest.raises(TimeoutError):
        sim.call("/v1/completions", {"prompt": "a", "max_tokens": 50, "stream": True}, timeout=0.5)
    assert sim.call("/v1/completions", {"prompt": "a", "max_tokens": 2})[0] == 500


def test_a_server_that_ignores_sigterm_and_one_that_leaks(start: Starter) -> None:
    stubborn = start(*GPT_OSS, fault="ignore_sigterm,leak_process:60")
    for number in (signal.SIGTERM, signal.SIGINT):
        stubborn.process.send_signal(number)
    time.sleep(0.2)
    assert stubborn.call("/health")[0] == 200
    stubborn.process.kill()
    stubborn.process.wait(5)
    deadline = time.monotonic() + 5
    while len(stubborn.survivors()) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(stubborn.survivors()) == 1


def test_mutations_strike_rank_phase_and_step(start: Starter) -> None:
    sim = start(
        *TP2,
        mutate="drop:_swa_write_kernel@rank=1@phase=decode;rename:mfma_moe1_*=fallback_gemm@step=3@phase=decode;"
        "slow:mfma_moe2_*=3@rank=0@phase=decode;extra:my_new_kernel",
    )
    sim.window(requests=1, tokens=20)
    first, second = (read_trace(file) for file in sim.wait_files(2))

    def decode(trace: dict[str, Any]) -> list[dict[str, Any]]:
        launches = {e["args"]["correlation"] for e in trace["traceEvents"] if e.get("name") == "hipGraphLaunch"}
        return [k for k in _kernels(trace) if k["args"]["correlation"] in launches]

    names = [Counter(k["name"] for k in decode(trace)) for trace in (first, second)]
    assert (names[0]["_swa_write_kernel"], names[1]["_swa_write_kernel"]) == (4 * 19, 0)
    assert names[0]["fallback_gemm"] == names[1]["fallback_gemm"] == 4
    assert names[0]["my_new_kernel"] == names[1]["my_new_kernel"] == 19

    def mean(trace: dict[str, Any], word: str) -> float:
        durations = [k["dur"] for k in decode(trace) if word in k["name"]]
        return float(sum(durations) / len(durations))

    assert mean(first, "mfma_moe2_") > 2.5 * mean(second, "mfma_moe2_")
    assert mean(second, "cross_device_reduce_2stage") > 1.5 * mean(first, "cross_device_reduce_2stage")
