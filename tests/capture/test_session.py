"""The whole way on the real simulator: what a case becomes, who shares it, what is remembered."""

from __future__ import annotations

import gzip
import json
import os
import threading
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.capture.session import CaptureSession, RunInfo
from pytest_atomtrace.capture.store import attempt_of
from pytest_atomtrace.errors import LaunchError, RememberedFailureError, WorkloadError
from pytest_atomtrace.settings import Settings
from tests.capture.conftest import Rig, small_case

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_atomtrace.capture.record import Capture


def test_a_case_becomes_whole_traces_of_exactly_its_ranks_and_a_manifest(rig: Rig) -> None:
    case = small_case()
    capture = rig.session().obtain(case, needed=[case], test_id="specs/test_x.py::test_y")

    assert list(capture.ranks) == ["rank_0", "rank_1"]
    assert capture.expected_ranks == ("rank_0", "rank_1")
    assert capture.engine == "sim"
    assert capture.capture_s > 0
    for path in capture.ranks.values():
        assert json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    manifest = json.loads((capture.directory / "manifest.json").read_text())
    assert manifest == capture.manifest
    assert manifest["case"] == case.as_dict()
    assert manifest["test"] == "specs/test_x.py::test_y"
    stages = [stage["stage"] for stage in manifest["stages"]]
    assert stages == ["launch", "warm_up", "start_profile", "workload", "export"]
    assert manifest["ranks"]["rank_1"]["size_bytes"] == capture.ranks["rank_1"].stat().st_size
    bench = json.loads((capture.directory / "bench.json").read_text())
    assert (bench["completed"], bench["failed"], bench["output_tokens"]) == (4, 0, 4 * 16)
    assert bench["input_tokens_min"] == bench["input_tokens_max"] == 64
    log = (capture.directory / "server.log").read_bytes()
    window = log[manifest["log_bytes"]["window_start"] : manifest["log_bytes"]["window_end"]]
    assert window.count(b"profiler started (detailed=") == 2
    rig.assert_nothing_left()
    assert not list(rig.run_dir.glob("servers/*/launch-*/trace"))


def test_one_line_is_said_at_each_stage(rig: Rig) -> None:
    case = small_case(tp=1)
    rig.session().obtain(case, needed=[case], test_id="t")
    said = [line.removeprefix(f"atomtrace [{case.slug}] ").split()[0].rstrip(":") for line in rig.lines]
    assert said == ["launching", "ready", "warm-up", "window", "export", "captured"]


def test_one_launch_serves_every_needed_case_of_its_key_and_no_other(rig: Rig) -> None:
    first, second = small_case(tp=1), small_case(tp=1, conc=2)
    other = small_case(tp=1, server_args=("--level", "0"))
    session = rig.session()
    session.obtain(first, needed=[first, other, second], test_id="t")
    assert rig.launches() == 1
    assert (rig.run_dir / "captures" / second.slug / "1" / "manifest.json").exists()
    assert not (rig.run_dir / "captures" / other.slug).exists()

    quiet = len(rig.lines)
    session.obtain(second, needed=[first, other, second], test_id="t2")
    assert len(rig.lines) == quiet, "what is on disk needs no stage"
    assert rig.launches() == 1


def test_windows_of_one_server_share_no_file(rig: Rig) -> None:
    cases = [small_case(conc=conc) for conc in (1, 2, 3)]
    session = rig.session()
    names = [
        {(path.parent.name, path.name) for path in session.obtain(case, needed=cases, test_id="t").ranks.values()}
        for case in cases
    ]
    assert [len(some) for some in names] == [2, 2, 2]
    assert len(set.union(*names)) == 6
    assert rig.launches() == 1


