"""One launch per server key and one capture per case, whoever runs the items in whatever order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.site import Done, Site

# Three servers, two cases each, three checks each; the file's order alternates between the servers.
SPEC = """
import pytest

def served(seqs):
    return pytest.mark.atom_case(
        model="openai/gpt-oss-120b", isl=16, osl=36, conc=[2, 4], server_args=["--max-num-seqs", str(seqs)]
    )

@served(64)
def test_router_64(atom_trace): atom_trace.assert_kernel_called("topkGatingSoftmax", during="decode", per_step=2)

@served(128)
def test_router_128(atom_trace): atom_trace.assert_kernel_called("topkGatingSoftmax", during="decode", per_step=2)

@served(256)
def test_router_256(atom_trace): atom_trace.assert_kernel_called("topkGatingSoftmax", during="decode", per_step=2)

@served(64)
def test_gemms_64(atom_trace): atom_trace.assert_kernel_called("mfma_moe1_*", during="decode", per_step=2)

@served(128)
def test_gemms_128(atom_trace):
    wrong = atom_trace.case.conc == 2
    atom_trace.assert_kernel_called("mfma_moe1_*", during="decode", per_step=3 if wrong else 2)

@served(256)
def test_gemms_256(atom_trace): atom_trace.assert_kernel_called("mfma_moe1_*", during="decode", per_step=2)

@served(64)
def test_times_64(atom_trace): atom_trace.assert_step_time("decode", p50="1 s")

@served(128)
def test_times_128(atom_trace): atom_trace.assert_step_time("decode", p50="1 s")

