"""One fresh launch after a failure that is known to pass, none after any other; both attempts are shown."""

from __future__ import annotations

import json
import socket

import pytest

from pytest_atomtrace.capture.transient import TRANSIENT, transient
from pytest_atomtrace.errors import (
    ExportError,
    InfraError,
    LaunchError,
    RememberedFailureError,
    WorkloadError,
)
from tests.capture.conftest import Rig, small_case


def once(rig: Rig, fault: str) -> None:
    """The fault strikes the first server only."""
    rig.sim(FAULT=fault, ONCE=rig.tmp_path / "struck")


@pytest.mark.parametrize(
    ("fault", "about", "error", "fields"),
    [
        ("kill_in_gzip:1", "window 1 of", "ExportError", {}),
        ("worker_killed:1:3", "window 1 of", "WorkloadError", {"osl": 300}),
    ],
)
def test_a_transient_failure_gets_one_fresh_launch_and_the_manifest_tells_of_both(
    rig: Rig, fault: str, about: str, error: str, fields: dict[str, object]
) -> None:
    once(rig, fault)
    case, sister = small_case(**fields), small_case(conc=2, **fields)
    session = rig.session()
    capture = session.obtain(case, needed=[case, sister], test_id="t")
    assert rig.launches() == 2
    attempts = capture.manifest["attempts"]
    assert isinstance(attempts, list)
    [attempt] = attempts
    assert attempt["about"].startswith(about)
    assert attempt["error"] == error
    assert attempt["reason"] in {row.reason for row in TRANSIENT}
    assert (rig.run_dir / "quarantine" / f"{case.slug}-1-first" / "reason.txt").exists()
    assert not (rig.run_dir / "captures" / case.slug / "failed.json").exists()
    assert session.obtain(sister, needed=[case, sister], test_id="t").ranks, "taken on the second launch"
    assert rig.launches() == 2
    assert any("once more, on a fresh launch" in line for line in rig.lines)
    rig.assert_nothing_left()


def test_a_failure_of_both_attempts_shows_both_and_is_remembered(rig: Rig) -> None:
    rig.sim(FAULT="kill_in_json:1")
    case = small_case()
    with pytest.raises(ExportError, match=r"rank_1 orphaned") as failed:
        rig.session().obtain(case, needed=[case], test_id="t")
    assert rig.launches() == 2
    assert failed.value.evidence[0].startswith(f"first attempt at window 1 of {case.slug}: ExportError: 1 of 2 ranks")
    assert "(tried again: an exporter was killed" in failed.value.evidence[0]
    with pytest.raises(RememberedFailureError, match="ExportError") as remembered:
        rig.session("gw1").obtain(case, needed=[case], test_id="t2")
    assert any(line.startswith("first attempt at") for line in remembered.value.evidence)
    assert rig.launches() == 2
    rig.assert_nothing_left()


@pytest.mark.parametrize("fault", ["die_loading:3", "export_error:1", "truncated_gz:1", "no_profiler"])
def test_a_failure_that_another_launch_cannot_change_is_not_tried_again(rig: Rig, fault: str) -> None:
    once(rig, fault)
    case = small_case()
    with pytest.raises(InfraError):
        rig.session().obtain(case, needed=[case], test_id="t")
    assert rig.launches() == 1


def test_a_port_of_the_user_is_as_taken_the_second_time(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        case = small_case()
        with pytest.raises(LaunchError, match="is taken") as failed:
            rig.session(port=other.getsockname()[1]).obtain(case, needed=[case], test_id="t")
    assert not any("first attempt" in line for line in failed.value.evidence)


def test_the_last_attempt_of_a_sister_does_not_hide_what_the_asked_case_got(rig: Rig) -> None:
    # The orphan of the first case loses the server; the sister is taken on the second launch with it.
    once(rig, "kill_in_gzip:0")
    case, sister = small_case(tp=1), small_case(tp=1, conc=2)
    rig.session().obtain(case, needed=[case, sister], test_id="t")
    for one in (case, sister):
        manifest = json.loads((rig.run_dir / "captures" / one.slug / "1" / "manifest.json").read_text())
        assert len(manifest["attempts"]) == 1


@pytest.mark.parametrize("row", TRANSIENT, ids=lambda row: row.example[:24])
def test_every_row_recognises_its_example_and_says_why(row: object) -> None:
    assert row in TRANSIENT
    assert isinstance(row, type(TRANSIENT[0]))
    assert transient(row.errors[0](row.example), own_port=True) == row.reason
    assert (transient(row.errors[0](row.example), own_port=False) == "") == row.about_port
    assert transient(WorkloadError("1 of 4 requests of the window 1 failed: 1 x HTTP 500"), own_port=True) == ""
    assert transient(ValueError(row.example), own_port=True) == ""


def test_a_port_that_was_lost_between_choice_and_bind_is_known_by_the_log() -> None:
    line = "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 4711): address already in use"
    error = LaunchError(
        "the server of x did not start: the server process (pid 7) ended with exit status 1", "", [line]
    )
    assert transient(error, own_port=True)
    assert not transient(error, own_port=False)
