"""Every fault of the simulator: which error, what it says, and that nothing is left behind."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.errors import (
    ExportError,
    InfraError,
    LaunchError,
    RememberedFailureError,
    WindowError,
    WorkloadError,
)
from pytest_atomtrace.simulator.faults import FAULTS
from tests.capture.conftest import Rig, small_case

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Row:
    """A fault, the error it must end in, and a pattern of its message."""

    fault: str
    error: type[InfraError]
    message: str
    settings: Mapping[str, object] = field(default_factory=dict)
    case: Mapping[str, object] = field(default_factory=dict)


ROWS = (
    Row("never_ready", LaunchError, r"stuck while starting: .* has not grown for", {"stall_timeout": 1.5}),
    Row("late_ready:20", LaunchError, r"not ready within 1.5 s", {"start_timeout": 1.5}),
    Row("die_loading:3", LaunchError, r"did not start: the GPUs' memory does not suffice: .*OutOfMemoryError"),
    Row("shutdown_line", LaunchError, r"an engine core gave up while starting: .*SHUTDOWN signal"),
    Row("port_other_model:foo/bar", LaunchError, r"serves foo/bar, not deepseek-ai/DeepSeek-V4-Pro"),
    Row("worker_killed:1:3", InfraError, r"a worker process died: .*ModelRunner1/2.*-9", case={"osl": 300}),
    Row("export_error:1", ExportError, r"1 of 2 ranks did not export.*: rank_1 failed \(the log says"),
    Row("enospc:1", ExportError, r"1 of 2 ranks did not export.*: rank_1 failed \(the log says"),
    Row("kill_in_json:1", ExportError, r"1 of 2 ranks did not export.*: rank_1 orphaned \(.*json of .* bytes"),
    Row("kill_in_gzip:1", ExportError, r"1 of 2 ranks did not export.*: rank_1 orphaned \(.*json of .* bytes"),
    Row("slow_rank:1:30", ExportError, r"nothing grew for 2.0 s: rank_1 json-growing", {"export_timeout": 2.0}),
    Row("truncated_gz:1", ExportError, r"rank_1 failed \(.*ends early"),
    Row("missing_rank", ExportError, r"rank_1 failed \(the log says"),
    Row("extra_rank", ExportError, r"ranks that the case does not have: rank_2 stale"),
    Row("two_traces:1", ExportError, r"rank_1 failed \(2 traces where one window leaves one\)"),
    Row("no_profiler", WindowError, r"no rank logged it(.|\n)*--torch-profiler-dir"),
    Row("rank_not_started:1", WindowError, r"1 of 2 ranks only: rank_1 did not say so", {"stall_timeout": 3.0}),
    Row("start_already_running", WindowError, r"a window was already open"),
    Row("fail_requests:7", WorkloadError, r"requests of the window 1 failed: 1 x HTTP 500"),
    Row("stall_stream:5", WorkloadError, r"not done within 2.0 s \(0 of 4 requests", {"workload_timeout": 2.0}),
)  # fmt: skip

#: Faults that a capture must survive.
HARMLESS = (
    "late_ready:1",
    "slow_rank:1:2",
    "stop_timeout",
    "async_stop",
    "ignore_sigterm",
    "leak_process",
    "print_environment",
    "untuned",
)

#: Faults of a capture's content: it is taken as it is, health finds them.
CONTENT = {"no_kernels", "lossy_graph", "empty_steps", "missing_label", "row_cap", "aiter_build"}


#: Faults that need a machine with GPUs: tests of the lease and the memory have one.
GPU = {"leak_vram"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fault)
def test_a_fault_ends_in_its_error_and_leaves_nothing_behind(rig: Rig, row: Row) -> None:
    rig.sim(FAULT=row.fault)
    case = small_case(**row.case)
    session = rig.session_with(row.settings)
    with pytest.raises(row.error, match=row.message) as failed:
        session.obtain(case, needed=[case], test_id="specs/test_x.py::test_y")
    rig.assert_nothing_left()
    assert failed.value.evidence or row.fault in ("extra_rank", "fail_requests:7")

    launches = rig.launches()
    with pytest.raises(RememberedFailureError, match=r"first in specs/test_x\.py::test_y"):
        rig.session("gw1").obtain(case, needed=[case], test_id="other")
    assert rig.launches() == launches, "what failed in this run is not tried again"
    if row.error is not LaunchError:
        reason = rig.run_dir / "quarantine" / f"{case.slug}-1" / "reason.txt"
        assert failed.value.problem in reason.read_text()
        assert (reason.parent / "server.log").stat().st_size > 0


@pytest.mark.parametrize("fault", HARMLESS)
def test_a_capture_survives_what_is_harmless(rig: Rig, fault: str) -> None:
    rig.sim(FAULT=fault)
    case = small_case()
    capture = rig.session().obtain(case, needed=[case], test_id="t")
    assert list(capture.ranks) == ["rank_0", "rank_1"]
    assert capture.manifest["stop_status"] == (500 if fault == "stop_timeout" else 200)
    rig.assert_nothing_left()


def test_every_fault_of_the_simulator_has_its_test() -> None:
    tested = {row.fault.partition(":")[0] for row in ROWS} | {name.partition(":")[0] for name in HARMLESS}
    assert tested | CONTENT | GPU == set(FAULTS)


def test_a_taken_port_is_named_and_nothing_is_launched(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        case = small_case()
        with pytest.raises(LaunchError, match=f"port {port} is taken"):
            rig.session(port=port).obtain(case, needed=[case], test_id="t")
    assert rig.launches() == 0


def test_a_refused_argument_is_named(rig: Rig) -> None:
    case = small_case(server_args=("--no-such-flag", "1"))
    with pytest.raises(LaunchError, match=r"the command line was refused: .*unrecognized arguments: --no-such-flag"):
        rig.session().obtain(case, needed=[case], test_id="t")


def test_an_argument_that_changes_the_parallelism_is_found_before_the_window(rig: Rig) -> None:
    case = small_case(tp=1, server_args=("--data-parallel-siz", "2"))  # argparse takes abbreviations
    with pytest.raises(LaunchError, match=r"tp_size=1, dp_size=2, the case needs tp_size=1, dp_size=1"):
        rig.session().obtain(case, needed=[case], test_id="t")
