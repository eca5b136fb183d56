"""What a recording takes is known before its first launch, from what the items of the run ask."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.cases.case import Case
from pytest_atomtrace.plugin.recording_plan import Machine, RecordingPlan

if TYPE_CHECKING:
    from pathlib import Path

SPEC = """
import functools
import pytest

pytestmark = pytest.mark.atom_case(model="org/m", tp=2)

def helper(trace):
    trace.assert_no_regression(metrics=["families"])

class TestSpeed:
    def test_default(self, atom_trace):
        atom_trace.assert_no_regression()

def test_counts(atom_trace):
    atom_trace.assert_no_regression(metrics=["counts"])

def test_counts_of_a_tuple_with_more_around(atom_trace):
    assert True
    atom_trace.assert_no_regression(
        metrics=("counts",),
    )

def test_through_a_helper(atom_trace):
    helper(atom_trace)

def test_inside_a_function(atom_trace):
    check = lambda: atom_trace.assert_no_regression()
    check()

def test_of_a_name(atom_trace):
    wanted = ["counts"]
    atom_trace.assert_no_regression(metrics=wanted)

def decorated(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, **kwargs)
    return inner

@decorated
def test_decorated(atom_trace):
    atom_trace.assert_no_regression()

def test_both(atom_trace):
    atom_trace.assert_no_regression(metrics=["counts"])
    atom_trace.assert_no_regression(tolerance="5 %")

def test_something_else(atom_trace):
    atom_trace.assert_kernel_called("x")
"""
YAML = """
case: {model: org/m, tp: 2}
regression:
  - {}
  - metrics: [counts]
"""
CASE = Case(model="org/m", tp=2)


SIM, REAL = Machine(simulated=True), Machine(simulated=False)


def plan(items: list[pytest.Item], root: Path, mode: str = "missing", machine: Machine = SIM) -> RecordingPlan:
    return RecordingPlan(items, mode, root, machine)


def items_of(pytester: pytest.Pytester, name: str = "", spec: str = SPEC) -> list[pytest.Item]:
    items, _ = pytester.inline_genitems(pytester.makepyfile(textwrap.dedent(spec)))
    found = [item for item in items if not name or item.name.startswith(f"{name}[")]
    assert found
    return found


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("test_default", True),
        ("test_counts", False),
        ("test_counts_of_a_tuple_with_more_around", False),
        ("test_through_a_helper", True),
        ("test_inside_a_function", True),
        ("test_of_a_name", True),
        ("test_decorated", True),
        ("test_both", True),
        ("", True),
    ],
)
def test_what_a_test_compares_is_read_from_its_code(
    pytester: pytest.Pytester, tmp_path: Path, name: str, times: bool
) -> None:
    found = plan(items_of(pytester, name), tmp_path)
    assert found.times_wanted(CASE) == times
    assert found.windows() == ({CASE.slug: 3} if times else {})
    takes = "5 launches, 15 windows (5 launches a server, 3 windows a case and launch)"
    takes = takes if times else "1 launch, 1 window (counts alone of 1 case: one launch)"
    assert found.text() == f"recording baselines of 1 case on 1 server: {takes}"


def test_the_spec_in_the_file_is_the_same_whichever_of_several_is_first(
    pytester: pytest.Pytester, tmp_path: Path
) -> None:
    pytester.makepyfile(test_a=SPEC, test_b=SPEC)
    items, _ = pytester.inline_genitems(pytester.path)
    assert plan(items, tmp_path).spec_of(CASE) == plan(items[::-1], tmp_path).spec_of(CASE) == "test_a.py"
    assert plan([], tmp_path).spec_of(CASE) == ""


def test_a_test_that_compares_nothing_or_is_skipped_records_nothing(pytester: pytest.Pytester, tmp_path: Path) -> None:
    assert plan(items_of(pytester, "test_something_else"), tmp_path, "all").text() == ""
    skipped = SPEC.replace("class TestSpeed", "@pytest.mark.skip\nclass TestSpeed")
    assert plan(items_of(pytester, "test_default", skipped), tmp_path, "all").text() == ""


def test_what_an_entry_of_a_spec_file_compares_is_what_it_says(pytester: pytest.Pytester, tmp_path: Path) -> None:
    (pytester.path / "m.atom.yaml").write_text(YAML)
    items, _ = pytester.inline_genitems(pytester.path / "m.atom.yaml")
    wanted = {item.name: plan([item], tmp_path).times_wanted(CASE) for item in items if plan([item], tmp_path).text()}
    assert wanted == {"regression": True, "regression-counts": False}


def test_only_what_is_missing_is_planned_and_times_of_a_file_are_kept(
    pytester: pytest.Pytester, tmp_path: Path
) -> None:
    items = items_of(pytester, "test_counts")
    path = tmp_path / "sim-gfx950" / f"{CASE.slug}.json"
    path.parent.mkdir()
    sections: dict[str, object] = {
        "schema": 1, "case": CASE.slug, "simulated": True, "hardware": {}, "profiler": {}, "model": {}, "recorded": {},
        "environment": {}, "health": [], "metrics": {}, "kernels": {"k": {"calls": 1, "ns": 5}},
    }  # fmt: skip
    path.write_text(json.dumps(sections))
    assert plan(items, tmp_path).text() == ""
    assert plan(items, tmp_path, machine=REAL).text() != "", "a simulated baseline is none of a real server"
    assert not plan(items, tmp_path, "all").times_wanted(CASE)
    path.write_text(json.dumps({**sections, "metrics": {"decode.gpu_busy": [[5]]}}))
    assert plan(items, tmp_path, "all").times_wanted(CASE)
    assert not plan(items, tmp_path, "all", REAL).times_wanted(CASE)
    assert not plan(items, tmp_path, "").times_wanted(CASE), "who records nothing needs no more windows"
    path.write_text("damaged")
    assert plan(items, tmp_path, "all").times_wanted(CASE)


def test_a_baseline_of_another_machine_saves_no_launch_and_is_not_counted(
    pytester: pytest.Pytester, tmp_path: Path
) -> None:
    items = items_of(pytester, "test_default")
    mine = Machine(simulated=False, gfx="gfx942", pci_device_id="0x74a5")
    for folder, hardware, missing in (
        ("gfx950", {}, True),
        ("gfx942", {"pci_device_id": "0x74a1"}, True),
        ("gfx942", {"pci_device_id": "0x74a5"}, False),
        ("gfx942", {}, False),
    ):
        place = tmp_path / folder / f"{CASE.slug}.json"
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps({"hardware": hardware}))
        assert bool(plan(items, tmp_path, machine=mine).text()) == missing, (folder, hardware)
        place.unlink()