@pytest.mark.parametrize(
    ("fields", "ranks"),
    [
        ({"tp": 1}, ["rank_0"]),
        ({"tp": 1, "dp": 2}, ["dp0_tp0", "dp1_tp0"]),
        ({"tp": 2, "dp_attention": True}, ["dp0_tp0", "dp1_tp0"]),
        ({"tp": 1, "pp": 2}, ["pp0_rank_0", "pp1_rank_0"]),
        ({"tp": 1, "mark_trace": True}, ["rank_0"]),
    ],
    ids=lambda value: "-".join(f"{k}{v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_each_parallelism_gives_its_own_rank_set(rig: Rig, fields: dict[str, object], ranks: list[str]) -> None:
    case = small_case(**fields)
    capture = rig.session().obtain(case, needed=[case], test_id="t")
    assert list(capture.ranks) == ranks == list(capture.expected_ranks)


def test_what_two_workers_want_at_once_is_captured_once(rig: Rig) -> None:
    case = small_case(tp=1)
    rig.sim(READY_DELAY_S=1)
    taken: list[Capture] = []

    def work(worker: str) -> None:
        taken.append(rig.session(worker).obtain(case, needed=[case], test_id=worker))

    threads = [threading.Thread(target=work, args=(name,)) for name in ("gw0", "gw1", "gw2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({capture.directory for capture in taken}) == 1
    assert len(taken) == 3
    assert rig.launches() == 1
    rig.assert_nothing_left()


def test_a_failed_launch_is_remembered_for_every_case_of_its_key_and_only_for_those(rig: Rig) -> None:
    case, sister = small_case(tp=1), small_case(tp=1, conc=2)
    other = small_case(tp=1, server_args=("--level", "0"))
    rig.sim(FAULT="die_loading:3")
    session = rig.session()
    with pytest.raises(LaunchError):
        session.obtain(case, needed=[case, sister], test_id="specs/test_a.py::test_first")
    with pytest.raises(RememberedFailureError, match=r"first in specs/test_a.py::test_first: LaunchError"):
        rig.session("gw1").obtain(sister, needed=[case, sister], test_id="t2")
    assert rig.launches() == 1
    rig.sim(FAULT="")
    assert rig.session("gw2").obtain(other, needed=[other], test_id="t3").ranks


def test_a_failed_case_does_not_spoil_the_others_of_a_server_that_is_well(rig: Rig) -> None:
    # Request 9 is the last of the first case's window: ready 1, tokenizer 2, warm-up 3-6, window 7-10.
    case, sister = small_case(), small_case(conc=2)
    rig.sim(FAULT="fail_requests:9")
    session = rig.session()
    with pytest.raises(WorkloadError, match=r"1 of 4 requests of the window 1 failed: 1 x HTTP 500") as failed:
        session.obtain(case, needed=[case, sister], test_id="t")
    assert session.obtain(sister, needed=[case, sister], test_id="t2").ranks
    assert rig.launches() == 1
    quarantine = rig.run_dir / "quarantine" / f"{case.slug}-1"
    assert str(quarantine) in str(failed.value)
    assert len(list(quarantine.rglob("*.pt.trace.json.gz"))) == 2
    assert (quarantine / "reason.txt").read_text().startswith("WorkloadError: 1 of 4 requests")
    with pytest.raises(RememberedFailureError, match="WorkloadError"):
        session.obtain(case, needed=[case], test_id="t3")


def test_an_attempt_whose_owner_died_is_a_failure_of_the_case(rig: Rig) -> None:
    case = small_case()
    place = rig.run_dir / "captures" / case.slug
    place.mkdir(parents=True)
    dead = {"pid": os.getpid(), "start": 1, "worker": "gw3", "test": "specs/test_b.py::test_z"}
    (place / "attempt.json").write_text(json.dumps(dead))
    with pytest.raises(RememberedFailureError, match=r"test_z: InfraError: worker gw3 .* died during the capture"):
        rig.session().obtain(case, needed=[case], test_id="t")
    assert rig.launches() == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bench_args": ("--burstiness", "1")}, "no benchmark arguments"),
        ({"bench_args": ("--profile",)}, "no benchmark arguments"),
    ],
)
def test_what_the_built_in_workload_cannot_do_is_refused_before_a_launch(
    rig: Rig, fields: dict[str, object], message: str
) -> None:
    case = small_case(**fields)
    with pytest.raises(WorkloadError, match=message):
        rig.session().obtain(case, needed=[case], test_id="t")
    assert rig.launches() == 0


def test_what_a_test_was_attempting_when_its_process_died_is_known(rig: Rig) -> None:
    rig.sim(READY_DELAY_S=60)
    owner = rig.owner(small_case(tp=1))
    owner.says("] launching")
    owner.process.kill()
    rig.assert_nothing_left(seconds=20)
    key = small_case(tp=1).server_key
    assert attempt_of(rig.run_dir, "test_owner.py::test_0") == f"the launch of the server {key}"
    assert attempt_of(rig.run_dir, "test_owner.py::test_1") is None


def test_an_auto_backend_without_gpu_names_what_is_missing_and_how_to_run(rig: Rig) -> None:
    case = small_case()
    session = rig.session(backend="auto", python="/nonexistent/python")
    with pytest.raises(LaunchError, match=r"ATOM is not importable .* --atom-backend=sim"):
        session.obtain(case, needed=[case], test_id="t")


def test_a_session_closes_twice_and_without_ever_having_captured(rig: Rig) -> None:
    session = rig.session()
    session.close()
    session.close()
    assert rig.launches() == 0


def test_the_real_engine_is_launched_with_its_root_first_on_the_path(rig: Rig, tmp_path: Path) -> None:
    package = tmp_path / "root" / "atom" / "entrypoints"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "openai_server.py").write_text(
        "import runpy\nrunpy.run_module('pytest_atomtrace.simulator', run_name='__main__')\n"
    )
    case = small_case(tp=1, server_args=("--online_quant_config", '{"a": ["b c", 1]}'))
    capture = rig.session(backend="atom", root=str(tmp_path / "root")).obtain(case, needed=[case], test_id="t")
    assert capture.engine == "atom"
    server = capture.manifest["server"]
    assert isinstance(server, dict)
    assert server["argv"][1:3] == ["-m", "atom.entrypoints.openai_server"]
    assert '{"a": ["b c", 1]}' in server["argv"]


def test_a_dead_controller_is_noticed_before_anything_starts(rig: Rig) -> None:
    settings = Settings(backend="sim", lock_dir=str(rig.tmp_path / "locks"))
    run = RunInfo(rig.token, rig.run_dir, "gw0", (2**22 + 1,), ci=False)
    session = CaptureSession(settings, run, progress=rig.lines.append)
    with pytest.raises(Exception, match="that this run depends on is gone"):
        session.obtain(small_case(), needed=[], test_id="t")
