"""Two runs on one machine: they take turns, and no two servers ever live at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_atomtrace.errors import LeaseError
from tests.capture.conftest import Rig, small_case, wait_for


def test_two_runs_take_turns_and_their_servers_never_overlap(rig: Rig) -> None:
    rig.sim(READY_DELAY_S=0.7)
    cases = [small_case(tp=1, server_args=("--level", level)) for level in ("0", "1")]
    first = rig.owner(*cases, run="first")
    first.says("launching")
    second = rig.owner(*cases, run="second")
    for owner in (first, second):
        wait_for(lambda owner=owner: owner.text.count("OBTAINED") == 2, seconds=40, what="all captures")  # type: ignore[misc]
        assert owner.process.wait(10) == 0
    events = [(row["event"], run_of(row)) for row in rig.ledger() if row["event"] in ("start", "exit")]
    turns = ["first", "second"] * 2
    assert events == [(event, run) for run in turns for event in ("start", "exit")]
    assert "waiting for the GPUs: held by" in second.text
    assert "test_owner.py::test_0" in second.text
    rig.assert_nothing_left()


def run_of(row: dict[str, object]) -> str:
    argv = row["argv"]
    assert isinstance(argv, list)
    return Path(argv[argv.index("--torch-profiler-dir") + 1]).parents[3].name


def test_a_wait_for_the_lease_is_bounded_and_names_the_holder(rig: Rig) -> None:
    rig.sim(READY_DELAY_S=60)
    holder = rig.owner(small_case(), run="first")
    holder.says("launching")
    case = small_case()
    with pytest.raises(LeaseError) as refused:
        rig.session(lock_timeout=0.5).obtain(case, needed=[case], test_id="t")
    assert f"pid {holder.process.pid} (test_owner.py::test_0)" in refused.value.problem
    assert "--atom-lock-timeout" in refused.value.hint
    assert rig.launches() <= 1
    assert sum("waiting for the GPUs" in line for line in rig.lines) == 1