@served(256)
def test_times_256(atom_trace): atom_trace.assert_step_time("decode", p50="1 s", p99="1 s")
"""
ITEMS = 18

ORDERS = {
    "no xdist": (),
    "load": ("-n", "2", "--dist", "load"),
    "worksteal": ("-n", "2", "--dist", "worksteal"),
    "loadfile": ("-n", "2", "--dist", "loadfile"),
    "random order on three": ("-n", "3", "--random-order", "--random-order-seed=7"),
}
MODES = {"no xdist": (), "two workers": ("-n", "2")}


@pytest.fixture(params=list(MODES.values()), ids=list(MODES))
def mode(request: pytest.FixtureRequest) -> tuple[str, ...]:
    arguments: tuple[str, ...] = request.param
    return arguments


def expected_outcomes(done: Done) -> dict[str, str]:
    """One failure and two items with too few steps for a p99; everything else is green."""
    wanted = dict.fromkeys(done.outcomes, "passed")
    for name in wanted:
        if name.startswith("test_gemms_128[") and "-conc2-" in name:
            wanted[name] = "failure"
        if name.startswith("test_times_256["):
            wanted[name] = "error"
    return wanted


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_three_servers_and_six_captures_serve_eighteen_items(site: Site, order: tuple[str, ...]) -> None:
    if "--random-order" in order:
        pytest.importorskip("random_order")
    site.write(SPEC)
    done = site.run("-q", *order)
    assert done.code == pytest.ExitCode.TESTS_FAILED
    assert len(done.outcomes) == ITEMS
    assert done.outcomes == expected_outcomes(done)
    assert (site.ledger.launches, site.ledger.windows) == (3, 6)
    assert site.ledger.overlaps == []


def test_last_failed_takes_only_the_captures_that_it_needs(site: Site, mode: tuple[str, ...]) -> None:
    site.write(SPEC)
    first = site.run("-q", "-k", "128 or 256", *mode)
    assert (site.ledger.launches, site.ledger.windows) == (2, 4)
    again = site.run("-q", "-k", "128 or 256", "--lf", *mode)
    assert again.outcomes == {name: seen for name, seen in first.outcomes.items() if seen != "passed"}
    # The failure needs one case of one server, the two without an answer both cases of the other.
    assert (site.ledger.launches, site.ledger.windows) == (2 + 2, 4 + 3)
    assert site.ledger.overlaps == []


def test_stepwise_stops_at_the_failure_and_goes_on_from_it(site: Site, mode: tuple[str, ...]) -> None:
    site.write(SPEC)
    first = site.run("-q", "-k", "128", "--sw", *mode)
    (failed,) = (name for name, seen in first.outcomes.items() if seen == "failure")
    # The failure stops the run; by then both cases of the server were captured under its one launch.
    assert (site.ledger.launches, site.ledger.windows) == (1, 2)
    again = site.run("-q", "-k", "128", "--sw", "--sw-skip", *mode)
    assert failed in again.outcomes
    wanted = expected_outcomes(first) | expected_outcomes(again)
    assert first.outcomes | again.outcomes == wanted
    assert len(wanted) == 6, "what the first run did not come to, the second did"
    assert (site.ledger.launches, site.ledger.windows) == (2, 4)
    assert site.ledger.overlaps == []


def test_selected_items_launch_only_their_servers(site: Site, mode: tuple[str, ...]) -> None:
    site.write(SPEC)
    done = site.run("-q", "-k", "64 and conc4", *mode)
    assert done.code == pytest.ExitCode.OK
    assert len(done.outcomes) == 3
    assert (site.ledger.launches, site.ledger.windows) == (1, 1)


def test_stopping_at_the_first_failure_launches_nothing_after_it(site: Site) -> None:
    site.write(
        SPEC.replace(
            "per_step=2)\n\n@served(128)\ndef test_router_128", "per_step=9)\n\n@served(128)\ndef test_router_128"
        )
    )
    done = site.run("-q", "-x")
    assert done.code == pytest.ExitCode.TESTS_FAILED
    assert len(done.outcomes) == 1
    assert (site.ledger.launches, site.ledger.windows) == (1, 2)


def test_questions_about_the_tests_launch_nothing(site: Site) -> None:
    site.write(SPEC)
    for question in ("--collect-only", "--setup-plan", "--fixtures", "--markers", "--help"):
        assert site.run("-q", question).code == pytest.ExitCode.OK
    assert site.run("-q", "-m", "not gpu").code == pytest.ExitCode.NO_TESTS_COLLECTED
    assert site.ledger.launches == 0
    assert not site.locks.exists()
    assert not site.store.exists()


def test_a_failed_launch_is_tried_once_and_errs_all_items_at_once(site: Site, mode: tuple[str, ...]) -> None:
    site.write(SPEC)
    done = site.run(
        "-v", "-k", "64", "--durations=0", "--durations-min=0", *mode, env={"ATOMTRACE_SIM_FAULT": "die_loading"}
    )
    assert done.code == pytest.ExitCode.TESTS_FAILED
    assert set(done.outcomes.values()) == {"error"}
    assert len(done.outcomes) == 6
    assert site.ledger.launches == 1
    assert "already failed in this run, first in test_spec.py::test_" in done.stdout
    # One item on each worker finds out; all later ones know.
    assert sum(seconds >= 1.0 for seconds in done.seconds.values()) <= (2 if mode else 1)


def test_a_failed_window_is_tried_once_and_names_the_first_item(site: Site, mode: tuple[str, ...]) -> None:
    site.write(SPEC)
    done = site.run("-q", "-k", "64 and conc2", *mode, env={"ATOMTRACE_SIM_FAULT": "export_error"})
    assert done.code == pytest.ExitCode.TESTS_FAILED
    assert list(done.outcomes.values()) == ["error"] * 3
    assert (site.ledger.launches, site.ledger.windows) == (1, 1)
    assert done.stdout.count("already failed in this run, first in test_spec.py::test_") >= 2


def test_reruns_do_not_launch_again(site: Site, mode: tuple[str, ...]) -> None:
    pytest.importorskip("pytest_rerunfailures")
    site.write(SPEC)
    done = site.run("-q", "-k", "64", "--reruns=1", *mode, env={"ATOMTRACE_SIM_FAULT": "die_loading"})
    assert done.code == pytest.ExitCode.TESTS_FAILED
    assert site.ledger.launches == 1
    assert "6 rerun" in done.stdout


@pytest.mark.parametrize("arguments", [(), ("-q",), ("-s",), ("-p", "no:xdist"), ("-n", "2")], ids=" ".join)
def test_progress_is_seen_on_standard_error(site: Site, arguments: tuple[str, ...]) -> None:
    site.write(SPEC)
    done = site.run("-k", "64 and conc2", *arguments)
    assert done.code == pytest.ExitCode.OK
    said = [line for line in done.stderr.splitlines() if line.startswith("atomtrace [gpt-oss-120b-tp1-isl16-osl36-")]
    for stage in ("launching the server", "ready in", "warm-up:", "window 1:", "export:", "captured 1 rank"):
        assert sum(stage in line for line in said) == 1, (stage, said)
